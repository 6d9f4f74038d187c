"""Random walks on the parameter space, one file a family."""

from .base import Dynamics
from .gibbs import LinearNetworkGibbs
from .gradients import FullBatch, Minibatch, Shuffled
from .grid import Grid
from .mcmc import NUTS, BlackJAX, from_blackjax
from .optimizers import SGD, Adam, GradientDescent, Optimizer
from .sgmcmc import SGLD

__all__ = [
    "NUTS",
    "SGD",
    "SGLD",
    "Adam",
    "BlackJAX",
    "Dynamics",
    "FullBatch",
    "GradientDescent",
    "Grid",
    "LinearNetworkGibbs",
    "Minibatch",
    "Optimizer",
    "Shuffled",
    "from_blackjax",
]
