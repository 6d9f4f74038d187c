"""One compiled call that moves every chain from a step to another and records draws on the way.

A draw is recorded whenever a multiple of the thinning is reached. The numbers of steps are traced, so that a shorter segment
compiles nothing; the key of a step is fold_in(fold_in(seed, chain), step), so that a run is the same bits however it is cut.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .layout import chain_axis
from .posterior import Posterior

BUFFER_DRAWS, BUFFER_BYTES = 1024, 2**26
"""Most draws a segment holds, and most memory for them."""
NUMBERS_PER_DEVICE = 512
"""Chains times parameters: fewer than that are not worth another device."""
CHAIN = jax.sharding.PartitionSpec("chain")


class Carry(eqx.Module):
    """States of the chains, the info gathered since the last draw, and the first step at which each was seen lost."""

    states: Any
    info: dict[str, Array]
    lost: Array


@eqx.filter_jit
def run_segment(
    dynamics, target, keys, observables, axes, positions, slots, carry, schedule, num_warmup, thinning, begin, end, warm
):
    """Move all chains from a step to another, the chain axis split over the devices; the module says how.

    ``slots`` (of the buffer of draws) and ``warm`` are static, the counts are traced. Returns the carry, the buffer
    (slot, chain, ...) and the loss of each chain.
    """
    last = chain_axis(keys.shape[0], target.model.num_parameters)

    def one_step(dynamics, target, key, carry, step):
        key = jax.random.fold_in(key, step)
        if warm:
            state, info = dynamics.warmup_step(target, key, carry.states, schedule[step])
        else:
            state, info = dynamics.step(target, key, carry.states)
        gathered = jax.tree.map(lambda total, x: total + x.astype(total.dtype), carry.info, info)
        return Carry(state, gathered, carry.lost)

    def record(target, carry, step, since):
        values = target.model.constrain(carry.states.position)
        drawn = {name: item(target.model, values) for name, item in observables.items()}
        drawn |= {f"value:{name}": v for name, v in values.items()} if positions else {}
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(carry.states.position)]))
        lost = jnp.where((carry.lost < 0) & ~finite, step, carry.lost)
        sums = {"num_gradients"}
        stats = {f"stat:{k}": total if k in sums else total / since for k, total in carry.info.items()}
        return drawn | stats, lost

    def segment(dynamics, target, keys, carry):
        step_all = jax.vmap(one_step, in_axes=(*axes, 0, last, None), out_axes=last)
        record_all = jax.vmap(record, in_axes=(axes[1], last, None, None))
        carry = jax.tree.map(lambda x: jnp.moveaxis(x, 0, last), carry)
        draws = jax.eval_shape(record_all, target, carry, begin, 1.0)[0]
        buffer = jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), draws)

        def one_draw(index, loop):
            carry, buffer, step = loop
            until = end if warm else jnp.minimum(((step - num_warmup) // thinning + 1) * thinning + num_warmup, end)
            carry = jax.lax.fori_loop(step, until, lambda s, c: step_all(dynamics, target, keys, c, s), carry)
            drawn, lost = record_all(target, carry, until, jnp.asarray(thinning, float))
            buffer = jax.tree.map(lambda b, d: b.at[index].set(d), buffer, drawn)
            whole = (until - num_warmup) % thinning == 0
            lost = jnp.where(whole & (not warm), lost, carry.lost)
            info = jax.tree.map(lambda x: jnp.where(whole | warm, jnp.zeros_like(x), x), carry.info)
            return Carry(carry.states, info, lost), buffer, until

        count = 1 if warm else (end - num_warmup - 1) // thinning - (begin - num_warmup) // thinning + 1
        carry, buffer, _ = jax.lax.fori_loop(0, count, one_draw, (carry, buffer, jnp.asarray(begin)))
        losses = jax.vmap(lambda t, c: t.model.loss(c.states.position), in_axes=(axes[1], last))(target, carry)
        return jax.tree.map(lambda x: jnp.moveaxis(x, last, 0), carry), buffer, losses

    mesh = chain_devices(keys.shape[0], target.model.num_parameters)
    return _on_devices(segment, axes, mesh)(dynamics, target, keys, carry)


def chain_devices(num_chains: int, num_parameters: int) -> jax.sharding.Mesh | None:
    """Return as many devices as divide the chains, if more than one is worth it."""
    most = min(jax.device_count(), num_chains, num_chains * num_parameters // NUMBERS_PER_DEVICE)
    devices = next((n for n in range(most, 0, -1) if num_chains % n == 0), 1)
    return None if devices == 1 else jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("chain",))


def to_devices(tree: Any, num_chains: int, num_parameters: int) -> Any:
    """Put arrays with a leading chain axis where a segment leaves them, so that the second one finds what the first found."""
    mesh = chain_devices(num_chains, num_parameters)
    return tree if mesh is None else jax.device_put(tree, jax.sharding.NamedSharding(mesh, CHAIN))


def _on_devices(segment: Callable, axes: tuple[Any, Any], mesh: jax.sharding.Mesh | None) -> Callable:
    """Split a segment's chains over the devices; chains never talk to each other."""
    if mesh is None:
        return segment
    whole = jax.sharding.PartitionSpec()
    specs = jax.tree.map(lambda axis: whole if axis is None else CHAIN, axes, is_leaf=lambda x: x is None)

    def run(dynamics, target, keys, carry):
        arrays, static = eqx.partition((dynamics, target), eqx.is_array)

        def on_device(arrays, keys, carry):
            return segment(*eqx.combine(arrays, static), keys, carry)

        buffer = jax.sharding.PartitionSpec(None, "chain")
        shapes = {"in_specs": (specs, CHAIN, CHAIN), "out_specs": (CHAIN, buffer, CHAIN)}
        return jax.shard_map(on_device, mesh=mesh, check_vma=False, **shapes)(arrays, keys, carry)

    return run


def buffer_slots(target: Posterior, observables: Any, positions: bool, num_chains: int) -> int:
    """Draws that fit into a segment's buffer."""
    model = target.model
    zeros = {name: jax.ShapeDtypeStruct(shape, target.localization.dtype) for name, shape in model.latents}
    drawn = jax.eval_shape(lambda p: {k: v(model, model.constrain(p)) for k, v in observables.items()}, zeros)
    size = sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(drawn))
    size += 8 * (8 + model.num_parameters * positions)
    return int(np.clip(BUFFER_BYTES // (size * num_chains), 2, BUFFER_DRAWS))
