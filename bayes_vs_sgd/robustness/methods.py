"""The ways to a probability: counting draws, of runs that stay in a set too; tilted particles, or training that is split."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from .. import CORES
from ..errors import InputError
from ..estimate import Estimate, binomial_interval, differ, from_replicates, relative_spread, share_beyond
from ..manifest import digest
from ..parallel import side_by_side
from ..posterior import Posterior
from ..settings import Robustness as Settings
from ..store import remembered_json
from ..tempered import FromPrior
from .draws import Draws
from .particles import Problem, Replicate, Splitting, Tilted, doubts, log_interval, until_agreed
from .properties import Property
from .splitting import FEWEST_MOVES, Runs
from .staying import stay
from .tilt import Pool, property_at

ENOUGH = 400.0
"""Independent unsafe draws that tell a probability to 5 %."""
FEWEST = 10.0
"""Unsafe runs of a law that can only be simulated, with fewer of which they are split."""
FEWEST_RUNS, TYPICAL_STAGES = 100, 8
"""Runs that are split, at least; and levels up to an event of 1e-5, by which their number is fitted to the time."""
NUM_PARTICLES, MORE, MOST_PARTICLES = 1000, 4, 16_000
"""Particles of a replicate at first, how many times as many are tried next, and the most."""
PRECISE = 0.05
"""Relative standard error at which no more are tried."""
PARTS = 8
TOLERANCE = 0.01
"""Of the excess loss of a sublevel set, by which a loss may be below the least that is known."""


class Job(NamedTuple):
    """An event under a law, and how it is looked for."""

    target: Posterior
    name: str
    item: Property
    threshold: float
    settings: Settings
    least_loss: float
    key: int
    folder: Path | None
    say: Callable[[str], None]
    deadline: float


class Part(NamedTuple):
    """A chain, or a replicate of particles with its share of the draws: positions with weights under the law, of sum one."""

    vectors: Float[np.ndarray, "s d"]
    weights: Float[np.ndarray, " s"]
    unsafe: Bool[np.ndarray, " s"]

    def thinned(self, most: int) -> "Part":
        """At most so many unsafe draws and as many others, evenly, with the same total weights."""
        kept = []
        for rows in (np.flatnonzero(self.unsafe), np.flatnonzero(~self.unsafe)):
            some = evenly(rows, most // 2 or 1) if len(rows) > most // 2 else rows
            scale = self.weights[rows].sum() / self.weights[some].sum() if len(rows) else 1.0
            kept.append((self.vectors[some], self.weights[some] * scale, self.unsafe[some]))
        return Part(*(np.concatenate(pair) for pair in zip(*kept, strict=True)))


class Found(NamedTuple):
    """Probability, what it was made of, weighted values of the property, unsafe positions, and weighted ones of a posterior."""

    probability: float
    interval: tuple[float, float]
    method: str
    replicates: dict[str, list[float]]
    settings: dict[str, float]
    pools: list[Pool]
    unsafe: np.ndarray
    set_mass: Estimate | None
    num_gradients: float
    warnings: list[str]
    parts: list[Part]
    escape_rate: Estimate | None = None


def by_draws(job: Job, drawn: Draws) -> Found | None:
    """Count; None where too few draws are unsafe."""
    check_values(job.name, drawn.values)
    share, number = share_beyond(drawn.values, job.threshold)
    if share * number < (ENOUGH if drawn.runs is None else FEWEST):
        return None
    pools = [Pool(part.ravel(), np.full(part.size, 1 / part.size)) for part in np.array_split(drawn.values, PARTS)]
    parts = [float(pool.beyond(np.array([job.threshold]))[0][0]) for pool in pools]
    beyond = drawn.values > job.threshold
    even = np.full(drawn.values.shape[1], 1 / drawn.values.shape[1])
    chains = [Part(vectors, even, unsafe) for vectors, unsafe in zip(drawn.vectors, beyond, strict=True)]
    settings = {"independent_draws": number}
    shares = {"draws": parts}
    unsafe = drawn.vectors[beyond]
    interval = binomial_interval(share, number)
    return Found(share, interval, "plain draws", shares, settings, pools, unsafe, None, 0.0, list(drawn.doubts), chains)


def by_particles(job: Job, drawn: Draws | None = None) -> Found:
    """Tilted particles, as many as it takes and there is time for, and draws to start from, unless their number is given."""
    size, started, count = job.settings.num_particles or NUM_PARTICLES, time.monotonic(), job.settings.num_replicates
    found = by_tilting(job, drawn, size, job.settings.num_moves)
    fixed = job.settings.num_particles is not None or (drawn is not None and drawn.more is None)
    while not fixed and not found.warnings and size < MOST_PARTICLES:
        values, left = found.replicates["twice_the_moves"], job.deadline - time.monotonic()
        error = relative_spread(values) / np.sqrt(len(values))
        if error <= PRECISE or left < MORE * (time.monotonic() - started):
            break
        size, started, spent = MORE * size, time.monotonic(), found.num_gradients
        if drawn is not None and drawn.more is not None:
            already = 0.0 if job.folder is None else drawn.num_gradients  # kept draws are gone on with
            drawn = drawn.more(size * count)
            spent += drawn.num_gradients - already
        found = by_tilting(job, drawn, size, int(found.settings["num_moves"]))
        found = found._replace(num_gradients=found.num_gradients + spent)
    return found


def by_tilting(job: Job, drawn: Draws | None, size: int, num_moves: int | None) -> Found:
    """Tilt particles from draws of the law towards the event; without draws, those of the prior into the sublevel set first."""
    chosen, model, count = job.settings, job.target.model, job.settings.num_replicates
    problem = Tilted(job.target, job.item, job.threshold, 1.0, (), size)
    settings: dict[str, float] = {}
    if drawn is None:
        vectors = np.asarray(FromPrior(job.target).start(jax.random.key(job.key), count * size), float)
        values = np.asarray(property_at(job.target, jnp.asarray(vectors, float), job.item), float)
        excess = model.num_parameters / (2 * model.num_examples) if chosen.excess_loss is None else chosen.excess_loss
        problem = problem._replace(level=job.least_loss + excess, excess=excess, starts=np.split(vectors, count))
        settings["excess_loss"] = excess
    else:
        if len(drawn.vectors) < count:
            raise InputError(
                f"num_replicates is {count}: the draws are of {len(drawn.vectors)} chains, give at most as many"
            )
        values, parts = drawn.values, np.array_split(drawn.vectors, count)
        problem = problem._replace(starts=[evenly(part.reshape(-1, part.shape[-1]), size) for part in parts])
    check_values(job.name, values)
    settings["num_particles"] = size
    return by_replicates(job, problem._replace(scale=float(values.std())), drawn, "tilted SMC", settings, num_moves)


def by_splitting(job: Job, drawn: Draws, runs: Runs) -> Found:
    """Runs of a law that can only be simulated, multiplied from level to level: as many as there is time for."""
    chosen = job.settings
    made = TYPICAL_STAGES * 3 * (chosen.num_moves or FEWEST_MOVES) * chosen.num_replicates
    most = max(chosen.num_particles or NUM_PARTICLES, FEWEST_RUNS)

    def fitting() -> int:
        seconds = (job.deadline - time.monotonic()) * CORES / max(made * drawn.seconds, 1e-9)
        return int(np.clip(seconds, FEWEST_RUNS, most))

    name = f"num_runs-{digest([np.array([job.threshold, chosen.max_seconds, made, most])])[:8]}.json"
    size = fitting() if job.folder is None else remembered_json(job.folder / name, fitting)
    runs = replace(runs, threshold=jnp.asarray(job.threshold, float))
    return by_replicates(job, Splitting(runs, size), drawn, "splitting", {"num_runs": size}, job.settings.num_moves)


def by_staying(job: Job, drawn: Draws, runs: Runs) -> Found:
    """Runs on condition that they stay in the sublevel set, from the ends of training: counted, with the error of replicates."""
    count, excess = job.settings.num_replicates, job.settings.excess_loss
    assert excess is not None
    if len(drawn.vectors) < 2 * count:
        raise InputError(f"{len(drawn.vectors)} runs for {count} replicates: give more --num-seeds")
    level, starts = job.least_loss + excess, np.array_split(drawn.vectors[:, -1], count)
    starts = [part[: len(drawn.vectors) // count] for part in starts]
    job.say(f"robustness: {count} replicates of {len(starts[0])} runs that stay in the set")
    kept = None if job.folder is None else job.folder / "staying"
    keys = jax.random.split(jax.random.fold_in(jax.random.key(job.key), 1), count)
    first = stay(runs, starts[0], level, keys[0], kept)  # alone, since it is traced
    others = side_by_side(lambda index: stay(runs, starts[index + 1], level, keys[index + 1], kept), count - 1)
    found = [first, *others]
    values = np.stack([run.values for run in found])
    check_values(job.name, values)
    beyond = values > job.threshold
    third, fourth = (part.mean(axis=(1, 2)).tolist() for part in np.split(beyond, 2, axis=1))
    rates = [[run.escapes(later) for run in found] for later in (False, True)]
    warnings = [
        f"{what} is {np.mean(first):.3g} in the third quarter and {np.mean(second):.3g} in the last: give more --num-steps"
        for what, first, second in (("the probability", third, fourth), ("the escape rate", *rates))
        if differ(first, second)
    ]
    best, unsafe = np.mean([third, fourth], axis=0), values[:, -1] > job.threshold
    if unsafe.sum() < FEWEST:
        warnings.append(f"{unsafe.sum()} runs are unsafe at the end: too few to count, give more --num-seeds")
    even = np.full(values[0].size, 1 / values[0].size)
    ends = np.stack([run.ends for run in found])
    gradients = float(ends.shape[0] * ends.shape[1]) * found[0].stayed.size * float(drawn.settings["batch_size"])
    return Found(
        float(best.mean()),
        log_interval(best),
        "runs that replace those that leave",
        {"third_quarter": third, "last_quarter": fourth},
        {"excess_loss": excess, "num_runs": ends.shape[1]},
        [Pool(run.ravel(), even) for run in values],
        ends[unsafe],
        None,
        gradients,
        warnings,
        [],
        from_replicates(np.mean(rates, axis=0)),
    )


def by_replicates(
    job: Job,
    problem: Problem,
    drawn: Draws | None,
    method: str,
    settings: dict[str, float],
    num_moves: int | None,
) -> Found:
    """Replicates with k and with 2k moves."""
    kept = None if job.folder is None else job.folder / "particles"
    k, fewer, more = until_agreed(
        problem,
        num_moves,
        job.settings.num_replicates,
        job.key,
        kept,
        job.say,
        job.deadline,
    )
    names = {"moves": fewer, "twice_the_moves": more}
    replicates = {label: [run.found.probability for run in runs] for label, runs in names.items()}
    best = replicates["twice_the_moves"]
    masses = [run.mass.probability for run in more if run.mass is not None]
    replicates |= {"set_mass": masses} if masses else {}
    settings |= {"num_moves": k, "twice_the_moves": 2 * k} | ({} if drawn is None else drawn.settings)
    doubtful = ([] if drawn is None else drawn.doubts) + doubts(fewer, more)
    least = min((-run.mass.reached for run in more if run.mass is not None), default=np.inf)
    if least < job.least_loss - TOLERANCE * settings.get("excess_loss", 0.0):
        doubtful.append(
            f"a particle has loss {least:.6g}, below the least known, {job.least_loss:.6g}: name the model's optimum"
        )
    interval = log_interval(best)
    if drawn is not None and not max(best) > 0:
        interval = binomial_interval(*share_beyond(drawn.values, job.threshold))
    return Found(
        float(np.mean(best)),
        interval,
        method,
        replicates,
        settings,
        [run.pool for run in more],
        np.concatenate([unsafe(run) for run in more]),
        from_replicates(masses) if masses else None,
        sum(run.num_gradients for run in [*fewer, *more]),
        doubtful,
        [] if drawn is None else with_particles(drawn, more, job.threshold),
    )


def with_particles(drawn: Draws, runs: list[Replicate], threshold: float) -> list[Part]:
    """Draws of the law that are safe, and for those that are not the particles, in the share that each replicate finds."""
    found, count = [], len(runs)
    split = (np.array_split(whole, count) for whole in (drawn.vectors, drawn.values))
    for run, vectors, values in zip(runs, *split, strict=True):
        beyond, probability = unsafe(run), run.found.probability
        safe = vectors[values <= threshold]
        weights = [
            np.full(len(part), total / max(len(part), 1))
            for part, total in ((safe, 1 - probability), (beyond, probability))
        ]
        sides = np.repeat([False, True], [len(safe), len(beyond)])
        found.append(Part(np.concatenate([safe, beyond]), np.concatenate(weights), sides))
    return found


def check_values(name: str, values: np.ndarray) -> None:
    """Refuse a property that is no event."""
    if not np.isfinite(values).all():
        raise InputError(f"property {name!r} is not finite at {np.sum(~np.isfinite(values))} of {values.size} draws")
    if np.ptp(values) == 0:
        raise InputError(f"property {name!r} is constant: {values.flat[0]:.6g} at all {values.size} draws")


def evenly(vectors: np.ndarray, count: int) -> np.ndarray:
    """So many rows, evenly from all; each more than once where there are fewer."""
    return vectors[np.linspace(0, len(vectors) - 1, count).round().astype(int)]


def unsafe(run: Replicate) -> np.ndarray:
    """Unsafe particles of a replicate."""
    g, inside = run.ladder.seen[-1].T
    return run.ladder.particles[(g > float(run.path.threshold)) & (inside > 0) & (run.ladder.weights > 0)]
