"""Random walks on the parameter space, one file a family."""

from .base import Dynamics
from .gibbs import LinearNetworkGibbs
from .gradients import FullBatch, Minibatch, Shuffled
from .grid import Grid
from .mcmc import MALA, NUTS, BlackJAX, from_blackjax
from .microcanonical import MCLMC, AdjustedMCLMC
from .optimizers import SGD, Adam, GradientDescent, Optimizer
from .preconditioned import AdamSGLD, RMSpropSGLD
from .sgmcmc import SGLD
from .underdamped import SGHMC, SGNHT

__all__ = [
    "MALA",
    "MCLMC",
    "NUTS",
    "SGD",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "Adam",
    "AdamSGLD",
    "AdjustedMCLMC",
    "BlackJAX",
    "Dynamics",
    "FullBatch",
    "GradientDescent",
    "Grid",
    "LinearNetworkGibbs",
    "Minibatch",
    "Optimizer",
    "RMSpropSGLD",
    "Shuffled",
    "from_blackjax",
]
