"""SGD trained again without an example: what its influence on the posterior is held against."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..estimate import Estimate, with_error
from ..model import Model
from ..posterior import Posterior
from ..settings import Robustness
from .training import train


def retrained(
    target: Posterior,
    name: str,
    threshold: float,
    rows: Sequence[int],
    chosen: Robustness,
    key: int,
    folder: Path | None,
    say: Callable[[str], None],
    deadline: float = np.inf,
) -> list[Estimate]:
    """Change of P(g > c) under the law of SGD where each of these rows is left out, with its binomial error.

    Learning rate, start and steps are those of the whole data. All ensembles have the same seeds, and with equally many
    examples the same program: nothing compiles twice. The errors are those of independent ensembles, of shares by Laplace's
    rule, so that none is zero. No ensemble is begun after the deadline: the rows it was too late for have no change.
    """

    def share(data: Model, settings: Robustness, place: str) -> tuple[float, float, Robustness]:
        within = None if folder is None else folder / place
        drawn = train(Posterior(data, target.inverse_temperature), name, settings, key, within, say)
        found = float(np.mean(drawn.values > threshold))
        fixed = {setting: drawn.settings[setting] for setting in ("learning_rate", "initial_scale")}
        size = len(drawn.values)
        smoothed = (found * size + 1) / (size + 2)
        return found, smoothed * (1 - smoothed) / size, replace(settings, **fixed)

    model = target.model
    whole, variance, settings = share(model, chosen, "with-all")
    changes = []
    for row in rows:
        if time.monotonic() > deadline:
            break
        found, its_variance, _ = share(without(model, row), settings, f"without-{row}")
        changes.append(with_error(found - whole, float(np.sqrt(variance + its_variance))))
    return changes


def without(model: Model, row: int) -> Model:
    """The model without an example, the last one in its row: the same numbers draw the same of all others."""
    data = {key: jnp.asarray(array).at[row].set(array[-1])[:-1] for key, array in model.data.items()}
    parts = (data, None, None, jnp.zeros(()))
    where = lambda m: (m.data, m.compressed, m.exact_sampler, m.offset)  # noqa: E731
    return eqx.tree_at(where, model, parts, is_leaf=lambda leaf: leaf is None)
