"""Does SGD sample the Bayesian posterior? One model, many dynamics, one loop, one comparison."""

from .dynamics import (
    NUTS,
    SGD,
    SGLD,
    Adam,
    Dynamics,
    GradientDescent,
    Grid,
    LinearNetworkGibbs,
    Optimizer,
    from_blackjax,
)
from .errors import InputError
from .load import load_model
from .model import Model, Truth
from .observables import Observable, linear_network, observable
from .posterior import Posterior
from .simulate import simulate

__all__ = [
    "NUTS",
    "SGD",
    "SGLD",
    "Adam",
    "Dynamics",
    "GradientDescent",
    "Grid",
    "InputError",
    "LinearNetworkGibbs",
    "Model",
    "Observable",
    "Optimizer",
    "Posterior",
    "Truth",
    "from_blackjax",
    "linear_network",
    "load_model",
    "observable",
    "simulate",
]
