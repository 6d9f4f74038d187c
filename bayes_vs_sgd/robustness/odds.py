r"""SGD against Bayes on a property: the ratio of the odds of an event g > c, and the event along training.

.. math:: \Delta = \mathrm{logit}\, P_{SGD} - \mathrm{logit}\, P_{Bayes}, \qquad \mathrm{logit}\, p = \log \frac{p}{1 - p}

Each probability has a 95 % interval of its own: Clopper and Pearson's of the independent runs of SGD, and of the posterior's
draws at their effective number, or Student's on the logarithm over replicates of particles; that of the difference comes from
them (``estimate.log_odds_ratio``). The interval is at the temperature that is used; what the error of that temperature adds
is told beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..estimate import log_odds_ratio
from ..posterior import Posterior
from .course import Stage, decided
from .matching import Matched
from .methods import Part

if TYPE_CHECKING:
    from .result import Robustness

MOST_DRAWS = 500
"""Of a part, unsafe and safe ones together, whose losses are looked at."""


@dataclass(frozen=True)
class Odds:
    """A probability of SGD's held against that of a posterior.

    Parameters
    ----------
    law, probability, interval, exact, method
        Of the posterior; ``exact`` where the model knows it.
    inverse_temperature, inverse_temperature_error, temperature
        beta of the posterior, its standard error (None where it has none), and how it was chosen.
    log_odds_ratio, log_odds_interval
        Delta and its 95 % interval, in natural logarithms. None and an infinite bound where a probability is seen as 0 or 1.
    temperature_shift
        Change of Delta where beta is larger by its standard error; None where that is not known.
    apart
        Whether the interval leaves out 0.
    along
        The event at the start and at the checkpoints of training.
    decided
        First step from which on every interval of ``along`` holds the probability at the end.
    warnings
        Of the posterior and of its temperature.
    """

    law: str
    probability: float
    interval: tuple[float, float]
    exact: float | None
    method: str
    inverse_temperature: float
    inverse_temperature_error: float | None
    temperature: str
    log_odds_ratio: float | None
    log_odds_interval: tuple[float, float]
    temperature_shift: float | None
    apart: bool
    along: list[Stage]
    decided: int
    warnings: list[str]

    def in_words(self) -> str:
        """Two sentences: how the odds compare, and when the event was decided."""
        return f"{self.ratio_in_words()} {self.course_in_words()}"

    def ratio_in_words(self) -> str:
        """The odds of SGD over those of the posterior; what is known of them where one probability is seen as 0 or 1."""
        low, high = np.exp(self.log_odds_interval)
        those = f"those of the posterior at beta {self.inverse_temperature:g}"
        if self.log_odds_ratio is not None:
            apart = "told apart" if self.apart else "not told apart"
            times = f"{np.exp(self.log_odds_ratio):.3g} times (95 %: {low:.3g} .. {high:.3g})"
            return f"SGD's odds of the event are {times} {those}: {apart}."
        if np.isfinite(high) or low > 0:
            bound = f"at most {high:.3g}" if np.isfinite(high) else f"at least {low:.3g}"
            return f"SGD's odds of the event are {bound} times {those}, a one-sided bound: one law never had it, or always."
        return f"Nothing is known of SGD's odds against {those}: both laws never had the event, or always."

    def course_in_words(self) -> str:
        """When P(t) came within its error of the end to stay."""
        held = "every 95 % interval of P holds its value at the end"
        if self.along[-1].probability in (0, 1):
            seen = "all" if self.along[-1].probability else "none"
            return f"When the event is decided is not seen: of these runs {seen} ended with it."
        if self.decided == self.along[0].step:
            return f"The start decides how likely the event is: from step 0 on {held}."
        if self.decided == self.along[-1].step:
            return "How likely the event is was not decided before the last checkpoint: train longer."
        return f"How likely the event is was decided by step {self.decided:,}: from there on {held}."


def loss_gap(target: Posterior, parts: Sequence[Part]) -> float | None:
    r"""Return d Delta / d beta = n (E[L | g > c] - E[L | g <= c]) under the posterior; None where one side has no draws."""
    thin = [part.thinned(MOST_DRAWS) for part in parts]
    vectors, weights, unsafe = (np.concatenate(columns) for columns in zip(*thin, strict=True))
    if not (weights[unsafe].sum() > 0 and weights[~unsafe].sum() > 0):
        return None
    losses = np.asarray(_losses(target, jnp.asarray(vectors, float)), float)
    means = [np.average(losses[side], weights=weights[side]) for side in (unsafe, ~unsafe)]
    return float(target.model.num_examples * (means[0] - means[1]))


@eqx.filter_jit
def _losses(target: Posterior, vectors: Array) -> Array:
    return jax.lax.map(lambda vector: target.model.loss(target.unflat(vector)), vectors, batch_size=256)


def odds_against(
    found: "Robustness", bayes: "Robustness", matched: Matched, slope: float | None, stages: list[Stage]
) -> Odds:
    """Put the two probabilities beside each other."""
    ratio, (low, high) = log_odds_ratio(found.probability, found.interval, bayes.probability, bayes.interval)
    error = matched.standard_error
    return Odds(
        law=bayes.law,
        probability=bayes.probability,
        interval=bayes.interval,
        exact=bayes.exact,
        method=bayes.method,
        inverse_temperature=matched.inverse_temperature,
        inverse_temperature_error=error,
        temperature=matched.how,
        log_odds_ratio=ratio,
        log_odds_interval=(low, high),
        temperature_shift=None if error is None or slope is None else slope * error,
        apart=not low <= 0 <= high,
        along=stages,
        decided=decided(stages),
        warnings=[*matched.doubts, *(f"posterior: {doubt}" for doubt in bayes.warnings)],
    )
