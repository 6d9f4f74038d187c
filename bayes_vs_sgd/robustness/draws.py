"""Plain draws of a law with the property beside each: all that a common event needs, and where rare ones start from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..comparison.run import CAREFUL
from ..diagnostics import RHAT_LIMIT, rhat
from ..dynamics import NUTS, Grid
from ..posterior import Posterior
from ..results import whole
from ..simulate import simulate
from .splitting import Runs

NUM_CHAINS, NUM_WARMUP = 64, 200
FEWEST_DRAWS = 32
"""Of a chain, for R-hat to mean something."""
NUTS_CHAINS, NUTS_WARMUP, NUTS_DRAWS = 16, 500, 500
MOST_NUMBERS = 10**8
"""Recorded of all draws."""


class Draws(NamedTuple):
    """Property (chain, draw), positions as vectors (chain, draw, d), reasons for doubt, cost and settings.

    Of training also the ``runs`` whose ends they are, and the wall time of one: they can be split where the event is rare.
    """

    values: Float[np.ndarray, "chain draw"]
    vectors: Float[np.ndarray, "chain draw d"]
    doubts: list[str]
    num_gradients: float
    settings: dict[str, Any]
    runs: Runs | None = None
    seconds: float = 0.0


def posterior_draws(
    target: Posterior, name: str, num_draws: int, key: int, folder: Path | None, say: Callable[[str], None]
) -> Draws:
    """About so many draws of a posterior: by the model's exact sampler, a grid up to two parameters, else NUTS."""
    say("robustness: draws of the posterior")
    model = target.model
    shared: dict[str, Any] = {"key": key, "observables": ["loss", name], "progress": False}
    shared |= {"record_positions": True, "folder": None if folder is None else folder / "posterior"}
    if model.exact_sampler is not None:
        dynamics, lengths = model.exact_sampler, {"num_chains": NUM_CHAINS, "num_warmup": NUM_WARMUP}
    elif model.num_parameters <= 2:
        dynamics, lengths = Grid(), {"num_chains": NUM_CHAINS}
    else:
        dynamics, lengths = NUTS(target_acceptance_rate=CAREFUL), {"num_chains": NUTS_CHAINS}
        lengths |= {"num_warmup": NUTS_WARMUP, "num_draws": NUTS_DRAWS}
    fitting = max(MOST_NUMBERS // model.num_parameters // lengths["num_chains"], 4)
    wanted = max(lengths.get("num_draws", -(-num_draws // lengths["num_chains"])), FEWEST_DRAWS)
    lengths["num_draws"] = min(wanted, fitting)
    tree = whole(simulate(dynamics, target, **lengths, **shared))
    values = np.asarray(tree["posterior"][name].values, float)
    worst = rhat(values) if np.isfinite(values).all() else np.nan
    doubts = [] if worst < RHAT_LIMIT else [f"R-hat of {name} is {worst:.3f}: the sampler has not converged"]
    positions = {site: np.asarray(tree["posterior"][site].values, float) for site, _ in model.latents}
    gradients = float(np.asarray(tree["sample_stats"]["num_gradients"].values, float).sum())
    made = {"sampler": type(dynamics).__name__, "inverse_temperature": float(target.inverse_temperature)} | lengths
    return Draws(values, as_vectors(target, positions), doubts, gradients, made)


def as_vectors(target: Posterior, positions: Mapping[str, np.ndarray]) -> Float[np.ndarray, "chain draw d"]:
    """Unconstrained vectors of the program's own values (chain, draw, ...)."""
    lead = next(iter(positions.values())).shape[:2]
    rows = {site: jnp.asarray(v.reshape(-1, *v.shape[2:]), float) for site, v in positions.items()}
    return np.asarray(_vectors(target, rows)).reshape(*lead, -1)


@eqx.filter_jit
def _vectors(target: Posterior, rows: dict[str, Array]) -> Array:
    return jax.vmap(lambda values: target.flat(target.model.unconstrain(values)))(rows)
