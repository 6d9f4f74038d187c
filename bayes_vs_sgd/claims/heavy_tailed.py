"""Many chains of recursions with heavy tails, for claims on where they end and when they leave."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..stable import symmetric_stable


@partial(jax.jit, static_argnums=(2, 3))
def regression_sizes(key: Array, rate: Array, batch: int, dimension: int) -> Array:
    """Norms of chains (draw, chain) with fresh inputs and labels that are noise; by 100 steps Hill's estimate has settled."""
    num_chains, burn, num_draws, thinning = 100_000, 100, 16, 8

    def step(number: Array, theta: Array) -> Array:
        key_x, key_y = jax.random.split(jax.random.fold_in(key, number))
        x = jax.random.normal(key_x, (batch, dimension, num_chains))
        residual = jnp.sum(x * theta, axis=1) - jax.random.normal(key_y, (batch, num_chains))
        return theta - rate * jnp.mean(x * residual[:, None], axis=0)

    def draw(theta: Array, number: Array) -> tuple[Array, Array]:
        first = burn + number * thinning
        theta = jax.lax.fori_loop(first, first + thinning, step, theta)
        return theta, jnp.linalg.norm(theta, axis=0)

    theta = jax.lax.fori_loop(0, burn, step, jnp.zeros((dimension, num_chains)))
    return jax.lax.scan(draw, theta, jnp.arange(num_draws))[1]


@jax.jit
def euler_ends(key: Array, alpha: Array, rate: Array, step: Array, num_steps: int) -> Array:
    """Positions of many chains after so many steps from 0, a row for each setting."""
    alpha, rate, step = (jnp.asarray(x, float)[:, None] for x in (alpha, rate, step))

    def move(number: Array, x: Array) -> Array:
        noise = 2**0.5 * symmetric_stable(jax.random.fold_in(key, number), alpha, x.shape)
        return x - step * rate * x + step ** (1 / alpha) * noise

    return jax.lax.fori_loop(0, num_steps, move, jnp.zeros((len(alpha), 100_000)))


@jax.jit
def exit_counts(
    key: Array, alpha: Array, noise: Array, width: Array, rate: Array, step: Array, num_steps: int
) -> Array:
    """Exits of each chain in the well rate x^2 / 2, a row for each setting."""
    alpha, noise, width, rate, step = (jnp.asarray(x, float)[:, None] for x in (alpha, noise, width, rate, step))

    def move(number: Array, loop: tuple[Array, Array]) -> tuple[Array, Array]:
        x, exits = loop
        jump = 2**0.5 * step ** (1 / alpha) * symmetric_stable(jax.random.fold_in(key, number), alpha, x.shape)
        x = x - step * rate * x + noise * jump
        left = jnp.abs(x) >= width
        return jnp.where(left, 0, x), exits + left

    return jax.lax.fori_loop(0, num_steps, move, (jnp.zeros((len(alpha), 500)),) * 2)[1]
