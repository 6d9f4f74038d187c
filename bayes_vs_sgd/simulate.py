"""The one loop: segments of steps, thinned to draws, over chains at once.

A segment is one compiled call (``segment.py``). The host works between segments: progress, storage, Ctrl-C.
"""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .dynamics.base import Dynamics
from .errors import InputError
from .manifest import describe, digest
from .observables import select
from .posterior import Posterior
from .progress import Progress
from .results import Record
from .segment import buffer_slots, run_segment, to_devices
from .settings import check_seconds
from .start import WIDE, check_start, first_states, places
from .store import Store

FIRST_SEGMENT, FIRST_OF_WIDE = 10, 1
"""Steps of the first segment, which measures the speed; a step of a wide model takes long itself."""
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
    check_seconds(max_seconds)
    if initial_scale is None:
        initial_scale = 0.0 if initial == "optimum" else 1.0
    chosen = select(target.model, observables)
    prepared = dynamics.prepare(target)
    axes = _chain_axes(prepared, target, num_chains)
    start = check_start(target, initial, num_chains)
    settings = {
        "num_warmup": num_warmup,
        "thinning": thinning,
        "num_chains": num_chains,
        "seed": key,
        "initial": initial if isinstance(initial, str) else f"positions {digest(start)}",
        "initial_scale": initial_scale,
        "observables": sorted(chosen),
        "record_positions": record_positions,
    }
    record = Record(dynamics, describe(dynamics, target, settings), None if folder is None else Store(folder))
    if record.store is not None:
        record.store.open(record.manifest)
    keys, positions = places(target, start, num_chains, key, initial_scale)
    step, carry = record.resume(first_states(prepared, target, axes, keys, positions))
    keys, carry = to_devices((keys, carry), num_chains, target.model.num_parameters)
    run = partial(run_segment, prepared, target, keys, chosen, axes, record_positions)
    first = FIRST_OF_WIDE if target.model.num_parameters >= WIDE else FIRST_SEGMENT
    pace = Pace(buffer_slots(target, chosen, record_positions, num_chains), thinning, first)
    schedule = prepared.warmup_schedule(num_warmup)

    total, stopped, started = num_warmup + num_steps, "finished", time.monotonic()
    with Progress(title or type(dynamics).__name__, total, quiet=not progress) as bar:
        try:
            while step < total:
                warm = prepared.adaptive and step < num_warmup
                end = min(num_warmup if step < num_warmup else total, step + pace.length(warm))
                counts = (jnp.asarray(num_warmup), jnp.asarray(thinning), jnp.asarray(step), jnp.asarray(end))
                with pace.timing(end - step):
                    rows = schedule if warm else schedule[:0, :0]
                    moved = run(1 if warm else pace.slots, carry, rows, *counts, warm)
                    carry, buffer, losses = jax.block_until_ready(moved)
                record.keep(step, end, carry, buffer)
                step = end
                bar.update(step, num_chains, np.asarray(losses), np.asarray(carry.lost))
                if max_seconds is not None and step < total and time.monotonic() - started > max_seconds:
                    stopped = "max_seconds"
                    break
        except KeyboardInterrupt:
            stopped = "interrupted"
            warnings.warn(f"interrupted after step {step} of {total}: what is done is kept", stacklevel=2)
    return record.finish(carry, step, stopped, pace.speed)


class Pace:
    """How long the next segment is: about the wanted wall time, whole draws if they fit, no more than the buffer."""

    def __init__(self, slots: int, thinning: int, first: int = FIRST_SEGMENT):
        self.slots, self.thinning, self.first = slots, thinning, first
        self.speed: float | None = None

    @contextmanager
    def timing(self, num_steps: int) -> Iterator[None]:
        """Measure the speed; one slow segment, such as one that compiles, does not make the next ones tiny."""
        before = time.monotonic()
        yield
        speed = num_steps / (time.monotonic() - before)
        self.speed = speed if self.speed is None else max(speed, self.speed / 4)

    def length(self, warming_up: bool) -> int:
        """Steps of the next segment; a warm-up records nothing, so that the buffer does not bound it."""
        steps = self.first if self.speed is None else max(int(self.speed * SEGMENT_SECONDS), 1)
        if warming_up:
            return steps
        steps = min(steps, (self.slots - 1) * self.thinning)
        return steps if steps < self.thinning else steps // self.thinning * self.thinning


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


def _chain_axes(dynamics: Dynamics, target: Posterior, num_chains: int) -> tuple[Any, Any]:
    """In-axes of vmap: hyper-parameters, inverse temperatures and centres with a chain axis are split over the chains."""

    def axis(name, path, leaf):
        if jnp.ndim(leaf) == 0:
            return None
        if leaf.shape != (num_chains,):
            name = jax.tree_util.keystr(path, simple=True, separator=".") or name
            raise InputError(f"{name} has shape {leaf.shape} for {num_chains} chains: give one number, or one a chain")
        return 0

    def chains(tree, names):
        axes = jax.tree.map(lambda _: None, tree)
        for name in names:
            mapped = jax.tree_util.tree_map_with_path(partial(axis, name), getattr(tree, name))
            axes = eqx.tree_at(lambda t, name=name: getattr(t, name), axes, mapped, is_leaf=lambda x: x is None)
        return axes

    of_target = chains(target, ("inverse_temperature",))
    if target.center is not None:
        centers = {
            site: 0 if jnp.ndim(target.center[site]) > len(shape) else None for site, shape in target.model.latents
        }
        of_target = eqx.tree_at(lambda t: t.center, of_target, centers, is_leaf=lambda x: x is None)
    return chains(dynamics, dynamics.batched), of_target
