"""What is found of a rare event, and how it is said."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..diagnostics import finite_or_none
from ..estimate import Estimate
from .influence import Influence
from .odds import Odds

COMMON = 0.1
COMPONENTS = "components of the set that no particle of the prior came into are not known of"
OF = {
    "posterior": "the parameter settings that fit as well, weighted by the posterior,",
    "sublevel": "the parameter settings that fit as well, weighted by the prior,",
    "sgd": "the runs of SGD",
    "staying": "the runs of SGD that stay in the set",
    "prior": "the parameter settings, weighted by the prior,",
}


@dataclass(frozen=True)
class Curve:
    """P(g > c) at several thresholds, with standard errors, and the number of draws that support each."""

    thresholds: list[float]
    probabilities: list[float]
    standard_errors: list[float]
    support: list[float]
    exact: list[float | None] | None = None


@dataclass(frozen=True)
class Member:
    """An unsafe member of the set: the program's own values, the property and the loss there."""

    value: float
    loss: float
    values: dict[str, Any]


@dataclass(frozen=True)
class Center:
    """What the members are put beside: the file of a checkpoint, or the model's optimum; property and loss there."""

    source: str
    value: float
    loss: float


@dataclass(frozen=True)
class Robustness:
    """How likely a property exceeds its threshold under a law.

    Parameters
    ----------
    probability, interval, log10_probability
        P(g > c) and its 95 % interval: Clopper and Pearson's for plain draws, Student's on the logarithm for particles.
    exact
        The same where the model knows it; of SGD that of gradient flow from its starts.
    method
        ``"plain draws"``, ``"tilted SMC"`` or, of SGD, ``"splitting"``, or ``"runs that replace those that leave"`` a set.
    replicates
        Probabilities by replicate; of particles with k moves (``moves``) and with 2k (``twice_the_moves``);
        and the ``set_mass`` of those with 2k; of SGD that stays in a set those of the ``third_quarter`` and ``last_quarter``.
    settings
        What was run: both numbers of moves, particles, seeds.
    law, property, threshold
        Whose probability it is, and of what.
    set_mass
        Prior mass of the sublevel set, with the level and where it comes from; None for other laws.
    escape_rate
        Of SGD that stays in a set: the chance that a step leads out of it; None for other laws.
    survival
        P(g > c) at other thresholds.
    support
        Independent draws beyond the threshold; of weighted ones, whose ancestors may be the same, at most so many.
    least_loss
        Loss at the minimum, beside which that of the members is put.
    center
        The checkpoint or optimum, beside which the members are put too; None where the model names none.
    members
        Some positions of the law at which g > c; in the run folder's ``members.npz`` too, where those that are large are alone.
    num_gradients, seconds
        Gradients of one example's loss, and wall time.
    warnings
        Reasons not to believe it; ``trusted`` if there are none.
    influence
        Which examples, groups and candidates matter, the most influential of each kind first; None where it was not asked.
    agreement
        Spearman's correlation of the influence of the examples that SGD was trained again without, most influential first, with
        the change that leaving them out makes; None of fewer than four.
    against
        The same event under another law, and along training; None where it was not asked.
    note
        What the method cannot know, however well it went.
    """

    probability: float
    interval: tuple[float, float]
    log10_probability: float | None
    exact: float | None
    method: str
    replicates: dict[str, list[float]]
    settings: dict[str, Any]
    law: str
    property: str
    threshold: float
    set_mass: Estimate | None
    survival: Curve
    support: float
    least_loss: float
    members: list[Member]
    num_gradients: float
    seconds: float
    trusted: bool
    warnings: list[str]
    escape_rate: Estimate | None = None
    influence: list[Influence] | None = None
    against: Odds | None = None
    note: str | None = None
    center: Center | None = None
    agreement: Estimate | None = None

    def in_words(self) -> str:
        """One sentence; of what is not to be trusted it says so."""
        event = f"{self.property} > {self.threshold:g}"
        prior = self.law == "posterior" and self.settings["inverse_temperature"] == 0
        among = OF["staying" if self.escape_rate is not None else "prior" if prior else self.law]
        doubt = "" if self.trusted else ", by an estimate that is not to be trusted"
        if not self.probability > 0:
            return f"None of {among.rstrip(',')} that were seen has {event}{doubt}."
        often = (
            f"{self.probability:.0%}" if self.probability > COMMON else f"About 1 in {rounded(1 / self.probability)}"
        )
        verb = "have" if self.probability > COMMON else "has"
        return f"{often} of {among} {verb} {event}{doubt}."

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = asdict(self) | {"words": self.in_words()}
        if self.against is not None:
            found["against"] |= {"words": self.against.in_words()}
        return finite_or_none(found)


def rounded(number: float) -> str:
    """Two digits, as a person says a number."""
    if number >= 1e9:
        return f"{number:.1e}"
    digits = max(int(np.floor(np.log10(number))) - 1, 0)
    return f"{round(number, -digits):,.0f}"
