"""Plain draws of a law with the property beside each: all that a common event needs, and where rare ones start from."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..diagnostics import BFMI_LIMIT, DIVERGING, RHAT_LIMIT, quality, rhat
from ..posterior import Posterior
from ..reference import posterior_draws
from .splitting import Runs

NUM_CHAINS = 64
"""Where draws cost little."""
FEWEST_DRAWS = 32
"""Of a chain, for R-hat to mean something."""


class Draws(NamedTuple):
    """Property (chain, draw), positions as vectors (chain, draw, d), reasons for doubt, cost and settings.

    Of training also the ``runs`` whose ends they are, and the wall time of one: they can be split where the event is rare.
    ``more`` draws about so many, where they cost little.
    """

    values: Float[np.ndarray, "chain draw"]
    vectors: Float[np.ndarray, "chain draw d"]
    doubts: list[str]
    num_gradients: float
    settings: dict[str, Any]
    runs: Runs | None = None
    seconds: float = 0.0
    more: "Callable[[int], Draws] | None" = None


def from_posterior(
    target: Posterior,
    name: str,
    num_draws: int,
    key: int,
    folder: Path | None,
    say: Callable[[str], None],
    max_seconds: float,
) -> Draws:
    """About so many draws of a posterior, by the sampler that suits it (``reference.py``)."""
    say("robustness: draws of the posterior")
    each = max(-(-num_draws // NUM_CHAINS), FEWEST_DRAWS)
    within = None if folder is None else folder / "posterior"
    names = ["loss", name]
    tree = posterior_draws(target, NUM_CHAINS, each, key, names, names, within, progress=False, max_seconds=max_seconds)
    cheap = tree["posterior"].sizes["chain"] == NUM_CHAINS

    def drawn(group: str, name: str) -> np.ndarray:
        """A kept run may be longer than asked for."""
        return np.asarray(tree[group][name].values, float)[:, : each if cheap else None]

    values = drawn("posterior", name)
    worst = rhat(values) if np.isfinite(values).all() else np.nan
    doubts = [] if worst < RHAT_LIMIT else [f"R-hat of {name} is {worst:.3f}: the sampler has not converged"]
    judged = quality(tree, ["loss"])
    if (judged.num_divergences or 0) > DIVERGING * values.size:
        doubts.append(f"{judged.num_divergences} of {values.size} transitions of the sampler diverged")
    if judged.bfmi_min is not None and not judged.bfmi_min > BFMI_LIMIT:
        doubts.append(
            f"E-BFMI is {judged.bfmi_min:.2f}, not above {BFMI_LIMIT}: the sampler does not cross the energies"
        )
    vectors = as_vectors(target, {site: drawn("posterior", site) for site, _ in target.model.latents})
    gradients = float(drawn("sample_stats", "num_gradients").sum())
    manifest = json.loads(tree.attrs["manifest"])
    made = {"sampler": manifest["dynamics"]["name"], "inverse_temperature": float(target.inverse_temperature)}
    made |= {"num_chains": values.shape[0], "num_draws": values.shape[1]}
    more = partial(from_posterior, target, name, key=key, folder=folder, say=say, max_seconds=max_seconds)
    return Draws(values, vectors, doubts, gradients, made, more=more if cheap else None)


def as_vectors(target: Posterior, positions: Mapping[str, np.ndarray]) -> Float[np.ndarray, "chain draw d"]:
    """Unconstrained vectors of the program's own values (chain, draw, ...)."""
    lead = next(iter(positions.values())).shape[:2]
    rows = {site: jnp.asarray(v.reshape(-1, *v.shape[2:]), float) for site, v in positions.items()}
    return np.asarray(_vectors(target, rows)).reshape(*lead, -1)


@eqx.filter_jit
def _vectors(target: Posterior, rows: dict[str, Array]) -> Array:
    return jax.vmap(lambda values: target.flat(target.model.unconstrain(values)))(rows)
