"""The one loop: segments of steps, thinned to draws, over chains at once.

A segment is one call of a compiled function that moves every chain from one step to another and records a draw whenever
a multiple of ``thinning`` is reached. The host works between segments: progress, storage, Ctrl-C. The key of a step is
fold_in(fold_in(seed, chain), step), so a run is the same bits however it is cut.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from .dynamics.base import Dynamics
from .errors import InputError
from .layout import chain_axis
from .model import Position
from .observables import select
from .posterior import Posterior
from .progress import Progress
from .results import Draws, assemble, describe, tree_of
from .results import _digest as digest
from .store import Store

BUFFER_DRAWS, BUFFER_BYTES = 1024, 2**26
"""Most draws a segment holds, and most memory for them."""
CHAINS_PER_DEVICE = 32
"""Fewer chains than that are not worth another device."""
START = 2**31 - 1
"""Folded into a chain's key for its start; no step has this number."""
BLOCK = 64
"""Chains whose starts are drawn in one call."""
FIRST_SEGMENT = 10
"""Steps of the first segment, which measures the speed."""
SEGMENT_SECONDS = 2.0
"""Wanted wall time of a segment: a compiled call does not hear Ctrl-C."""


def simulate(
    dynamics: Dynamics,
    target: Posterior,
    *,
    key: int,
    num_chains: int = 4,
    num_draws: int | None = None,
    num_steps: int | None = None,
    num_warmup: int = 0,
    initial: str | Mapping[str, Any] = "prior",
    initial_scale: float | None = None,
    observables: list[str] | None = None,
    record_positions: bool = False,
    folder: str | Path | None = None,
    max_seconds: float | None = None,
    progress: bool = True,
    title: str | None = None,
) -> xr.DataTree:
    """Run independent chains of a dynamics on a target.

    Parameters
    ----------
    dynamics, target
        What moves, and on what.
    key
        Seed of the simulation.
    num_chains
        Independent chains (the seeds of an ensemble).
    num_draws, num_steps
        Draws recorded and steps after the warm-up; a draw every num_steps / num_draws steps. With one of them alone: a
        draw a step, or 100 draws.
    num_warmup
        Steps before the first draw, in which adaptive dynamics tune themselves. Not recorded.
    initial
        ``"prior"``, ``"optimum"``, or positions (the program's own values) with a leading chain axis.
    initial_scale
        Prior draws are multiplied by it (1 by default); at the optimum it is the scale of added normal noise (0).
    observables
        Names of what is recorded; all that the model has by default.
    record_positions
        Also record the program's own values at each draw.
    folder
        Where the run is kept. An interrupted one there is continued; a finished one is extended or returned.
    max_seconds
        Stop after the segment that passes it.

    Returns
    -------
    DataTree
        Groups ``posterior`` (chain, draw), ``sample_stats`` and ``final_position``; attribute ``stopped`` says
        ``finished``, ``max_seconds`` or ``interrupted``.

    Raises
    ------
    InputError
        If settings, target and dynamics do not fit, or the folder holds another run.
    """
    num_draws, num_steps, thinning = _schedule(num_draws, num_steps)
    if num_chains < 1:
        raise InputError(f"num_chains is {num_chains}: it must be at least 1")
    if initial_scale is None:
        initial_scale = 0.0 if initial == "optimum" else 1.0
    chosen = select(target.model, observables)
    prepared = dynamics.prepare(target)
    axes = _chain_axes(prepared, target, num_chains)
    total = num_warmup + num_steps
    schedule = prepared.warmup_schedule(num_warmup)
    counts = (jnp.asarray(num_warmup), jnp.asarray(thinning))

    store, draws, step = None, [], 0
    start = _check_start(target, initial, num_chains)
    keys, positions = _places(target, start, num_chains, key, initial_scale)
    carry = _start(prepared, target, axes, keys, positions)
    run = partial(_segment, prepared, target, keys, chosen, axes, record_positions)
    settings = {"num_warmup": num_warmup, "thinning": thinning, "num_chains": num_chains, "seed": key}
    settings |= {
        "initial": initial if isinstance(initial, str) else f"positions {digest(start)}",
        "initial_scale": initial_scale,
    }
    settings |= {"observables": sorted(chosen), "record_positions": record_positions}
    manifest = describe(dynamics, target, settings)
    if folder is not None:
        store = Store(folder)
        store.open(manifest)
        if found := store.state(num_warmup, thinning):
            step, leaves = found
            carry = jax.tree.unflatten(jax.tree.structure(carry), [jnp.asarray(x) for x in leaves])
    slots = _slots(target, chosen, record_positions, num_chains)

    stopped, started = "finished", time.monotonic()
    speed = None
    title = title or type(dynamics).__name__
    with Progress(title, total, quiet=not progress) as bar:
        try:
            while step < total:
                phase_end = num_warmup if step < num_warmup else total
                end = min(phase_end, step + _length(speed, slots, thinning, prepared.adaptive and step < num_warmup))
                before = time.monotonic()
                warm = prepared.adaptive and step < num_warmup
                rows = schedule if warm else schedule[:0, :0]
                span = (jnp.asarray(step), jnp.asarray(end))
                carry, buffer, losses = run(slots if not warm else 1, carry, rows, *counts, *span, warm)
                carry = jax.block_until_ready(carry)
                seconds = time.monotonic() - before
                speed = (end - step) / seconds if speed is None else max((end - step) / seconds, speed / 4)
                first, last = max(step - num_warmup, 0) // thinning, max(end - num_warmup, 0) // thinning
                segment = Draws.cut(buffer, first, last) if last > first else None
                step = end
                if store:
                    tree = tree_of([segment], dynamics, target, manifest, thinning) if segment else None
                    store.save(step, [np.asarray(x) for x in jax.tree.leaves(carry)], first, last, tree)
                elif segment:
                    draws.append(segment)
                bar.update(step, num_chains, np.asarray(losses), np.asarray(carry.lost))
                if max_seconds is not None and step < total and time.monotonic() - started > max_seconds:
                    stopped = "max_seconds"
                    break
        except KeyboardInterrupt:
            stopped = "interrupted"
            warnings.warn(f"interrupted after step {step} of {total}: what is done is kept", stacklevel=2)
    return assemble(store, draws, dynamics, target, manifest, thinning, carry, step, stopped)


class _Carry(eqx.Module):
    """States of the chains, the info gathered since the last draw, and the first step at which each was seen lost."""

    states: Any
    info: dict[str, Array]
    lost: Array


def _schedule(num_draws: int | None, num_steps: int | None) -> tuple[int, int, int]:
    if num_draws is None:
        if num_steps is None:
            raise InputError("give num_draws or num_steps")
        num_draws = min(100, num_steps)
    num_steps = num_draws if num_steps is None else num_steps
    if num_draws < 1 or num_steps < num_draws:
        raise InputError(f"num_draws is {num_draws} and num_steps {num_steps}: both must be >= 1, draws at most steps")
    thinning = num_steps // num_draws
    return num_draws, num_draws * thinning, thinning


def _length(speed: float | None, slots: int, thinning: int, warming_up: bool) -> int:
    """Steps of the next segment: about the wanted wall time, whole draws if they fit, no more than the buffer."""
    steps = FIRST_SEGMENT if speed is None else max(int(speed * SEGMENT_SECONDS), 1)
    if warming_up:
        return steps
    steps = min(steps, (slots - 1) * thinning)
    return steps if steps < thinning else steps // thinning * thinning


def _check_start(target: Posterior, initial: str | Mapping[str, Any], num_chains: int) -> str | Position:
    """Refuse what chains cannot start from; positions become unconstrained ones."""
    if isinstance(initial, Mapping):
        values = {k: jnp.asarray(v, float) for k, v in initial.items()}
        if set(values) != {name for name, _ in target.model.latents}:
            raise InputError(
                f"initial positions name {sorted(values)}, the program {[n for n, _ in target.model.latents]}"
            )
        if any(v.shape[:1] != (num_chains,) for v in values.values()):
            raise InputError(f"initial positions have {jax.tree.leaves(values)[0].shape[:1]} chains, not {num_chains}")
        return jax.vmap(target.model.unconstrain)(values)
    if initial not in ("prior", "optimum"):
        raise InputError(f"initial is {initial!r}: it must be 'prior', 'optimum' or positions")
    if initial == "optimum" and target.center is None:
        raise InputError("initial='optimum' but the model names no optimum: start from the prior, or give positions")
    return initial


def _chain_axes(dynamics: Dynamics, target: Posterior, num_chains: int) -> tuple[Any, Any]:
    """In-axes of vmap: hyper-parameters and inverse temperatures with a chain axis are split over the chains."""

    def axis(name):
        def of_leaf(leaf):
            if jnp.ndim(leaf) == 0:
                return None
            if leaf.shape != (num_chains,):
                raise InputError(
                    f"{name} has shape {leaf.shape} for {num_chains} chains: give one number, or one a chain"
                )
            return 0

        return of_leaf

    def chains(tree, names):
        axes = jax.tree.map(lambda _: None, tree)
        for name in names:
            mapped = jax.tree.map(axis(name), getattr(tree, name))
            axes = eqx.tree_at(lambda t, name=name: getattr(t, name), axes, mapped, is_leaf=lambda x: x is None)
        return axes

    return chains(dynamics, dynamics.batched), chains(target, ("inverse_temperature",))


def _places(
    target: Posterior, start: str | Position, num_chains: int, seed: int, scale: float
) -> tuple[Array, Position]:
    """Keys of the chains and where they start; in blocks, so that one compilation serves any number of chains."""
    words, blocks = [], []
    for first in range(0, num_chains, BLOCK):
        block = _block(
            target, start if isinstance(start, str) else "given", jnp.asarray([seed, first]), jnp.asarray(scale, float)
        )
        word, positions = jax.tree.map(np.asarray, block)
        words.append(word)
        blocks.append(positions)
    keys = jax.random.wrap_key_data(jnp.asarray(np.concatenate(words)[:num_chains]))
    if not isinstance(start, str):
        return keys, start
    return keys, jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:num_chains]), *blocks)


@eqx.filter_jit
def _block(target, start, seed_and_first, scale):
    """Key data and positions of BLOCK chains from the first on."""
    seed, first = seed_and_first

    def place(key):
        key = jax.random.fold_in(key, START)
        if start == "prior":
            return jax.tree.map(lambda x: scale * x, target.model.sample_prior(key))
        if start == "optimum":
            noise = target.unflat(scale * jax.random.normal(key, (target.model.num_parameters,)))
            return jax.tree.map(jnp.add, target.center, noise)
        return {}

    keys = jax.vmap(lambda chain: jax.random.fold_in(jax.random.key(seed), chain))(first + jnp.arange(BLOCK))
    return jax.random.key_data(keys), jax.vmap(place)(keys)


@eqx.filter_jit
def _start(dynamics, target, axes, keys, positions):
    """First states of the chains, of types that a step keeps."""

    def one(dynamics, target, key, position):
        state = dynamics.init(target, jax.random.fold_in(key, START - 1), position)
        _, info = jax.eval_shape(dynamics.step, target, key, state)
        return _Carry(state, jax.tree.map(lambda x: jnp.zeros(x.shape, float), info), jnp.asarray(-1))

    carry = jax.vmap(one, in_axes=(*axes, 0, 0))(dynamics, target, keys, positions)
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), carry)


@eqx.filter_jit
def _segment(
    dynamics, target, keys, observables, axes, positions, slots, carry, schedule, num_warmup, thinning, begin, end, warm
):
    """Move all chains from a step to another, the chain axis split over the devices; see the module.

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
        return _Carry(state, gathered, carry.lost)

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
            return _Carry(carry.states, info, lost), buffer, until

        count = 1 if warm else (end - num_warmup - 1) // thinning - (begin - num_warmup) // thinning + 1
        carry, buffer, _ = jax.lax.fori_loop(0, count, one_draw, (carry, buffer, jnp.asarray(begin)))
        losses = jax.vmap(lambda t, c: t.model.loss(c.states.position), in_axes=(axes[1], last))(target, carry)
        return jax.tree.map(lambda x: jnp.moveaxis(x, last, 0), carry), buffer, losses

    return _split_chains(segment, axes, keys.shape[0])(dynamics, target, keys, carry)


def _split_chains(segment: Callable, axes: tuple[Any, Any], num_chains: int) -> Callable:
    """Run a segment on as many devices as divide the chains; chains never talk to each other."""
    most = min(jax.device_count(), num_chains // CHAINS_PER_DEVICE)
    devices = next((n for n in range(most, 0, -1) if num_chains % n == 0), 1)
    if devices == 1:
        return segment
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("chain",))
    split, whole = jax.sharding.PartitionSpec("chain"), jax.sharding.PartitionSpec()
    specs = jax.tree.map(lambda axis: whole if axis is None else split, axes, is_leaf=lambda x: x is None)

    def run(dynamics, target, keys, carry):
        arrays, static = eqx.partition((dynamics, target), eqx.is_array)

        def on_device(arrays, keys, carry):
            return segment(*eqx.combine(arrays, static), keys, carry)

        buffer = jax.sharding.PartitionSpec(None, "chain")
        shapes = {"in_specs": (specs, split, split), "out_specs": (split, buffer, split)}
        return jax.shard_map(on_device, mesh=mesh, check_vma=False, **shapes)(arrays, keys, carry)

    return run


def _slots(target: Posterior, observables: Any, positions: bool, num_chains: int) -> int:
    """Draws that fit into a segment's buffer."""
    model = target.model
    zeros = {name: jax.ShapeDtypeStruct(shape, target.localization.dtype) for name, shape in model.latents}
    drawn = jax.eval_shape(lambda p: {k: v(model, model.constrain(p)) for k, v in observables.items()}, zeros)
    size = sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(drawn))
    size += 8 * (8 + model.num_parameters * positions)
    return int(np.clip(BUFFER_BYTES // (size * num_chains), 2, BUFFER_DRAWS))
