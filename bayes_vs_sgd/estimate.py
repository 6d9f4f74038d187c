"""A number with its standard error and interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Float
from scipy import stats
from scipy.special import logit

from .diagnostics import ess

LEVEL = 0.95
FALSE_ALARM = 1e-3
"""Rate at which replicates of one law are said to have two means."""

FEWEST_PAIRS = 4
"""Of a rank correlation."""


@dataclass(frozen=True)
class Estimate:
    """Value, standard error and 95 % interval."""

    value: float
    standard_error: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        places = max(1 - int(np.floor(np.log10(self.standard_error))), 0) if self.standard_error > 0 else 6
        return f"{self.value:.{places}f} ± {self.standard_error:.{places}f}"


def with_error(value: float, standard_error: float, degrees_of_freedom: float = np.inf) -> Estimate:
    """Estimate whose interval is Student's, or the normal one."""
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees_of_freedom)) * standard_error
    return Estimate(float(value), float(standard_error), (float(value) - half, float(value) + half))


def from_replicates(values: Sequence[float], extra_error: float = 0.0) -> Estimate:
    """Mean of independent replicates; an error of another kind is added in quadrature."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return with_error(float(np.mean(values)), float(np.hypot(error, extra_error)), len(values) - 1)


def relative_spread(values: Sequence[float]) -> float:
    """Standard deviation of positive replicates over their mean; their squares may be too small for numbers."""
    scaled = np.asarray(values, float) / np.max(values)
    return float(np.std(scaled, ddof=1) / np.mean(scaled))


def differ(first: Sequence[float], second: Sequence[float], false_alarm: float = FALSE_ALARM) -> bool:
    """Whether two sets of replicates have different means, by Welch's test."""
    largest = float(np.max(np.abs([*first, *second]))) or 1.0  # the square of a rare event's probability may be 0
    pair = [np.asarray(values, float) / largest for values in (first, second)]
    variances = [float(np.var(values, ddof=1)) / len(values) for values in pair]
    gap, total = abs(float(np.mean(pair[0]) - np.mean(pair[1]))), sum(variances)
    if total == 0:
        return gap > 0
    degrees = total**2 / sum(v**2 / (len(x) - 1) for v, x in zip(variances, pair, strict=True))
    return 2 * float(stats.t.sf(gap / np.sqrt(total), degrees)) < false_alarm


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    r"""Spearman's rank correlation of pairs and its 95 % interval; None of fewer than four, or where one side is constant.

    .. math:: \tanh\Big(\mathrm{artanh}\, r \pm 1.96 \sqrt{\frac{1 + r^2 / 2}{n - 3}}\Big)

    (Bonett and Wright, Psychometrika 65 (2000) 23). Of one order r = 1: the interval is that of two neighbours exchanged.
    """
    count = len(first)
    if count < FEWEST_PAIRS or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    value = float(np.asarray(stats.spearmanr(first, second)[0]))
    most = 1 - 12 / (count * (count**2 - 1))
    inner = min(max(value, -most), most)
    error = float(np.sqrt((1 + inner**2 / 2) / (count - 3)))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    low, high = (float(np.tanh(np.arctanh(inner) + sign * half)) for sign in (-1, 1))
    return Estimate(value, (1 - inner**2) * error, (min(low, value), max(high, value)))


def jackknife(function: Callable, *sums: np.ndarray) -> tuple[Any, Any]:
    """A function of the means over independent parts (part, ...), with its standard error by leaving each part out."""
    count = len(sums[0])
    totals = [part.sum(axis=0) for part in sums]
    left = np.stack(
        [function(*((t - s[r]) / (count - 1) for t, s in zip(totals, sums, strict=True))) for r in range(count)]
    )
    return function(*(t / count for t in totals)), np.sqrt((count - 1) * left.var(axis=0))


def share_beyond(values: Float[np.ndarray, "chain draw"], threshold: float) -> tuple[float, float]:
    """Share of the draws beyond a threshold, and the number of independent draws that would tell it as well."""
    beyond = (values > threshold).astype(float)
    if values.shape[1] == 1:
        return float(beyond.mean()), float(values.size)
    if np.ptp(beyond) == 0:
        return float(beyond.mean()), min(ess(values), float(values.size))
    independent = float(np.asarray(array_stats.ess(beyond, chain_axis=0, draw_axis=1, method="mean")))
    return float(beyond.mean()), min(independent, float(values.size))


def binomial_interval(probability: float, number: float) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share among so many independent draws."""
    hits, tail = probability * number, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, hits, number - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.isf(tail, hits + 1, number - hits)) if hits < number else 1.0
    return low, high


def share_with_interval(values: Float[np.ndarray, "chain draw"], threshold: float) -> tuple[float, tuple[float, float]]:
    """Share of the draws beyond a threshold, and its interval at their effective number."""
    share, number = share_beyond(values, threshold)
    return share, binomial_interval(share, number)


def log_odds_ratio(
    first: float, first_interval: tuple[float, float], second: float, second_interval: tuple[float, float]
) -> tuple[float | None, tuple[float, float]]:
    r"""Delta = logit p - logit p' and its 95 % interval, from two probabilities of independent error and their intervals.

    On the logit scale these are [l, u] around a and [l', u'] around a'; the error of the difference comes from those of the parts
    (the method of variance estimates recovery: Zou and Donner, Statist. Med. 27 (2008) 1693, eq. 2):

    .. math:: \left[a - a' - \sqrt{(a - l)^2 + (u' - a')^2},\; a - a' + \sqrt{(u - a)^2 + (a' - l')^2}\right].

    Where a probability is seen as 0 or 1 its logit is infinite, Delta is None and one bound remains, u - l' or l - u': both
    97.5 % limits hold at once with probability 95 % or more.
    """
    (a, low, high), (b, low_b, high_b) = (
        logit(np.array([p, *ends])).tolist() for p, ends in ((first, first_interval), (second, second_interval))
    )
    if not np.isfinite([a, b]).all():
        return None, (low - high_b, high - low_b)
    return a - b, (a - b - float(np.hypot(a - low, high_b - b)), a - b + float(np.hypot(high - a, b - low_b)))
