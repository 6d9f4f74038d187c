"""What an event may be known under: a posterior, the prior on a sublevel set, or the end of training."""

from dataclasses import dataclass

from ..model import Model
from ..posterior import Posterior


@dataclass(frozen=True)
class Sublevel:
    r"""The prior on :math:`\{L \le L^* + \epsilon\}`.

    Parameters
    ----------
    model
        The model.
    excess_loss
        epsilon > 0.
    """

    model: Model
    excess_loss: float


@dataclass(frozen=True)
class Training:
    """Where plain SGD is after so many steps from draws of the prior times a scale.

    Parameters
    ----------
    model
        The model.
    learning_rate, batch_size, num_steps
        Of SGD.
    initial_scale
        Factor of the prior's draws.
    objective
        ``"loss"`` or ``"posterior"``.
    """

    model: Model
    learning_rate: float
    batch_size: int
    num_steps: int
    initial_scale: float
    objective: str


Law = Posterior | Sublevel | Training
"""Each has its ``model``."""
