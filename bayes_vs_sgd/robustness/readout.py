"""What is read off the draws of a law beside the probability: the survival curve, and unsafe members."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..curvature import loss_and_gradient
from ..model import Model
from ..posterior import Posterior
from ..store import write_arrays
from .properties import Property
from .result import Center, Curve, Member
from .tilt import Pool

NUM_MEMBERS, NUM_THRESHOLDS = 5, 60
SUPPORTED = 10.0
"""Draws that a point of the survival curve is shown with."""
MOST_LISTED = 1000
"""Numbers of a member that is listed by its values."""
MEMBERS = "members.npz"


def survival(pools: list[Pool], threshold: float, exact: Callable[[float], float | None] | None) -> Curve:
    """P(g > c) from the middle of the law to where no draw is left, mean and standard error over the replicates."""
    low = min(pools[0].median, threshold)
    high = max(float(p.values[p.weights > 0].max(initial=low)) for p in pools)
    grid = np.unique(np.append(np.linspace(low, max(high, threshold), NUM_THRESHOLDS), threshold))
    masses, supports = (np.array(part) for part in zip(*(p.beyond(grid) for p in pools), strict=True))
    support = supports.sum(axis=0)
    shown = support >= SUPPORTED
    errors = masses.std(axis=0, ddof=1) / np.sqrt(len(pools))
    parts = [part[shown].tolist() for part in (grid, masses.mean(axis=0), errors, support)]
    line = None if exact is None else [exact(float(c)) for c in grid[shown]]
    return Curve(*parts, exact=line)


def support(pools: list[Pool], threshold: float) -> float:
    """Draws beyond a threshold; weighted ones as many as would tell as much, (sum w)^2 / sum w^2."""
    return float(sum(pool.beyond(np.array([threshold]))[1][0] for pool in pools))


def center(model: Model, item: Property) -> Center | None:
    """Property and loss at the checkpoint that was given, or at the model's optimum."""
    if model.optimum is None:
        return None
    position = model.unconstrain(model.optimum)
    loss = float(loss_and_gradient(model, position)[0])
    return Center(model.facts.get("center", "the optimum"), float(item(model, model.constrain(position))), loss)


def members(target: Posterior, item: Property, unsafe: np.ndarray, key: int, folder: Path | None) -> list[Member]:
    """Some of the unsafe positions, by lot; their values, however many, also as arrays (member, ...) in ``members.npz``."""
    model, found, kept = target.model, [], []
    picked = np.random.default_rng(key).permutation(len(unsafe))[:NUM_MEMBERS]
    for vector in unsafe[picked]:
        position = target.unflat(jnp.asarray(vector, float))
        values: Mapping[str, Any] = model.constrain(position)
        listed = {k: np.asarray(v).tolist() for k, v in values.items()} if len(vector) <= MOST_LISTED else {}
        loss = float(loss_and_gradient(model, position)[0])
        found.append(Member(float(item(model, values)), loss, listed))
        kept.append({name: np.asarray(value) for name, value in values.items()})
    if folder is not None and found:
        write_arrays(folder / MEMBERS, {name: np.stack([values[name] for values in kept]) for name in kept[0]})
    return found
