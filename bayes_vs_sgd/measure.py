r"""Learning coefficient measured without tuning: sampler, step size, burn-in and length are chosen, and errors budgeted.

Chains run from prior draws (from around the centre, where there is a pull; from the optimum, where the sampler has a step-size
bias and there is one) and are made twice as long until the standard error is as small as wanted; a third of each is left out. Of
particles there are twice as many, and all count. A sampler whose law is off by its step size runs at three step sizes at once,
the smaller ones with more chains, from where a pilot run has come to (``pilot.py``): the estimate is the value at zero of a line
through them, and a parabola through them says how far off that may be. Where the sampler is not the model's own exact one, that
one, or particles that come from the prior by tempering (of these NUTS), must give the same value and the same scale of the
weights (``second_sampler.py``).
"""

import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .curvature import reference_point
from .dynamics import Dynamics
from .errors import InputError, nearest
from .estimate import with_error
from .learning_coefficient import (
    ALONE,
    LEFT_OUT,
    Chains,
    LearningCoefficient,
    baselines,
    check_scale,
    read_chains,
    summarise,
)
from .model import Model
from .pilot import OBSERVED, steepest_reached
from .posterior import Posterior
from .reference import MEMORY, TemperedParticles, by_particles, of_particles
from .results import whole
from .sampler_choice import (
    LINEAR,
    bias_order,
    choose,
    extrapolate,
    preconditioner,
    relaxation_time,
    sampler_of,
    softness,
)
from .second_sampler import needs_second, second_opinion
from .settings import LLC, SAMPLERS
from .simulate import simulate
from .tempered import REMEMBERED

FEWEST = 20
"""Draws of a chain."""
MOST_HALVINGS = 6
"""Times that a step size at which chains are lost is halved."""
FIRST_SHARE = 0.5
"""Share of the time that the first of two samplers has."""
APART = 3.0
"""Standard errors by which two samplers may differ."""
VAGUE = 0.1
"""Relative standard error of the second above which it confirms nothing."""


@dataclass(frozen=True)
class Job:
    """What is measured, how, and until when."""

    target: Posterior
    settings: LLC
    key: int
    folder: Path
    deadline: float
    progress: bool

    @cached_property
    def softness(self) -> float:
        """Least curvature of -log p at a minimum, localisation apart."""
        return softness(self.target)

    @property
    def seconds_left(self) -> float:
        """Wall time that is left."""
        return self.deadline - time.monotonic()


def measure(
    model: Model | Posterior,
    *,
    key: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> tuple[LearningCoefficient, xr.DataTree]:
    """Measure n beta (E[L] - L(w*)); also return the draws.

    Parameters
    ----------
    model
        Model, or a posterior that brings its own inverse temperature and localisation.
    key
        Seed.
    folder
        Where draws are kept; an interrupted measurement there goes on.
    progress
        Show it on standard error.
    settings
        Fields of ``settings.LLC``.

    Raises
    ------
    InputError
        If a setting cannot be, or no draw is reached in time.
    """
    chosen = LLC(**settings)
    target = model if isinstance(model, Posterior) else posterior(model, chosen)
    return measure_posterior(target, chosen, key, folder, progress)


def measure_posterior(
    target: Posterior, chosen: LLC, key: int = 0, folder: str | Path | None = None, progress: bool = True
) -> tuple[LearningCoefficient, xr.DataTree]:
    """Measure at the given target; of the settings, those of the target are not looked at."""
    _check(target, chosen)
    started = time.monotonic()
    known, name = baselines(target, chosen.baseline)
    with _place(folder) as kept:
        alone = not (chosen.second and needs_second(target, chosen))
        job = Job(target, chosen, key, kept, started + chosen.max_seconds * (1 if alone else FIRST_SHARE), progress)
        tree, (chains, (value, error), left, doubts) = _until_precise(job, known[name]["value"])
        budget: dict[str, float | None] = {}
        if float(target.localization) > 0:
            budget["localisation"], local = _delocalised(job, tree, known[name]["value"], (value, error))
            doubts += local
        second, more = _second(job, tree, chains, known[name]["value"], (value, error))
        doubts += more
        made = sampler_of(tree)
        drawn = {"burn_in": left_out(tree), "num_chains": tree["posterior"].sizes["chain"]}
        drawn |= {"num_draws": tree["posterior"].sizes["draw"], "num_steps": int(tree.attrs["num_steps"])}
        found = summarise(
            chains,
            target,
            known,
            name,
            doubts,
            time.monotonic() - started,
            left,
            (value, error),
            reference=reference_by(target, second),
            error_budget=budget,
            sampler=made,
            settings=asdict(chosen) | drawn,
            second=second,
        )
        return found, tree.load()


def posterior(model: Model, settings: LLC) -> Posterior:
    """Target at the wanted inverse temperature, 1/log n by default; the pull is to a minimum that is found if none is known."""
    beta = settings.inverse_temperature
    beta = 1 / math.log(max(model.num_examples, 3)) if beta is None else beta
    if not (np.isfinite(beta) and beta > 0):
        raise InputError(f"inverse_temperature is {beta}: n beta must be finite and > 0 (1/log n by default)")
    center = None
    if settings.localization > 0 and model.optimum is None:
        center = model.constrain(reference_point(model).position)
    return Posterior(model, beta, settings.localization, center)


def _check(target: Posterior, settings: LLC) -> None:
    if settings.num_chains is not None and settings.num_chains < 2:
        raise InputError(
            f"num_chains is {settings.num_chains}: at least two are needed, else nothing says whether a chain has converged"
        )
    if not settings.precision > 0:
        raise InputError(f"precision is {settings.precision}: it must be > 0")
    if settings.num_draws < FEWEST:
        raise InputError(f"num_draws is {settings.num_draws}: it must be at least {FEWEST}")
    if settings.sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {settings.sampler!r}: {nearest(settings.sampler, SAMPLERS)}")
    for name in ("batch_size", "step_size"):
        if getattr(settings, name) is not None and settings.sampler not in SAMPLERS[SAMPLERS.index("sgld") :]:
            raise InputError(f"{name} is for the stochastic-gradient samplers, not for {settings.sampler!r}")
    if target.inverse_temperature.ndim:
        raise InputError("a measurement has one inverse temperature")
    check_scale(target)


@contextlib.contextmanager
def _place(folder: str | Path | None) -> Iterator[Path]:
    """Where draws are kept: the given folder, or one that goes away."""
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def _until_precise(job: Job, baseline: float) -> tuple[xr.DataTree, tuple]:
    """Run, and double the draws until the estimate is as precise as wanted or the time is up."""
    dynamics, more = choose(job.target, job.settings, job.key, job.seconds_left, job.folder)
    num_draws, name, halvings, again, kept = job.settings.num_draws, "draws", 0, 1, None
    if isinstance(dynamics, TemperedParticles):  # which begin anew, twice as many
        num_draws, again = dynamics.num_particles, 3
    while True:
        before = time.monotonic()
        try:
            tree = _run(job, job.target, dynamics, num_draws, name, **more)
        except InputError:
            if kept is None:
                raise
            break  # there was no time for twice as many particles
        if _too_coarse(tree, job) and halvings < MOST_HALVINGS:
            halvings += 1
            dynamics, more = choose(job.target, job.settings, job.key, job.seconds_left, job.folder, 0.5**halvings)
            name = f"draws-{halvings}"
            continue
        found = _estimate(job, tree, job.target, baseline)
        kept = tree, found
        _, (value, error), left, doubts = found
        reached = max(error, left or 0.0) <= job.settings.precision * abs(value)
        late = tree.attrs["stopped"] == "max_seconds" or job.seconds_left < again * (time.monotonic() - before)
        if (reached and not doubts) or late:
            break
        num_draws *= 2
    _, (value, error), left, doubts = kept[1]
    if error > job.settings.precision * abs(value):
        doubts.append(
            f"the standard error is {error / abs(value):.1%} after {job.settings.max_seconds:g} s, not the wanted "
            f"{job.settings.precision:.1%}: give --max-seconds"
        )
    if left is not None and left > job.settings.precision * abs(value):
        doubts.append(f"the step size may still shift the value by {left:.2g}: give a smaller --step-size")
    return kept


def _too_coarse(tree: xr.DataTree, job: Job) -> bool:
    """Whether chains were lost at a step size that was chosen here, and there is time for another."""
    losses = np.asarray(tree["posterior"]["loss"].values)
    chosen = job.settings.step_size is None and "step_time" in tree["posterior"].to_dataset().coords
    return chosen and not np.isfinite(losses).all() and job.seconds_left > 0


def _run(job: Job, target: Posterior, dynamics: Dynamics, num_draws: int, name: str, **more: Any) -> xr.DataTree:
    """Draws of loss and squared norm; those that are there already are kept."""
    if isinstance(dynamics, TemperedParticles):
        return _run_particles(job, target, max(num_draws, dynamics.num_particles))
    thinning = more.pop("thinning", 1)
    settings: dict[str, Any] = {"num_chains": job.settings.chains(target.model.num_parameters)}
    tree = simulate(
        dynamics,
        target,
        key=job.key,
        num_draws=num_draws,
        num_steps=num_draws * thinning,
        observables=OBSERVED,
        folder=job.folder / name,
        max_seconds=max(job.seconds_left, 0.0),
        progress=job.progress,
        **settings | more,
    )
    if "posterior" not in whole(tree):
        raise InputError(
            f"no draw within {job.settings.max_seconds:g} s: the warm-up alone takes longer; give --max-seconds"
        )
    return tree


def _run_particles(job: Job, target: Posterior, num_particles: int) -> xr.DataTree:
    """The same by particles, a replicate a chain."""
    seconds, count = max(job.seconds_left, 0.0), job.settings.chains(target.model.num_parameters)
    say = partial(print, file=sys.stderr, flush=True) if job.progress else lambda line: None
    tree = by_particles(target, job.key, OBSERVED, job.folder / "tempering", say, seconds, num_particles, count)
    if tree is None:
        raise InputError(
            f"particles do not reach the posterior within {job.settings.max_seconds:g} s: give --max-seconds, or --sampler nuts"
        )
    return tree


def _estimate(
    job: Job, tree: xr.DataTree, target: Posterior, baseline: float
) -> tuple[Chains, tuple[float, float], float | None, list[str]]:
    """Chains, the estimate with its error, what is left of the step size's bias, and doubts."""
    chains = read_chains(tree, target, baseline, left_out(tree))
    if chains.step_sizes is None:
        memory = tree.attrs.get(MEMORY, 0.0)
        forgotten = [] if memory <= REMEMBERED else [f"particles still remember {memory:.2f} of the likelihood"]
        return chains, chains.estimate, 0.0, chains.doubts() + forgotten
    rungs, values, errors, doubts = np.unique(chains.step_sizes), [], [], []
    for step in rungs:
        part = chains.rung(step)
        values.append(part.estimate[0])
        errors.append(part.estimate[1])
        doubts += [f"step size {step:.2g}: {doubt}" for doubt in part.doubts()]
    if len(rungs) < len(LINEAR):
        doubts.append(f"every chain of {len(LINEAR) - len(rungs)} of {len(LINEAR)} step sizes was lost")
    made = sampler_of(tree)
    order = bias_order(made["dynamics"], made["batch_size"])
    estimate, left = extrapolate(rungs**order, np.array(values), np.array(errors))
    slowest = chains.rung(rungs[0])
    damping = float(np.max(made.get("damping", 0.0)))
    slowed = preconditioner(target, damping, steepest_reached(tree, target)) if damping else 1.0
    time_scale = relaxation_time(made, job.softness + float(target.localization), slowed)
    num_steps = int(tree.attrs["num_steps"]) - json.loads(tree.attrs["manifest"])["settings"]["num_warmup"]
    slowest = replace(slowest, relaxations=float(rungs[0]) * num_steps / time_scale)
    doubts += slowest.too_short()
    return slowest, (estimate.value, estimate.standard_error), left, doubts


def left_out(tree: xr.DataTree) -> float:
    """Share of the draws before the law is taken to be reached; particles are where it is."""
    return 0.0 if of_particles(tree) else LEFT_OUT


def _delocalised(
    job: Job, tree: xr.DataTree, baseline: float, here: tuple[float, float]
) -> tuple[float | None, list[str]]:
    """Change of the estimate when gamma is a tenth, and what follows."""
    loose = Posterior(
        job.target.model, job.target.inverse_temperature, job.target.localization / 10, _center(job.target)
    )
    dynamics, more = choose(loose, job.settings, job.key, job.seconds_left, job.folder)
    try:
        other = _run(job, loose, dynamics, job.settings.num_draws, "looser", **more)
        found = _estimate(job, other, loose, baseline) if other["posterior"].sizes["draw"] >= FEWEST else None
    except InputError:  # no draw in time, or every chain lost
        found = None
    if found is None:
        return None, ["no time was left to see what the localisation does: give --max-seconds"]
    _, (value, error), _, _ = found
    change = value - here[0]
    doubts = []
    if abs(change) > APART * np.hypot(error, here[1]) and abs(change) > job.settings.precision * abs(here[0]):
        doubts.append(
            f"at a tenth of the localization the value is {value:.4g} ± {error:.2g}: gamma = "
            f"{float(job.target.localization):g} is part of the answer, too strong to be local"
        )
    return change, doubts


def _center(target: Posterior) -> dict[str, Any] | None:
    return None if target.center is None else target.model.constrain(target.center)


def _second(
    job: Job, tree: xr.DataTree, chains: Chains, baseline: float, first: tuple[float, float]
) -> tuple[dict[str, Any] | None, list[str]]:
    """What another sampler says of n beta (L - L*) and of the log of the squared norm, and where the two differ."""
    if sampler_of(tree)["dynamics"] == "Grid" or not needs_second(job.target, job.settings):
        return None, []
    if not job.settings.second:
        return None, [f"{ALONE}: the second was not asked"]
    left = max(job.seconds_left + (1 - FIRST_SHARE) * job.settings.max_seconds, 0.0)
    name, found, doubts = second_opinion(
        job.target, job.settings, job.key, baseline, job.folder, not job.progress, left
    )
    if not found:
        return None, doubts
    pairs = {
        "n beta L": (found["value"], first),
        "the log squared norm": (found["log_squared_norm"], chains.log_size),
    }
    if found["value"].standard_error > VAGUE * abs(first[0]):
        doubts.append(f"{name} gives {found['value']} for n beta L: too wide to confirm it; give --max-seconds")
    for what, (other, (value, error)) in pairs.items():
        if not abs(other.value - value) <= APART * np.hypot(other.standard_error, error):
            doubts.append(f"{name} gives {other} for {what}, the chains {with_error(value, error)}")
    return {"sampler": name} | {k: asdict(v) for k, v in found.items()}, doubts


def reference_by(target: Posterior, second: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the model's own exact sampler says, as second one, of the value at finite n."""
    if second is None or target.model.exact_sampler is None:
        return None
    value = {name: second["value"][name] for name in ("value", "standard_error")}
    return value | {"source": f"a long independent run of {second['sampler']}"}
