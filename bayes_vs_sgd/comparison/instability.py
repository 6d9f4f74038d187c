"""Is a learning rate beyond stability? Then a mismatch is no finding about Bayes: the linearised dynamics has no law.

The limits (``mean_square.py``) are of the linearised dynamics at the empirical minimum. A run may be held elsewhere by what is
not linear, where the loss curves less, or be lost: what was compared is its law there, and so it is told.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dynamics import GaussianNoise, Minibatch, Shuffled
from ..mean_square import edge, growth, limit_of
from .landscape import DEGENERATE, Landscape

OF_BATCHES = (Minibatch.name, Shuffled.name, GaussianNoise.name)
"""Ways of drawing the gradient that are held against the mean-square limit, which is of batches drawn independently."""


def instability(made: Mapping[str, Any], landscape: Landscape) -> str:
    """What limit a learning rate of SGD, with or without momentum, is beyond at the minimum; nothing where it is not.

    ``made`` is the dynamics as a run's manifest has it; nothing is said of one with a list of settings, one a chain.
    """
    numbers: tuple[Any, ...] = (
        made.get("learning_rate"),
        made.get("momentum") or 0.0,
        made.get("batch_size") or np.inf,
    )
    known = all(isinstance(number, float | int) for number in numbers)
    if made.get("rule") != "sgd" or not known or not landscape.sharpness > 0:
        return ""
    rate, momentum, size = map(float, numbers)
    rolls = (momentum, made.get("nesterov") or False)
    highest = 2 * edge(*rolls) / landscape.sharpness
    if rate > highest:
        return f"the learning rate {rate:.3g} is beyond {highest:.3g}, where the linearised dynamics at the minimum diverges"
    if made.get("sampling") not in OF_BATCHES:
        return ""
    modes = landscape.curved_modes
    if modes is None or modes[1][-1] <= DEGENERATE * landscape.sharpness:
        return ""
    if growth(*modes, size, rate, *rolls) <= 1:
        return ""
    limit = limit_of(*modes, size, *rolls)
    if limit is None:
        return ""
    return (
        f"the learning rate {rate:.3g} is beyond {limit:.3g}, the limit of mean-square stability at the minimum, where the "
        "linearised dynamics has no law of finite variance"
    )
