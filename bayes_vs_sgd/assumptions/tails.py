r"""Does the gradient noise have infinite variance? Two estimators of its tail index, each beside a Gaussian null.

Hill's estimator looks at the largest norms, the block estimator at how sums of vectors grow:

.. math::
    \frac1{\hat\alpha} = \frac1k \sum_{i \le k} \log \frac{r_{(i)}}{r_{(k+1)}}, \qquad
    \frac1{\hat\alpha} = \frac{E \log \|x_1 + \dots + x_m\| - E \log \|x_1\|}{\log m}

(after Hill 1975; after Mohammadi, Mohammadpour and Ogata 2015). Both are fooled: Hill's by a sample that is too small to show
its tail, the block estimator by correlated noise, whose sums grow faster, and by any law that is far from Gaussian, since it
compares sums with single vectors. So both are also computed on Gaussian surrogates with the correlations of the sample.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import scipy.stats
from jaxtyping import Float

from ..errors import InputError
from ..stable import isotropic_stable

NUM_GROUPS = 20
"""Consecutive groups whose spread gives the standard error: correlations shorter than a group are seen."""
SMALLEST = 400
"""Fewest samples: groups and blocks of twenty."""
NUM_UNIT = 20_000
"""Stable draws whose median size is the unit of a scale: it is known to 1 %."""


@dataclass(frozen=True)
class Tail:
    """An estimate of the tail index, its interval, and the interval in which Gaussian surrogates have theirs."""

    value: float
    standard_error: float
    interval: tuple[float, float]
    null: tuple[float, float]

    @property
    def beyond_null(self) -> bool:
        """Whether the tail is heavier than that of a Gaussian sample with the same correlations."""
        return self.value < self.null[0]


@dataclass(frozen=True)
class TailIndex:
    """Estimates from the ``num_upper`` largest norms, from a quarter of these, and from sums of ``block_size`` vectors."""

    hill: Tail
    extreme: Tail
    blocks: Tail
    num_upper: int
    block_size: int

    @property
    def heavy(self) -> bool | None:
        """Whether the variance is infinite, that is the tail index below 2: True, False, or None where undecided.

        True if the estimates of both kinds are beyond their nulls with intervals below 2. False if the intervals of Hill's
        estimator, with all and with a quarter of its norms, lie above 2: Gaussian noise however correlated, Laplace's law,
        Student's t with three degrees of freedom, whose tail is a power law and whose block estimate is beyond its null,
        but whose variance is finite. None otherwise: too few samples for what they show, or an index near 2. A stable law
        of index 1.9 has a Gaussian core that hides its tail: one sample of size 1,000 in three is called False, one of
        size 10,000 in ten.
        """
        if all(tail.beyond_null and tail.interval[1] < 2 for tail in (self.hill, self.blocks)):
            return True
        return False if min(self.hill.interval[0], self.extreme.interval[0]) > 2 else None


def tail_index(
    samples: Float[np.ndarray, "sample ..."],
    *,
    independent: bool = False,
    num_upper: int | None = None,
    block_size: int | None = None,
    num_surrogates: int = 40,
    confidence: float = 0.99,
    seed: int = 0,
) -> TailIndex:
    r"""Estimate the tail index of gradient noise, vectors or numbers, in two ways.

    Parameters
    ----------
    samples
        Noise of mean 0 (a gradient minus its expectation), one sample a row: the steps of one chain in order, or one vector
        each of independent chains. An offset left in is in the surrogates too.
    independent
        Whether the samples are independent. The surrogates then are independent normals with the sample's mean and
        covariance; otherwise the phases of its Fourier transform are made random, the same for all entries, which keeps
        every auto- and cross-correlation (Theiler et al. 1992; Prichard and Theiler 1994).
    num_upper
        k; 2 sqrt(n) by default.
    block_size
        m; the root of n by default, at most 100.
    num_surrogates
        Gaussian samples behind the null.
    confidence
        Of each interval.
    seed
        Of the surrogates.

    Raises
    ------
    InputError
        If there are fewer than 400 samples, one is not finite or exactly zero, or k or m do not fit.
    """
    samples = np.asarray(samples, float)
    samples = samples.reshape(len(samples), -1)
    count = len(samples)
    num_upper = round(2 * count**0.5) if num_upper is None else num_upper
    block_size = root_size(count) if block_size is None else block_size
    _check(samples, num_upper, block_size, num_surrogates)
    rng = np.random.default_rng(seed)
    surrogate = _independent(samples) if independent else _phase_randomized(samples)
    estimators = (hill, num_upper), (hill, max(num_upper // 4, NUM_GROUPS)), (blocks, block_size)
    nulls = []
    for _ in range(num_surrogates):  # one at a time: a sample may be large
        drawn = surrogate(rng)
        nulls.append([estimate(drawn, size)[0] for estimate, size in estimators])
    found = [estimate(samples, size) for estimate, size in estimators]
    tails = [_tail(*f, null, confidence) for f, null in zip(found, np.transpose(nulls), strict=True)]
    return TailIndex(tails[0], tails[1], tails[2], num_upper, block_size)


def root_size(count: int) -> int:
    """Samples a block: the root of how many there are, at most 100."""
    return min(int(count**0.5), 100)


def hill(samples: Float[np.ndarray, "sample dimension"], num_upper: int) -> tuple[float, float]:
    """Hill's estimate of 1/alpha from the largest norms, and its standard error: 0 where all of these are equal."""
    norms = np.linalg.norm(samples, axis=1)
    threshold = np.partition(norms, -num_upper - 1)[-num_upper - 1]
    if threshold == norms.max():  # noise of few values, as batches of one example have
        return 0.0, 0.0
    return _ratio(np.log(np.maximum(norms, threshold) / threshold), norms > threshold)


def blocks(samples: Float[np.ndarray, "sample dimension"], block_size: int) -> tuple[float, float]:
    """Estimate 1/alpha from the sums of consecutive samples; return it and its standard error."""
    cut = samples[: len(samples) // block_size * block_size].reshape(-1, block_size, samples.shape[1])
    of_one, of_sum = np.linalg.norm(cut, axis=2), np.linalg.norm(cut.sum(axis=1), axis=1)
    of_sum = np.maximum(of_sum, np.min(of_sum, where=of_sum > 0, initial=of_one.max()))  # sums of few values may vanish
    growth = np.log(of_sum) - np.log(of_one).mean(axis=1)
    return _ratio(growth / np.log(block_size), np.ones(len(cut)))


def stable_scale(samples: Float[np.ndarray, "sample dimension"], alpha: float, block_size: int, seed: int = 0) -> float:
    r"""Scale s of rotationally symmetric stable noise whose sums of ``block_size`` are as large as those of the samples.

    .. math:: \mathrm{median}\, \|x_1 + \dots + x_m\| = m^{1/\alpha}\, s\; \mathrm{median}\, \|\xi\|

    with xi as in ``stable.isotropic_stable``. Sums have the stable law's core where single samples need not.
    """
    sums = samples[: len(samples) // block_size * block_size].reshape(-1, block_size, samples.shape[1]).sum(axis=1)
    unit = np.asarray(isotropic_stable(jax.random.key(seed), alpha, (NUM_UNIT, samples.shape[1])), float)
    medians = (np.median(np.linalg.norm(x, axis=1)) for x in (sums, unit))
    return float(np.divide(*medians) / block_size ** (1 / alpha))


def _ratio(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Sum of the values over that of the counts, and its standard error from consecutive groups."""
    total, count = (np.array([g.sum() for g in np.array_split(x, NUM_GROUPS)]) for x in (values, counts))
    ratio = total.sum() / count.sum()
    residual = total - ratio * count
    return ratio, np.sqrt(NUM_GROUPS / (NUM_GROUPS - 1) * np.sum(residual**2)) / count.sum()


def _tail(inverse: float, error: float, nulls: np.ndarray, confidence: float) -> Tail:
    """Turn estimates of 1/alpha into estimates of alpha."""
    half = scipy.stats.t(NUM_GROUPS - 1).ppf((1 + confidence) / 2) * error
    spread = np.std(nulls, ddof=1) * (1 + 1 / len(nulls)) ** 0.5  # of one more surrogate about their mean
    width = scipy.stats.t(len(nulls) - 1).ppf((1 + confidence) / 2) * spread
    value, deviation = (1 / inverse, error / inverse**2) if inverse else (np.inf, 0.0)
    return Tail(value, deviation, _inverted(inverse, half), _inverted(float(np.mean(nulls)), width))


def _inverted(center: float, half: float) -> tuple[float, float]:
    low, high = center + half, center - half
    return 1 / low if low > 0 else np.inf, 1 / high if high > 0 else np.inf


def _independent(samples: np.ndarray) -> Callable[[np.random.Generator], np.ndarray]:
    """Normals with the mean and covariance of the samples."""
    mean = samples.mean(axis=0)
    _, singular, directions = np.linalg.svd(samples - mean, full_matrices=False)
    root = singular[:, None] * directions / len(samples) ** 0.5
    return lambda rng: mean + rng.normal(size=(len(samples), len(root))) @ root


def _phase_randomized(samples: np.ndarray) -> Callable[[np.random.Generator], np.ndarray]:
    """The samples with the phase of every frequency moved by a random angle, one for all entries."""
    spectrum = np.fft.rfft(samples, axis=0)

    def draw(rng: np.random.Generator) -> np.ndarray:
        angles = rng.uniform(0, 2 * np.pi, len(spectrum))
        angles[0] = 0  # the mean stays, and so does what is real because it alternates
        if len(samples) % 2 == 0:
            angles[-1] = 0
        return np.fft.irfft(spectrum * np.exp(1j * angles)[:, None], len(samples), axis=0)

    return draw


def _check(samples: np.ndarray, num_upper: int, block_size: int, num_surrogates: int) -> None:
    count = len(samples)
    if count < SMALLEST:
        raise InputError(f"{count} samples of noise: a tail index needs at least {SMALLEST}")
    if not np.all(np.isfinite(samples)) or not np.all(np.any(samples != 0, axis=1)):
        raise InputError("a sample of noise is not finite or exactly zero: leave lost chains and such samples out")
    if not (NUM_GROUPS <= num_upper < count and 2 <= block_size <= count // NUM_GROUPS and num_surrogates >= 10):
        raise InputError(
            f"num_upper {num_upper}, block_size {block_size}, num_surrogates {num_surrogates} for {count} samples: give "
            f"{NUM_GROUPS} <= num_upper < {count}, 2 <= block_size <= {count // NUM_GROUPS} and 10 surrogates or more"
        )
