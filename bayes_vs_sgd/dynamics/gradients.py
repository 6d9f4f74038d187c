"""How a gradient of the objective is drawn, a choice separate from the update rule.

All are unbiased for a stationary choice of examples. Cov g_B = C/B with replacement, where C is the covariance of one
example's gradient.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from ..errors import InputError
from ..model import Model, Position
from ..posterior import Posterior


class FullBatch(eqx.Module):
    """The gradient on all examples; no noise."""

    name: str = eqx.field(default="full batch", static=True)

    def check(self, model: Model) -> None:
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

    def check(self, model: Model) -> None:
        """Refuse batches that cannot be drawn."""
        model.require_examples(f"batch_size {self.batch_size}")
        if not 1 <= self.batch_size <= model.num_examples:
            raise InputError(
                f"batch_size is {self.batch_size}: it must be between 1 and the {model.num_examples} examples"
            )

    def rows(self, num_examples: int) -> int:
        """Example gradients a step."""
        return self.batch_size

    def draw(self, num_examples: int, key: Array, state: Any) -> tuple[Any, Any]:
        """Independent rows, uniform up to a relative 2^-32 n: one random word each."""
        words = jax.random.bits(key, (self.batch_size,), jnp.uint32)
        return (words % jnp.uint32(num_examples)).astype(int), state


class Shuffled(Minibatch):
    """Epochs in a fresh random order each; the last n mod B examples of an order are left out.

    The order is never stored: it is a keyed permutation of 0 ... n - 1, read where it is needed, so a step costs the same
    for any n. (Feistel's rounds on an a x b grid with ab >= n, walking on where a cell is not an example; Black and
    Rogaway, CT-RSA 2002.)
    """

    name: str = eqx.field(default="shuffled epochs", static=True)

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
    """Mix a word with the key and the number of the round (the finaliser of MurmurHash3); 31 bits."""
    x = (x + key[0]) * jnp.uint32(0x9E3779B1) ^ (key[1] + number * jnp.uint32(0x85EBCA6B))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return (x ^ (x >> 16)) >> 1


Gradient = FullBatch


def make_gradient(batch_size: int | None, sampling: str = "replacement") -> Gradient:
    """Return the gradient for a batch size (None: all examples) and a way of drawing it."""
    if batch_size is None:
        return FullBatch()
    kinds = {"replacement": Minibatch, "shuffled": Shuffled}
    if sampling not in kinds:
        raise InputError(f"sampling is {sampling!r}: it must be one of {', '.join(kinds)}")
    return kinds[sampling](batch_size=batch_size)


def log_density_gradient(target: Posterior, position: Position, rows: Array | None) -> tuple[Position, Position]:
    """Unbiased gradient of the log density, the loss on some rows in the place of L; and the gradient of that loss."""
    loss = objective_gradient(target, position, rows, "loss")
    regularizer = jax.grad(target.log_regularizer)(position)
    return jax.tree.map(lambda r, g: r - target.scale * g, regularizer, loss), loss


def objective_gradient(target: Posterior, position: Position, rows: Array | None, kind: str) -> Position:
    """Gradient of the objective on some rows."""
    return jax.grad(target.objective)(position, rows, kind)
