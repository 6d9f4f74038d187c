"""Is a learning rate beyond stability? Then a mismatch is no finding about Bayes: the linearised dynamics has no law.

The limits (``mean_square.py``) are of the linearised dynamics at the empirical minimum. A run may be held elsewhere by what is
not linear, where the loss curves less, or be lost: what was compared is its law there, and so it is told.
"""

from typing import TYPE_CHECKING

from ..dynamics import Fresh, Minibatch, Optimizer
from ..dynamics.base import Dynamics
from ..mean_square import edge, growth, limit_of
from .spectrum import DEGENERATE

if TYPE_CHECKING:
    from .run import Study


def instability(study: "Study", dynamics: Dynamics) -> str:
    """What limit a learning rate of SGD, with or without momentum, is beyond at the minimum; nothing where it is not.

    The mean-square limit is of batches drawn independently.
    """
    if not isinstance(dynamics, Optimizer) or dynamics.rule != "sgd" or not study.sharpness > 0:
        return ""
    rate, rolls = float(dynamics.step_time), (dynamics.momentum, dynamics.nesterov)
    highest = 2 * edge(*rolls) / study.sharpness
    if rate > highest:
        return f"the learning rate {rate:.3g} is beyond {highest:.3g}, where the linearised dynamics at the minimum diverges"
    gradient = dynamics.gradient
    if not isinstance(gradient, Minibatch) or isinstance(gradient, Fresh):
        return ""
    modes = study.curved_modes
    if modes is None or modes[1][-1] <= DEGENERATE * study.sharpness:
        return ""
    if growth(*modes, gradient.batch_size, rate, *rolls) <= 1:
        return ""
    limit = limit_of(*modes, gradient.batch_size, *rolls)
    if limit is None:
        return ""
    return (
        f"the learning rate {rate:.3g} is beyond {limit:.3g}, the limit of mean-square stability at the minimum, where the "
        "linearised dynamics has no law of finite variance"
    )
