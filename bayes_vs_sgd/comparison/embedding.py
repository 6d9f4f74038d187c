r"""Is a mean of features zero? The wild bootstrap that the kernel tests share.

Independent items (a seed, a whole Markov chain) have features :math:`\xi_i` in a Hilbert space, known by their Gram matrix
:math:`G_{ij} = \langle \xi_i, \xi_j \rangle`, and weights :math:`w_i`. The hypothesis is that the expectation of
:math:`m = \sum_i w_i \xi_i` vanishes. The statistic is :math:`\|m\|^2 = w^\top G w`, its law under the hypothesis that of

.. math:: \|m^*\|^2, \quad m^* = \sum_i w_i \epsilon_i \xi_i, \quad \epsilon_i = \pm 1,

signs centered within each group of items and scaled by g / (g - 1), g the size of the group: the jackknife's scale, which keeps
the level where chains are few (sqrt(g / (g - 1)) gives the right variance, and 16 chains let 6 % through for 5). One sign an
item: draws that depend on each other share theirs (Chwialkowski, Sejdinovic and Gretton 2014, arXiv 1408.5404, for one long
chain; here chains are many and short).

*A fitted temperature* moves the mean along one direction, known by its products with the features. It is projected out of the
features before anything else: the hypothesis is then that *some* temperature fits.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..diagnostics import finite_or_none
from .effects import LEVEL

NUM_BOOTSTRAP = 999


@dataclass(frozen=True)
class GlobalTest:
    """A test of all of a law at once: statistic, p-value, that by Holm over all tests of the comparison, and its power.

    ``power_at_margin`` is the probability of a rejection at 5 % when one primary effect lies at its margin and the rest of the
    law is as little changed as can be, averaged over the primary effects.
    """

    name: str
    statistic: float
    p: float
    p_holm: float
    power_at_margin: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self))


@dataclass(frozen=True)
class Embedding:
    """Features of items by their Gram matrix, their weights, and the groups of items that are alike.

    Parameters
    ----------
    gram
        Products of the features (m, m).
    weights
        Weight of each item in the mean (m,).
    groups
        Slices of the items; each of two items or more.
    direction
        Products of the features with a direction that is to be projected out (m,), and its squared norm.
    """

    gram: np.ndarray
    weights: np.ndarray
    groups: tuple[slice, ...]
    direction: tuple[np.ndarray, float] | None = None

    @property
    def projected(self) -> np.ndarray:
        """Gram matrix after the projection."""
        if self.direction is None or not self.direction[1] > 0:
            return self.gram
        along, norm = self.direction
        return self.gram - np.outer(along, along / norm)


def mean_test(
    name: str, embeddings: Sequence[Embedding], rng: np.random.Generator, tilts: np.ndarray | None = None
) -> GlobalTest:
    """Test whether a mean embedding vanishes, under several kernels at once.

    Parameters
    ----------
    name
        Of the test.
    embeddings
        One a kernel, of the same items; their statistics, standardised by the bootstrap, are combined by their maximum.
    rng
        Of the signs.
    tilts
        Changes of the weights (q, m) that make q alternatives, for the power.

    Returns
    -------
    GlobalTest
        ``p_holm`` is not yet adjusted.
    """
    weights, groups = embeddings[0].weights, embeddings[0].groups
    signs = weights * _signs(rng, len(weights), groups)
    found, null, shifted = [], [], []
    for embedding in embeddings:
        gram = embedding.projected
        images = signs @ gram
        statistics = np.einsum("bi,bi->b", images, signs)
        center, spread = statistics.mean(), max(statistics.std(), np.finfo(float).tiny)
        found.append((weights @ gram @ weights - center) / spread)
        null.append((statistics - center) / spread)
        if tilts is not None:
            moved = statistics + 2 * tilts @ images.T + np.einsum("qi,qi->q", tilts @ gram, tilts)[:, None]
            shifted.append((moved - center) / spread)
    statistic, largest = float(np.max(found)), np.max(null, axis=0)
    p = (1 + np.sum(largest >= statistic)) / (1 + len(largest))
    power = None
    if tilts is not None:
        power = float(np.mean(np.max(shifted, axis=0) > np.quantile(largest, 1 - LEVEL)))
    return GlobalTest(name, statistic, float(p), float(p), power)


def _signs(rng: np.random.Generator, num_items: int, groups: tuple[slice, ...]) -> np.ndarray:
    """Random signs (b, m), centered in each group and scaled by g / (g - 1)."""
    signs = rng.choice([-1.0, 1.0], size=(NUM_BOOTSTRAP, num_items))
    for group in groups:
        part = signs[:, group]
        size = part.shape[1]
        signs[:, group] = (part - part.mean(axis=1, keepdims=True)) * size / (size - 1)
    return signs
