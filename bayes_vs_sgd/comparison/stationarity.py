r"""Has the law of an ensemble settled? Change and memory of the same seeds over the second half of the run.

The change is that between averages over the eighth of the draws before half time and over the last eighth, so that a longer
run, with more draws, knows it better. A part that relaxes changes between them by no less than from half time to the end.

A small change proves nothing: what has hardly begun to move does not change either. But it is remembered. Let a slow
part of an observable relax by the factor rho over the second half of the run. Then its gap to the limit is
rho / (1 - rho) times the change over that half, and rho is seen in the covariances over the seeds, whatever fast part is
added (a quarter is the instrument of the regression of the end on half time):

.. math:: \rho = \frac{\mathrm{Cov}(x_{t/4}, x_t)}{\mathrm{Cov}(x_{t/4}, x_{t/2})}.

Where nothing of the quarter is left at half time there is no slow part, and the change is what it seems (with 2,000
seeds a part with less than a seventh of the variance may be overlooked). A frozen direction has rho = 1: its law depends
on the start for ever, which is not called stationary.
"""

import numpy as np
import xarray as xr
from scipy import stats

from ..margins import MARGINS, Margins
from ..results import final_positions
from .effects import LEVEL, Effect, Sample, drift, scalar_draws

ENSEMBLE = 100
"""From this number of chains on, a run is an ensemble: its law is that of the last draw across chains."""
CONFINED = 0.5
"""Share of the spread of all runs together below which one run is confined."""
NO_MEMORY = 0.01
"""Level at which memory from a quarter to half time is tested."""


def unsettled(tree: xr.DataTree, names: list[str], margins: Margins = MARGINS) -> list[str] | None:
    """Observables of which 95 % bounds on the change, past or still to come, are not inside the margins.

    None for a run that is no ensemble or has fewer than four draws.
    """
    if not has_path(tree):
        return None
    return [name for name in names if not has_settled(name, surviving(tree, name), margins)]


def confined(tree: xr.DataTree, names: list[str]) -> dict[str, float]:
    """Observables of which one run, over its second half, shows less than half of the spread of all runs, and how much of it.

    Each run then stays in the well that it fell into, or where it froze: what weighs the wells are the starts.
    """
    if not has_path(tree):
        return {}
    late = {name: np.array_split(surviving(tree, name), 2, axis=1)[1] for name in names}
    shares = {k: float(np.sqrt(v.var(axis=1, ddof=1).mean() / v.var())) for k, v in late.items() if np.ptp(v)}
    return {name: share for name, share in shares.items() if share < CONFINED}


def is_ensemble(tree: xr.DataTree) -> bool:
    """Whether the law of a run is that across its chains at the end, not the time average along each."""
    return len(final_positions(tree)[1]) >= ENSEMBLE


def has_path(tree: xr.DataTree) -> bool:
    """Whether a run is an ensemble, lost chains left out, of four draws or more."""
    _, kept = final_positions(tree)
    return bool(kept.sum() >= ENSEMBLE and tree["posterior"].sizes["draw"] >= 4)


def has_settled(name: str, draws: np.ndarray, margins: Margins = MARGINS) -> bool:
    """Whether every change of an observable (seed, draw), past or still to come, lies within its margin."""
    before, after = eighths(draws)
    if not (np.ptp(before) and np.ptp(after)):
        return bool(np.ptp([before, after]) == 0)
    past = quarter_half_end(draws)
    return all(settled(change, *past) for change in drift(name, before, after, margins))


def eighths(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws (seed, draw) of the eighth before half time and of the last; at least one each."""
    num_draws = draws.shape[1]
    width = max(num_draws // 8, 1)
    return draws[:, num_draws // 2 - width : num_draws // 2], draws[:, num_draws - width :]


def hopeless(tree: xr.DataTree, names: list[str], longer: float) -> bool:
    """Whether a run so many times longer would still remember more than half of what this one does of some observable."""
    for name in names:
        x, y, z = centered_ranks(*quarter_half_end(surviving(tree, name)))
        if remembered(x, y) and np.clip(np.mean(x * z) / np.mean(x * y), 0, 1) ** longer > 0.5:
            return True
    return False


def surviving(tree: xr.DataTree, name: str) -> np.ndarray:
    """Draws of an observable of the seeds that are not lost (seed, draw)."""
    _, kept = final_positions(tree)
    return scalar_draws(tree, name)[kept]


def law(tree: xr.DataTree, name: str, chains: np.ndarray | None = None) -> Sample:
    """Draws of a scalar observable: of an ensemble the last one of each chain, else all; of the chains not lost by default."""
    ensemble = is_ensemble(tree)
    draws = surviving(tree, name) if chains is None else scalar_draws(tree, name)[chains]
    return Sample(draws[:, -1:] if ensemble else draws, ensemble)


def quarter_half_end(draws: np.ndarray) -> list[np.ndarray]:
    """Draws (seed, draw) at a quarter, half and the end of the run."""
    num_draws = draws.shape[1]
    return [draws[:, n - 1] for n in (num_draws // 4, num_draws // 2, num_draws)]


def centered_ranks(*samples: np.ndarray) -> list[np.ndarray]:
    """Ranks in all samples together, each sample's centered: heavy tails cannot move them."""
    ranks = stats.rankdata(np.concatenate(samples)).reshape(len(samples), -1)
    return [v - v.mean() for v in ranks]


def settled(change: Effect, quarter: np.ndarray, half: np.ndarray, end: np.ndarray) -> bool:
    """Whether a change from half time to the end, and what is to come of it, lie within the margin.

    What is to come does if rho is below margin / (margin + change): tested as a moment, x_q (x_t - rho x_h), which holds its
    level where memory is weak.
    """
    if not change.inside:
        return False
    x, y, z = centered_ranks(quarter, half, end)
    if not remembered(x, y):
        return True
    rho = change.margin / (change.margin + max(abs(bound) for bound in change.interval))
    return bool(_mean_over_error(x * (z - rho * y)) < -stats.norm.isf(LEVEL))


def remembered(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether centered ranks at one time are still seen in those at a later one."""
    return bool(_mean_over_error(before * after) >= stats.norm.isf(NO_MEMORY))


def _mean_over_error(values: np.ndarray) -> float:
    return float(values.mean() / max(values.std(), np.finfo(float).tiny) * np.sqrt(len(values)))
