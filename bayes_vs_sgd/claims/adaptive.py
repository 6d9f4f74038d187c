"""RMSprop, Adam and momentum beside the equations that stand for them, on a quadratic where the noise is the larger part."""

from functools import partial
from typing import Any

import numpy as np
import optax
from scipy.integrate import solve_ivp

from ..dynamics import SGD, AdamFlow, Dynamics, GaussianNoise, MomentumFlow, Optimizer, RMSpropFlow
from ..model import Model
from ..theory.quadratic import rmsprop_variance, stationary_covariance
from .chains import ends, stationary
from .claim import Reading, claim, mean
from .programs import quadratic

SEEDS, NEAR = 120_000, 0.06
"""Runs, and where they start in units of the noise: with the mean gradient no larger, noise dominates at k = 16 too."""
MISTAKEN, CONTROLLED = 4000, 500
"""Runs of a mistake, which is far off, and of an optimiser beside a control variate."""


def rmsprop(
    learning_rate: float,
    batch_size: int,
    decay: float,
    second_moment: float,
    sampling: str | GaussianNoise = "replacement",
    eps: float = 0.0,
) -> Optimizer:
    """Optax's RMSprop that starts with a second moment, its epsilon added to the root."""
    shared: dict[str, Any] = {
        "learning_rate": learning_rate,
        "decay": decay,
        "initial_scale": second_moment,
        "eps": eps,
    }
    return Optimizer(optax.rmsprop, batch_size, sampling, eps_in_sqrt=False, **shared)


@claim(
    "F1",
    "Where noise of standard deviation s dominates, RMSprop and Adam have variance eta s / (2h), not SGD's eta s^2 / (2h)",
    "after Malladi et al., NeurIPS 2022; Lyapunov equations at a finite learning rate",
    relative=0.02,
)
def stationary_variance(seed: int) -> list[Reading]:
    """The row's tolerance, 2 %, is for the fluctuations of the second moment, beyond first order for RMSprop.

    The mistake is SGD's variance. SGD at the learning rate eta / s on the same gradients is a control variate: it goes almost the
    same way, and its variance is known exactly. The noise is normal, since a third moment divided by sqrt(V) is a drift.
    """
    readings, noise = [], GaussianNoise(1)
    for eta, spread, curvature, decay in ((0.02, 4.0, 1.0, 0.99), (0.005, 0.5, 2.0, 0.99), (0.02, 2.0, 1.0, 0.9)):
        model, rate = quadratic(np.array([[curvature]]), np.array([[spread**2]]), 4), eta / spread
        cases = [("RMSprop", rmsprop(eta, 1, decay, spread**2, noise), rate, 0.0)]
        if decay == 0.99:
            adam = Optimizer(optax.adam, sampling=noise, learning_rate=eta, b1=0.9, b2=decay)
            cases.append(("Adam", adam, rate * (1 - 0.9), 0.9))
        wrong = stationary_covariance(curvature, spread**2, eta)[0, 0]
        for name, dynamics, slow, momentum in cases:
            exact = stationary_covariance(curvature, spread**2, slow, momentum=momentum)[0, 0]
            control = squares(SGD(slow, momentum=momentum, sampling=noise), model, seed) - exact
            predicted = exact if momentum else rmsprop_variance(curvature, spread, eta, decay)
            label = f"{name}, s {spread}, h {curvature}, beta_2 {decay}"
            drawn = squares(dynamics, model, seed) - control
            readings.append(mean(label, predicted, drawn, 0.02 * predicted, wrong))
    return readings


def squares(dynamics: Dynamics, model: Model, seed: int) -> np.ndarray:
    """Mean square of each stationary chain."""
    return np.mean(stationary(dynamics, model, seed, 50, 1500, num_chains=CONTROLLED)[..., 0] ** 2, axis=1)


@claim(
    "F2",
    "Batches k times as large take sqrt(k) eta, k (1 - beta) and epsilon / sqrt(k), and the same law after a k-th of the steps",
    "after Malladi et al., NeurIPS 2022",
    relative=0.03,
)
def square_root_rule(seed: int) -> list[Reading]:
    """Mean and variance on the way to the minimum against those of single examples.

    The mistake is the linear rule, k eta; where epsilon is half the noise and V begins at 4 s^2, an epsilon that stays as it was.
    """
    settings = ((0.01, 0.998, 4.0, 320, (4, 16), 1.0, 0.0), (0.02, 0.997, 2.0, 126, (9,), 4.0, 0.5))
    return [reading for setting in settings for reading in larger_batches(seed, *setting)]


def larger_batches(
    seed: int,
    eta: float,
    decay: float,
    spread: float,
    steps: int,
    factors: tuple[int, ...],
    begun: float,
    floor: float,
) -> list[Reading]:
    """Moments of batches of each size after as many examples; those of one example are the prediction.

    V begins at ``begun`` times its rest, and epsilon is ``floor`` times the noise of one example.
    """
    model, place = quadratic(np.eye(1), np.array([[spread**2]])), {"theta": np.full(1, NEAR * spread)}

    def law(factor: int, rate: float, eps: float, run: int, num_chains: int = SEEDS) -> tuple[np.ndarray, np.ndarray]:
        dynamics = rmsprop(rate, factor, 1 - factor * (1 - decay), begun * spread**2 / factor, eps=eps)
        return moments(ends(dynamics, model, place, 8 * seed + run, steps // factor, num_chains)["theta"])

    eps, where = floor * spread, f"s {spread}"
    where += f", V from {begun:g} s^2, epsilon {eps:g}" if floor else ""
    single, readings = law(1, eta, eps, 0), []
    for factor in factors:
        root = factor**0.5
        good = law(factor, root * eta, eps / root, 1)
        wrong = law(factor, root * eta, eps, 2, MISTAKEN) if floor else law(factor, factor * eta, 0.0, 2, MISTAKEN)
        for name, one, many, off in zip(("mean", "variance"), single, good, wrong, strict=True):
            label, value = f"{name} at k {factor}, {where}", float(one.mean())
            error = float(np.hypot(one.std(), many.std()) / np.sqrt(SEEDS))
            readings.append(Reading(label, value, float(many.mean()), error, 0.03 * value, float(off.mean())))
    return readings


@claim(
    "F3",
    "RMSprop's equation and Adam's have their laws at every time: d theta = -eta (grad L dk + nu dW) / (sqrt(V) + eps), for Adam "
    "with the numerator averaged, and dV = (1 - beta_2) (s^2 - V) dk",
    "after Malladi et al., NeurIPS 2022",
    relative=0.03,
)
def equations_of_adaptive_rules(seed: int) -> list[Reading]:
    """Mean and variance after some steps of each optimiser and of its equation, within 2.5 %.

    V is at rest, at the variance of the noise, or comes there from 4 times that with an epsilon of half the noise, so that the
    equation's moments are known: those of a linear system. The mistake is SGD's learning rate; away from rest, V at rest for the
    mean and no epsilon for the variance. The noise of the optimisers is normal too, since that of few examples has a third
    moment, which divided by sqrt(V) is a drift. Adam's V is an average of few squares at first: its variance is 2.5 % below the
    equation's here, and would be 4 % with that epsilon, which it goes without.
    """
    readings, decay, noise = [], 0.99, GaussianNoise(1)
    for eta, spread, steps, begun, floor in ((0.02, 4.0, 150, 1.0, 0.0), (0.02, 2.0, 100, 4.0, 0.5)):
        model = quadratic(np.eye(1), np.array([[spread**2]]), 4)
        place, eps, moment = 1.5 * NEAR * spread, floor * spread, begun * spread**2
        adam = Optimizer(optax.adam, sampling=noise, learning_rate=eta, b1=0.9, b2=decay)
        flow, own = RMSpropFlow(eta, 1, decay, eps, 2, moment), rmsprop(eta, 1, decay, moment, noise, eps)
        equation = AdamFlow(eta, 1, 0.9, decay, substeps=2)
        pairs = (("RMSprop", 0.0, begun, eps, flow, own), ("Adam", 0.9, 1.0, 0.0, equation, adam))
        for name, b1, first, added, flow, optimizer in pairs:
            known = partial(equation_moments, spread=spread, b1=b1, decay=decay, steps=steps, start=place)
            off, where = known(eta * spread, 1.0, 0.0), f"eta {eta}, s {spread}"
            if added:
                where += f", V from {begun:g} s^2, epsilon {eps:g}"
                off = known(eta, 1.0, added)[0], known(eta, first, 0.0)[1]
            for kind, dynamics, run in (("", optimizer, 1), (", its equation in steps", flow, 2)):
                x = ends(dynamics, model, {"theta": np.full(1, place)}, 8 * seed + run, steps, SEEDS)["theta"]
                values = known(eta, first, added)
                for of, value, draws, wrong in zip(("mean", "variance"), values, moments(x), off, strict=True):
                    label = f"{of} of {name}{kind} at {where}"
                    readings.append(mean(label, value, draws, 0.025 * value, wrong))
    return readings


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers whose means are the mean and the variance."""
    x = np.asarray(x, float)[:, 0]
    return x, (x - x.mean()) ** 2


def equation_moments(
    eta: float, begun: float, eps: float, *, spread: float, b1: float, decay: float, steps: int, start: float
) -> tuple[float, float]:
    r"""Mean and variance of d theta = -r m / (1 - exp(-(1 - b1) k)) dk, dm = (1 - b1) ((theta - m) dk + s dW).

    Without an average, d theta = -r (theta dk + s dW). Here r = eta / (sqrt(V) + eps), and V starts at ``begun`` s^2 and comes to
    s^2. By SciPy's integrator.
    """

    def rate(k):
        return eta / (spread * np.sqrt(1 + (begun - 1) * np.exp(-(1 - decay) * k)) + eps)

    def slope(k, z):
        if b1 == 0:
            pull, noise = np.diag([rate(k), 0]), np.diag([(rate(k) * spread) ** 2, 0])
        else:
            pull = np.array([[0, rate(k) / -np.expm1(-(1 - b1) * k)], [b1 - 1, 1 - b1]])
            noise = np.diag([0, ((1 - b1) * spread) ** 2])
        spread_now = z[2:].reshape(2, 2)
        return np.concatenate([-pull @ z[:2], (-pull @ spread_now - spread_now @ pull.T + noise).ravel()])

    initial = np.array([start, 0, 0, 0, 0, 0.0])
    found = solve_ivp(slope, (1e-6, steps), initial, method="LSODA", rtol=1e-8, atol=1e-12).y[:, -1]
    return float(found[0]), float(found[2])


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
