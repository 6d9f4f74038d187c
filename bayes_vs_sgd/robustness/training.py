"""The law of SGD at the end of training: independent runs from the initialisation, with the property at their ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison.run import Study
from ..posterior import Posterior
from ..results import final_positions, whole
from ..settings import Compare, Robustness
from ..simulate import simulate
from .draws import Draws

LOST = 0.01
"""Most of the runs that may be lost: to drop them conditions the law."""


def train(
    target: Posterior, name: str, chosen: Robustness, key: int, folder: Path | None, say: Callable[[str], None]
) -> Draws:
    """Runs of plain SGD, each one draw; learning rate and initial scale as ``compare`` chooses them."""
    say(f"robustness: {chosen.num_seeds} runs of SGD")
    shared = ("learning_rate", "batch_size", "num_steps", "num_seeds", "initial_scale", "objective")
    settings = Compare(**{setting: getattr(chosen, setting) for setting in shared}, dynamics=("sgd",))
    study = Study(target.model, settings, key, progress=False)
    tree = whole(
        simulate(
            study.dynamics("sgd"),
            target,
            key=key,
            num_chains=chosen.num_seeds,
            num_steps=chosen.num_steps,
            num_draws=1,
            initial_scale=study.initial_scale,
            observables=["loss", name],
            folder=None if folder is None else folder / "sgd",
            progress=False,
        )
    )
    positions, kept = final_positions(tree)
    values = np.asarray(tree["posterior"][name].values, float)[kept]
    vectors = np.concatenate([positions[site].reshape(len(kept), 1, -1) for site in sorted(positions)], axis=2)[kept]
    lost = 1 - kept.mean()
    doubts = [f"{lost:.1%} of the runs diverged: those left are another law"] if lost > LOST else []
    made: dict[str, Any] = {setting: getattr(settings, setting) for setting in shared}
    made |= {"learning_rate": study.learning_rate, "initial_scale": study.initial_scale}
    gradients = float(chosen.num_seeds) * chosen.num_steps * chosen.batch_size
    return Draws(values, vectors, doubts, gradients, made)
