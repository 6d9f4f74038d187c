"""Random walks on the parameter space, one file a family."""

from .adaptive_sde import AdamFlow, RMSpropFlow
from .base import Dynamics
from .fibre import LinearNetworkFibre
from .gibbs import LinearNetworkGibbs
from .gradients import Fresh, FullBatch, Gradient, Minibatch, Shuffled
from .grid import Grid
from .mcmc import MALA, NUTS, BlackJAX, from_blackjax
from .microcanonical import MCLMC, AdjustedMCLMC
from .noise import GaussianNoise, IsotropicNoise, LabelNoise, StableNoise
from .optimizers import SGD, Adam, GradientDescent, Optimizer
from .preconditioned import AdamSGLD, RMSpropSGLD
from .sde import MomentumFlow, StochasticGradientFlow
from .sgmcmc import SGLD
from .sublevel import SublevelHMC
from .subordinated import SubordinatedLangevin
from .underdamped import SGHMC, SGNHT
from .white_noise import WhiteNoise

__all__ = [
    "MALA",
    "MCLMC",
    "NUTS",
    "SGD",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "Adam",
    "AdamFlow",
    "AdamSGLD",
    "AdjustedMCLMC",
    "BlackJAX",
    "Dynamics",
    "Fresh",
    "FullBatch",
    "GaussianNoise",
    "Gradient",
    "GradientDescent",
    "Grid",
    "IsotropicNoise",
    "LabelNoise",
    "LinearNetworkFibre",
    "LinearNetworkGibbs",
    "Minibatch",
    "MomentumFlow",
    "Optimizer",
    "RMSpropFlow",
    "RMSpropSGLD",
    "Shuffled",
    "StableNoise",
    "StochasticGradientFlow",
    "SublevelHMC",
    "SubordinatedLangevin",
    "WhiteNoise",
    "from_blackjax",
]
