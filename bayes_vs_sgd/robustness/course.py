"""When is a property decided? The event g > c at the start and at checkpoints of training, across independent runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr

from ..comparison.run import Study
from ..estimate import binomial_interval
from ..results import final_positions
from ..start import places
from .tilt import property_at


@dataclass(frozen=True)
class Stage:
    """The event at a step of training: its share of the runs, 95 % interval, and how many are on the side where they end."""

    step: int
    probability: float
    interval: tuple[float, float]
    as_at_end: float


def along(study: Study, tree: xr.DataTree, name: str, threshold: float) -> list[Stage]:
    """The event at the start and at each checkpoint, of the runs that are not lost."""
    target, kept = study.target(study.scale), final_positions(tree)[1]
    _, starts = places(target, "prior", len(kept), study.seed, study.initial_scale)
    first = property_at(target, jax.vmap(target.flat)(starts), target.model.properties[name])
    values = np.column_stack([np.asarray(first, float), np.asarray(tree["posterior"][name].values, float)])[kept]
    steps = [0, *np.asarray(tree["posterior"].to_dataset().coords["step"]).tolist()]
    beyond = values > threshold
    shares, same = beyond.mean(axis=0), (beyond == beyond[:, -1:]).mean(axis=0)
    return [
        Stage(step, float(share), binomial_interval(float(share), len(beyond)), float(settled))
        for step, share, settled in zip(steps, shares, same, strict=True)
    ]


def decided(stages: Sequence[Stage]) -> int:
    """First step from which on every interval holds the probability at the end."""
    end = stages[-1].probability
    open_still = [index for index, stage in enumerate(stages) if not stage.interval[0] <= end <= stage.interval[1]]
    return stages[open_still[-1] + 1 if open_still else 0].step
