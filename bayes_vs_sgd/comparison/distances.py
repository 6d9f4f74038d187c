r"""How far apart are two laws? Wasserstein's distance by observable, and a lower bound of the total variation by a classifier.

They explain a verdict and have no part in it: a distance of samples is never 0, and a classifier sees what it is able to see.

.. math:: W_1 = \int_0^1 |F^{-1}(u) - G^{-1}(u)|\, du \Big/ \mathrm{sd}(G), \qquad
   \mathrm{TV} \ge P_{\text{run}}(A) - P_{\text{reference}}(A)

for any set A. Here A is where normal laws fitted to half of the seeds and half of the chains are denser for the run; the other
half is counted, and the halves then change places (a classifier two-sample test that splits by chain).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..diagnostics import finite_or_none, mean_error
from ..margins import MARGINS, Margins, place
from .effects import LEVEL, Sample

BLOCKS = 20
"""Blocks of seeds that are left out one at a time, for the standard error."""


@dataclass(frozen=True)
class Distance:
    """A distance, its standard error, its lower 95 % bound, and the margin that its 90 % interval is held against.

    What is itself ``a_bound`` from below is never inside.
    """

    name: str
    value: float
    standard_error: float
    margin: float
    a_bound: bool = False

    @property
    def lower_bound(self) -> float:
        """What the distance is at least; 0 where nothing is seen."""
        return max(self.value - float(stats.norm.ppf(1 - LEVEL)) * self.standard_error, 0.0)

    @property
    def place(self) -> str:
        """Whether the distance is inside its margin, outside it, or neither is shown."""
        half = float(stats.norm.ppf(1 - LEVEL)) * self.standard_error
        return place(self.value - half, np.inf if self.a_bound else self.value + half, self.margin)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self) | {"lower_bound": self.lower_bound, "place": self.place})


def wasserstein(name: str, sample: Sample, reference: Sample, margins: Margins = MARGINS) -> Distance:
    """W1 in sd of the reference; its error by leaving out blocks of seeds and whole chains."""
    unit = max(float(reference.values.std()), np.finfo(float).tiny)
    everything = sample.values.ravel(), reference.values.ravel()

    def distance(ours: NDArray, theirs: NDArray) -> float:
        return float(stats.wasserstein_distance(ours, theirs)) / unit

    def variance(left: list[float]) -> float:
        return (len(left) - 1) * float(np.var(left))

    ours = [distance(values, everything[1]) for values in _without_blocks(sample)]
    theirs = [distance(everything[0], values) for values in _without_blocks(reference)]
    error = float(np.sqrt(variance(ours) + variance(theirs)))
    return Distance(name, distance(*everything), error, margins["wasserstein"])


def total_variation(sample: NDArray, reference: NDArray, independent: bool, margins: Margins = MARGINS) -> Distance:
    """Lower bound of the total variation between observables (item, draw, p) and (chain, draw, p)."""
    shares, variances = [], []
    for part in (0, 1):
        learned = [_normal(x[part::2]) for x in (sample, reference)]
        counted = [(_denser(x[1 - part :: 2], *learned), own) for x, own in ((sample, independent), (reference, False))]
        shares.append(counted[0][0].mean() - counted[1][0].mean())
        variances.append(sum(mean_error(inside, own) ** 2 for inside, own in counted))
    error = float(np.sqrt(np.sum(variances))) / 2
    return Distance("total variation", float(np.mean(shares)), error, margins["total_variation"], a_bound=True)


def _without_blocks(sample: Sample) -> list[NDArray]:
    """Draws without one chain, or without one block of independent chains, for each."""
    count = min(len(sample.values), BLOCKS) if sample.independent else len(sample.values)
    blocks = [part.ravel() for part in np.array_split(sample.values, count)]
    return [np.concatenate(blocks[:i] + blocks[i + 1 :]) for i in range(count)]


def _normal(draws: NDArray) -> tuple[NDArray, NDArray, float]:
    """Mean, inverse root of the covariance, and half its log determinant."""
    rows = draws.reshape(-1, draws.shape[-1])
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows.T)))
    root = np.sqrt(np.maximum(values, 1e-12 * max(values[-1], np.finfo(float).tiny)))
    return rows.mean(axis=0), vectors / root, float(np.log(root).sum())


def _denser(draws: NDArray, ours: tuple, theirs: tuple) -> NDArray:
    """Where the first normal law is the denser one (item, draw)."""

    def log_density(law: tuple) -> NDArray:
        mean, root, log_scale = law
        return -np.sum(((draws - mean) @ root) ** 2, axis=-1) / 2 - log_scale

    return (log_density(ours) > log_density(theirs)).astype(float)
