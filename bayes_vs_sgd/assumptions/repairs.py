"""Which assumption is to blame? Repair all, then fewer and fewer, then one at a time, and compare again.

A repair makes one assumption hold and leaves the others: another noise of the same size, half the step at the same temperature,
the prior in what is descended, a start from the posterior. With all of them the dynamics is Langevin dynamics, whose law is the
posterior up to its step: the reason of a mismatch is the smallest set of repairs that makes a match.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..comparison.compare import Comparison
from ..comparison.run import OutOfTime, Study, Walk
from ..comparison.verdict import MATCHES, MISMATCH, NO_VERDICT, OPEN
from ..dynamics import GaussianNoise, Minibatch, Optimizer
from ..dynamics.gradients import Gradient
from ..dynamics.white_noise import WhiteNoise
from ..errors import InputError

POWER = 4
"""Times as many seeds where a repair is left inconclusive."""
REPAIRS = {
    "update rule": "plain SGD in the place of its update rule",
    "independent batches": "batches drawn with replacement",
    "non-degeneracy": "isotropic noise added, as large as that of the reference temperature",
    "isotropy": "isotropic noise of one size everywhere, in the place of the batch's",
    "small learning rate": "half the learning rate and half the batch: the same temperature",
    "prior": "the prior in what is descended",
    "stationarity": "a start from the posterior",
    "central limit": "Gaussian noise of the batch's covariance",
}
"""What each repair does; the last costs a pass over all examples a step, and is tried last."""


@dataclass(frozen=True)
class Repaired:
    """Repairs made together, and the comparison that they led to."""

    assumptions: tuple[str, ...]
    comparison: Comparison

    def to_json(self) -> dict[str, Any]:
        """As the contract has it; several names are joined by " + "."""
        verdict = {"assumption": " + ".join(self.assumptions), "verdict": self.comparison.verdict}
        return verdict | {"verdicts": self.comparison.verdicts, "reason": self.comparison.reason}


def possible(dynamics: Optimizer) -> list[str]:
    """Repairs that change something of an optimiser."""
    rule, gradient = repr(dynamics.factory), dynamics.gradient
    without = set()
    if rule == "sgd" and "momentum" not in dynamics.hyperparameters:
        without |= {"update rule"}
    if type(gradient) is Minibatch:
        without |= {"independent batches"}
    if not isinstance(gradient, Minibatch):
        without |= {"independent batches", "central limit"}
    if not isinstance(gradient, Minibatch) or gradient.batch_size < 2:
        without |= {"small learning rate"}
    if dynamics.objective == "posterior":
        without |= {"prior"}
    return [name for name in REPAIRS if name not in without]


def repaired(study: Study, dynamics: Optimizer, names: Iterable[str], start: dict[str, np.ndarray] | None) -> Walk:
    """The dynamics with some assumptions repaired.

    Parameters
    ----------
    study
        Model, settings and the reference temperature.
    dynamics
        What is repaired.
    names
        Of ``REPAIRS``.
    start
        Positions drawn from the posterior, where the start is repaired.
    """
    names, settings = set(names), dict[str, Any](dynamics.hyperparameters) | dict(dynamics.options)
    gradient, rate = dynamics.gradient, float(dynamics.step_time)
    factory: Any = dynamics.factory.function
    longer = 1
    if "update rule" in names:
        import optax

        factory, rate, settings = optax.sgd, study.learning_rate, {}
    batch = getattr(gradient, "batch_size", None)
    if "small learning rate" in names:
        rate, batch, longer = rate / 2, batch // 2 if batch else batch, 2
    momentum = float(settings.get("momentum", 0.0))
    if "isotropy" in names:
        gradient = WhiteNoise.heating(study.scale, rate, momentum)
    else:
        gradient = _with_batch(gradient, batch, "independent batches" in names, "central limit" in names)
        if "non-degeneracy" in names:
            gradient = WhiteNoise.heating(study.scale, rate, momentum, gradient)
    objective = "posterior" if "prior" in names else dynamics.objective
    settings |= {"learning_rate": np.asarray(rate)}
    made = Optimizer(factory, sampling=gradient, objective=objective, **settings)
    return Walk(made, start if "stationarity" in names else None, longer)


def _with_batch(gradient: Gradient, batch: Any, independent: bool, gaussian: bool) -> Gradient:
    if gaussian:
        return GaussianNoise(float(batch))
    if independent:
        return Minibatch(batch_size=batch)
    if isinstance(gradient, Minibatch) and batch != gradient.batch_size:
        return type(gradient)(batch_size=batch)
    return gradient


def posterior_start(study: Study, plain: str) -> dict[str, np.ndarray]:
    """Positions of the reference of a comparison that was made, enough for the most seeds."""
    _, reference = study.trees[plain]
    assert reference is not None  # an audit has one
    number, rng = POWER * study.settings.num_seeds, np.random.default_rng(study.seed)
    sites = [name for name, _ in study.model.latents]
    if not set(sites) <= set(reference["posterior"].data_vars):
        raise InputError("the reference recorded no positions: too many parameters to start from the posterior")
    found = {name: np.asarray(reference["posterior"][name].values) for name in sites}
    found = {name: v.reshape(-1, *v.shape[2:]) for name, v in found.items()}
    size = len(next(iter(found.values())))
    rows = rng.choice(size, size=number, replace=number > size)
    return {name: v[rows] for name, v in found.items()}


def decided(study: Study, label: str, walk: Walk, deadline: float, settling: float = 0.0) -> Comparison:
    """Compare a walk with the posterior, with more seeds where the first leave it open and there is time.

    ``settling`` is for how many seconds its steps may be doubled until it is stationary. Raises ``OutOfTime`` where the study
    has no time for it.
    """
    found = None
    for wider in (1, POWER):
        number = wider * study.settings.num_seeds
        initial = walk.initial and {k: v[:number] for k, v in walk.initial.items()}
        name = label if wider == 1 else f"{label}, {wider} times the seeds"
        study.own[name] = replace(walk, wider=wider, initial=initial)
        try:
            found = study.compare(name, time.monotonic() + settling)
        except OutOfTime:
            if found is None:
                raise
            break
        if found.verdict not in OPEN or time.monotonic() > deadline:
            break
    assert found is not None
    return found


@dataclass(frozen=True)
class Interventions:
    """All comparisons after repairs, the smallest set of repairs that made a match (None if none did), what time cut off."""

    tried: list[Repaired]
    smallest: tuple[str, ...] | None
    missing: tuple[str, ...] = ()


def interventions(study: Study, dynamics: Optimizer, plain: str, deadline: float) -> Interventions:
    """Compare again with everything repaired, with one repair less as long as it matches, then with each repair alone."""
    names, tried, missing = possible(dynamics), [], []
    start = posterior_start(study, plain)
    study.until = deadline

    def matches(chosen: tuple[str, ...]) -> bool:
        walk, label = repaired(study, dynamics, chosen, start), " + ".join(chosen)
        try:
            if time.monotonic() + study.rest_seconds > deadline:
                raise OutOfTime
            tried.append(Repaired(chosen, decided(study, f"repaired {label}", walk, deadline)))
        except OutOfTime:
            missing.append(label if len(chosen) > 1 else f"{label} alone")
            return False
        return tried[-1].comparison.verdict in MATCHES

    # White noise of one size is Gaussian and has every direction; batches, and their order, have no part in it.
    smallest = tuple(name for name in names if name not in ("central limit", "independent batches", "non-degeneracy"))
    if not matches(smallest):
        return Interventions(tried, None, tuple(missing))
    for name in reversed(smallest):
        fewer = tuple(other for other in smallest if other != name)
        if fewer and matches(fewer):
            smallest = fewer
    for name in names:
        if len(smallest) == 1:
            break
        if (name,) not in [r.assumptions for r in tried] and f"{name} alone" not in missing and matches((name,)):
            smallest = (name,)
    return Interventions(tried, smallest, tuple(missing) if len(smallest) > 1 else ())


def reason(plain: Comparison, found: Interventions | None) -> str:
    """The one sentence: what has to be repaired for the law to be the posterior."""
    name, seeds = plain.dynamics, plain.num_seeds
    if plain.verdict in MATCHES:
        return f"{name} samples the tempered posterior within the margins: nothing needs repair"
    if plain.verdict == NO_VERDICT:
        return f"{name}: {plain.reason}"
    if plain.verdict != MISMATCH:
        return f"{name} is not told from the tempered posterior with {seeds:,} seeds: {plain.reason}"
    if found is None:
        return f"{name} is not the tempered posterior: {plain.reason}"
    untried = f"; within the time not tried: {', '.join(found.missing)}" if found.missing else ""
    if found.smallest is None and not found.tried:
        return f"{name} is not the tempered posterior: {plain.reason}{untried}"
    if found.smallest is None:
        return f"{name} is not the tempered posterior, nor with all repairs: {found.tried[-1].comparison.reason}"
    parts = [f"{each} ({REPAIRS[each]})" for each in found.smallest]
    return f"{name} is not the tempered posterior; it would be with {' and '.join(parts)}{untried}"
