"""The law of SGD at the end of training: independent runs from the initialisation, with the property at their ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..comparison.gates import LOST_LIMIT
from ..comparison.run import Study
from ..posterior import Posterior
from ..results import final_positions, whole
from ..settings import Compare, Robustness
from ..simulate import simulate
from .draws import Draws
from .splitting import Runs

SHARED = ("learning_rate", "batch_size", "num_steps", "num_seeds", "initial_scale", "objective")
"""Settings that ``compare`` has too."""


def train(
    target: Posterior, name: str, chosen: Robustness, key: int, folder: Path | None, say: Callable[[str], None]
) -> Draws:
    """Runs of plain SGD, each one draw; learning rate and initial scale as ``compare`` chooses them."""
    return ends(*ensemble(target, name, chosen, key, folder, say), name)


def ensemble(
    target: Posterior,
    name: str,
    chosen: Robustness,
    key: int,
    folder: Path | None,
    say: Callable[[str], None],
    num_checkpoints: int = 1,
) -> tuple[Study, xr.DataTree]:
    """Runs of plain SGD, and what chose their settings.

    Loss and property are recorded at the end and before: at most so many checkpoints, as many as divide the steps.
    """
    say(f"robustness: {chosen.num_seeds} runs of SGD")
    settings = Compare(**{setting: getattr(chosen, setting) for setting in SHARED}, dynamics=("sgd",))
    study = Study(target.model, settings, key, folder, progress=False)
    tree = simulate(
        study.dynamics("sgd"),
        target,
        key=key,
        num_chains=chosen.num_seeds,
        num_steps=chosen.num_steps,
        num_draws=max(count for count in range(1, num_checkpoints + 1) if chosen.num_steps % count == 0),
        initial_scale=study.initial_scale,
        observables=["loss", name],
        folder=None if folder is None else folder / "sgd",
        progress=False,
    )
    return study, whole(tree)


def ends(study: Study, tree: xr.DataTree, name: str) -> Draws:
    """Ends of the runs that are not lost."""
    positions, kept = final_positions(tree)
    values = np.asarray(tree["posterior"][name].values, float)[kept, -1:]
    vectors = np.concatenate([positions[site].reshape(len(kept), 1, -1) for site in sorted(positions)], axis=2)[kept]
    lost = 1 - kept.mean()
    doubts = [f"{lost:.1%} of the runs diverged: those left are another law"] if lost > LOST_LIMIT else []
    made: dict[str, Any] = {setting: getattr(study.settings, setting) for setting in SHARED}
    made |= {"learning_rate": study.learning_rate, "initial_scale": study.initial_scale}
    made["num_steps"] = int(tree.attrs["num_steps"])
    num_steps, target = made["num_steps"], study.target(study.scale)
    numbers = (jnp.asarray(study.initial_scale, float), jnp.asarray(num_steps), jnp.asarray(np.inf))
    runs = Runs(target.model.properties[name], study.dynamics("sgd").prepare(target), target, *numbers)
    seconds = num_steps / tree.attrs.get("steps_per_second", np.inf) / len(kept)
    return Draws(values, vectors, doubts, float(len(kept)) * num_steps * made["batch_size"], made, runs, seconds)
