r"""Three tests of all of a law at once: maximum mean discrepancy, Stein identities, kernel Stein discrepancy.

=======  ==================================================================  =====================================
test     features of an item                                                 blind to
=======  ==================================================================  =====================================
mmd      :math:`k(\phi, \cdot)` of the primary observables                   directions that no observable shows
stein    :math:`\mathrm{div}\,g + g \cdot s` for a panel of fields g         what no field of the panel shows
ksd      :math:`s(x) k(x, \cdot) + \nabla_x k(x, \cdot)`                     weights of modes far apart
=======  ==================================================================  =====================================

:math:`s = \nabla \log r - n \beta \nabla L` is the score of the posterior: the last two need no draws of it. Items are seeds of
the ensemble and, in the first, whole chains of the reference; the bootstrap of the two kernels is that of ``embedding``, that of
the Stein identities in ``hotelling``. Where the temperature was fitted, the direction in which it moves the mean is projected
out, and the hypothesis is that some temperature fits.

Gretton et al. 2012 (MMD); Chwialkowski, Strathmann and Gretton 2016, Liu, Lee and Jordan 2016, Gorham and Mackey 2017 (KSD with
the inverse multiquadric kernel).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from .embedding import Embedding, GlobalTest, mean_test
from .hotelling import mean_vector_test
from .verdict import holm

BANDWIDTHS = (2.0, 1.0, 0.5)
"""Bandwidths of the kernels, in medians of the distance; each half the one before, a Gaussian kernel its fourth power."""
MOST_ITEMS = 2000
"""Most seeds that a kernel sees, and most draws of the reference: work grows with the square."""
CORRELATED = 10
"""Seeds a parameter from which on positions are whitened, not only scaled."""


def mmd(
    sample: NDArray,
    reference: NDArray,
    rng: np.random.Generator,
    energy: NDArray | None = None,
    influence: NDArray | None = None,
) -> GlobalTest:
    """Maximum mean discrepancy between independent items and independent chains of a reference.

    Parameters
    ----------
    sample
        Observables of the items (item, draw, p): one draw each for independent seeds.
    reference
        Observables (chain, draw, p); the chains are independent, their draws need not be.
    rng
        Of the bootstrap.
    energy
        Loss of the reference's draws (chain, draw), where its temperature was fitted: a change of temperature moves the mean
        embedding along Cov(L, k).
    influence
        For the power: changes of the items' weights (q, item), each a law at the margin of one effect.
    """
    reference, energy = _thinned(reference, energy)
    pooled = np.concatenate([sample.reshape(-1, sample.shape[-1]), reference.reshape(-1, sample.shape[-1])])
    scale = np.where(np.ptp(pooled, axis=0) > 0, pooled.std(axis=0), 1)
    points = (pooled - pooled.mean(axis=0)) / scale
    sizes = [x.shape[0] for x in (sample, reference)]
    distances = pdist(points, "sqeuclidean")
    median = max(float(np.median(distances)), np.finfo(float).tiny)
    kernel = np.exp(squareform(distances) / (-(BANDWIDTHS[0] ** 2) * median))
    weights = np.concatenate([np.full(sizes[0], 1 / sizes[0]), np.full(sizes[1], -1 / sizes[1])])
    groups = (slice(0, sizes[0]), slice(sizes[0], sum(sizes)))
    moves = None
    if energy is not None:
        moves = np.concatenate([np.zeros(len(points) - energy.size), (energy - energy.mean()).ravel() / energy.size])
    members = [sample.shape[1]] * sizes[0] + [reference.shape[1]] * sizes[1]
    starts = np.cumsum([0, *members[:-1]])
    embeddings = []
    for _ in BANDWIDTHS:
        rows = _group_means(kernel, starts, members)
        gram = _group_means(rows.T, starts, members)
        direction = None if moves is None else (rows @ moves, float(moves @ kernel @ moves))
        embeddings.append(Embedding(gram, weights, groups, direction))
        np.square(np.square(kernel, out=kernel), out=kernel)
    return mean_test("mmd", embeddings, rng, _padded(influence, len(weights)))


def stein(
    prior: NDArray,
    loss: NDArray,
    scale: float,
    rng: np.random.Generator,
    fitted: bool = False,
    influence: NDArray | None = None,
) -> GlobalTest:
    r"""Hotelling's test of the Stein identities of a panel of fields g; see ``hotelling``.

    The features of a seed are :math:`\mathrm{div}\,g + g\cdot\nabla\log r - n\beta\, g\cdot\nabla L`.

    Parameters
    ----------
    prior, loss
        div g + g . grad log r and g . grad L of each seed and field (s, p).
    scale
        n beta.
    rng, fitted, influence
        As for the others.
    """
    return mean_vector_test("stein", prior - scale * loss, rng, scale * loss if fitted else None, influence)


def ksd(
    positions: NDArray,
    prior: NDArray,
    loss: NDArray,
    scale: float,
    rng: np.random.Generator,
    fitted: bool = False,
    influence: NDArray | None = None,
) -> GlobalTest:
    r"""Kernel Stein discrepancy of independent seeds, with :math:`k = (1 + r^2 / \ell^2)^{-1/2}` in whitened positions.

    The wide kernel sees what a shift or a temperature does, the narrow one the shape of the tails.

    Parameters
    ----------
    positions
        Of the seeds (s, d); whitened by their own covariance (their variances, for few seeds a parameter).
    prior, loss
        grad log r and grad L there (s, d).
    scale, rng, fitted, influence
        As for the others.
    """
    to_white, from_white = _whitening(positions)
    points = (positions - positions.mean(axis=0)) @ to_white
    grad_prior, grad_loss = prior @ from_white.T, loss @ from_white.T
    score = grad_prior - scale * grad_loss
    distances = pdist(points, "sqeuclidean")
    squares, median = squareform(distances), max(float(np.median(distances)), np.finfo(float).tiny)
    of_scores, score_ahead = score @ score.T, _ahead(points, score)
    move = (grad_loss @ grad_loss.T, score @ grad_loss.T, _ahead(points, grad_loss)) if fitted else None
    embeddings = []
    for bandwidth in BANDWIDTHS:
        width = bandwidth**2 * median
        kernel = (1 + squares / width) ** -0.5
        slope = -(kernel**3) / width  # the gradient of k with respect to x is slope (x - y)
        ahead = slope * score_ahead
        trace = -slope * points.shape[1] - 3 * kernel**5 / width**2 * squares
        gram = kernel * of_scores + ahead + ahead.T + trace
        direction = None
        if move is not None:
            of_loss, of_both, loss_ahead = move
            along = scale * (kernel * of_both + slope * loss_ahead).mean(axis=1)
            direction = (along, scale**2 * float((kernel * of_loss).mean()))
        embeddings.append(_ensemble(gram, direction))
    return mean_test("ksd", embeddings, rng, influence)


def _ahead(points: NDArray, gradients: NDArray) -> NDArray:
    """(x - y) . g(y)."""
    return points @ gradients.T - np.sum(points * gradients, axis=1)


def adjusted(tests: Sequence[GlobalTest]) -> list[GlobalTest]:
    """The tests with p-values by Holm."""
    if not tests:
        return []
    return [replace(t, p_holm=float(p)) for t, p in zip(tests, holm([t.p for t in tests]), strict=True)]


def least_changes(influences: Sequence[tuple[NDArray, float]]) -> NDArray:
    """Changes of equal weights (q, s) that move each of some statistics by its margin, the law as little as can be.

    Of all densities that move a statistic with influence values psi by delta, ``1 + delta psi / E[psi^2]`` has the least
    chi-square distance to first order. Statistics without variance are left out.
    """
    return np.array(
        [delta * psi / np.mean(psi**2) / psi.size for psi, delta in influences if np.mean(psi**2) > 0],
    )


def _ensemble(gram: NDArray, direction: tuple[NDArray, float] | None) -> Embedding:
    number = len(gram)
    return Embedding(gram, np.full(number, 1 / number), (slice(0, number),), direction)


def _thinned(reference: NDArray, energy: NDArray | None) -> tuple[NDArray, NDArray | None]:
    step = max(-(-reference.shape[0] * reference.shape[1] // MOST_ITEMS), 1)
    return reference[:, ::step], None if energy is None else energy[:, ::step]


def _group_means(matrix: NDArray, starts: NDArray, members: list[int]) -> NDArray:
    """Means of the rows of each item."""
    return np.add.reduceat(matrix, starts, axis=0) / np.asarray(members)[:, None]


def _padded(influence: NDArray | None, num_items: int) -> NDArray | None:
    if influence is None:
        return None
    return np.pad(influence, ((0, 0), (0, num_items - influence.shape[1])))


def _whitening(positions: NDArray) -> tuple[NDArray, NDArray]:
    """A that makes the positions white (x A), and its inverse (scores change by A^-T)."""
    number, size = positions.shape
    if number < CORRELATED * size:
        spread = positions.std(axis=0)
        spread = np.where(spread > 0, spread, 1)
        return np.diag(1 / spread), np.diag(spread)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(positions.T)))
    root = np.sqrt(np.maximum(values, 1e-12 * max(values[-1], np.finfo(float).tiny)))
    return vectors / root, (vectors * root).T
