"""Effect sizes between two laws, with standard errors that know about autocorrelation.

A statistic is linearised: its influence values psi, one a draw, have mean zero, and the error of the statistic is the
error of their mean. For independent seeds that is sd/sqrt(S); for Markov chains it is ArviZ's MCSE of the mean of psi.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from ..diagnostics import finite_or_none, mean_error
from ..margins import INSIDE, MARGINS, Margins, place

HEAVY_TAILS = 20.0
"""Above this kurtosis, as where the variance may be infinite, medians and median absolute deviations are compared."""
LEVEL = 0.05


@dataclass(frozen=True)
class Effect:
    """How far a law is from the reference in one respect, with a 90 % interval and the margin it is held against."""

    observable: str
    group: str
    kind: str
    value: float
    standard_error: float
    margin: float

    @property
    def interval(self) -> tuple[float, float]:
        """Two one-sided 5 % tests are this interval."""
        half = float(stats.norm.ppf(1 - LEVEL)) * self.standard_error
        return self.value - half, self.value + half

    @property
    def inside(self) -> bool:
        """Whether the interval lies within the margin."""
        return place(*self.interval, self.margin) == INSIDE

    @property
    def p_outside(self) -> float:
        """p-value of the hypothesis that the effect is at most the margin."""
        return self._p(self.margin)

    @property
    def p_zero(self) -> float:
        """p-value of the hypothesis that there is no effect."""
        return self._p(0.0)

    def _p(self, bound: float) -> float:
        if not np.isfinite(self.value):
            return 1.0
        if self.standard_error == 0:
            return float(abs(self.value) <= bound)
        upper = stats.norm.sf((abs(self.value) - bound) / self.standard_error)
        lower = stats.norm.sf((abs(self.value) + bound) / self.standard_error)
        return float(min(upper + lower, 1.0))

    def to_json(self) -> dict[str, Any]:
        """Plain values; not-a-number becomes null."""
        return finite_or_none(asdict(self) | {"interval": self.interval, "inside": self.inside})


@dataclass(frozen=True)
class Sample:
    """Draws of a scalar (chain, draw), and whether all of them are independent."""

    values: np.ndarray
    independent: bool

    def mean(self) -> tuple[float, np.ndarray]:
        """Mean and its influence values."""
        mean = self.values.mean()
        return float(mean), self.values - mean

    def mean_and_error(self) -> tuple[float, float]:
        """Mean and its standard error."""
        mean, psi = self.mean()
        return mean, mean_error(psi, self.independent)

    def log_sd(self) -> tuple[float, np.ndarray]:
        """Logarithm of the standard deviation."""
        centered = self.values - self.values.mean()
        variance = np.mean(centered**2)
        if variance == 0:
            return -np.inf, np.zeros_like(centered)
        return float(np.log(variance) / 2), (centered**2 / variance - 1) / 2

    def log_deviation(self) -> tuple[float, np.ndarray]:
        r"""Logarithm of the mean absolute deviation from the median, times sqrt(pi/2) so that it is the sd of a normal law.

        For the normal law as well known as the standard deviation but for 7 %, and better from a kurtosis of 4 on.
        """
        distance = np.abs(self.values - np.median(self.values))
        mean = distance.mean()
        if mean == 0:
            return -np.inf, np.zeros_like(distance)
        return float(np.log(np.sqrt(np.pi / 2) * mean)), distance / mean - 1

    def median(self) -> tuple[float, np.ndarray]:
        """Median; its influence is sign(x - m) / 2 f(m)."""
        median = np.median(self.values)
        return float(median), np.sign(self.values - median) / (2 * self._density(median))

    def log_mad(self) -> tuple[float, np.ndarray]:
        """Logarithm of the median absolute deviation, times 1.4826 so that it is the sd of a normal law."""
        median, psi_median = self.median()
        distance = np.abs(self.values - median)
        mad = np.median(distance)
        if mad == 0:
            return -np.inf, np.zeros_like(distance)
        low, high = self._density(median - mad), self._density(median + mad)
        psi = (np.sign(distance - mad) / 2 - (high - low) * psi_median) / (low + high)
        return float(np.log(1.4826 * mad)), psi / mad

    def kurtosis(self) -> float:
        """Fourth standardised moment (3 for a normal law)."""
        return float(stats.kurtosis(self.values.ravel(), fisher=False)) if np.ptp(self.values) > 0 else 0.0

    def _density(self, point: float) -> float:
        """Density by the share of draws within a band that holds about a fifth of the central half."""
        low, high = np.quantile(self.values, [0.25, 0.75])
        width = max((high - low) * min(1.0, 2.0 * self.values.size**-0.2), np.finfo(float).tiny)
        share = np.mean(np.abs(self.values - point) <= width / 2)
        return max(share, 1 / self.values.size) / width


def location_and_scale(
    name: str, group: str, sample: Sample, reference: Sample, margins: Margins = MARGINS
) -> list[Effect]:
    """Difference of location, in the reference's spread, and log ratio of spreads, of a sample against a reference.

    Of a law of two values the mean alone.
    """
    heavy = heavy_tailed(sample, reference)
    (center, psi_center), _, (spread, psi_spread) = (s() for s in statistics_of(sample, heavy))
    (center_0, psi_center_0), (unit_0, psi_unit_0), (spread_0, psi_spread_0) = (
        s() for s in statistics_of(reference, heavy)
    )
    if not np.isfinite(spread_0):
        return []
    unit = np.exp(unit_0)
    shift = (center - center_0) / unit
    shift_error = np.hypot(
        mean_error(psi_center / unit, sample.independent),
        mean_error(psi_center_0 / unit + shift * psi_unit_0, reference.independent),
    )
    ratio = max(spread - spread_0, np.log(1e-6))
    ratio_error = np.hypot(mean_error(psi_spread, sample.independent), mean_error(psi_spread_0, reference.independent))
    found = [(shift, shift_error), (ratio, ratio_error)]
    return _effects(name, group, kinds_of(heavy), found[: 1 if two_valued(sample, reference) else 2], margins)


def two_valued(sample: Sample, reference: Sample) -> bool:
    """Whether an event is observed, of which the rate is all there is."""
    return np.unique(np.concatenate([sample.values.ravel(), reference.values.ravel()])).size <= 2


def heavy_tailed(sample: Sample, reference: Sample) -> bool:
    """Whether medians are to be compared; not where most draws of the reference are one value, as of a rare event."""
    return max(sample.kurtosis(), reference.kurtosis()) > HEAVY_TAILS and bool(np.isfinite(reference.log_mad()[0]))


def statistics_of(sample: Sample, heavy: bool) -> tuple[Any, Any, Any]:
    """Location, logarithm of its unit, and of spread, as functions that return each with its influence values."""
    if heavy:
        return sample.median, sample.log_mad, sample.log_mad
    return sample.mean, sample.log_sd, sample.log_deviation


def kinds_of(heavy: bool) -> tuple[str, str]:
    """Names of the effects of location and spread."""
    return ("median", "log_mad_ratio") if heavy else ("mean", "log_deviation_ratio")


def drift(name: str, before: np.ndarray, after: np.ndarray, margins: Margins = MARGINS) -> list[Effect]:
    """Change of location and spread of the same seeds between two windows (seed, draw), with the errors of paired differences."""
    early, late = Sample(before, True), Sample(after, True)
    heavy = heavy_tailed(early, late)
    (center, psi_center), (unit, _), (spread, psi_spread) = (s() for s in statistics_of(late, heavy))
    (center_0, psi_center_0), _, (spread_0, psi_spread_0) = (s() for s in statistics_of(early, heavy))
    if not np.isfinite(spread) or not np.isfinite(spread_0):
        return []
    changes = [(center - center_0, psi_center - psi_center_0), (spread - spread_0, psi_spread - psi_spread_0)]
    found = [(value, mean_error(psi.mean(axis=1), True)) for value, psi in changes]
    found[0] = (found[0][0] / np.exp(unit), found[0][1] / np.exp(unit))
    return _effects(name, "drift", kinds_of(heavy), found[: 1 if two_valued(early, late) else 2], margins)


def _effects(
    name: str, group: str, kinds: tuple[str, str], found: list[tuple[float, float]], margins: Margins
) -> list[Effect]:
    """Values with their errors as effects of these kinds, the first of them where there are fewer."""
    pairs = zip(kinds, found, strict=False)
    return [Effect(name, group, kind, float(value), float(error), margins[kind]) for kind, (value, error) in pairs]


def sampled(tree: xr.DataTree, name: str) -> Sample:
    """What a sampler of the posterior drew of a scalar observable: the draws of a chain depend on each other."""
    return Sample(scalar_draws(tree, name), False)


def scalar_draws(tree: xr.DataTree, name: str) -> np.ndarray:
    """Draws (chain, draw) of a scalar observable."""
    return np.asarray(tree["posterior"][name].values, float)
