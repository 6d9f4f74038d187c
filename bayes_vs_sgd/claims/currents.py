"""Currents and Gibbs laws: entropy production of SGD, the fluctuation-dissipation identity, the posterior of a product."""

import numpy as np
import numpyro
import numpyro.distributions as dist

from ..dynamics import SGD, Grid, LinearNetworkGibbs
from ..model import Model
from ..observables import observable
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.product import product_moments
from ..theory.quadratic import continuous_covariance, production_rate, stationary_covariance
from .chains import stationary
from .claim import Reading, claim, mean, ratio
from .langevin import HESSIAN, NOISE
from .programs import quadratic, regression


@claim(
    "C5",
    "Where H and C do not commute currents flow: with H = diag(h1, h2) entropy is produced at the rate "
    "D12^2 (h1 - h2)^2 / ((h1 + h2) det D), whatever the learning rate, and in general at -tr(S^-1 Q D^-1 Q), Q = HS - D",
    "linear Ornstein-Uhlenbeck theory: reversible if and only if K D = D K'",
)
def entropy_production(seed: int) -> list[Reading]:
    """Area rate and entropy production from the trajectories themselves, at the discrete chain's own covariance.

    The mistakes are detailed balance, 0, and for the production half of it; the last readings are of the closed forms, of which
    the mistake is the discrete chain's, which produces more.
    """
    readings, groups, eta = [], 20, 0.1
    for curvatures, spread in (((1.0, 3.0), ((1.0, 0.5), (0.5, 1.0))), ((0.5, 2.0), ((1.0, -0.7), (-0.7, 2.0)))):
        hessian, noise = np.diag(curvatures), np.array(spread)
        x = stationary(SGD(eta, 1), quadratic(hessian, noise, 16), seed, 1)
        now, then = x[:, :-1], x[:, 1:]
        areas = (now[..., 0] * then[..., 1] - now[..., 1] * then[..., 0]).mean(axis=1) / eta
        covariance = stationary_covariance(hessian, noise, eta)
        exact = covariance[0, 1] * (curvatures[0] - curvatures[1])
        readings.append(mean(f"area rate at h {curvatures}", exact, areas, mistake=0.0))
        diffusion = eta / 2 * noise
        rate = production_rate(hessian, covariance, diffusion)
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
        limit = production_rate(hessian, continuous_covariance(hessian, noise, eta), diffusion)
        readings.append(Reading(f"closed form at h {curvatures}", closed, limit, 0.0, 1e-9 * closed, rate))
    covariance, diffusion = continuous_covariance(HESSIAN, NOISE, 1), NOISE / 2
    current = HESSIAN @ covariance - diffusion
    general = -float(np.trace(np.linalg.solve(covariance, current) @ np.linalg.solve(diffusion, current)))
    for eta, batch in ((0.1, 1), (0.4, 8)):
        diffusion = eta / (2 * batch) * NOISE
        laws = (f(HESSIAN, NOISE, eta, batch) for f in (continuous_covariance, stationary_covariance))
        rate, wrong = (production_rate(HESSIAN, covariance, diffusion) for covariance in laws)
        readings.append(Reading(f"general form at eta {eta}, B {batch}", general, rate, 0.0, 1e-9, wrong))
    return readings


def fitted_production(now: np.ndarray, then: np.ndarray, eta: float) -> float:
    """Entropy production of a linear process whose K, D and S are fitted to pairs of successive positions."""
    now, then = now.reshape(-1, now.shape[-1]), then.reshape(-1, then.shape[-1])
    step = np.linalg.lstsq(now, then, rcond=None)[0].T
    drift = (np.eye(len(step)) - step) / eta
    residual = then - now @ step.T
    diffusion = residual.T @ residual / len(now) / (2 * eta)
    return production_rate(drift, now.T @ now / len(now), diffusion)


@claim(
    "C6",
    "At stationarity E[(theta - theta0).grad L] = (eta/2) E|g_B|^2 for every fixed theta0 and any loss",
    "Yaida, ICLR 2019",
    relative=0.01,
)
def fluctuation_dissipation(seed: int) -> list[Reading]:
    """Ratio of the two sides on linear regression, theta0 the minimum; the mistake is eta in the place of eta/2.

    E|g_B|^2 = |grad L|^2 + tr C / B is taken at each position over all batches that might be drawn.
    """
    readings = []
    for eta, batch in ((0.1, 4), (0.3, 2)):
        rng = np.random.default_rng([seed, 6])
        inputs = rng.normal(size=(64, 3))
        labels = inputs @ [1.0, -1.0, 0.5] + rng.normal(size=64)
        model = regression(inputs, labels)
        assert model.optimum is not None
        w = stationary(SGD(eta, batch), model, seed, 4, site="w", num_draws=600)
        residuals = w @ inputs.T - labels
        slope = residuals @ inputs / 64
        energy = residuals**2 @ np.sum(inputs**2, axis=1) / 64  # E |g_i|^2
        kicks = np.sum(slope**2, axis=-1) * (1 - 1 / batch) + energy / batch
        power = np.sum((w - np.asarray(model.optimum["w"])) * slope, axis=-1)
        name = f"ratio at eta {eta}, B {batch}"
        readings.append(ratio(name, 1.0, power.sum(axis=1), eta / 2 * kicks.sum(axis=1), 0.005, 0.5))
    return readings


@claim(
    "C7",
    "The posterior of y = uv with N(0, 1/g) weights has z = uv of density K0(g|z|) exp(-(b/2)(z - s)^2); of every Gibbs law "
    "E[theta_i d_j U] is 1 for i = j, else 0, and of L = theta^2k n beta E[L] is 1/(2k)",
    "product of two normals, checked by quadrature; equipartition",
)
def product_posterior(seed: int) -> list[Reading]:
    """Moments by exact Gibbs on the network against quadrature of the density; the mistake is a prior flat in z, z ~ N(s, 1/b).

    Equipartition of u and v with the prior left out of U is the mistake there; of a single theta that L were quadratic, 1/2. Its
    prior N(0, 10^2) moves n beta E[L] by E[theta^2] / 200 at most, and the cells of the grid by a part in 10^5.
    """
    readings = []
    for b, s, g in ((20.0, 1.0, 1.0), (5.0, 1.0, 1.0), (10.0, 0.5, 2.0)):
        moments = product_moments(b, s, g)
        squares = moments.variance + moments.mean**2, s**2 + 1 / b
        drawn, own, cross, left_out = gibbs_products(b, s, g, seed)
        where = f"at b {b:g}, s {s:g}, g {g:g}"
        readings.append(mean(f"E u dU/du {where}", 1.0, own.mean(axis=1), mistake=float(left_out.mean())))
        readings.append(mean(f"E v dU/du {where}", 0.0, cross.mean(axis=1)))
        cases = [("E z", drawn, moments.mean, s), ("E z^2", drawn**2, *squares)]
        cases += [("E (z - s)^2", (drawn - s) ** 2, 2 / b * moments.energy, 1 / b)]
        for name, values, predicted, wrong in cases:
            readings.append(mean(f"{name} {where}", predicted, values.mean(axis=1), mistake=wrong))
    for power in (1, 2, 3):
        energies = power_energies(power, 50.0, seed)
        wrong = 0.5 if power > 1 else 0.25
        readings.append(mean(f"n beta E[theta^{2 * power}]", 0.5 / power, energies, 0.002, wrong))
    return readings


def power_energies(power: int, precision: float, seed: int) -> np.ndarray:
    """Draws of n beta theta^2k under exp(-n beta theta^2k) and a wide prior, n beta half the precision of the one label 0."""

    def program(x, y=None):
        theta = numpyro.sample("theta", dist.Normal(0, 10))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(theta**power * x, precision**-0.5), obs=y)

    energy = observable("function")(lambda model, values: precision / 2 * values["theta"] ** (2 * power))
    model = Model(program, {"x": np.ones(1), "y": np.zeros(1)}, optimum={"theta": 0.0}, observables={"energy": energy})
    tree = simulate(
        Grid(), Posterior(model), key=seed, num_chains=100, num_draws=1000, observables=["energy"], progress=False
    )
    return np.asarray(tree["posterior"]["energy"].values, float)


def gibbs_products(b: float, s: float, g: float, seed: int) -> list[np.ndarray]:
    """Posterior draws (chain, draw) given one label s of precision b: uv, u dU/du, v dU/du, and u dU/du without prior."""
    noise, prior_scale = b**-0.5, g**-0.5

    def program(x, y=None):
        u, v = (numpyro.sample(name, dist.Normal(0, prior_scale)) for name in "uv")
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(u * v * x, noise), obs=y)

    def slope(u, v):
        return b * v * (u * v - s)

    recorded = {
        "map": lambda u, v: u * v,
        "own": lambda u, v: u * (slope(u, v) + g * u),
        "cross": lambda u, v: v * (slope(u, v) + g * u),
        "left_out": lambda u, v: u * slope(u, v),
    }
    observables = {k: observable("function")(lambda model, values, f=f: f(**values)) for k, f in recorded.items()}
    model = Model(program, {"x": np.ones(1), "y": np.full(1, s)}, observables=observables)
    sampler = LinearNetworkGibbs(("u", "v"), noise, prior_scale)
    tree = simulate(
        sampler, Posterior(model), key=seed, num_chains=2000, num_draws=100, num_warmup=50, observables=list(recorded),
        progress=False,
    )  # fmt: skip
    return [np.asarray(tree["posterior"][name].values, float) for name in recorded]
