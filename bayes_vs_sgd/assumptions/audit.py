"""The Langevin audit: which assumption of "SGD is Langevin dynamics" fails on a model, by how much, and which one matters."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..comparison.interventions import Interventions, decided, interventions
from ..comparison.plan import Walk
from ..comparison.result import Comparison, Repaired
from ..comparison.run import OutOfTime, Study
from ..comparison.verdict import MATCHES, MISMATCH, NO_VERDICT, OPEN
from ..curvature import gradient_noise, reference_point
from ..diagnostics import finite_or_none
from ..dynamics import FullBatch, Optimizer
from ..errors import InputError
from ..model import Model
from ..settings import AuditSettings, Compare
from .assumption import Assumption
from .entries import assumptions, in_order, left_out, regular_law
from .refined import Description, describe, own_name, refined_models
from .weak_error import weak_error

REPAIRS_SHARE = 0.75
"""Of the time, after which no repair is begun, so that some is left for the models."""
DEFAULT = AuditSettings()


@dataclass(frozen=True)
class Audit:
    """What was found: each assumption, the comparison, the repairs, the refined models, and the reason in one sentence.

    ``left_out`` names what was not looked at, with what that takes; ``missing`` the refined models for which there was no time.
    """

    dynamics: str
    settings: dict[str, Any]
    assumptions: list[Assumption]
    left_out: dict[str, str]
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
    return Audit(name, dynamics.settings, in_order(held), left_out(held), comparison, tried, models, missing, said)


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
