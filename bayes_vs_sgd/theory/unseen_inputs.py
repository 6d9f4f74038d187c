r"""How likely a linear network of one output responds to an input u orthogonal to all of its data, under laws made of the prior.

On a sublevel set of the loss and after training, where the posterior is not what is asked about. One layer: the weights at u are
neither bound nor trained, and f(u) is N(0, tau^2 |u|^2) before and after. Two layers :math:`f = v' W x`: the weights W u stay as
they are, and :math:`\|v\|` follows from the data; it is known if these have one direction e, by ``sublevel_exceedance`` and
``flow_exceedance`` of ``theory/rare_events.py``. Neither knows an input of which the data say anything: the answer is None.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .rare_events import flow_exceedance, product_exceedance, sublevel_exceedance

ROUNDING = 1e-6
"""Relative size of what is zero."""
SMALL_STEP, LONG = 0.1, 20.0
"""Largest learning rate times curvature, at the start or in the end, and least number of decay times, for gradient flow's law."""


class Seen(NamedTuple):
    """Of the data: singular values that are not zero, norm of the map that fits best, residual; and whether u is off them."""

    singular: np.ndarray
    norm: float
    residual: float
    unseen: bool


def sublevel_response(
    threshold: float,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    hidden: int | None,
    noise: float,
    prior_scale: float,
    direction: Float[np.ndarray, " d"],
    excess: float,
) -> float | None:
    r"""P(|f(u)| > c) under the prior on :math:`\{n L \le n L^* + n \epsilon\}`, that is :math:`|f(e) - s| \le \delta` for one e.

    .. math:: \delta = \sigma \sqrt{2 n \epsilon} / \|X e\|

    Parameters
    ----------
    threshold
        c > 0.
    x, y
        Data, or rows that have the same loss up to a constant.
    hidden
        Width; None for one layer.
    noise, prior_scale
        sigma > 0 and tau > 0.
    direction
        u.
    excess
        n epsilon > 0.
    """
    seen, c = _seen(x, y, direction), threshold / float(np.linalg.norm(direction))
    if not seen.unseen:
        return None
    if hidden is None:
        return product_exceedance(c, 1, prior_scale)
    if len(seen.singular) != 1:
        return None
    return sublevel_exceedance(c, noise * np.sqrt(2 * excess) / seen.singular[0], hidden, seen.norm, prior_scale)


def trained_response(
    threshold: float,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    hidden: int | None,
    noise: float,
    initial_scale: float,
    direction: Float[np.ndarray, " d"],
    learning_rate: float,
    num_steps: int,
) -> float | None:
    r"""P(|f(u)| > c) after gradient descent of the mean loss from N(0, s_0^2) weights, by batches of any size.

    Of one layer at any learning rate. Of two, whose data must be fitted without residual, in the limit of gradient flow: None
    unless steps are small, :math:`\eta h (s + k s_0^2) \le 0.1` with the curvature h of one layer and the width k, and the data
    fitted, :math:`2 \eta h s \cdot` steps :math:`\ge 20`. With full batches P is then lower by at most 4 % where it is .01, 7 %
    where it is 1e-4 (measured for s = 1, s_0 from .1 to 3 and widths up to 32).
    """
    seen, c = _seen(x, y, direction), threshold / float(np.linalg.norm(direction))
    if not seen.unseen:
        return None
    if hidden is None:
        return product_exceedance(c, 1, initial_scale)
    if len(seen.singular) != 1 or seen.residual > ROUNDING:
        return None
    step = learning_rate * seen.singular[0] ** 2 / (len(x) * noise**2)
    if step * (seen.norm + hidden * initial_scale**2) > SMALL_STEP or 2 * step * seen.norm * num_steps < LONG:
        return None
    return flow_exceedance(c, hidden, seen.norm, initial_scale)


def _seen(x: np.ndarray, y: np.ndarray, direction: np.ndarray) -> Seen:
    x, y, u = (np.asarray(array, float) for array in (x, np.ravel(y), direction))
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    some = singular > ROUNDING * singular.max(initial=0.0)
    left, singular, right = left[:, some], singular[some], right[some]
    fitted = (left.T @ y) / singular
    residual = np.linalg.norm(y - left @ (singular * fitted)) / max(float(np.linalg.norm(y)), ROUNDING)
    unseen = np.linalg.norm(right @ u) <= ROUNDING * np.linalg.norm(u)
    return Seen(singular, float(np.linalg.norm(fitted)), float(residual), bool(unseen))
