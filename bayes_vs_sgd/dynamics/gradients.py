"""How a gradient of the loss is drawn, a choice separate from the update rule.

All are unbiased for a stationary choice of examples. Cov g_B = C/B with replacement, where C is the covariance of one
example's gradient. Those that are the full batch with noise added stand in ``noise.py``.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from ..errors import InputError
from ..model import Model, Position
from ..posterior import Posterior
from .words import mixed


class Gradient(eqx.Module):
    """An estimate of the gradient of L, one for each step of each chain."""

    name: ClassVar[str]

    def check(self, model: Model) -> None:
        """Refuse models and settings of which it cannot be drawn."""

    def cost(self, model: Model) -> float:
        """Example gradients that one estimate takes."""
        return float(model.num_examples)

    def init(self, num_examples: int, key: Array) -> Any:
        """What is kept between steps, such as the place in an epoch."""
        return ()

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Draw the gradient at a position; also return what is kept."""
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, Any]:
        """How it is drawn, as plain values."""
        return {"batch_size": getattr(self, "batch_size", None), "sampling": self.name}


class FullBatch(Gradient):
    """The gradient on all examples (on the model's compressed data where it has them); no noise."""

    name: ClassVar = "full batch"

    def cost(self, model: Model) -> float:
        """Rows that are read: those that stand for all examples where there are such."""
        return float(model.num_rows)

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient of L."""
        return jax.grad(target.model.loss)(position), state


class Minibatch(Gradient):
    """Rows drawn with replacement: Cov g_B = C/B."""

    name: ClassVar = "with replacement"
    batch_size: int = eqx.field(default=8, static=True)

    def check(self, model: Model) -> None:
        """Refuse batches that cannot be drawn."""
        model.require_examples(f"batch_size {self.batch_size}")
        if not 1 <= self.batch_size <= model.num_examples:
            raise InputError(
                f"batch_size is {self.batch_size}: it must be between 1 and the {model.num_examples} examples"
            )

    def cost(self, model: Model) -> float:
        """The batch."""
        return float(self.batch_size)

    def draw(self, num_examples: int, key: Array, state: Any) -> tuple[Any, Any]:
        """Independent rows, uniform up to a relative 2^-32 n: one random word each."""
        words = jax.random.bits(key, (self.batch_size,), jnp.uint32)
        return (words % jnp.uint32(num_examples)).astype(int), state

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient of the mean loss of the rows drawn."""
        rows, state = self.draw(target.model.num_examples, key, state)
        return jax.grad(lambda p: jnp.mean(target.model.example_losses(p, rows)))(position), state


class Fresh(Minibatch):
    """Examples that nobody has seen, drawn at each step by the model's own ``fresh``: online learning.

    The mean gradient is that of the population loss, not of L on the model's data.
    """

    name: ClassVar = "fresh examples"

    def check(self, model: Model) -> None:
        """Refuse models that draw none."""
        if model.fresh is None:
            raise InputError("sampling 'fresh' needs a model that draws examples: give Model(fresh=function)")
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}: it must be at least 1")

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient of the mean loss of new examples."""
        assert target.model.fresh is not None  # checked
        examples = target.model.fresh(key, self.batch_size)
        return jax.grad(lambda p: jnp.mean(target.model.losses_on(p, examples)))(position), state


class Shuffled(Minibatch):
    """Epochs in a fresh random order each; the last n mod B examples of an order are left out.

    The order is never stored: it is a keyed permutation of 0 ... n - 1, read where it is needed, so a step costs the same
    for any n. (Feistel's rounds on an a x b grid with ab >= n, walking on where a cell is not an example; Black and
    Rogaway, CT-RSA 2002.)
    """

    name: ClassVar = "shuffled epochs"

    def init(self, num_examples: int, key: Array) -> tuple[Array, Array]:
        """Key of the epoch's order, and how many of it are used: all, so that the first step begins an epoch."""
        return jnp.zeros(2, jnp.uint32), jnp.asarray(num_examples)

    def draw(self, num_examples: int, key: Array, state: Any) -> tuple[Any, Any]:
        """Return the next B rows of the epoch."""
        order, used = state
        over = used + self.batch_size > num_examples
        order = jnp.where(over, jax.random.bits(key, (2,), jnp.uint32), order)
        used = jnp.where(over, 0, used)
        return permuted(used + jnp.arange(self.batch_size), num_examples, order), (order, used + self.batch_size)


ROUNDS = 12


def permuted(index: Int[Array, " b"], size: int, key: UInt32[Array, " 2"]) -> Int[Array, " b"]:
    """Images of indices under the permutation of 0 ... size - 1 that a key names."""
    columns = 2 * math.ceil(math.sqrt(size) / 2)
    rows = math.ceil(size / columns)

    def rounds(x):
        def one_round(i, pair):
            column, row = pair
            i = i.astype(jnp.uint32)
            column = (column + _hash(row, key, 2 * i)) % columns
            return column, (row + _hash(column, key, 2 * i + 1)) % rows

        column, row = jax.lax.fori_loop(0, ROUNDS // 2, one_round, (x % columns, x // columns))
        return row * columns + column

    def walk(x):
        return jnp.where(x < size, x, rounds(x))

    start = rounds(index.astype(jnp.uint32))
    return jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, start).astype(int)


def _hash(x: Array, key: Array, number: Array) -> Array:
    """Mix a word with the key and the number of the round; 31 bits."""
    return mixed((x + key[0]) * jnp.uint32(0x9E3779B1) ^ (key[1] + number * jnp.uint32(0x85EBCA6B))) >> 1


def make_gradient(batch_size: int | None, sampling: str | Gradient = "replacement") -> Gradient:
    """Return the gradient for a batch size (None: all examples) and a way of drawing it, or the one that is given."""
    if isinstance(sampling, Gradient):
        return sampling
    if batch_size is None:
        return FullBatch()
    kinds = {"replacement": Minibatch, "shuffled": Shuffled, "fresh": Fresh}
    if sampling not in kinds:
        raise InputError(f"sampling is {sampling!r}: it must be one of {', '.join(kinds)}, or a gradient")
    return kinds[sampling](batch_size=batch_size)


def regularizer_gradient(target: Posterior, position: Position) -> Position:
    """Gradient of the log prior and localisation."""
    return jax.grad(target.log_regularizer)(position)
