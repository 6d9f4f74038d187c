"""How a gradient of the objective is drawn, a choice separate from the update rule.

All are unbiased for a stationary choice of examples. Cov g_B = C/B with replacement, where C is the covariance of one
example's gradient.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior


class FullBatch(eqx.Module):
    """The gradient on all examples; no noise."""

    name: str = eqx.field(default="full batch", static=True)

    def check(self, num_examples: int) -> None:
        """Nothing can be wrong."""

    def rows(self, num_examples: int) -> int:
        """Example gradients a step."""
        return num_examples

    def init(self, num_examples: int, key: Array) -> Any:
        """No state."""
        return ()

    def draw(self, num_examples: int, key: Array, state: Any) -> tuple[Any, Any]:
        """All rows, as None."""
        return None, state


class Minibatch(FullBatch):
    """Rows drawn with replacement: Cov g_B = C/B."""

    batch_size: int = eqx.field(default=8, static=True)
    name: str = eqx.field(default="with replacement", static=True)

    def check(self, num_examples: int) -> None:
        """Refuse batches that cannot be drawn."""
        if not 1 <= self.batch_size <= num_examples:
            raise InputError(f"batch_size is {self.batch_size}: it must be between 1 and the {num_examples} examples")

    def rows(self, num_examples: int) -> int:
        """Example gradients a step."""
        return self.batch_size

    def draw(self, num_examples: int, key: Array, state: Any) -> tuple[Any, Any]:
        """Independent uniform rows."""
        return jax.random.randint(key, (self.batch_size,), 0, num_examples), state


class Shuffled(Minibatch):
    """Epochs in a fresh uniform order each; the last n mod B examples of an order are left out.

    The order is made as it is used, by Fisher and Yates' exchanges, so that no step pays for a whole epoch.
    """

    name: str = eqx.field(default="shuffled epochs", static=True)

    def init(self, num_examples: int, key: Array) -> tuple[Array, Array]:
        """The order so far, and how many of it are used."""
        return jnp.arange(num_examples), jnp.zeros((), int)

    def draw(self, num_examples: int, key: Array, state: Any) -> tuple[Any, Any]:
        """Return the next B rows of the epoch."""
        order, used = state
        used = jnp.where(used + self.batch_size > num_examples, 0, used)
        slots = used + jnp.arange(self.batch_size)
        partners = jax.random.randint(key, (self.batch_size,), slots, num_examples)
        for slot, partner in zip(slots, partners, strict=True):
            first, second = order[slot], order[partner]
            order = order.at[slot].set(second).at[partner].set(first)
        return jax.lax.dynamic_slice(order, (used,), (self.batch_size,)), (order, used + self.batch_size)


Gradient = FullBatch


def make_gradient(batch_size: int | None, sampling: str = "replacement") -> Gradient:
    """Return the gradient for a batch size (None: all examples) and a way of drawing it."""
    if batch_size is None:
        return FullBatch()
    kinds = {"replacement": Minibatch, "shuffled": Shuffled}
    if sampling not in kinds:
        raise InputError(f"sampling is {sampling!r}: it must be one of {', '.join(kinds)}")
    return kinds[sampling](batch_size=batch_size)


def objective_gradient(target: Posterior, position: Position, rows: Array | None, kind: str) -> Position:
    """Gradient of the objective on some rows."""
    return jax.grad(target.objective)(position, rows, kind)
