"""What a dynamics is: a frozen pytree of hyper-parameters with ``init`` and ``step``, run by one loop."""

from typing import Any, ClassVar, Literal, Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior

Info = dict[str, Array]


class State(Protocol):
    """All the next step needs. It has a position; the rest is the dynamics' own."""

    position: Any


class Dynamics(eqx.Module):
    """A random walk on the parameter space of a model.

    ``init`` makes a state from a position, ``step`` moves it; both see one chain. Hyper-parameters are array
    leaves, scalar or with a chain axis. ``step`` also returns info: short scalars, ``num_gradients`` always (the number
    of example gradients evaluated).
    """

    law: ClassVar[Literal["exact", "approximate", "none"]] = "none"
    """Whether its stationary law is the target, near it for small steps, or its own."""

    batched: ClassVar[tuple[str, ...]] = ()
    """Fields whose leaves may have a chain axis."""

    def prepare(self, target: Posterior) -> "Dynamics":
        """Check that the dynamics suits the target and compute what it needs once. Called before anything compiles."""
        return self

    def init(self, target: Posterior, key: Array, position: Position) -> Any:
        """State at a position."""
        raise NotImplementedError

    def step(self, target: Posterior, key: Array, state: Any) -> tuple[Any, Info]:
        """Move the state by one step."""
        raise NotImplementedError

    adaptive: ClassVar[bool] = False
    """Whether its warm-up differs from its draws."""

    def warmup_schedule(self, num_warmup: int) -> Array:
        """One row for each warm-up step, handed to ``warmup_step``."""
        return jnp.zeros((num_warmup, 0))

    def warmup_step(self, target: Posterior, key: Array, state: Any, stage: Array) -> tuple[Any, Info]:
        """Move by one step of the warm-up, adapting what is adapted."""
        return self.step(target, key, state)

    @property
    def step_time(self) -> Float[Array, "..."]:
        """Physical time of one step: the learning rate of an optimiser, the step size of an SDE, else 1."""
        return jnp.ones(())

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values, for tables and manifests."""
        raise NotImplementedError


def hyperparameter(name: str, value: Any, minimum: float = 0.0, strict: bool = True, below: float = np.inf) -> Array:
    """Return a hyper-parameter as an array leaf; refuse values that cannot be."""
    array = np.asarray(value, float)
    if not np.all((array < below) | ~np.isfinite(array)):
        raise InputError(f"{name} is {value}: it must be at least {minimum:g} and below {below:g}")
    if not np.all(np.isfinite(array) & ((array > minimum) if strict else (array >= minimum))):
        relation = ">" if strict else ">="
        raise InputError(f"{name} is {value}: it must be finite and {relation} {minimum:g}")
    if array.ndim > 1:
        raise InputError(f"{name} has shape {array.shape}: give a number, or one number a chain")
    return jnp.asarray(array, float)


def plain(value: Any) -> Any:
    """Return an array as a number, or as a list of numbers a chain."""
    return np.asarray(value).tolist()
