"""The Langevin audit: which assumption of "SGD is Langevin dynamics" fails on a model, by how much, and which one matters."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import xarray as xr

from ..comparison.plan import Walk
from ..comparison.repairs import Interventions, decided, interventions
from ..comparison.result import Comparison, Repaired
from ..comparison.roots import judged
from ..comparison.run import OutOfTime, Study
from ..comparison.stationarity import ENSEMBLE
from ..comparison.verdict import MATCHES, MISMATCH, NO_VERDICT, OPEN
from ..curvature import gradient_noise, reference_point
from ..diagnostics import finite_or_none
from ..dynamics import Fresh, FullBatch, Minibatch, Optimizer
from ..errors import InputError
from ..model import Model, Position
from ..posterior import Posterior
from ..results import final_positions
from ..settings import AuditSettings, Compare
from . import local, path
from .assumption import Assumption, measured, undefined
from .production import entropy_production, shaken_directions
from .refined import Description, describe, own_name, refined_models
from .regularity import regularity
from .step_size import half_edge, small_steps, stability
from .tails import SMALLEST, tail_index
from .temperatures import one_temperature
from .weak_error import weak_error

CONSTANCY = 0.2
"""Margin of the relative spread of tr C over the law."""
NUM_PLACES = 64
"""Positions of the law at which tr C is taken."""
MOST_DIRECTIONS = 32
"""Directions in which tails are looked at."""
MOST_PATHS = 200
"""Most parameters of models whose steps are recorded one by one."""
REPAIRS_SHARE = 0.75
"""Of the time, after which no repair is begun, so that some is left for the models."""
ORDER = (
    "central limit", "finite variance of the noise", "finite variance of the law", "isotropy", "noise of one size",
    "non-degeneracy", "regularity", "detailed balance", "no currents", "entropy production", "small learning rate",
    "mean-square stability", "weak error", "stationarity", "one temperature", "fluctuation and dissipation", "diffusion",
    "independent batches", "prior",
)  # fmt: skip
"""Assumptions, in the order in which they are told."""
DEFAULT = AuditSettings()


@dataclass(frozen=True)
class Audit:
    """What was found: each assumption, the comparison, the repairs, the refined models, and the reason in one sentence.

    ``missing`` names the refined models for which there was no time.
    """

    dynamics: str
    settings: dict[str, Any]
    assumptions: list[Assumption]
    comparison: Comparison
    repairs: list[Repaired]
    models: list[Description]
    missing: list[str]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none({name: getattr(self, name) for name in self.__dataclass_fields__})


def audit(
    model: Model,
    dynamics: Optimizer | None = None,
    settings: AuditSettings = DEFAULT,
    *,
    key: int = 0,
    folder: Path | None = None,
    progress: bool = True,
) -> Audit:
    """Measure on a model which assumption of Langevin dynamics an optimiser breaks, and which of them matters.

    Parameters
    ----------
    model
        The model, with single examples.
    dynamics
        An optimiser; by default the one that ``settings.dynamics`` names, at the learning rate of ``compare``.
    settings
        Lengths and budget.
    key
        Seed of the simulation.
    folder
        Where runs are kept; an interrupted audit is continued there.
    progress
        Whether runs report.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If the dynamics is no optimiser, or its gradient has no noise.
    """
    started = time.monotonic()
    name = settings.dynamics if dynamics is None else dynamics.rule
    compared = as_compare(settings, name)
    if dynamics is not None:
        batch = settings.batch_size if dynamics.batch_size is None else max(round(float(dynamics.batch_size)), 1)
        compared = replace(compared, learning_rate=plain_rate(model, dynamics, batch), batch_size=batch)
    study = Study(model, compared, key, folder, progress, {} if dynamics is None else {name: Walk(dynamics)})
    dynamics = cast(Optimizer, study.dynamics(name))
    if not isinstance(dynamics, Optimizer) or isinstance(dynamics.gradient, FullBatch):
        raise InputError(f"audit of {name}: give an optimiser with noise, such as SGD(0.05, batch_size=8)")
    if study.theory is None:
        raise InputError(
            "gradients of the examples have no noise at the minimum: they give no temperature to hold a run against; "
            "audit a model whose labels have noise"
        )
    deadline = started + settings.max_seconds
    comparison = decided(study, name, Walk(dynamics), deadline, settings.max_seconds / 6)
    name = comparison.dynamics
    held = [*assumptions(study, name, dynamics), regular_law(study, comparison)]
    models: list[Description] = []
    missing: list[str] = []
    repairs = None
    if settings.repairs and comparison.verdict == MISMATCH:
        share = REPAIRS_SHARE if settings.models else 1.0
        repairs = interventions(study, dynamics, comparison, started + share * settings.max_seconds)
    if settings.models and comparison.verdict != NO_VERDICT:
        study.until, study.rest_seconds = deadline, 0.0
        for label, equation in refined_models(study, dynamics, name, held).items():
            try:
                models.append(describe(study, label, name, equation))
            except OutOfTime:
                missing.append(label)
        own = next((m for m in models if m.dynamics == own_name(dynamics)), None)
        held += [] if own is None else [weak_error(study, dynamics, name, own)]
    tried = [] if repairs is None else repairs.tried
    said = reason(comparison, repairs) + described_by(models)
    return Audit(name, dynamics.settings, in_order(held), comparison, tried, models, missing, said)


def described_by(models: list[Description]) -> str:
    """Which equation describes the run, the plainest first."""
    if not models:
        return ""
    fitting, undecided = ([m.dynamics for m in models if m.verdict in v] for v in (MATCHES, OPEN))
    if fitting:
        return f"; its run is described by {fitting[0]}"
    if undecided:
        return f"; whether its run is described by {' or '.join(undecided)} is open"
    return f"; its run is described by none of {', '.join(m.dynamics for m in models)}"


def reason(plain: Comparison, found: Interventions | None) -> str:
    """What has to be repaired, in one sentence."""
    name, seeds = plain.dynamics, plain.num_seeds
    if plain.verdict in MATCHES:
        return f"{name} samples the tempered posterior within the margins: nothing needs repair"
    if plain.verdict == NO_VERDICT:
        return f"{name}: {plain.reason}"
    if plain.verdict != MISMATCH:
        return f"{name} is not told from the tempered posterior with {seeds:,} seeds: {plain.reason}"
    said = f"{name} is not the tempered posterior"
    if found is None:
        return f"{said}: {plain.reason}"
    return f"{said}; {found.in_words()}" if found.tried else f"{said}: {plain.reason}; {found.in_words()}"


def plain_rate(model: Model, dynamics: Optimizer, batch_size: int) -> float:
    """Learning rate at which plain SGD has the temperature of an optimiser's: what ``Plan.dynamics`` does, undone."""
    if np.ndim(dynamics.step_time):
        raise InputError("an audit has one learning rate, not one a chain")
    rate = float(dynamics.step_time)
    if dynamics.rule == "sgd":
        return rate / (1 - dynamics.momentum)
    noise = gradient_noise(model, reference_point(model).position).per_direction
    return rate / float(np.sqrt(noise / batch_size)) if noise else rate


def as_compare(settings: AuditSettings, name: str) -> Compare:
    """Settings of a comparison of one dynamics."""
    shared = {k: getattr(settings, k) for k in Compare.__dataclass_fields__ if k in AuditSettings.__dataclass_fields__}
    return Compare(**shared | {"dynamics": (name,), "controls": False})


def assumptions(study: Study, name: str, dynamics: Optimizer) -> list[Assumption]:
    """Hold every assumption against the model at its minimum, and against the run where enough chains are left."""
    tree, _ = study.trees[name]
    target, position = study.target(study.scale), study.minimum.position
    dynamics.gradient.check(study.model)
    place = local.local(target, dynamics.gradient, position, preconditioner(target, dynamics, position), study.seed)
    found = at_a_point(target, dynamics, position, place, study.seed)
    if place.hessian is not None and dynamics.objective == "loss":
        found.append(local.prior_share(place, target, position))
    if final_positions(tree)[1].sum() >= ENSEMBLE:
        found += over_the_law(study, tree, dynamics, place)
    return in_order(found)


def regular_law(study: Study, comparison: Comparison) -> Assumption:
    """What the draws that the run was compared with say of the posterior itself."""
    reference, used = study.trees[comparison.dynamics][1], comparison.inverse_temperature["used"]
    assert reference is not None  # an audit has one
    assert used is not None  # a comparison has one
    return regularity(reference, study.target(used * study.model.num_examples))


def in_order(found: list[Assumption]) -> list[Assumption]:
    """As they are told."""
    return sorted(found, key=lambda a: ORDER.index(a.name))


def at_a_point(
    target: Posterior, dynamics: Optimizer, position: Position, place: local.Local, seed: int
) -> list[Assumption]:
    """What the Hessian and the gradients of the examples say at one position."""
    gradient, num_examples = dynamics.gradient, target.model.num_examples
    steps = (float(dynamics.step_time), dynamics.momentum, dynamics.nesterov)
    found = [local.central_limit(target, gradient, position, seed), local.isotropy(place)]
    found += [local.commutation(place), small_steps(place, steps[0], half_edge(dynamics))]
    if place.hessian is not None:
        found.append(local.non_degeneracy(place, target))
    if isinstance(gradient, Minibatch) and not isinstance(gradient, Fresh):
        found.append(path.repetition(target, gradient, position, max(num_examples // gradient.batch_size, 1), seed))
        limit = stability(target, gradient.batch_size, position, *steps) if dynamics.rule == "sgd" else None
        found += [] if limit is None else [limit]
    return found


def over_the_law(study: Study, tree: xr.DataTree, dynamics: Optimizer, place: local.Local) -> list[Assumption]:
    """What the ensemble and its next steps say."""
    target, gradient, rate = study.target(study.scale), dynamics.gradient, float(dynamics.step_time)
    found = [*tails(target, dynamics, tree, study.seed), constancy(target, dynamics, tree)]
    found.append(path.stationarity(tree, list(judged(study.chosen)), study.margins))
    temperature = one_temperature(target, study.minimum.position, path.ended(tree), study.margins)
    found += [] if temperature is None else [temperature]
    if is_plain(dynamics) and dynamics.objective == "loss" and place.has_variance:  # of which all these are made
        found.append(path.fluctuation_dissipation(target, gradient, rate, path.ended(tree), study.seed))
        if study.model.num_parameters <= MOST_PATHS:
            paths = path.continued(dynamics, target, tree, study.seed + 3)
            found += of_paths(paths, place, rate, study.seed) if len(paths) >= ENSEMBLE else []
    return found


def of_paths(paths: np.ndarray, place: local.Local, rate: float, seed: int) -> list[Assumption]:
    """What successive positions say."""
    found, shaken = [path.anomalous_diffusion(paths, place, rate)], shaken_directions(place)
    found += [path.current(paths, place, rate)] if len(place.modes()[0]) > 1 else []
    return [*found, entropy_production(paths, shaken, seed)] if shaken.shape[1] > 1 else found


def is_plain(dynamics: Optimizer) -> bool:
    """Whether the update is theta - eta g."""
    return dynamics.rule == "sgd" and not dynamics.momentum


def preconditioner(target: Posterior, dynamics: Optimizer, position: dict) -> np.ndarray | None:
    """Diagonal by which Adam and RMSprop multiply the gradient at stationarity: 1 over the root of its mean square."""
    if dynamics.rule not in ("adam", "rmsprop", "adamw"):
        return None
    key, number = jax.random.key(0), local.num_draws(target)
    drawn = np.asarray(local.gradient_samples(target, dynamics.gradient, position, key, number), float)
    return 1 / (np.sqrt(np.mean(drawn**2, axis=0)) + float(dynamics.hyperparameters.get("eps", 1e-8)))


def tails(target: Posterior, dynamics: Optimizer, tree: xr.DataTree, seed: int) -> list[Assumption]:
    """Tail index of the gradient's noise over the law, and of the law itself around its median.

    Samples of one chain stand together, so that their correlations are in the errors and in the null.
    """
    _, kept = final_positions(tree)
    if kept.sum() < SMALLEST:
        return []
    positions = path.late(target, tree)
    noise = path.noise_over_the_law(target, dynamics.gradient, positions, seed)
    law = np.asarray(jax.vmap(target.flat)(positions), float)
    return [finite_variance("noise", noise, seed), finite_variance("law", law - np.median(law, axis=0), seed)]


def finite_variance(what: str, sample: np.ndarray, seed: int, independent: bool = False) -> Assumption:
    """Tail index of some vectors, one a row, by both estimators."""
    sample = sample[np.any(sample != 0, axis=1)]
    if sample.shape[1] > MOST_DIRECTIONS:  # random ones keep a tail, and what surrogates cost is theirs
        sample = sample @ np.random.default_rng(seed).normal(size=(sample.shape[1], MOST_DIRECTIONS))
    index = tail_index(sample, independent=independent)
    nulls = f"{index.hill.null[0]:.1f} to {index.hill.null[1]:.1f}"
    note = f"99 % interval; by sums of {index.block_size}: {index.blocks.value:.2f}; normal samples: {nulls}"
    holds, hill = None if index.heavy is None else not index.heavy, index.hill
    name = f"finite variance of the {what}"
    return Assumption(name, "tail index, above 2", hill.value, hill.interval, 2.0, 0.0, holds, note)


def constancy(target: Posterior, dynamics: Optimizer, tree: xr.DataTree) -> Assumption:
    """Relative standard deviation of tr C over the law: a temperature needs noise of one size."""
    statistic = "relative spread of tr C over the law"
    if not local.has_variance(dynamics.gradient):
        return undefined("noise of one size", statistic, 0.0, CONSTANCY, local.NO_VARIANCE)
    places = {k: v[:NUM_PLACES] for k, v in path.ended(tree).items()}
    traces = local.noise_traces(target, dynamics.gradient, places)
    value = traces.std(ddof=1) / traces.mean()
    left_out = np.array([np.delete(traces, i).std(ddof=1) / np.delete(traces, i).mean() for i in range(len(traces))])
    error = float(np.sqrt((len(traces) - 1) * left_out.var()))
    return measured("noise of one size", statistic, value, error, 0.0, CONSTANCY)
