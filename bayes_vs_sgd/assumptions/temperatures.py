r"""Has the law one temperature? Stein's identity, layer by layer and along the directions of the Hessian.

Under a tempered posterior every vector field g has the same

.. math:: n \beta_g = \frac{E[\mathrm{div}\, g + g \cdot \nabla \log r]}{E[g \cdot \nabla L]},

r the prior and localisation. Here g is the part of grad L in one layer (a site of the program), or along an eigenvector of the
Hessian at the minimum that is not flat. It needs no reference draws, and holds far from a minimum and on degenerate ones.
"""

import numpy as np
from scipy import stats

from ..comparison.temperature import stein_terms
from ..curvature import DENSE, hessian
from ..margins import MARGINS, Margins
from ..model import Position
from ..posterior import Posterior
from .assumption import CONFIDENCE, Assumption, from_interval
from .local import FLAT

MOST_DIRECTIONS = 8
RESOLVED = 0.5
"""Standard error of a log temperature above which it is none."""
FEWEST_SEEDS, MOST_NUMBERS = 512, 2 * 10**5
"""Seeds at least, and numbers in the positions of those that are looked at: each takes second derivatives."""


def one_temperature(
    target: Posterior, position: Position, ended: Position, margins: Margins = MARGINS
) -> Assumption | None:
    """Range of log temperature over layers and Hessian directions; None where there are fewer than two of these.

    Parameters
    ----------
    target
        Model and prior; its inverse temperature does not matter.
    position
        The minimum.
    ended
        Unconstrained positions with a leading axis of independent seeds.
    margins
        That of ``"log_temperature"`` is of the range.
    """
    count = max(FEWEST_SEEDS, MOST_NUMBERS // target.model.num_parameters)
    axes = directions(target, position)
    terms = stein_terms(target, {k: np.asarray(v[:count]) for k, v in ended.items()}, directions=axes)
    del terms["loss"]
    if len(terms) < 2:
        return None
    above, below = (np.stack([getattr(t, side) for t in terms.values()]) for side in ("loss", "prior"))  # (field, seed)
    means = above.mean(axis=1), below.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(means[0] / means[1])
        influence = above / means[0][:, None] - below / means[1][:, None]
        errors = influence.std(axis=1, ddof=1) / np.sqrt(influence.shape[1])
    known = np.isfinite(logs) & (errors < RESOLVED)
    names = [n for n, k in zip(terms, known, strict=True) if k]
    value, interval = range_of(logs[known], influence[known])
    note = "" if known.all() else f"{np.sum(~known)} of {len(known)} temperatures not resolved"
    if len(names) > 1:
        order = np.argsort(logs[known])
        parts = [f"{np.exp(-logs[known][i]):.4g} ({names[i]})" for i in (order[-1], order[0])]
        note = f"n beta from {parts[0]} to {parts[1]}" + (f"; {note}" if note else "")
    if not known.all():
        interval = interval[0], np.inf
    statistic = "range of log temperature over layers and directions"
    return from_interval("one temperature", statistic, value, interval, 0.0, margins["log_temperature"], note)


def directions(target: Posterior, position: Position) -> np.ndarray:
    """Unit vectors (k, d): eigenvectors of the Hessian that are not flat, evenly from the sharpest on; none of large models."""
    size = target.model.num_parameters
    if size > DENSE:
        return np.zeros((0, size))
    values, vectors = np.linalg.eigh(np.asarray(hessian(target.model, position), float))
    kept = np.flatnonzero(values > FLAT * max(values[-1], 0.0))[::-1]
    chosen = np.unique(np.linspace(0, len(kept) - 1, MOST_DIRECTIONS).round().astype(int)) if len(kept) else []
    return vectors.T[kept[chosen]]


def range_of(logs: np.ndarray, influence: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Largest difference between some numbers and its 95 % interval, from each seed's influence on each number.

    The upper bound is that of the pair whose own is largest, which no choice among pairs can lower; the lower one is for all
    pairs at once (Bonferroni).
    """
    number, seeds = influence.shape
    if number < 2:
        return np.nan, (0.0, np.inf)
    gaps = logs[:, None] - logs
    covariance = np.cov(influence) / seeds
    variances = np.diag(covariance)
    errors = np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance, 0.0))
    level = (1 - CONFIDENCE) / 2
    low = np.max(gaps - stats.norm.isf(level / (number * (number - 1))) * errors)
    high = np.max(gaps + stats.norm.isf(level) * errors)
    return float(gaps.max()), (max(float(low), 0.0), float(high))
