"""Many chains of a sampler in one compiled call: each chain's time average, and the last states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def time_averages(sampler, target, observable, *, key, num_chains, num_steps, num_warmup, scale=1.0):
    """Run chains from the prior, scaled; return the observable's mean along each chain (chain, ...), the states and mean info."""
    keys = jax.random.split(jax.random.key(key), num_chains)
    sampler = sampler.prepare(target)
    schedule = sampler.warmup_schedule(num_warmup)
    (means, info), states = _run(sampler, target, observable, num_steps, schedule, keys, jnp.asarray(scale))
    return np.asarray(means, float), states, info


@eqx.filter_jit
def _run(sampler, target, observable, num_steps, schedule, keys, scale):
    num_warmup = len(schedule)

    def chain(key):
        key_start, key_init, key_steps = jax.random.split(key, 3)
        start = jax.tree.map(lambda x: scale * x, target.model.sample_prior(key_start))
        state = jax.tree.map(jnp.asarray, sampler.init(target, key_init, start))
        state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)

        def warm(state, inputs):
            number, stage = inputs
            return sampler.warmup_step(target, jax.random.fold_in(key_steps, number), state, stage)[0], None

        def draw(carry, number):
            state, total = carry
            state, info = sampler.step(target, jax.random.fold_in(key_steps, number), state)
            weight = jnp.where(number < num_warmup, 0, 1 / num_steps)
            total = jax.tree.map(lambda t, x: t + weight * x, total, (observable(state.position), info))
            return (state, total), None

        numbers = jnp.arange(num_warmup + num_steps)
        if sampler.adaptive:
            state, _ = jax.lax.scan(warm, state, (numbers[:num_warmup], schedule))
            numbers = numbers[num_warmup:]
        seen = jax.eval_shape(lambda s: (observable(s.position), sampler.step(target, key, s)[1]), state)
        (state, total), _ = jax.lax.scan(draw, (state, jax.tree.map(lambda x: jnp.zeros(x.shape), seen)), numbers)
        return total, state

    return jax.vmap(chain)(keys)
