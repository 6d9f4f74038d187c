"""How probable each kind of function is under the two laws.

A kind says of each primary observable of the function whether it lies above the reference's median: 2^k kinds of k observables.
Where the laws are the same all points (P_Bayes, P_SGD) lie on the diagonal (Mingard et al., JMLR 22 (2021) 79, whose functions
are patterns of signs on held-out inputs). They explain a verdict and have no part in it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from ..diagnostics import finite_or_none
from ..robustness.draws import binomial_interval, share_beyond
from .effects import Sample

MOST_OBSERVABLES = 4


@dataclass(frozen=True)
class Pattern:
    """A kind of function: which observables are above the median, and its probability under the run and the reference.

    Intervals are Clopper and Pearson's, at 95 %, of as many draws as are independent.
    """

    above: dict[str, bool]
    probability: float
    interval: tuple[float, float]
    reference_probability: float
    reference_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self))


def patterns(names: Sequence[str], ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Pattern]:
    """Probability of each kind that either law has, the reference's most probable first; of the first four observables."""
    names = list(names)[:MOST_OBSERVABLES]
    medians = [np.median(sample.values) for sample in theirs[: len(names)]]
    over = [np.stack([s.values > m for s, m in zip(side, medians, strict=False)]) for side in (ours, theirs)]
    found = []
    for signs in product((False, True), repeat=len(names)) if names else ():
        column = np.array(signs)[:, None, None]
        (share, interval), (other, its) = (_probability((side == column).all(axis=0)) for side in over)
        if share or other:
            found.append(Pattern(dict(zip(names, signs, strict=True)), share, interval, other, its))
    return sorted(found, key=lambda pattern: -pattern.reference_probability)


def _probability(inside: np.ndarray) -> tuple[float, tuple[float, float]]:
    share, number = share_beyond(inside.astype(float), 0.5)
    return share, binomial_interval(share, number)
