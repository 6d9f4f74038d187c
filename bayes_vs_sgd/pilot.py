r"""A pilot run: chains travel from their start to where the law is, with steps as small as the sharpest place on the way asks.

They travel with momentum and a thermostat (``SGNHT``), which is quickest, whatever sampler goes on from there. Of a deep
network the layers of a typical draw are much larger than those of its optimum, and the loss curves there as much more sharply: a
step size that fits the optimum loses every chain. Each leg is as long as all legs before it together; its step size comes from
the curvature where it starts, and is halved where that turns out too large. The last leg is the one over which the curvature has
grown by less than a tenth.
"""

import math
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from .curvature import hessian_eigenvalues, prior_curvatures
from .dynamics import SGNHT
from .errors import InputError
from .manifest import digest
from .model import Position
from .posterior import Posterior
from .results import final_positions, whole
from .simulate import simulate
from .start import check_start, places
from .store import remembered

OBSERVED = ["loss", "squared_norm"]
"""What a measurement records; the same here, so that one compiled program does both."""
CURVATURE = " curvature"
"""Name of the curvature beside those of the sites, which no site can have."""
UNDERDAMPED = 0.5
"""Squared step size at a curvature of 1; unstable at 4."""
FIRST_LEG = 200
"""Steps of the first leg."""
SETTLED = 1.1
"""Growth of the curvature over a leg under which the law is taken to be reached."""
TOO_LONG = 2.0
"""A leg is tried again with half the step size where that was so many times too large for the place it led to."""
MOST_HALVINGS = 30
"""Times that a step size is halved before the run is given up."""
NUM_LANCZOS = 20
"""Products with the Hessian that the largest eigenvalue takes; with fewer than twice as many parameters all are computed."""


def arrive(
    target: Posterior,
    batch_size: int | None,
    initial: str,
    initial_scale: float,
    num_chains: int,
    key: int,
    seconds: float,
    folder: Path,
) -> tuple[dict[str, Array], float]:
    """Return where chains arrive, as the program's own values, and the curvature of -log p whose step size served.

    How far they come depends on the time there is: a run that goes on where it was finds its pilot in the folder.

    Parameters
    ----------
    target
        The law.
    batch_size
        Examples a step; None for all.
    initial, initial_scale, num_chains, key
        As of ``simulate``.
    seconds
        Wall time after which no further leg is begun; two are run at least.
    folder
        Where the answer is kept.

    Raises
    ------
    InputError
        If chains are lost however small the steps.
    """
    arrays = eqx.filter(target, eqx.is_array)
    made_by = digest([arrays, np.array([key, num_chains, batch_size or 0]), np.array(initial_scale)])
    name = f"pilot-{made_by}-{target.model.program.digest[:8]}.npz"

    def travelled() -> dict[str, Any]:
        _, positions = places(target, check_start(target, initial, num_chains), num_chains, key, initial_scale)
        values, curvature = _travel(target, batch_size, positions, key, seconds)
        return {CURVATURE: curvature} | jax.tree.map(np.asarray, values)

    found = remembered(folder / name, travelled)
    curvature = found.pop(CURVATURE)
    return jax.tree.map(jnp.asarray, found), curvature


def underdamped_step(curvature: float) -> float:
    """Largest step size of samplers with momentum where -log p has this curvature."""
    return math.sqrt(UNDERDAMPED / curvature)


def _travel(
    target: Posterior, batch_size: int | None, positions: Position, key: int, seconds: float
) -> tuple[dict[str, Array], float]:
    """Leg by leg, from positions on."""
    num_chains = len(next(iter(positions.values())))
    started, length, travelled = time.monotonic(), FIRST_LEG, 0
    alone = steepness(target, 0.0)  # the same in every leg
    sharpest, halvings = steepest(target, positions, alone), 0
    step = underdamped_step(sharpest)
    while True:
        before, values = time.monotonic(), jax.vmap(target.model.constrain)(positions)
        wanted = {"num_chains": num_chains, "num_draws": 1, "observables": OBSERVED, "progress": False}
        sampler = SGNHT(np.full(num_chains, step), batch_size=batch_size)
        tree = simulate(sampler, target, key=key + travelled, num_steps=length, initial=values, **wanted)
        final, kept = final_positions(whole(tree))
        found = steepest(target, final, alone) if kept.all() else np.inf
        if step > TOO_LONG * underdamped_step(found):
            step, halvings = step / 2, halvings + 1
            if halvings > MOST_HALVINGS:
                raise InputError(f"chains are lost even at step size {step:.2g}: give --step-size, or another sampler")
            continue
        travelled, length, positions = travelled + length, travelled + length, jax.tree.map(jnp.asarray, final)
        step = min(step, underdamped_step(found))
        settled, sharpest = found < SETTLED * sharpest, max(found, sharpest)
        now = time.monotonic()
        if travelled > FIRST_LEG and (settled or now + 2 * (now - before) > started + seconds):
            return jax.vmap(target.model.constrain)(positions), UNDERDAMPED / step**2


def steepest(target: Posterior, positions: Any, alone: float) -> float:
    """Largest curvature of -log p where the chains are, from that of the law without the loss."""
    spectra = jax.vmap(lambda x: hessian_eigenvalues(target.model, x, NUM_LANCZOS, 2 * NUM_LANCZOS))(positions)
    return alone + float(target.scale) * max(float(spectra[:, -1].max()), 0.0)


def steepest_reached(tree: xr.DataTree, target: Posterior) -> float:
    """Largest curvature of -log p where the chains of a run that are not lost have come to."""
    final, kept = final_positions(whole(tree))
    return steepest(target, {name: v[kept] for name, v in final.items()}, steepness(target, 0.0))


def steepness(target: Posterior, sharpness: float) -> float:
    """Largest curvature of -log p where that of the loss is ``sharpness``."""
    prior = float(prior_curvatures(target.model)[-1])
    return float(target.scale) * max(sharpness, 0.0) + prior + float(target.localization)
