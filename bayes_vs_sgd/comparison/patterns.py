"""How probable each kind of function is under the two laws.

A kind says of the predictions at up to four probe inputs, those the data do not contain first, whether each lies in the
reference's lowest tenth, its highest or between: 3^k kinds, whose probabilities differ by powers of ten. Where fewer predictions
than four are recorded, primary observables of the function fill the places. Where the laws are the same all points
(P_Bayes, P_SGD) lie on the diagonal (Mingard et al., JMLR 22 (2021) 79, whose functions are the labels of held-out inputs). They
explain a verdict and have no part in it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from ..diagnostics import finite_or_none
from ..estimate import share_with_interval
from .effects import Sample

PREDICTIONS = ("predictions_unseen", "prediction_seen")
"""Recorded predictions, at inputs that the data do not contain and at some that they do."""
MOST_COORDINATES = 4
TENTHS = (0.1, 0.9)
LEVELS = ("low", "middle", "high")


@dataclass(frozen=True)
class Pattern:
    """A kind of function: where its predictions lie, and its probability under the run and the reference.

    Intervals are Clopper and Pearson's, at 95 %, of as many draws as are independent.
    """

    levels: dict[str, str]
    probability: float
    interval: tuple[float, float]
    reference_probability: float
    reference_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self))


def patterns(names: Sequence[str], ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Pattern]:
    """Probability of each kind that either law has, the reference's most probable first."""
    if not names:
        return []
    bounds = [np.quantile(sample.values, TENTHS) for sample in theirs]
    level = [np.stack([np.digitize(x.values, b) for x, b in zip(side, bounds, strict=True)]) for side in (ours, theirs)]
    found = []
    for kind in product(range(len(LEVELS)), repeat=len(names)):
        column = np.array(kind)[:, None, None]
        (share, interval), (other, its) = (
            share_with_interval((side == column).all(axis=0).astype(float), 0.5) for side in level
        )
        if share or other:
            words = {name: LEVELS[k] for name, k in zip(names, kind, strict=True)}
            found.append(Pattern(words, share, interval, other, its))
    return sorted(found, key=lambda pattern: -pattern.reference_probability)


def with_predictions(*trees: xr.DataTree) -> tuple[list[str], list[xr.DataTree]]:
    """Names of single predictions, at most four, that all runs recorded; and the runs with each of these as a scalar."""
    draws = [tree["posterior"].to_dataset() for tree in trees]
    single = [
        {f"{k}[{i}]": x for k in PREDICTIONS if k in values for i, x in enumerate(_columns(values[k].values))}
        for values in draws
    ]
    names = [name for name in single[0] if all(name in known for known in single)][:MOST_COORDINATES]
    found = [tree.copy() for tree in trees]
    for tree, values, known in zip(found, draws, single, strict=True):
        tree["posterior"] = xr.DataTree(values.assign({name: (("chain", "draw"), known[name]) for name in names}))
    return names, found


def _columns(values: np.ndarray) -> np.ndarray:
    """Predictions (chain, draw, ...) as (number, chain, draw), as many as kinds can have."""
    return np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)[:MOST_COORDINATES]
