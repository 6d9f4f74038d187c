"""A number with its standard error and interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


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
