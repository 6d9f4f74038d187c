"""Langevin dynamics on an inverse stable clock: its moments are Mittag-Leffler functions of time (row E1)."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpy.random import Generator

from ..dynamics.subordinated import SubordinatedLangevin
from ..model import Model
from ..stable import one_sided_stable
from ..theory.fractional import free_displacement, mean_position, mittag_leffler, second_moment
from .chains import ends
from .claim import Reading, claim, mean

NUM_CHAINS = 400_000


@claim(
    "E1",
    "On an inverse stable clock a Langevin process in a harmonic well relaxes as a Mittag-Leffler function, in the end as the "
    "power t^-alpha, and spreads freely as t^alpha",
    "after Metzler and Klafter (2000), and of SGD after Hennick and De Baerdemacker (2025); derived",
)
def subordination(seed: int) -> list[Reading]:
    """Clocks drawn exactly at a time, S_t = (t / S_1)^alpha, exact transitions on them; then the dynamics of the library.

    Tolerance: none, but where the reading says. Mistakes: the ordinary clock; Gamma(1 + alpha) forgotten; a power law taken
    from a mean square displacement that only saturates.
    """
    keys, rng = jax.random.split(jax.random.key(seed), 3), np.random.default_rng([seed, 1])
    return _relaxation(keys[0]) + _moments(keys[1], rng) + _late(keys[2]) + _null(rng) + _posterior(seed)


def _clock(key: Array, alpha: float, time: float) -> np.ndarray:
    """Operational times at a physical time: S_t > s says that T(s) = s^(1/alpha) T(1) is below t."""
    return (time / np.asarray(_draw(key, alpha, (NUM_CHAINS,)), float)) ** alpha


_draw = jax.jit(one_sided_stable, static_argnums=2)


def _relaxation(key: Array) -> list[Reading]:
    """E exp(-S_t) beside E_alpha(-t^alpha)."""
    readings = []
    for number, (alpha, x) in enumerate([(0.5, 1), (0.6, 1), (0.8, 1), (0.6, 2), (0.8, 2), (0.3, 4)]):
        clock = _clock(jax.random.fold_in(key, number), alpha, x ** (1 / alpha))
        predicted = mittag_leffler(x, alpha).item()
        readings.append(mean(f"relaxation, alpha {alpha:g}, x {x:g}", predicted, np.exp(-clock), mistake=np.exp(-x)))
    return readings


def _moments(key: Array, rng: Generator) -> list[Reading]:
    """Mean and mean square in a harmonic well, and mean square displacement without one."""
    readings = []
    settings = [
        (0.7, 2.0, 1.0, 0.5, 1.0),
        (0.7, 2.0, 1.0, 0.5, 10.0),
        (0.5, -1.0, 0.4, 2.0, 3.0),
        (0.9, 3.0, 2.0, 0.3, 2.0),
    ]
    for number, (alpha, start, rate, temperature, time) in enumerate(settings):
        clock = _clock(jax.random.fold_in(key, number), alpha, time)
        kept, normal = np.exp(-rate * clock), rng.normal(size=NUM_CHAINS)
        x = start * kept + np.sqrt(temperature / rate * (1 - kept**2)) * normal
        free = np.sqrt(2 * temperature * clock) * normal
        first, ordinary = (mean_position(start, rate, time, a).item() for a in (alpha, 1))
        second, ordinary_second = (second_moment(start, rate, temperature, time, a).item() for a in (alpha, 1))
        displacement, forgotten = free_displacement(temperature, time, alpha), 2 * temperature * time**alpha
        name = f"alpha {alpha:g}, start {start:g}, rate {rate:g}, temperature {temperature:g}, time {time:g}"
        readings += [
            mean(f"E x, {name}", first, x, mistake=ordinary),
            mean(f"E x^2, {name}", second, x**2, mistake=ordinary_second),
            mean(f"free E x^2, {name}", displacement.item(), free**2, mistake=forgotten),
        ]
    return readings


def _late(key: Array) -> list[Reading]:
    """Log-log slope of the mean at late times; the tolerance is how far the slope of the closed form is from -alpha there."""
    readings = []
    for number, (alpha, early, late) in enumerate([(0.7, 30.0, 300.0), (0.4, 1e3, 1e5)]):
        key_draw = jax.random.fold_in(key, number)
        relaxed = [np.exp(-_clock(key_draw, alpha, time)) for time in (early, late)]
        exact = [mean_position(1, 1, time, alpha).item() for time in (early, late)]
        tolerance = abs(np.log(exact[1] / exact[0]) / np.log(late / early) + alpha)
        mistake = -(late - early) / np.log(late / early)
        name = f"slope of the mean, alpha {alpha:g}, times {early:g} to {late:g}"
        readings.append(_slope(name, -alpha, relaxed, late / early, tolerance, mistake))
    return readings


def _null(rng: Generator) -> list[Reading]:
    """The ordinary clock: its saturating displacement looks like alpha < 1 between two times, but no one power fits long.

    The mistakes are the slope of free diffusion, and of the correlation the slope that it has between the other two times.
    """
    readings = []
    for quantity, windows in (("displacement", ((0.5, 2.0), (0.2, 3.0))), ("correlation", ((1.0, 2.0), (2.0, 4.0)))):
        law = (lambda t: 1 - np.exp(-t)) if quantity == "displacement" else (lambda t: np.exp(-t))
        slopes = [np.log(law(late) / law(early)) / np.log(late / early) for early, late in windows]
        for (early, late), predicted, other in zip(windows, slopes, slopes[::-1], strict=True):
            start, first, second = rng.normal(size=(3, NUM_CHAINS))
            near = np.exp(-early) * start + np.sqrt(1 - np.exp(-2 * early)) * first
            far = np.exp(early - late) * near + np.sqrt(1 - np.exp(2 * (early - late))) * second
            draws, mistake = ([near * start, far * start], other)
            if quantity == "displacement":
                draws, mistake = [(near - start) ** 2, (far - start) ** 2], 1.0
            name = f"slope of the {quantity}, ordinary clock, times {early:g} to {late:g}"
            readings.append(_slope(name, predicted, draws, late / early, 0.0, mistake))
    return readings


def _slope(
    name: str, predicted: float, draws: list[np.ndarray], ratio: float, tolerance: float, mistake: float
) -> Reading:
    """Log-log slope between two means of the same chains, at times of a ratio, its error by the delta method."""
    first, second = draws
    relative = mean(name, 0, second / second.mean() - first / first.mean())
    slope = np.log(second.mean() / first.mean()) / np.log(ratio)
    return Reading(name, predicted, float(slope), relative.standard_error / np.log(ratio), tolerance, mistake)


def _posterior(seed: int) -> list[Reading]:
    """The dynamics on the normal posterior of rate 2, whose clock is late by up to a step.

    Tolerance: a step's length times the steepest slope in operational time, and half of that for Euler's steps.
    """

    def program(y):
        theta = numpyro.sample("theta", dist.Normal(0, 1))
        with numpyro.plate("examples", y.shape[0]):
            numpyro.sample("y", dist.Normal(theta, 1), obs=y)

    model, rate, step = Model(program, data={"y": np.zeros(1)}), 2.0, 0.005
    readings = []
    for alpha, start, time in ((0.7, 2.0, 1.0), (0.5, 3.0, 2.0)):
        dynamics = SubordinatedLangevin(alpha, step_size=step, time_step=time / 4)
        x = ends(dynamics, model, {"theta": start}, seed, 4, num_chains=4000)["theta"]
        tolerance, name = 1.5 * step * rate, f"posterior of rate 2, alpha {alpha:g}, start {start:g}, time {time:g}"
        first, ordinary = (mean_position(start, rate, time, a).item() for a in (alpha, 1))
        readings.append(mean(f"E x, {name}", first, x, tolerance * start, ordinary))
        second, ordinary = (second_moment(start, rate, 1, time, a).item() for a in (alpha, 1))
        readings.append(mean(f"E x^2, {name}", second, x**2, 2 * tolerance * start**2, ordinary))
    return readings
