"""The second opinion on a learning coefficient: the model's own exact sampler, or particles from the prior; of particles NUTS."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .dynamics import Dynamics
from .errors import InputError
from .estimate import Estimate, from_replicates, with_error
from .learning_coefficient import ALONE, LEFT_OUT, read_chains
from .parallel import rounds, side_by_side
from .pilot import OBSERVED
from .posterior import Posterior
from .results import whole
from .sampler_choice import MOST_TEMPERED, choose
from .settings import LLC
from .simulate import simulate
from .tempered import REMEMBERED, FromPrior, at_particles, enough_moves, tempered

TEMPERED = "tempered sequential Monte Carlo"
NUM_CHAINS, MOST_DRAWS = 4, 5000
"""Of chains, and draws of each if there is time."""


def needs_second(target: Posterior, settings: LLC) -> bool:
    """Whether the sampler is not the model's own exact one, nor a grid."""
    own = settings.sampler in ("auto", "exact") and target.model.exact_sampler is not None
    return not own and settings.sampler != "grid"


def second_opinion(
    target: Posterior,
    settings: LLC,
    key: int,
    baseline: float,
    folder: Path,
    quiet: bool,
    max_seconds: float,
) -> tuple[str, dict[str, Estimate], list[str]]:
    """Name of the second sampler, what it says as ``by_tempering`` does, and reasons not to believe it or why it says nothing."""
    particles = settings.sampler == "smc"
    if target.model.exact_sampler is not None or particles:
        other = replace(settings, sampler="exact" if target.model.exact_sampler is not None else "nuts")
        dynamics, start = choose(target, other, key, 0.0, folder)
        found = by_chains(dynamics, target, key, baseline, start, folder / "second", quiet, max_seconds)
        return type(dynamics).__name__, *found
    if target.model.num_parameters > MOST_TEMPERED:
        return "", {}, [f"{ALONE}: above {MOST_TEMPERED} parameters no second one is asked"]
    found = by_tempering(target, key, baseline, folder=folder / "particles", quiet=quiet, max_seconds=max_seconds)
    return TEMPERED, *found


def by_chains(
    dynamics: Dynamics,
    target: Posterior,
    key: int,
    baseline: float,
    start: Mapping[str, Any],
    folder: Path | None = None,
    quiet: bool = True,
    max_seconds: float = np.inf,
) -> tuple[dict[str, Estimate], list[str]]:
    """As ``by_tempering``, by a long independent run of an unbiased sampler, such as the one that the model declares."""
    name = type(dynamics).__name__
    tree = simulate(
        dynamics,
        target,
        key=key + 1,  # the first sampler may draw its start alike
        num_chains=NUM_CHAINS,
        num_draws=MOST_DRAWS,
        observables=OBSERVED,
        folder=folder,
        max_seconds=max_seconds,
        progress=not quiet,
        **start,
    )
    try:
        chains = read_chains(whole(tree), target, baseline, LEFT_OUT)
    except InputError as problem:
        return {}, [f"{name}, the second sampler: {problem}"]
    found = {"value": chains.estimate, "log_squared_norm": chains.log_size}
    doubts = [f"{name}, the second sampler: {doubt}" for doubt in chains.doubts()]
    return {what: with_error(*estimate) for what, estimate in found.items()}, doubts


def by_tempering(
    target: Posterior,
    key: int,
    baseline: float,
    num_particles: int = 1000,
    num_replicates: int = 4,
    folder: Path | None = None,
    quiet: bool = True,
    max_seconds: float = np.inf,
) -> tuple[dict[str, Estimate], list[str]]:
    """N beta (E[L] - L*) and the mean log squared norm by particles from the prior, with reasons not to believe them.

    Nothing where the next trial of how many moves are enough, and the replicates after it, would take longer than
    ``max_seconds``; where the first trial is enough replicates are made whatever they take.
    """

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    seed = jax.random.key(key)
    path = FromPrior(target)
    trial = max_seconds / (1 + 2 * rounds(num_replicates))  # the replicates have twice its moves
    num_moves = 2 * enough_moves(path, num_particles, 0.8, jax.random.fold_in(seed, 2), folder, say, trial)
    if not num_moves:
        return {}, [
            f"tempered particles, the second sampler, do not mix within {max_seconds:.0f} s: give --max-seconds"
        ]
    say(f"tempered particles: {num_replicates} replicates")
    keys = jax.random.split(jax.random.fold_in(seed, 3), num_replicates)
    runs = side_by_side(
        lambda index: tempered(path, keys[index], num_particles, num_moves, 0.8, folder), num_replicates
    )
    values, sizes = [], []
    for run in runs:
        losses, norms = (at_particles(target, run.particles, name) for name in ("loss", "squared_norm"))
        values.append(float(target.scale) * float(run.weights @ (losses - baseline)))
        sizes.append(float(run.weights @ np.log(norms)))
    memory = max(float(run.memory.max()) for run in runs)
    doubts = [] if memory <= REMEMBERED else [f"tempered particles still remember {memory:.2f} of the likelihood"]
    doubts += [] if all(run.finished for run in runs) else ["tempered particles did not come to the posterior"]
    return {"value": from_replicates(values), "log_squared_norm": from_replicates(sizes)}, doubts
