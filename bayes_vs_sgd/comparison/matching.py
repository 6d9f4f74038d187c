r"""At what temperature has the posterior the mean loss of a law? Along a ladder of tempered posteriors.

The mean loss falls with n beta, :math:`dE[L]/d(n\beta) = -\mathrm{Var}\,L`, so that there is one such temperature at most. Draws
at one n beta are weighted to another by :math:`e^{-\delta L}`, as far as the weights leave a tenth of them; where that is not far
enough the next rung is where E[L] - L* would be right if it went as 1 / (n beta), as it does near a minimum.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from .effects import Sample

LEAST_SHARE = 0.1
"""Effective share of the reference's draws below which they cannot stand for another temperature."""
MOST_RUNGS, LONGEST_RUNG = 6, 8.0
"""Posteriors that are drawn from, and the largest ratio of the n beta of two that follow each other."""


def matched_along(
    loss: Sample,
    posterior_losses: Callable[[float], Sample | None],
    scale: float,
    least_loss: float,
) -> tuple[float | None, float | None]:
    """Return the n beta at which the posterior's mean loss is that of a law, and its standard error.

    Parameters
    ----------
    loss
        Of the law.
    posterior_losses
        Losses of draws of the posterior at n beta; None to go no further.
    scale
        The n beta of the first rung.
    least_loss
        L*.

    Returns
    -------
    tuple
        None twice where no posterior has that loss, as far as the ladder went.
    """
    wanted = float(loss.values.mean()) - least_loss
    for _ in range(MOST_RUNGS):
        drawn = posterior_losses(scale)
        if drawn is None:
            break
        found, error = matched_scale(loss, drawn, scale)
        if found is not None or not wanted > 0:
            return found, error
        ratio = (float(drawn.values.mean()) - least_loss) / wanted
        scale = float(f"{scale * np.clip(ratio, 1 / LONGEST_RUNG, LONGEST_RUNG):.4g}")
    return None, None


def matched_scale(loss: Sample, reference: Sample, scale: float) -> tuple[float | None, float | None]:
    """Return the n beta at which the mean loss is that of a law, by draws at one, and its standard error; None out of reach."""
    values = reference.values.ravel() - reference.values.mean()
    gap = float(loss.values.mean() - reference.values.mean())

    def weighted(delta: float) -> tuple[float, float, float]:
        weights = np.exp(-delta * (values - (values.min() if delta > 0 else values.max())))
        weights /= weights.sum()
        mean = float(weights @ values)
        return mean - gap, float(weights @ (values - mean) ** 2), 1 / float(len(values) * weights @ weights)

    near, step = 0.0, -np.sign(gap) * 0.05 * scale
    if gap == 0 or not np.ptp(values):
        return (scale, None) if gap == 0 else (None, None)
    while np.sign(weighted(near + step)[0]) != np.sign(gap):
        near += step
        if weighted(near)[2] < LEAST_SHARE or scale + near + step <= 0:
            return None, None
    delta: Any = brentq(lambda d: weighted(d)[0], near, near + step)
    error = np.hypot(loss.mean_and_error()[1], reference.mean_and_error()[1])
    return scale + delta, float(error / weighted(delta)[1])
