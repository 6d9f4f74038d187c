"""What a comparison found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..diagnostics import Quality, finite_or_none
from .distances import Distance
from .effects import Effect
from .embedding import GlobalTest
from .events import EventOdds
from .patterns import Pattern
from .spectrum import Spectrum


@dataclass(frozen=True)
class Repaired:
    """Repairs made together (``repairs.py``), and the comparison that they led to."""

    assumptions: tuple[str, ...]
    comparison: "Comparison"

    def to_json(self) -> dict[str, Any]:
        """As the contract has it; several names are joined by " + "."""
        verdict = {"assumption": " + ".join(self.assumptions), "verdict": self.comparison.verdict}
        return verdict | {"verdicts": self.comparison.verdicts, "reason": self.comparison.reason}


@dataclass(frozen=True)
class Comparison:
    """What was found of one dynamics; ``effects`` and ``tests`` decide, the rest explains.

    ``confined`` are observables of which one run shows but a share of the spread of all runs (``stationarity.confined``);
    ``calibration`` is what is on record of the reference's sampler on models from this very file; None for nothing.
    ``temperatures`` are those along grad L ("loss"), by site and by direction, over the reference's.
    """

    dynamics: str
    settings: dict[str, Any]
    objective: str | None
    initial: dict[str, Any]
    stationary: bool | None
    confined: dict[str, float]
    num_steps: int
    num_seeds: int
    chains_lost: int
    inverse_temperature: dict[str, float | None]
    reference: Quality | None
    calibration: dict[str, Any] | None
    effects: list[Effect]
    tests: list[GlobalTest]
    learning_coefficient: dict[str, float | None]
    verdicts: dict[str, str | None]
    verdict: str
    reason: str
    seeds_needed: int | None = None
    draws_needed: int | None = None
    temperatures: Sequence[Effect] = ()
    distances: Sequence[Distance] = ()
    patterns: Sequence[Pattern] = ()
    odds: Sequence[EventOdds] = ()
    held_out: dict[str, Any] | None = None
    spectrum: Spectrum | None = None
    repairs: Sequence[Repaired] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none({k: getattr(self, k) for k in self.__dataclass_fields__})

    def _repr_html_(self) -> str:
        from ..report.notebook import comparison_html

        return comparison_html(self)
