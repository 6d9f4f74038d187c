"""Heavy tails: how SGD makes them, what alpha-stable noise does, and what estimators of a tail index see (rows D1 to D4)."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from scipy.signal import lfilter

from ..assumptions.tails import blocks, tail_index
from ..diagnostics import ratio_of_means
from ..stable import symmetric_stable
from ..theory import heavy_tails, stable_noise
from .claim import Reading, claim, mean
from .heavy_tailed import euler_ends, exit_counts, regression_sizes


@claim(
    "D1",
    "SGD on linear regression has a stationary law with a power tail, of index alpha with E ||M e||^alpha = 1 for the random "
    "matrix M of a step",
    "after Gurbuzbalaban, Simsekli and Zhu (ICML 2021); derived for batches in any dimension",
    relative=0.08,
    absolute=0.01,
)
def regression(seed: int) -> list[Reading]:
    """Hill's estimate from many chains, the largest of every 200 positions; the largest rate from the growth of a step.

    Tolerance: 4 %, for the bias of Hill's estimator at a finite threshold. Mistakes: a step with twice the gradient (the
    square loss without its half); the logarithm of the mean square for the mean logarithm.
    """
    key, readings = jax.random.key(seed), []
    settings = [(0.5, 1, 1), (0.8, 1, 1), (1.0, 1, 1), (1.5, 1, 1), (10 / 7, 5, 1), (0.7, 2, 3)]
    for number, (rate, batch, dimension) in enumerate(settings):
        sizes = regression_sizes(jax.random.fold_in(key, number), rate, batch, dimension)
        inverse, error = chain_hill(np.asarray(sizes, float))
        index = heavy_tails.tail_index(rate, batch, dimension)
        doubled = 2 * rate < heavy_tails.largest_learning_rate(batch, dimension)
        mistake = heavy_tails.tail_index(2 * rate, batch, dimension) if doubled else 0.0
        name = f"tail index, learning rate {rate:.3g}, batch {batch}, dimension {dimension}"
        readings.append(Reading(name, index, 1 / inverse, error / inverse**2, 0.04 * index, mistake))
    rng = np.random.default_rng([seed, 1])
    for batch, dimension in ((1, 1), (4, 3)):
        largest = heavy_tails.largest_learning_rate(batch, dimension)
        x = rng.normal(size=(200_000, batch, dimension))
        moved = np.eye(dimension)[0] - largest / batch * np.einsum("nb,nbd->nd", x[:, :, 0], x)
        name = f"log growth at learning rate {largest:.4g}, batch {batch}, dimension {dimension}"
        mistake = np.log(heavy_tails.moment_growth(2, largest, batch, dimension)) / 2
        readings.append(mean(name, 0, np.log(np.linalg.norm(moved, axis=1)), mistake=mistake))
    return readings


def chain_hill(sizes: np.ndarray, share: float = 1 / 200) -> tuple[float, float]:
    """Hill's estimate of 1/alpha from the largest of all sizes (draw, chain), and its standard error over chains."""
    threshold = np.quantile(sizes, 1 - share)
    above = sizes > threshold
    return ratio_of_means(np.log(np.maximum(sizes, threshold) / threshold).sum(axis=0), above.sum(axis=0))


@claim(
    "D2",
    "An Ornstein-Uhlenbeck process driven by alpha-stable noise is alpha-stable, with one scale in continuous time and another "
    "for its Euler steps",
    "derived",
)
def ornstein_uhlenbeck(seed: int) -> list[Reading]:
    """Scale from the characteristic function at 1, E cos X = exp(-sigma^alpha).

    Tolerance: none for Euler steps; for continuous time half a relative step, above twice the first order in the step.
    Mistakes: the scale of continuous time; noise that is standard normal at alpha = 2, of half the variance.
    """
    alpha = np.array([1.2, 1.5, 1.8, 0.8, 1.5, 2.0])
    rate, step = np.array([1, 1, 1, 2, 1.0, 1]), np.array([0.5, 0.5, 0.5, 0.3, 1.4, 0.5])
    key, readings = jax.random.key(seed), []
    ends = np.asarray(euler_ends(jax.random.fold_in(key, 0), alpha, rate, step, 60), float)
    for number, x in enumerate(ends):
        setting = alpha[number], rate[number], step[number]
        continuous, predicted = stable_noise.stationary_scale(*setting[:2]), stable_noise.stationary_scale(*setting)
        name = "index {:g}, rate {:g}, step {:g}".format(*setting)
        readings.append(_scale(f"scale, {name}", predicted, x, alpha[number], 0.0, continuous))
    square = stable_noise.stationary_scale(2, 1, 0.5) ** 2
    readings.append(mean("variance, index 2, rate 1, step 0.5", 2 * square, ends[-1] ** 2, mistake=square))
    alpha, rate, step = np.array([1.2, 1.7]), np.array([1.0, 2.0]), np.array([0.04, 0.02])
    for number, x in enumerate(np.asarray(euler_ends(jax.random.fold_in(key, 1), alpha, rate, step, 200), float)):
        predicted = stable_noise.stationary_scale(alpha[number], rate[number])
        name, tolerance = f"scale, index {alpha[number]:g}, rate {rate[number]:g}", step[number] * rate[number] / 2
        readings.append(_scale(name, predicted, x, alpha[number], tolerance * predicted, predicted / 2**0.5))
    return readings


def _scale(name: str, predicted: float, x: np.ndarray, alpha: float, tolerance: float, mistake: float) -> Reading:
    """Scale of a stable law from the mean of cos X, its error by the delta method."""
    cosine = mean(name, 0, np.cos(x))
    power = -np.log(cosine.measured)
    scale = power ** (1 / alpha)
    error = scale / (alpha * power * cosine.measured) * cosine.standard_error
    return Reading(name, predicted, scale, error, tolerance, mistake)


@claim(
    "D3",
    "Noise with jumps leaves a well by one jump: the mean time is a power of noise and width, whatever the depth",
    "after Imkeller and Pavlyukevich (2006); the remainder derived",
)
def exit_times(seed: int) -> list[Reading]:
    """Euler steps of chains that start again at 0 when they have left: time over exits.

    Tolerance: the remainder, that jumps which fall short help the next one, changed by a step by its relative length; and
    a step, in which the moment of the exit is not seen. The remainder is measured where it is large, up to its square over
    the exit time, the order of the next term. Mistakes: jumps to one side alone; a time that grows as the depth; no remainder.
    """
    alpha = np.array([1.5, 1.5, 1.5, 1.2, 0.8, 1.5])
    noise, width = np.array([0.05, 0.025, 0.05, 0.05, 0.02, 0.2]), np.array([1, 1, 1, 0.7, 1, 1])
    rate, step = np.array([1.0, 1, 3, 1, 1, 1]), np.array([0.05, 0.05, 0.02, 0.05, 0.05, 0.02])
    num_steps = 20_000
    exits = np.asarray(exit_counts(jax.random.key(seed), alpha, noise, width, rate, step, num_steps), float)
    readings = []
    for i in range(len(alpha)):
        predicted = stable_noise.exit_time(alpha[i], noise[i], width[i])
        remainder = stable_noise.exit_time_remainder(alpha[i], width[i], partial(np.multiply, rate[i]))
        number = mean("exits", 0, exits[i])
        measured = step[i] * num_steps / number.measured
        error = measured * number.standard_error / number.measured
        late = step[i] * (1 + rate[i] * remainder)
        name = f"index {alpha[i]:g}, noise {noise[i]:g}, width {width[i]:g}, depth {rate[i] * width[i] ** 2 / 2:g}"
        if i == len(alpha) - 1:
            tolerance = late + remainder**2 / predicted
            readings.append(Reading(f"remainder, {name}", remainder, predicted - measured, error, tolerance, 0))
        else:
            mistake = predicted * (rate[i] if rate[i] > 1 else 2)
            readings.append(Reading(f"exit time, {name}", predicted, measured, error, remainder + late, mistake))
    return readings


@claim(
    "D4",
    "The block estimator reads the index of stable noise, and a false one where variance is finite; beside Hill's and Gaussian "
    "surrogates it calls only infinite variance heavy",
    "after Mohammadi, Mohammadpour and Ogata (2015), whose estimator Simsekli, Sagun and Gurbuzbalaban (2019) used",
)
def estimators(seed: int) -> list[Reading]:
    """Block estimates of 1/alpha from a million samples in blocks of 100, and the calls of ``tail_index``.

    Tolerance: none. Of stable noise the estimate of 1/alpha is unbiased; of Gaussian noise the sum's variance gives its
    mean, of Student's t the characteristic function; where calls are made the intervals end five standard errors from 2.
    Mistakes: alpha itself in the place of 1/alpha; that the estimate is
    1/2 wherever variance is finite; the other call.
    """
    readings, count, size = [], 1_000_000, 100
    for number, alpha in enumerate((0.8, 1.2, 1.5, 1.8, 2.0, 0.5)):
        samples = _stable(seed, number, alpha, count)
        readings.append(_block(f"1 / estimate, stable noise of index {alpha:g}", 1 / alpha, samples, alpha))
    rng = np.random.default_rng([seed, 1])
    for degrees, function in ((3, lambda k: (1 + 3**0.5 * k) * np.exp(-(3**0.5) * k)), (1, lambda k: np.exp(-k))):
        mean_log = stable_noise.mean_log_size(function), stable_noise.mean_log_size(lambda k, f=function: f(k) ** size)
        predicted = (mean_log[1] - mean_log[0]) / np.log(size)
        name = f"1 / estimate, Student's t of {degrees} degrees of freedom"
        readings.append(_block(name, predicted, rng.standard_t(degrees, count), 0.5))
    for correlation in (0.9, 0.5):
        lags = np.arange(1, size)
        variance = size + 2 * np.sum((size - lags) * correlation**lags)
        name = f"1 / estimate, Gaussian noise of correlation {correlation:g}"
        readings.append(_block(name, np.log(variance) / 2 / np.log(size), _correlated(rng, correlation, count), 0.5))
    laws: list[tuple[str, Callable[[int], np.ndarray], bool]] = [
        ("Student's t of 3 degrees of freedom", lambda _: rng.standard_t(3, 200_000), False),
        ("Gaussian noise of correlation 0.9", lambda _: _correlated(rng, 0.9, 200_000), False),
        ("stable noise of index 1.5", lambda number: _stable(seed, 100 + number, 1.5, 200_000), True),
    ]
    for name, draw, heavy in laws:
        calls = [tail_index(draw(number), num_surrogates=20, seed=number).heavy is True for number in range(5)]
        readings.append(Reading(f"called heavy, {name}", heavy, float(np.mean(calls)), mistake=1 - heavy))
    return readings


def _block(name: str, predicted: float, samples: np.ndarray, mistake: float) -> Reading:
    inverse, error = blocks(samples[:, None], 100)
    return Reading(name, predicted, inverse, error, 0.0, mistake)


def _stable(seed: int, number: int, alpha: float, count: int) -> np.ndarray:
    key = jax.random.fold_in(jax.random.key(seed), number)
    return np.asarray(_draw(key, alpha, (count,)), float)


_draw = jax.jit(symmetric_stable, static_argnums=2)


def _correlated(rng: np.random.Generator, correlation: float, count: int) -> np.ndarray:
    """Autoregressive Gaussian noise, its start forgotten."""
    return np.asarray(lfilter([1.0], [1.0, -correlation], rng.normal(size=count + 1000)))[1000:]
