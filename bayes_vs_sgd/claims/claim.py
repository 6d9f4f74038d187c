"""A claim of theory and its measurement: what is predicted, what is measured, and a mistake that the measurement must see."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..diagnostics import ratio_of_means
from ..errors import InputError, nearest

Z = 4.0
"""Standard errors of an interval: a reading that is true is called false once in 16,000 times."""
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


@dataclass(frozen=True)
class Reading:
    """One number of theory beside its measurement.

    Parameters
    ----------
    name
        What is measured, with its settings.
    predicted
        The number that theory gives.
    measured
        The number found; NaN if nothing was.
    standard_error
        Of the measurement; 0 where nothing is random.
    tolerance
        What the theory leaves out (a finite learning rate, rounding), in the units of the number: derived or stated by the
        row, never chosen to fit.
    mistake
        What a wrong form of the theory gives, such as a factor forgotten; the measurement must tell the two apart.
    """

    name: str
    predicted: float
    measured: float
    standard_error: float = 0.0
    tolerance: float = 0.0
    mistake: float = float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Numbers that the measurement does not rule out."""
        half = self.tolerance + Z * self.standard_error
        return self.measured - half, self.measured + half

    def allows(self, value: float) -> bool:
        """Whether the measurement does not rule a number out."""
        low, high = self.interval
        return bool(low <= value <= high)

    @property
    def verdict(self) -> str:
        """Holds: the prediction is allowed and the mistake is not. Undecided: both are. Fails: the prediction is not."""
        if not self.allows(self.predicted):
            return FAILS
        return UNDECIDED if self.allows(self.mistake) else HOLDS


@dataclass(frozen=True)
class Claim:
    """A statement of theory with its source, and how it is measured: a function of a seed that returns readings.

    ``relative`` and ``absolute`` are the precision that it is measured at: the half width of an interval is about ``absolute`` +
    ``relative`` times the prediction. Both are 0 where none is declared.
    """

    id: str
    statement: str
    source: str
    measure: Callable[[int], list[Reading]]
    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A claim and its readings."""

    claim: Claim
    readings: list[Reading]
    seconds: float

    @property
    def verdict(self) -> str:
        """Fails if any reading does, else undecided if any is."""
        found = {reading.verdict for reading in self.readings}
        return next((v for v in (FAILS, UNDECIDED) if v in found), HOLDS)


CLAIMS: dict[str, Claim] = {}


def claim(
    id: str, statement: str, source: str, relative: float = 0.0, absolute: float = 0.0
) -> Callable[[Callable[[int], list[Reading]]], Callable]:
    """Register a measurement as that of a claim, of a precision if one is declared."""

    def register(measure: Callable[[int], list[Reading]]) -> Callable:
        assert id not in CLAIMS
        CLAIMS[id] = Claim(id, statement, source, measure, relative, absolute)
        return measure

    return register


def chosen(ids: Iterable[str]) -> list[Claim]:
    """Claims of the given ids or families (C1, C), in order; all of them without any."""
    wanted = list(ids)
    for given in wanted:
        if not any(known == given or family(known) == given for known in CLAIMS):
            raise InputError(f"unknown claim {given!r}: {nearest(given, CLAIMS)}")
    known = sorted(CLAIMS.values(), key=lambda c: (family(c.id), int(c.id[1:])))
    return [c for c in known if not wanted or c.id in wanted or family(c.id) in wanted]


def family(id: str) -> str:
    """Part of the table that a claim stands in: its letter."""
    return id[0]


def mean(name: str, predicted: float, draws: Any, tolerance: float = 0.0, mistake: float = float("nan")) -> Reading:
    """Reading of the mean of independent draws."""
    draws = np.asarray(draws, float).ravel()
    error = float(draws.std(ddof=1) / np.sqrt(draws.size))
    return Reading(name, float(predicted), float(draws.mean()), error, tolerance, float(mistake))


def ratio(
    name: str, predicted: float, sums: Any, weights: Any, tolerance: float = 0.0, mistake: float = float("nan")
) -> Reading:
    """Reading of sum over sum, of the sums of independent chains and their weights; its error by the delta method."""
    sums, weights = np.asarray(sums, float), np.asarray(weights, float)
    value, error = ratio_of_means(sums, weights)
    return Reading(name, float(predicted), value, error, tolerance, float(mistake))


def squared_deviations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One value a path whose mean is the variance of all draws, from each path's mean and mean square: to first order."""
    return second - 2 * first.mean() * first + first.mean() ** 2
