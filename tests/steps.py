"""One step of a dynamics, and how far two positions are apart."""

import equinox as eqx
import jax
import jax.numpy as jnp


def one_step(dynamics, target, position, key=0):
    """Position after one compiled step of a fresh state."""
    dynamics = dynamics.prepare(target)

    @eqx.filter_jit
    def run(dynamics, target, position, key):
        return dynamics.step(target, key, dynamics.init(target, key, position))[0].position

    return run(dynamics, target, position, jax.random.key(key))


def largest_difference(first, second):
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))
