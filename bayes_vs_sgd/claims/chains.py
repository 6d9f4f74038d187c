"""Chains of a dynamics, for claims on where they end and on their stationary law."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dynamics import Dynamics
from ..model import Model
from ..posterior import Posterior
from ..results import final_positions
from ..simulate import simulate

SEEDS, DRAWS = 2000, 32


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


def stationary(
    dynamics: Dynamics,
    model: Model,
    seed: int,
    thinning: int = 8,
    burn: int = 200,
    site: str = "theta",
    num_draws: int = DRAWS,
    num_chains: int = SEEDS,
) -> np.ndarray:
    """Stationary positions (chain, draw, d) of runs from the optimum."""
    tree = simulate(
        dynamics, Posterior(model), key=seed, num_chains=num_chains, num_steps=burn + num_draws * thinning,
        num_draws=burn // thinning + num_draws, initial="optimum", initial_scale=1.0, observables=["loss"],
        record_positions=True, progress=False,
    )  # fmt: skip
    return np.asarray(tree["posterior"][site].values, float)[:, -num_draws:]
