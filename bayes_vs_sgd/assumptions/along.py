"""The Langevin audit along a run: what needs only a point, at the checkpoints of a run that has recorded its positions.

Hessian and noise move while a run learns: an assumption may fail on the way and hold at the end, or the other way round. What
needs a law (currents, stationarity) or a temperature (the prior's share) is not asked here.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import jax
import optax
import xarray as xr

from ..along import at_centers, checkpoints, read_run
from ..comparison.run import Study
from ..diagnostics import finite_or_none
from ..dynamics import GaussianNoise, IsotropicNoise, Optimizer
from ..dynamics.gradients import Fresh, FullBatch, Minibatch, Shuffled
from ..errors import InputError
from ..model import Model
from ..posterior import Posterior
from ..settings import AuditSettings
from .assumption import Assumption
from .audit import DEFAULT, as_compare
from .entries import at_a_point, finite_variance, in_order, preconditioner
from .local import local
from .noise import noise_samples, num_draws
from .tails import SMALLEST

NUM_TAILS = 4000
"""Gradients drawn at a checkpoint for their tail index."""
BATCHES = {kind.name: kind for kind in (Minibatch, Shuffled, Fresh)}
NOISES = {kind.name: kind for kind in (GaussianNoise, IsotropicNoise)}
WORDS = ("name", "law", "rule", "batch_size", "sampling", "objective")
"""What a manifest says of an optimiser beside its hyper-parameters."""


@dataclass(frozen=True)
class Place:
    """One checkpoint: its step, the loss, and the assumptions that need only a point."""

    step: int
    loss: float
    assumptions: list[Assumption]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self))


@dataclass(frozen=True)
class AuditAlong:
    """The optimiser that is audited, and what holds at each checkpoint."""

    settings: dict[str, Any]
    places: list[Place]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none({"settings": self.settings, "along": self.places})


def audit_along(
    model: Model,
    run: xr.DataTree | str | Path,
    dynamics: Optimizer | None = None,
    settings: AuditSettings = DEFAULT,
    *,
    key: int = 0,
    chain: int = 0,
) -> AuditAlong:
    """Hold the local assumptions against the model at evenly spaced draws of one chain of a run.

    Parameters
    ----------
    model
        The model, with single examples.
    run
        With recorded positions: a tree, a run folder, or a NetCDF file of positions.
    dynamics
        An optimiser with noise; by default the one that made the run, where the run says so, else that of the settings.
    settings
        ``num_checkpoints``, and what names an optimiser.
    key
        Seed of the gradients that are drawn.
    chain
        Of the run.

    Raises
    ------
    InputError
        If no positions are recorded, or the optimiser has no noise.
    """
    tree = run if isinstance(run, xr.DataTree) else read_run(run)
    steps, values = checkpoints(tree, Posterior(model), settings.num_checkpoints, chain)
    dynamics = dynamics or optimizer_of(tree)
    if dynamics is None:
        study = Study(model, as_compare(settings, settings.dynamics), key, progress=False)
        dynamics = cast(Optimizer, study.dynamics(settings.dynamics))
    if not isinstance(dynamics, Optimizer) or isinstance(dynamics.gradient, FullBatch):
        raise InputError(f"audit along a run of {type(dynamics).__name__}: give an optimiser with noise, such as SGD")
    target = Posterior(model)
    dynamics.prepare(target)
    positions = jax.vmap(model.unconstrain)(values)
    losses = at_centers(target, positions)["loss"]
    places = []
    for index, step in enumerate(steps):
        position = {site: v[index] for site, v in positions.items()}
        place = local(target, dynamics.gradient, position, preconditioner(target, dynamics, position), key)
        found = at_a_point(target, dynamics, position, place, key)
        if (count := min(num_draws(target), NUM_TAILS)) >= 2 * SMALLEST:
            noise = noise_samples(target, dynamics.gradient, position, key, count)
            found.append(finite_variance("noise", noise, key, independent=True))
        places.append(Place(int(step), float(losses[index]), in_order(found)))
    return AuditAlong(dynamics.settings, places)


def optimizer_of(tree: xr.DataTree) -> Optimizer | None:
    """The optimiser that a run's manifest names: of Optax, with one learning rate, on batches; None if it is another."""
    made = json.loads(tree.attrs.get("manifest", "{}")).get("dynamics", {})
    factory = getattr(optax, str(made.get("rule")), None)
    if made.get("name") != "Optimizer" or factory is None:
        return None
    kind, batch = made["sampling"], made["batch_size"]
    gradient = BATCHES[kind](batch_size=batch) if kind in BATCHES else NOISES[kind](batch) if kind in NOISES else None
    values = {k: v for k, v in made.items() if k not in WORDS}
    if gradient is None or not all(isinstance(v, float) for v in values.values()):
        return None
    return Optimizer(factory, sampling=gradient, objective=made["objective"], **values)
