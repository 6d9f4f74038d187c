"""Where chains start: prior draws, the optimum, or positions that are given."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .errors import InputError
from .model import Position
from .posterior import Posterior
from .segment import Carry

START = 2**31 - 1
"""Folded into a chain's key for its start; no step has this number."""
BLOCK, WIDE = 64, 10_000
"""Chains whose starts are drawn in one call; those of so many parameters one by one."""


def check_start(target: Posterior, initial: str | Mapping[str, Any], num_chains: int) -> str | Position:
    """Refuse what chains cannot start from; positions become unconstrained ones."""
    if isinstance(initial, Mapping):
        values = {k: jnp.asarray(v, float) for k, v in initial.items()}
        if set(values) != {name for name, _ in target.model.latents}:
            raise InputError(
                f"initial positions name {sorted(values)}, the program {[n for n, _ in target.model.latents]}"
            )
        for name, shape in value_shapes(target).items():
            if values[name].shape != (num_chains, *shape):
                raise InputError(
                    f"initial positions of {name!r} have shape {values[name].shape}, not (chains, ...) = "
                    f"{(num_chains, *shape)}"
                )
        return jax.vmap(target.model.unconstrain)(values)
    if initial not in ("prior", "optimum"):
        raise InputError(f"initial is {initial!r}: it must be 'prior', 'optimum' or positions")
    if initial == "optimum" and target.center is None:
        raise InputError("initial='optimum' but the model names no optimum: start from the prior, or give positions")
    return initial


def value_shapes(target: Posterior) -> dict[str, tuple[int, ...]]:
    """Shapes of the program's own values."""
    model = target.model
    zeros = {name: jax.ShapeDtypeStruct(shape, target.localization.dtype) for name, shape in model.latents}
    return {name: value.shape for name, value in jax.eval_shape(model.constrain, zeros).items()}


def places(
    target: Posterior, start: str | Position, num_chains: int, seed: int, scale: float
) -> tuple[Array, Position]:
    """Keys of the chains and where they start; in blocks, so that one compilation serves any number of chains."""
    words, blocks = [], []
    size = BLOCK if target.model.num_parameters < WIDE else 1
    kind = start if isinstance(start, str) else "given"
    for first in range(0, num_chains, size):
        block = _block(target, kind, size, jnp.asarray([seed, first]), jnp.asarray(scale, float))
        word, positions = jax.tree.map(np.asarray, block)
        words.append(word)
        blocks.append(positions)
    keys = jax.random.wrap_key_data(jnp.asarray(np.concatenate(words)[:num_chains]))
    if not isinstance(start, str):
        return keys, start
    return keys, jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:num_chains]), *blocks)


@eqx.filter_jit
def _block(target, start, size, seed_and_first, scale):
    """Key data and positions of so many chains from the first on."""
    seed, first = seed_and_first

    def place(key):
        key = jax.random.fold_in(key, START)
        if start == "prior":
            return jax.tree.map(lambda x: scale * x, target.model.sample_prior(key))
        if start == "optimum":
            noise = target.unflat(scale * jax.random.normal(key, (target.model.num_parameters,)))
            return jax.tree.map(jnp.add, target.center, noise)
        return {}

    keys = jax.vmap(lambda chain: jax.random.fold_in(jax.random.key(seed), chain))(first + jnp.arange(size))
    return jax.random.key_data(keys), jax.vmap(place)(keys)


@eqx.filter_jit
def first_states(dynamics, target, axes, keys, positions):
    """First states of the chains, of types that a step keeps."""

    def one(dynamics, target, key, position):
        state = dynamics.init(target, jax.random.fold_in(key, START - 1), position)
        _, info = jax.eval_shape(dynamics.step, target, key, state)
        return Carry(state, jax.tree.map(lambda x: jnp.zeros(x.shape, float), info), jnp.asarray(-1))

    carry = jax.vmap(one, in_axes=(*axes, 0, 0))(dynamics, target, keys, positions)
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), carry)
