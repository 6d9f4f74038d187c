"""Draws of a posterior, by the sampler that suits it: the model's exact one, a grid, NUTS, or tempered particles.

Particles are for where NUTS does not mix, as between the wells of a network: they come from the prior, where all wells are one.
Each chain is a replicate of its own, resampled by weight; its draws stand in the order of their ancestors, so that those
that share one are neighbours, and effective sample sizes see it.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .diagnostics import quality
from .dynamics import NUTS, Grid
from .given import Given, from_positions
from .parallel import rounds, side_by_side
from .posterior import Posterior
from .results import whole
from .simulate import simulate
from .tempered import FromPrior, Ladder, enough_moves, tempered

CAREFUL = 0.98
"""Acceptance rate of NUTS: at 0.8 singular posteriors diverge in 1 % of the draws, at 0.98 in none."""
NUTS_LENGTHS = {"num_chains": 16, "num_draws": 500, "num_warmup": 500}
NUM_WARMUP = 200
"""Sweeps of an exact sampler that are left out."""
MOST_NUMBERS = 10**8
"""Recorded of all positions."""
NUM_REPLICATES, NUM_PARTICLES, TARGET_ESS = 8, 1000, 0.5
MEMORY = "memory"
"""Attribute of a tree of particles: how much of the likelihood a stage's moves remember at most, on average over replicates."""
MOST_PARAMETERS = 250
"""Of a model that particles are tried on: their covariance is one of ``NUM_PARTICLES`` draws."""


class TemperedParticles(Given):
    """Stands for tempered sequential Monte Carlo from the prior, a replicate a chain."""

    law: ClassVar = "approximate"
    num_particles: int = eqx.field(static=True, default=NUM_PARTICLES)
    num_moves: int = eqx.field(static=True, default=0)

    @property
    def settings(self) -> dict[str, Any]:
        """Particles of a replicate, and trajectories of each a stage."""
        return {"num_particles": self.num_particles, "num_moves": self.num_moves}


def posterior_draws(
    target: Posterior,
    num_chains: int,
    num_draws: int,
    key: int,
    observables: list[str],
    judged: list[str],
    folder: Path | None = None,
    title: str = "posterior",
    progress: bool = True,
    record_positions: bool = True,
    max_seconds: float = np.inf,
    mixes: bool = True,
) -> xr.DataTree:
    """Draw from a posterior.

    Parameters
    ----------
    target
        Model and inverse temperature.
    num_chains, num_draws
        Lengths where draws cost little: by an exact sampler or a grid.
    key, observables, folder, title, progress, record_positions
        As of ``simulate``.
    judged
        Those of the observables by which NUTS is judged (``diagnostics.quality``).
    max_seconds
        Particles are given up where all of them would take longer; then it is NUTS that is returned.
    mixes
        Whether NUTS is tried first.

    Returns
    -------
    xarray.DataTree
        As of ``simulate``; its manifest tells the sampler. Whether it passes is for its reader to judge.
    """
    model = target.model
    if model.exact_sampler is not None:
        dynamics, lengths = (
            model.exact_sampler,
            {"num_chains": num_chains, "num_draws": num_draws, "num_warmup": NUM_WARMUP},
        )
    elif model.num_parameters <= 2:
        dynamics, lengths = Grid(), {"num_chains": num_chains, "num_draws": num_draws}
    else:
        dynamics, lengths = NUTS(target_acceptance_rate=CAREFUL), NUTS_LENGTHS
    if record_positions:
        most = max(MOST_NUMBERS // model.num_parameters // lengths["num_chains"], 4)
        lengths = lengths | {"num_draws": min(lengths["num_draws"], most)}
    within = None if folder is None else folder / "particles"
    resort = isinstance(dynamics, NUTS) and model.num_parameters <= MOST_PARAMETERS
    say = partial(_say, title) if progress else lambda line: None
    if resort and not mixes and (found := by_particles(target, key, observables, within, say, max_seconds)) is not None:
        return found
    shared: dict[str, Any] = {"key": key, "observables": observables, "folder": folder, "title": title}
    shared |= {"progress": progress, "record_positions": record_positions}
    tree = whole(simulate(dynamics, target, **lengths, **shared))
    if not resort or quality(tree, judged).passed:
        return tree
    found = by_particles(target, key, observables, within, say, max_seconds) if mixes else None
    return tree if found is None else found


def by_particles(
    target: Posterior,
    key: int,
    observables: list[str],
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    max_seconds: float = np.inf,
    num_particles: int = NUM_PARTICLES,
    num_replicates: int = NUM_REPLICATES,
) -> xr.DataTree | None:
    """Draws of the posterior by tempered particles, a replicate a chain; None where they do not arrive there in time."""
    path = FromPrior(target)
    keys = jax.random.split(jax.random.key(key), num_replicates)
    each = max_seconds / rounds(num_replicates)
    num_moves = enough_moves(path, num_particles, TARGET_ESS, keys[0], folder, say, each)
    if not num_moves:
        say(f"tempered particles would take longer than {max_seconds:.0f} s")
        return None
    say(f"tempered particles: {num_replicates} replicates of {num_moves} moves a stage")

    def replicate(index: int) -> Ladder:
        return tempered(path, keys[index], num_particles, num_moves, TARGET_ESS, folder)

    ladders = side_by_side(replicate, num_replicates)
    if not all(ladder.finished for ladder in ladders):
        return None
    values = _values(target, jnp.stack([resampled(ladder) for ladder in ladders]))
    tree = from_positions(
        values, target, TemperedParticles("tempered particles", num_particles, num_moves), observables
    )
    cost = tree["sample_stats"]["num_gradients"].to_numpy()
    cost[:] = sum(ladder.num_gradients for ladder in ladders) / cost.size
    tree.attrs[MEMORY] = float(np.mean([ladder.memory.max() for ladder in ladders]))
    return tree


def _say(title: str, line: str) -> None:
    print(f"{title}: {line}", file=sys.stderr, flush=True)


def of_particles(tree: xr.DataTree) -> bool:
    """Whether draws are those of particles."""
    return json.loads(tree.attrs["manifest"])["dynamics"]["name"] == TemperedParticles.__name__


def resampled(ladder: Ladder) -> Float[np.ndarray, "s d"]:
    """Particles by weight, each as often as it stands for an equal share."""
    count = len(ladder.weights)
    shares = np.cumsum(ladder.weights) / np.sum(ladder.weights)
    return ladder.particles[np.searchsorted(shares, (np.arange(count) + 0.5) / count)]


@eqx.filter_jit
def _values(target: Posterior, vectors: Float[Array, "chain draw d"]) -> dict[str, Array]:
    """The program's own values (chain, draw, ...)."""
    return jax.vmap(jax.vmap(lambda vector: target.model.constrain(target.unflat(vector))))(vectors)
