"""Chains of a dynamics from places that are given, for claims on where they end."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dynamics import Dynamics
from ..model import Model
from ..posterior import Posterior
from ..results import final_positions
from ..simulate import simulate


def ends(
    dynamics: Dynamics, model: Model, start: Mapping[str, Any], seed: int, num_steps: int, num_chains: int | None = None
) -> dict[str, np.ndarray]:
    """Final positions, with a leading chain axis as ``start`` has; with a number of chains all start at one place.

    Lost chains are not left out: a claim that loses any comes out as undefined.
    """
    if num_chains is not None:
        start = {name: np.broadcast_to(value, (num_chains, *np.shape(value))) for name, value in start.items()}
    tree = simulate(
        dynamics,
        Posterior(model),
        key=seed,
        num_chains=len(next(iter(start.values()))),
        num_draws=1,
        num_steps=num_steps,
        initial=start,
        observables=["loss"],
        progress=False,
    )
    return final_positions(tree)[0]
