r"""A pilot run: chains travel from their start to where the law is, with steps as small as the sharpest place on the way asks.

Of a deep network the layers of a typical draw are much larger than those of its optimum, and the loss curves there as much
more sharply: a step size that fits the optimum loses every chain. Each leg is as long as all legs before it together; its step
size comes from the curvature where it starts, and is halved where that turns out too large. The last leg is the one over which
the curvature has grown by less than a tenth.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .curvature import hessian_eigenvalues, prior_curvatures
from .dynamics import Dynamics
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
STEP = " step"
"""Name of the step size beside those of the sites, which no site can have."""
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
    dynamics_of: Callable[[np.ndarray], Dynamics],
    step_of: Callable[[float], float],
    initial: str,
    initial_scale: float,
    num_chains: int,
    key: int,
    seconds: float,
    folder: Path,
) -> tuple[dict[str, Array], float]:
    """Return where chains arrive, as the program's own values, and a step size that fits the sharpest place they saw.

    How far they come depends on the time there is: a run that goes on where it was finds its pilot in the folder.

    Parameters
    ----------
    target
        The law.
    dynamics_of, step_of
        Sampler of the chains' step sizes; step size of a curvature of -log p.
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
    parts, static = eqx.partition((target, dynamics_of(np.ones(num_chains))), eqx.is_array)
    made_by = digest([parts, np.array([key, num_chains]), np.array(initial_scale)])
    name = f"pilot-{type(static[1]).__name__.lower()}-{made_by}-{target.model.program.digest[:8]}.npz"

    def travelled() -> dict[str, Any]:
        _, positions = places(target, check_start(target, initial, num_chains), num_chains, key, initial_scale)
        values, step = _travel(target, dynamics_of, step_of, positions, key, seconds)
        return {STEP: step} | jax.tree.map(np.asarray, values)

    found = remembered(folder / name, travelled)
    step = found.pop(STEP)
    return jax.tree.map(jnp.asarray, found), step


def _travel(
    target: Posterior,
    dynamics_of: Callable[[np.ndarray], Dynamics],
    step_of: Callable[[float], float],
    positions: Position,
    key: int,
    seconds: float,
) -> tuple[dict[str, Array], float]:
    """Leg by leg, from positions on."""
    num_chains = len(next(iter(positions.values())))
    started, length, travelled = time.monotonic(), FIRST_LEG, 0
    alone = steepness(target, 0.0)  # the same in every leg
    sharpest, halvings = steepest(target, positions, alone), 0
    step = step_of(sharpest)
    while True:
        before, values = time.monotonic(), jax.vmap(target.model.constrain)(positions)
        wanted = {"num_chains": num_chains, "num_draws": 1, "observables": OBSERVED, "progress": False}
        sampler = dynamics_of(np.full(num_chains, step))
        tree = simulate(sampler, target, key=key + travelled, num_steps=length, initial=values, **wanted)
        final, kept = final_positions(whole(tree))
        final = jax.tree.map(jnp.asarray, final)
        found = steepest(target, final, alone) if kept.all() else np.inf
        if step > TOO_LONG * step_of(found):
            step, halvings = step / 2, halvings + 1
            if halvings > MOST_HALVINGS:
                raise InputError(f"chains are lost even at step size {step:.2g}: give --step-size, or another sampler")
            continue
        travelled, length, positions = travelled + length, travelled + length, final
        step = min(step, step_of(found))
        settled, sharpest = found < SETTLED * sharpest, max(found, sharpest)
        now = time.monotonic()
        if travelled > FIRST_LEG and (settled or now + 2 * (now - before) > started + seconds):
            return jax.vmap(target.model.constrain)(final), step


def steepest(target: Posterior, positions: Position, alone: float) -> float:
    """Largest curvature of -log p where the chains are, from that of the law without the loss."""
    spectra = jax.vmap(lambda x: hessian_eigenvalues(target.model, x, NUM_LANCZOS, 2 * NUM_LANCZOS))(positions)
    return alone + float(target.scale) * max(float(spectra[:, -1].max()), 0.0)


def steepness(target: Posterior, sharpness: float) -> float:
    """Largest curvature of -log p where that of the loss is ``sharpness``."""
    prior = float(prior_curvatures(target.model)[-1])
    return float(target.scale) * max(sharpness, 0.0) + prior + float(target.localization)
