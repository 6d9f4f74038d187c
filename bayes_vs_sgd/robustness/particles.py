"""Replicates of particles with k moves a stage and with 2k, and what speaks against them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ..errors import InputError
from ..estimate import LEVEL, differ, relative_spread
from ..function import Function
from ..parallel import rounds, side_by_side
from ..posterior import Posterior
from ..tempered import FEWEST_MOVES, MOST_MOVES, MOST_STAGES, REMEMBERED, Ladder, tempered
from . import splitting
from .properties import Property
from .splitting import Runs, split
from .tilt import STIFFEST, Event, Law, Pool, Tilt, event, pooled

TARGET_ESS = 0.8
"""After a stage. Steps are small since the property's tails are heavier than particles tell: with .5 most replicates of one in a
million are too small, and a few much too large."""
WIDE = 3.0
"""Replicates spread so many times as much as independent particles would."""

FEWEST_REPLICATES = 4
"""Made whatever time they take."""

LIKELY = 0.05
"""Where k and 2k moves part as much as by chance in one case of twenty, more are tried."""


class Replicate(NamedTuple):
    """One replicate: the event, the particles of all stages, and of a sublevel set its mass."""

    found: Event
    pool: Pool
    mass: Event | None
    ladder: Ladder
    path: Tilt | Runs

    @property
    def num_gradients(self) -> float:
        """Gradients of one example's loss."""
        return self.ladder.num_gradients


class Problem(Protocol):
    """A law and an event that is rare under it."""

    @property
    def fewest_moves(self) -> int:
        """The k that is tried first."""
        ...

    @property
    def target(self) -> Posterior:
        """What positions are of."""
        ...

    def replicate(self, index: int, num_moves: int, key: Any, folder: Path | None) -> Replicate:
        """One replicate, or what the folder holds of it."""
        ...


class Tilted(NamedTuple):
    """A law whose density is known: draws of it for each replicate, or of the prior if there is a level to come to."""

    target: Posterior
    item: Property
    threshold: float
    scale: float
    starts: Sequence[np.ndarray]
    num_particles: int
    level: float | None = None
    excess: float = 0.0
    fewest_moves = FEWEST_MOVES

    def replicate(self, index: int, num_moves: int, key: Any, folder: Path | None) -> Replicate:
        """Tilted particles, after those that come to the level."""
        mass = None

        def run(path, run_key):
            return tempered(path, run_key, self.num_particles, num_moves, TARGET_ESS, folder)

        key_set, key_event = jax.random.split(jax.random.fold_in(key, index))
        law, starts = Law(self.target), jnp.asarray(self.starts[index], float)
        if self.level is not None:
            stiffness = jnp.asarray(STIFFEST / self.excess, float)
            inside = Property(Function(minus_loss))
            inwards = Tilt(inside, law, starts, jnp.asarray(-self.level, float), stiffness)
            ladder = run(inwards, key_set)
            mass = event(inwards, ladder)
            if not mass.probability > 0:
                raise InputError(
                    f"no particle came to L <= {self.level:.6g}: the least loss seen is {-mass.reached:.6g}, so the set "
                    "may be empty; give a larger --excess-loss"
                )
            law, starts = Law(self.target, self.level, mass.pull), jnp.asarray(ladder.particles, float)
        scaled = jnp.asarray(STIFFEST / self.scale, float)
        path = Tilt(self.item, law, starts, jnp.asarray(self.threshold, float), scaled)
        ladder = run(path, key_event)
        return Replicate(event(path, ladder), pooled(path, ladder), mass, ladder, path)


class Splitting(NamedTuple):
    """A law that can only be simulated."""

    runs: Runs
    num_runs: int
    fewest_moves = splitting.FEWEST_MOVES

    @property
    def target(self) -> Posterior:
        """What is trained on."""
        return self.runs.target

    def replicate(self, index: int, num_moves: int, key: Any, folder: Path | None) -> Replicate:
        """Runs that are multiplied from level to level."""
        found = split(self.runs, jax.random.fold_in(key, index), self.num_runs, num_moves, folder)
        return Replicate(splitting.event(self.runs, found), splitting.pooled(found), None, found, self.runs)


def minus_loss(model: Any, values: Any) -> Any:
    """-L, the property of being inside a sublevel set."""
    return -model.loss(model.unconstrain(values))


def replicates(
    problem: Problem,
    num_moves: int,
    count: int,
    seed: int,
    folder: Path | None,
    say: Callable[[str], None],
    deadline: float = np.inf,
) -> list[Replicate]:
    """Independent replicates, as many at once as there are cores, and fewer than asked for where time is short."""
    say(f"robustness: replicates with {num_moves} moves a stage, {count} if there is time")
    key = jax.random.fold_in(jax.random.key(seed), num_moves)

    def make(index: int) -> Replicate:
        return problem.replicate(index, num_moves, key, folder)

    return side_by_side(make, count, FEWEST_REPLICATES, deadline)


def until_agreed(
    problem: Problem,
    num_moves: int | None,
    count: int,
    seed: int,
    folder: Path | None,
    say: Callable[[str], None],
    deadline: float,
) -> tuple[int, list[Replicate], list[Replicate]]:
    """Replicates with k and with 2k moves; unless k is given it is doubled while they are in doubt and time is left.

    A third of the time up to the deadline, one of ``time.monotonic``, is for k.
    """
    k = problem.fewest_moves if num_moves is None else num_moves
    begun = time.monotonic()
    fewer = replicates(problem, k, count, seed, folder, say, begun + (deadline - begun) / 3)
    while True:
        begun = time.monotonic()
        more = replicates(problem, 2 * k, count, seed, folder, say, deadline)
        ended = time.monotonic()
        next_takes = 2 * (ended - begun) * rounds(min(FEWEST_REPLICATES, count)) / rounds(len(more))
        enough = num_moves is not None or 4 * k > MOST_MOVES or deadline - ended < next_takes
        if enough or not doubts(fewer, more, LIKELY):
            return k, fewer, more
        k, fewer = 2 * k, more


def doubts(fewer: list[Replicate], more: list[Replicate], false_alarm: float = 1e-3) -> list[str]:
    """Reasons not to believe the replicates with 2k moves."""
    found, first, second = [], *([r.found.probability for r in runs] for runs in (fewer, more))
    if not max(second) > 0:
        reached = max(r.found.reached for r in [*fewer, *more])
        return [
            f"the threshold {float(more[0].path.threshold):g} is never reached: the largest value seen is {reached:.4g}"
        ]
    if differ(first, second, false_alarm):
        found.append(f"k moves give {np.mean(first):.3g}, 2k give {np.mean(second):.3g}: give more moves")
    theory = np.sqrt(np.mean([r.found.variance for r in more]))
    spread = relative_spread(second)
    if spread > WIDE * theory:
        found.append(f"replicates spread {spread / theory:.1f} times as much as independent particles would")
    memory = np.mean([r.ladder.memory.max(initial=0.0) for r in more])  # their largest grows with their number
    if memory > REMEMBERED:
        found.append(f"2k moves still remember {memory:.2f} of the property or the prior: give more moves")
    if any(len(r.ladder.ess) >= MOST_STAGES for r in more):
        found.append(f"not at the threshold after {MOST_STAGES} stages")
    return found


def log_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of positive replicates times e to the power of Student's half width of the relative error."""
    mean = float(np.mean(values))
    if not mean > 0:
        return 0.0, 1.0
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * relative_spread(values) / np.sqrt(len(values))
    return float(mean * np.exp(-half)), float(min(mean * np.exp(half), 1.0))
