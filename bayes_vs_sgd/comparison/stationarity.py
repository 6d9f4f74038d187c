r"""Has the law of an ensemble settled? Change and memory of the same seeds at a quarter, half and the end of the run.

A small change proves nothing: what has hardly begun to move does not change either. But it is remembered. Let a slow
part of an observable relax by the factor rho over the second half of the run. Then its gap to the limit is
rho / (1 - rho) times the change over that half, and rho is seen in the covariances over the seeds, whatever fast part is
added (a quarter is the instrument of the regression of the end on half time):

.. math:: \rho = \frac{\mathrm{Cov}(x_{t/4}, x_t)}{\mathrm{Cov}(x_{t/4}, x_{t/2})}.

Where nothing of the quarter is left at half time there is no slow part, and the change is what it seems (with 2,000
seeds a part with less than a seventh of the variance may be overlooked). A frozen direction has rho = 1: its law depends
on the start for ever, which is not called stationary.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import stats

from .effects import LEVEL, Effect, drift, scalar_draws

ENSEMBLE = 100
"""From this number of chains on, a run is an ensemble: its law is that of the last draw across chains."""
NO_MEMORY = 0.01
"""Level at which memory from a quarter to half time is tested."""


def unsettled(tree: xr.DataTree, names: list[str]) -> list[str] | None:
    """Observables of which 95 % bounds on the change, past or still to come, are not inside the margins.

    None for a run that is no ensemble or has fewer than four draws.
    """
    num_draws = tree["posterior"].sizes["draw"]
    kept = tree["final_position"].to_dataset()["lost_at_step"].values < 0
    if kept.sum() < ENSEMBLE or num_draws < 4:
        return None
    times = times_of(tree, kept)
    return [n for n in names if not all(settled(c, *times(n)) for c in drift(n, *times(n)[1:]))]


def hopeless(tree: xr.DataTree, names: list[str], longer: float) -> bool:
    """Whether a run so many times longer would still remember more than half of what this one does of some observable."""
    kept = tree["final_position"].to_dataset()["lost_at_step"].values < 0
    times = times_of(tree, kept)
    for name in names:
        x, y, z = centered_ranks(*times(name))
        if _mean_over_error(x * y) > stats.norm.isf(NO_MEMORY):
            rho = np.clip(np.mean(x * z) / np.mean(x * y), 0, 1)
            if rho**longer > 0.5:
                return True
    return False


def times_of(tree: xr.DataTree, kept: np.ndarray) -> Callable[[str], list[np.ndarray]]:
    """Return a function that gives an observable at a quarter, half and the end."""
    num_draws = tree["posterior"].sizes["draw"]
    return lambda name: [scalar_draws(tree, name)[kept, n - 1] for n in (num_draws // 4, num_draws // 2, num_draws)]


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
    if _mean_over_error(x * y) < stats.norm.isf(NO_MEMORY):
        return True
    rho = change.margin / (change.margin + max(abs(bound) for bound in change.interval))
    return bool(_mean_over_error(x * (z - rho * y)) < -stats.norm.isf(LEVEL))


def _mean_over_error(values: np.ndarray) -> float:
    return float(values.mean() / max(values.std(), np.finfo(float).tiny) * np.sqrt(len(values)))
