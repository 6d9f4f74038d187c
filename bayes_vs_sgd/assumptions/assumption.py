"""One assumption of Langevin dynamics: what was measured, and whether it holds within a margin."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..diagnostics import finite_or_none

CONFIDENCE = 0.95
"""Of every interval."""


@dataclass(frozen=True)
class Assumption:
    """An assumption held against a measurement.

    Parameters
    ----------
    name
        What is assumed.
    statistic
        What is measured, in words.
    value, interval
        The measurement and its 95 % interval (99 % of a tail index); of width zero for what is computed from all
        examples, without chance.
    null
        The value at which the assumption holds exactly.
    margin
        How far from it the value may be: none holds exactly.
    holds
        True if the interval is within the margin, False if it is outside, None if it is neither.
    note
        What a reader should know of this one.
    """

    name: str
    statistic: str
    value: float
    interval: tuple[float, float]
    null: float
    margin: float
    holds: bool | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; not-a-number becomes null."""
        return finite_or_none(asdict(self))

    @property
    def word(self) -> str:
        """How it came out."""
        return {True: "holds", False: "fails", None: "undecided"}[self.holds]


def undefined(name: str, statistic: str, null: float, margin: float, note: str) -> Assumption:
    """Return an assumption of which there is nothing to measure: undecided."""
    return Assumption(name, statistic, np.nan, (np.nan, np.nan), null, margin, None, note)


def measured(
    name: str, statistic: str, value: float, error: float, null: float, margin: float, note: str = ""
) -> Assumption:
    """Return an assumption judged by the normal interval of a value with a standard error."""
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return from_interval(name, statistic, value, (value - half, value + half), null, margin, note)


def from_interval(
    name: str,
    statistic: str,
    value: float,
    interval: tuple[float, float],
    null: float,
    margin: float,
    note: str = "",
) -> Assumption:
    """Return an assumption judged by an interval."""
    low, high = (float(bound) for bound in interval)
    holds = None
    if low > null + margin or high < null - margin:
        holds = False
    elif null - margin <= low and high <= null + margin:
        holds = True
    return Assumption(name, statistic, float(value), (low, high), null, margin, holds, note)
