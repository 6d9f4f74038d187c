"""RMSprop, Adam and momentum beside the equations that stand for them, on a quadratic where the noise is the larger part."""

import numpy as np
import optax

from ..dynamics import SGD, Dynamics, GaussianNoise, MomentumFlow, Optimizer, RMSpropFlow
from ..theory.quadratic import stationary_covariance
from .chains import ends, stationary
from .claim import Reading, claim, mean
from .programs import quadratic

SEEDS, NEAR = 8000, 0.06
"""Runs, and where they start in units of the noise: with the mean gradient no larger, noise dominates at k = 16 too."""


def rmsprop(learning_rate: float, batch_size: int, decay: float, second_moment: float) -> Optimizer:
    """Optax's RMSprop that starts with the second moment of the noise."""
    return Optimizer(optax.rmsprop, batch_size, learning_rate=learning_rate, decay=decay, initial_scale=second_moment)


@claim(
    "F1",
    "Where noise of standard deviation s dominates, RMSprop and Adam have variance eta s / (2h), not SGD's eta s^2 / (2h)",
    "after Malladi et al., NeurIPS 2022; Lyapunov equations at a finite learning rate",
)
def stationary_variance(seed: int) -> list[Reading]:
    """The row's tolerance, 2 %, is for the fluctuations of the second moment; the mistake is SGD's variance."""
    readings = []
    for eta, spread, curvature in ((0.02, 4.0, 1.0), (0.02, 0.5, 2.0)):
        model = quadratic(np.array([[curvature]]), np.array([[spread**2]]))
        rate = eta / spread
        slow = stationary_covariance(curvature, spread**2, rate * (1 - 0.9), momentum=0.9)[0, 0]
        cases: list[tuple[str, Dynamics, float]] = [
            ("RMSprop", rmsprop(eta, 1, 0.99, spread**2), stationary_covariance(curvature, spread**2, rate)[0, 0]),
            ("Adam", Optimizer(optax.adam, 1, learning_rate=eta, b1=0.9, b2=0.99), slow),
        ]
        wrong = stationary_covariance(curvature, spread**2, eta)[0, 0]
        for name, dynamics, exact in cases:
            found = np.mean(stationary(dynamics, model, seed, 50, 1500)[..., 0] ** 2, axis=1)
            readings.append(mean(f"{name}, s {spread}, h {curvature}", exact, found, 0.02 * exact, wrong))
    return readings


@claim(
    "F2",
    "Batches k times as large take sqrt(k) eta and k (1 - beta), and the same law after a k-th of the steps",
    "after Malladi et al., NeurIPS 2022",
)
def square_root_rule(seed: int) -> list[Reading]:
    """Mean and variance on the way to the minimum against those of single examples; the mistake is the linear rule, k eta."""
    eta, decay, spread, steps = 0.01, 0.998, 4.0, 320
    model = quadratic(np.eye(1), np.array([[spread**2]]))

    def law(factor: int, rate: float, run: int) -> tuple[np.ndarray, np.ndarray]:
        dynamics = rmsprop(rate, factor, 1 - factor * (1 - decay), spread**2 / factor)
        x = ends(dynamics, model, {"theta": np.full(1, NEAR * spread)}, 8 * seed + run, steps // factor, SEEDS)[
            "theta"
        ][:, 0]
        return x, (x - x.mean()) ** 2

    single, readings = law(1, eta, 0), []
    for factor in (4, 16):
        good, linear = law(factor, factor**0.5 * eta, 1), law(factor, factor * eta, 2)
        for name, one, many, off in zip(("mean", "variance"), single, good, linear, strict=True):
            error = float(np.hypot(one.std(), many.std()) / np.sqrt(SEEDS))
            value = float(one.mean())
            readings.append(
                Reading(f"{name} at k {factor}", value, float(many.mean()), error, 0.03 * value, float(off.mean()))
            )
    return readings


@claim(
    "F3",
    "RMSprop's equation has its law at every time: d theta = -eta (grad L dk + nu dW) / (sqrt(V) + eps)",
    "after Malladi et al., NeurIPS 2022",
)
def equation_of_rmsprop(seed: int) -> list[Reading]:
    """Mean and variance after some steps of the optimiser and of its equation, within 3 %; the mistake is SGD's learning rate.

    V starts at the variance of the noise and both settle to it at the rate 1 - beta_2.
    """
    readings, decay = [], 0.99
    for eta, spread in ((0.02, 4.0), (0.01, 2.0)):
        model = quadratic(np.eye(1), np.array([[spread**2]]), 16)
        start, steps = {"theta": np.full(1, NEAR * spread)}, 150
        runs = [
            ends(dynamics, model, start, seed + i, steps, SEEDS)["theta"][:, 0]
            for i, dynamics in enumerate(
                (RMSpropFlow(eta, 1, decay, substeps=2), rmsprop(eta, 1, decay, spread**2), SGD(eta, 1))
            )
        ]
        for name, flow, found, off in zip(("mean", "variance"), *((x, (x - x.mean()) ** 2) for x in runs), strict=True):
            error = float(np.hypot(flow.std(), found.std()) / np.sqrt(SEEDS))
            value = float(flow.mean())
            readings.append(
                Reading(
                    f"{name} at eta {eta}, s {spread}",
                    value,
                    float(found.mean()),
                    error,
                    0.03 * value,
                    float(off.mean()),
                )
            )
    return readings


@claim(
    "F4",
    "The underdamped equation of momentum has variance eta c / (2 h (1 - mu)): that of the optimiser as eta goes to 0",
    "after Kunin et al. 2021; Lyapunov equations",
)
def equation_of_momentum(seed: int) -> list[Reading]:
    """Sub-steps of eta/8 are within 1 % of the equation; the mistake is the optimiser's own variance at this learning rate."""
    readings = []
    for eta, mu, curvature in ((1.0, 0.5, 1.0), (0.5, 0.6, 2.0)):
        model = quadratic(np.array([[curvature]]), np.eye(1), 4)
        flow = MomentumFlow(eta, mu, GaussianNoise(1), substeps=8)
        found = np.mean(stationary(flow, model, seed, 8, 80)[..., 0] ** 2, axis=1)
        limit = eta / (2 * curvature * (1 - mu))
        exact = stationary_covariance(curvature, 1.0, eta, momentum=mu)[0, 0]
        readings.append(mean(f"eta {eta}, mu {mu}, h {curvature}", limit, found, 0.01 * limit, exact))
        found = np.mean(stationary(SGD(eta / 20, 1, momentum=mu), model, seed, 64, 1600)[..., 0] ** 2, axis=1) * 20
        readings.append(mean(f"optimiser at eta {eta / 20}, times 20", limit, found, 0.03 * limit, exact))
    return readings
