"""When SGD is Langevin dynamics: stationary laws on a quadratic, currents, the fluctuation-dissipation identity, Gibbs laws."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from scipy import special

from ..dynamics import SGD, Dynamics, GaussianNoise, LinearNetworkGibbs, Optimizer, StochasticGradientFlow
from ..model import Model
from ..observables import observable
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.quadratic import continuous_covariance, stationary_covariance
from .claim import Reading, claim, mean
from .programs import quadratic, regression

HESSIAN, NOISE = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.6], [-0.6, 2.0]])
SEEDS, DRAWS = 2000, 32


def positions(
    dynamics: Dynamics, model: Model, seed: int, thinning: int = 8, burn: int = 200, site: str = "theta"
) -> np.ndarray:
    """Stationary positions (chain, draw, d) of runs from the optimum."""
    tree = simulate(
        dynamics, Posterior(model), key=seed, num_chains=SEEDS, num_steps=burn + DRAWS * thinning,
        num_draws=burn // thinning + DRAWS, initial="optimum", initial_scale=1.0, observables=["loss"],
        record_positions=True, progress=False,
    )  # fmt: skip
    return np.asarray(tree["posterior"][site].values, float)[:, -DRAWS:]


def second_moments(draws: np.ndarray) -> np.ndarray:
    """Mean of theta theta' along each chain (chain, d, d)."""
    return np.einsum("cti,ctj->cij", draws, draws) / draws.shape[1]


def random_matrix(rng: np.random.Generator, size: int = 2) -> np.ndarray:
    """Symmetric, positive definite, with eigenvalues between 1/2 and 2."""
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return basis * rng.uniform(0.5, 2.0, size) @ basis.T


@claim(
    "C1",
    "On a quadratic with constant noise the stationary covariance of SGD solves HS + SH - eta HSH = (eta/B) C",
    "Liu, Ziyin and Ueda, ICML 2021",
)
def covariance_of_sgd(seed: int) -> list[Reading]:
    """The mistakes are the SDE's covariance, which is 38 % low at eta = .5, and that of noise sqrt(2 eta) at eta = .1."""
    rng = np.random.default_rng([seed, 1])
    cases = [(0.1, 1, HESSIAN, NOISE), (0.5, 1, HESSIAN, NOISE), (0.4, 3, random_matrix(rng), random_matrix(rng))]
    readings = []
    for eta, batch, hessian, noise in cases:
        found = second_moments(positions(SGD(eta, batch), quadratic(hessian, noise), seed))
        exact = stationary_covariance(hessian, noise, eta, batch)
        equation = continuous_covariance(hessian, noise, eta, batch)
        wrong = 2 * exact if eta < 0.2 else equation
        for i, j in ((0, 0), (0, 1), (1, 1)):
            far = abs(wrong[i, j] - exact[i, j]) > 0.1 * np.sqrt(exact[i, i] * exact[j, j])
            mistake = wrong[i, j] if far else np.nan
            readings.append(mean(f"S[{i},{j}] at eta {eta}, B {batch}", exact[i, j], found[:, i, j], mistake=mistake))
    return readings


@claim(
    "C2",
    "With heavy-ball momentum mu, where H and C commute, S H (2 - eta H / (1 + mu)) = eta C / (B (1 - mu))",
    "Lyapunov equation of position and momentum",
)
def covariance_with_momentum(seed: int) -> list[Reading]:
    """The mistake is plain SGD at the learning rate eta / (1 - mu), as if momentum did nothing else."""
    readings = []
    for eta, mu, curvature in ((0.1, 0.9, 1.0), (0.5, 0.9, 1.0), (1.0, 0.5, 1.0), (0.3, 0.7, 2.0)):
        model = quadratic(np.array([[curvature]]), np.eye(1))
        found = second_moments(positions(SGD(eta, 1, momentum=mu), model, seed, 16))[:, 0, 0]
        exact = stationary_covariance(curvature, 1.0, eta, momentum=mu)[0, 0]
        rate = eta / (1 - mu)
        plain = stationary_covariance(curvature, 1.0, rate)[0, 0] if rate * curvature < 2 else np.inf
        readings.append(mean(f"variance at eta {eta}, mu {mu}, h {curvature}", exact, found, mistake=plain))
    return readings


@claim(
    "C3",
    "At h = c = 1 and eta = .5 SGD has variance 1/3, its SDE 1/4, and the second-order modified equation 1/5: no nearer",
    "Lyapunov equations; modified equation after Li, Tai and E 2017",
)
def variance_of_equations(seed: int) -> list[Reading]:
    """Each measured variance must not be the next one; sub-steps of eta/16 make Euler's 1/(1 - k eta/32) of it, k the drift."""
    one, readings = np.eye(1), []
    for eta in (0.5, 0.3):
        exact, first = stationary_covariance(1, 1, eta)[0, 0], eta / 2
        second = eta / 2 / (1 + eta / 2)
        model = quadratic(one, one, 4)
        cases: list[tuple[str, Dynamics, float, float, float]] = [("SGD", SGD(eta, 1), exact, 1.0, first)]
        flows = ((1, first, 1.0, second), (2, second, 1 + eta / 2, first))
        for order, value, drift, wrong in flows:
            flow = StochasticGradientFlow(eta, GaussianNoise(1), substeps=16, order=order)
            cases.append((f"equation of order {order}", flow, value, 1 / (1 - drift * eta / 32), wrong))
        for name, dynamics, value, bias, wrong in cases:
            found = second_moments(positions(dynamics, model, seed, 4, 40))[:, 0, 0] / bias
            readings.append(mean(f"{name} at eta {eta}", value, found, mistake=wrong))
    return readings


@claim(
    "C4",
    "SGD samples a tempered posterior only if C is a multiple of I; preconditioned by P, only if PCP is one of P",
    "Mandt, Hoffman and Blei, JMLR 18 (2017)",
)
def shape_of_the_law(seed: int) -> list[Reading]:
    """Log ratio of the variances along two eigenvectors: the posterior has log h1/h2, SGD with C = H about 0.

    With P = C^{-1} the law is the posterior's again. Predictions are exact at this learning rate; the mistake is the other law.
    """
    readings = []
    for first, second in ((2.0, 0.5), (1.5, 1.0 / 3)):
        hessian = np.diag([first, second])
        wide = np.log(second / first)  # of the posterior's variances
        eta, batch = 0.05, 2
        plain = np.log((2 - eta * second) / (2 - eta * first))
        cases = [
            ("C = H", hessian, SGD(eta, batch), plain, wide),
            ("C = I", np.eye(2), SGD(eta, batch), wide + plain, 0.0),
            ("C = H, P = 1/C", hessian, natural(eta, batch, hessian), wide, 0.0),
        ]
        for name, noise, dynamics, predicted, wrong in cases:
            squares = np.einsum("cii->ci", second_moments(positions(dynamics, quadratic(hessian, noise), seed)))
            value, error = log_ratio(squares)
            readings.append(Reading(f"{name}, h = {first:.3g}, {second:.3g}", predicted, value, error, mistake=wrong))
    return readings


def log_ratio(squares: np.ndarray) -> tuple[float, float]:
    """Log ratio of the means of two columns, with its standard error by the delta method."""
    means = squares.mean(axis=0)
    influence = squares[:, 0] / means[0] - squares[:, 1] / means[1]
    return float(np.log(means[0] / means[1])), float(influence.std(ddof=1) / np.sqrt(len(squares)))


def natural(learning_rate: float, batch_size: int, noise: np.ndarray) -> Optimizer:
    """SGD preconditioned by the inverse of the gradient's covariance, at the trace of plain SGD."""
    inverse = np.linalg.inv(noise)

    def factory(learning_rate):
        return optax.stateless(lambda gradient, _: jax.tree.map(lambda g: -learning_rate * (inverse @ g), gradient))

    return Optimizer(factory, batch_size, learning_rate=np.asarray(learning_rate))


@claim(
    "C5",
    "Where H and C do not commute currents flow: with H = diag(h1, h2) entropy is produced at the rate "
    "D12^2 (h1 - h2)^2 / ((h1 + h2) det D), whatever the learning rate",
    "linear Ornstein-Uhlenbeck theory: reversible if and only if K D = D K'",
)
def entropy_production(seed: int) -> list[Reading]:
    """Area rate and entropy production from the trajectories themselves, at the discrete chain's own covariance.

    The mistakes are detailed balance, 0, and for the production half of it; the last reading is the closed form itself.
    """
    readings, groups, eta = [], 20, 0.1
    for curvatures, spread in (((1.0, 3.0), ((1.0, 0.5), (0.5, 1.0))), ((0.5, 2.0), ((1.0, -0.7), (-0.7, 2.0)))):
        hessian, noise = np.diag(curvatures), np.array(spread)
        x = positions(SGD(eta, 1), quadratic(hessian, noise, 16), seed, 1)
        now, then = x[:, :-1], x[:, 1:]
        areas = (now[..., 0] * then[..., 1] - now[..., 1] * then[..., 0]).mean(axis=1) / eta
        covariance = stationary_covariance(hessian, noise, eta)
        exact = covariance[0, 1] * (curvatures[0] - curvatures[1])
        readings.append(mean(f"area rate at h {curvatures}", exact, areas, mistake=0.0))
        diffusion = eta / 2 * noise
        rate = production(hessian, covariance, diffusion)
        whole = fitted_production(now, then, eta)
        parts = [
            fitted_production(np.delete(now, rows, axis=0), np.delete(then, rows, axis=0), eta)
            for rows in np.array_split(np.arange(len(now)), groups)
        ]
        value = groups * whole - (groups - 1) * float(
            np.mean(parts)
        )  # jackknife: the estimate is biased by its own noise
        error = np.sqrt((groups - 1) * np.var(parts))
        readings.append(Reading(f"production at h {curvatures}, eta {eta}", rate, value, float(error), 0.0, rate / 2))
        closed = diffusion[0, 1] ** 2 * (curvatures[0] - curvatures[1]) ** 2
        closed /= sum(curvatures) * np.linalg.det(diffusion)
        limit = production(hessian, continuous_covariance(hessian, noise, eta), diffusion)
        readings.append(Reading(f"closed form at h {curvatures}", closed, limit, 0.0, 1e-9 * closed, rate))
    return readings


def production(drift: np.ndarray, covariance: np.ndarray, diffusion: np.ndarray) -> float:
    """Entropy production tr(D^{-1} K S K') - tr K of dX = -K X dt + sqrt(2 D) dW."""
    return float(np.trace(np.linalg.solve(diffusion, drift @ covariance @ drift.T)) - np.trace(drift))


def fitted_production(now: np.ndarray, then: np.ndarray, eta: float) -> float:
    """Entropy production of a linear process whose K, D and S are fitted to pairs of successive positions."""
    now, then = now.reshape(-1, now.shape[-1]), then.reshape(-1, then.shape[-1])
    step = np.linalg.lstsq(now, then, rcond=None)[0].T
    drift = (np.eye(len(step)) - step) / eta
    residual = then - now @ step.T
    diffusion = residual.T @ residual / len(now) / (2 * eta)
    return production(drift, now.T @ now / len(now), diffusion)


@claim(
    "C6",
    "At stationarity E[(theta - theta0).grad L] = (eta/2) E|g_B|^2 for every fixed theta0 and any loss",
    "Yaida, ICLR 2019",
)
def fluctuation_dissipation(seed: int) -> list[Reading]:
    """Ratio of the two sides on linear regression, theta0 the minimum; the mistake is eta in the place of eta/2."""
    readings = []
    for eta, batch in ((0.1, 4), (0.3, 2)):
        rng = np.random.default_rng([seed, 6])
        inputs = rng.normal(size=(64, 3))
        model = regression(inputs, inputs @ [1.0, -1.0, 0.5] + rng.normal(size=64))
        assert model.optimum is not None
        w = positions(SGD(eta, batch), model, seed, 1, site="w") - np.asarray(model.optimum["w"])
        curvature = inputs.T @ inputs / 64
        power = np.einsum("cti,ij,ctj->c", w[:, :-1], curvature, w[:, :-1])
        kicks = np.sum((w[:, 1:] - w[:, :-1]) ** 2, axis=(1, 2)) / eta**2
        ratio = power.mean() / (eta / 2 * kicks.mean())
        influence = power / power.mean() - kicks / kicks.mean()
        error = float(influence.std(ddof=1) / np.sqrt(len(w)))
        readings.append(Reading(f"ratio at eta {eta}, B {batch}", 1.0, float(ratio), error, 0.01, 0.5))
    return readings


@claim(
    "C7",
    "The posterior of y = uv with N(0, 1/g) weights has z = uv of density K0(g|z|) exp(-(b/2)(z - s)^2)",
    "product of two normals; checked by quadrature",
)
def product_posterior(seed: int) -> list[Reading]:
    """Moments by exact Gibbs on the network against quadrature of the density; the mistake is a prior that is flat in z."""
    readings = []
    size = np.exp(np.linspace(-40, 2, 4001))
    for b, s, g in ((20.0, 1.0, 1.0), (5.0, 1.0, 1.0), (10.0, 0.5, 2.0)):
        z = np.concatenate([-size, size])
        flat = np.abs(z) * np.exp(-b / 2 * (z - s) ** 2)  # of log |z|
        weights = flat * special.k0(g * np.abs(z))
        drawn = gibbs_products(b, s, g, seed)
        for name, f in (("E z", lambda z: z), ("E z^2", np.square), ("E (z - s)^2", lambda z, s=s: (z - s) ** 2)):
            predicted, wrong = (float(f(z) @ w / w.sum()) for w in (weights, flat))
            readings.append(
                mean(f"{name} at b {b:g}, s {s:g}, g {g:g}", predicted, f(drawn).mean(axis=1), mistake=wrong)
            )
    return readings


def gibbs_products(b: float, s: float, g: float, seed: int) -> np.ndarray:
    """Draws (chain, draw) of uv from its posterior given one label s of precision b."""
    noise, prior_scale = b**-0.5, g**-0.5

    def program(x, y=None):
        u, v = (numpyro.sample(name, dist.Normal(0, prior_scale)) for name in "uv")
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(u * v * x, noise), obs=y)

    map_of = observable("function")(lambda model, values: values["u"] * values["v"])
    model = Model(program, {"x": np.ones(1), "y": np.full(1, s)}, observables={"map": map_of})
    sampler = LinearNetworkGibbs(("u", "v"), noise, prior_scale)
    tree = simulate(
        sampler, Posterior(model), key=seed, num_chains=2000, num_draws=100, num_warmup=50, observables=["map"],
        progress=False,
    )  # fmt: skip
    return np.asarray(tree["posterior"]["map"].values, float)
