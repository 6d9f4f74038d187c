"""Currents and Gibbs laws: entropy production of SGD, the fluctuation-dissipation identity, the posterior of a product."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import special

from ..dynamics import SGD, LinearNetworkGibbs
from ..model import Model
from ..observables import observable
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.quadratic import continuous_covariance, production_rate, stationary_covariance
from .chains import stationary
from .claim import Reading, claim, mean, ratio
from .programs import quadratic, regression


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
