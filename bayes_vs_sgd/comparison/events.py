"""The odds of each property of the model under the two laws.

The event is g > c, c where the posterior's highest tenth begins: a property has no threshold of its own (``robustness`` asks for
one, and goes on to rare events). It explains a verdict and has no part in it. c is an estimate, whose error is that of the
posterior's share beyond it where both laws are alike.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..diagnostics import finite_or_none
from ..estimate import log_odds_ratio, share_with_interval
from ..margins import MARGINS, Margins, place
from ..model import Model
from .effects import Sample

TENTH = 0.9


@dataclass(frozen=True)
class EventOdds:
    """Probabilities of g > c with Clopper and Pearson's 95 % intervals, and the log of the ratio of their odds with its own."""

    property: str
    threshold: float
    probability: float
    interval: tuple[float, float]
    reference_probability: float
    reference_interval: tuple[float, float]
    log_odds_ratio: float | None
    log_odds_interval: tuple[float, float]
    margin: float

    @cached_property
    def place(self) -> str:
        """Whether the log of the ratio is inside its margin, outside it, or neither is shown."""
        return place(*self.log_odds_interval, self.margin)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self) | {"place": self.place})


def scalar_properties(model: Model) -> list[str]:
    """Names of the properties that return one real number, as all should."""
    zeros = {site: jnp.zeros(shape) for site, shape in model.latents}

    def real(item: Any) -> bool:
        shape = jax.eval_shape(lambda p: jnp.asarray(partial(item, model)(model.constrain(p))), zeros)
        return shape.shape == () and jnp.issubdtype(shape.dtype, jnp.floating)

    return [name for name, item in model.properties.items() if real(item)]


def event_odds(
    names: Sequence[str], ours: Sequence[Sample], theirs: Sequence[Sample], margins: Margins = MARGINS
) -> list[EventOdds]:
    """Odds of each property; one that is not finite everywhere, or constant under the reference, is left out."""
    found = []
    for name, sample, reference in zip(names, ours, theirs, strict=True):
        if not (np.isfinite(sample.values).all() and np.isfinite(reference.values).all()):
            continue
        if np.ptp(reference.values) == 0:
            continue
        threshold = float(np.quantile(reference.values, TENTH))
        (share, interval), (other, its) = (share_with_interval(x.values, threshold) for x in (sample, reference))
        ratio = log_odds_ratio(share, interval, other, its)
        found.append(EventOdds(name, threshold, share, interval, other, its, *ratio, margins["log_odds"]))
    return found
