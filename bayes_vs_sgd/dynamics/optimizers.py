"""Optimisers: any Optax transformation on any way of drawing the gradient.

The update rule is Optax's; the state is the position, the optimiser's memory and the place in the epoch. No optimiser
targets a law: whether it samples one is what this library measures.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..errors import InputError
from ..function import Function
from ..model import Position
from ..posterior import OBJECTIVES, Posterior
from .base import Dynamics, Info, hyperparameter, plain
from .gradients import Gradient, make_gradient, regularizer_gradient


class OptimizerState(NamedTuple):
    """Position, Optax's memory, place in the epoch."""

    position: Position
    memory: Any
    epoch: Any


class Optimizer(Dynamics):
    """An Optax transformation run on an objective, for example ``Optimizer(optax.adam, learning_rate=0.01)``.

    Parameters
    ----------
    factory
        Makes the transformation from its hyper-parameters.
    batch_size
        Examples a step; None for all of them.
    sampling
        ``"replacement"``, ``"shuffled"`` (epochs), ``"fresh"`` (new examples), or one of ``noise.py``, such as
        ``GaussianNoise(8)``, in the place of the batch.
    objective
        ``"loss"``: L; ``"posterior"``: L - log prior / (n beta).
    hyperparameters
        Passed to the factory. Floats become array leaves (a change compiles nothing, a chain axis is a grid).
    """

    batched: ClassVar = ("hyperparameters", "gradient")
    factory: Function = eqx.field(static=True)
    gradient: Gradient
    objective: str = eqx.field(static=True)
    hyperparameters: dict[str, Array]
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __init__(
        self,
        factory: Callable[..., optax.GradientTransformation],
        batch_size: int | None = 8,
        sampling: str | Gradient = "replacement",
        objective: str = "loss",
        **hyperparameters: Any,
    ):
        if objective not in OBJECTIVES:
            raise InputError(f"objective is {objective!r}: it must be one of {', '.join(OBJECTIVES)}")
        self.factory = Function(factory)
        self.gradient = make_gradient(batch_size, sampling)
        self.objective = objective
        leaves = {k: v for k, v in hyperparameters.items() if isinstance(v, float | np.ndarray | jax.Array)}
        strict = {"learning_rate"}
        self.hyperparameters = {k: hyperparameter(k, v, strict=k in strict) for k, v in leaves.items()}
        self.options = tuple(sorted((k, v) for k, v in hyperparameters.items() if k not in leaves))

    def prepare(self, target: Posterior) -> "Optimizer":
        """Check the batch size against the data."""
        self.gradient.check(target.model)
        if self.objective == "posterior" and not np.all(np.asarray(target.inverse_temperature) > 0):
            raise InputError("objective 'posterior' needs an inverse temperature > 0: it divides the log prior")
        return self

    def init(self, target: Posterior, key: Array, position: Position) -> OptimizerState:
        """Start with empty memory."""
        epoch = self.gradient.init(target.model.num_examples, key)
        return OptimizerState(position, self._transformation().init(position), epoch)

    def step(self, target: Posterior, key: Array, state: OptimizerState) -> tuple[OptimizerState, Info]:
        """Draw a gradient and apply Optax's update."""
        gradient, epoch = self.gradient.estimate(target, key, state.epoch, state.position)
        if self.objective == "posterior":
            regularizer = regularizer_gradient(target, state.position)
            gradient = jax.tree.map(lambda g, r: g - r / target.scale, gradient, regularizer)
        updates, memory = self._transformation().update(gradient, state.memory, state.position)
        position = cast(Position, optax.apply_updates(state.position, updates))
        info = {"num_gradients": jnp.asarray(self.gradient.cost(target.model))}
        return OptimizerState(position, memory, epoch), info

    def _transformation(self) -> optax.GradientTransformation:
        return self.factory(**self.hyperparameters, **dict(self.options))

    @property
    def step_time(self) -> Array:
        """The learning rate: time = learning rate x steps."""
        return self.hyperparameters.get("learning_rate", jnp.ones(()))

    @property
    def rule(self) -> str:
        """Name of the factory, such as "sgd"."""
        return repr(self.factory)

    @property
    def momentum(self) -> float:
        """Share of the step before that is made again; 0 for none."""
        return float(self.hyperparameters.get("momentum", 0.0))

    @property
    def nesterov(self) -> bool:
        """Whether momentum looks ahead."""
        return bool(dict(self.options).get("nesterov", False))

    @property
    def batch_size(self) -> int | None:
        """Examples a step; None for all."""
        return getattr(self.gradient, "batch_size", None)

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        values = {k: plain(v) for k, v in self.hyperparameters.items()} | dict(self.options)
        return {"rule": self.rule} | self.gradient.settings | values | {"objective": self.objective}


def SGD(learning_rate: Any = 0.05, batch_size: int = 8, momentum: Any = None, **settings: Any) -> Optimizer:
    """Theta' = theta - eta g_B; with momentum m' = mu m + g_B, theta' = theta - eta m'."""
    momentum = {} if momentum is None else {"momentum": np.asarray(momentum, float)}
    return Optimizer(optax.sgd, batch_size, learning_rate=np.asarray(learning_rate, float), **momentum, **settings)


def GradientDescent(learning_rate: Any = 0.05, **settings: Any) -> Optimizer:
    """Theta' = theta - eta grad L."""
    return Optimizer(optax.sgd, None, learning_rate=np.asarray(learning_rate, float), **settings)


def Adam(learning_rate: Any = 0.01, batch_size: int = 8, **settings: Any) -> Optimizer:
    """Optax's Adam (b1 .9, b2 .999, eps 1e-8 unless given)."""
    return Optimizer(optax.adam, batch_size, learning_rate=np.asarray(learning_rate, float), **settings)
