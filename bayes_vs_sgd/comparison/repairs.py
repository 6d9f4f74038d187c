"""Which assumption is to blame? Repair all, then fewer and fewer, then one at a time, and compare again.

A repair makes one assumption hold and leaves the others: another noise of the same size, half the step at the same temperature,
the prior in what is descended, a start from the posterior. With all of them the dynamics is Langevin dynamics, whose law is the
posterior up to its step: the reason of a mismatch is the smallest set of repairs that makes a match.
"""

import time
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..dynamics import GaussianNoise, Minibatch, Optimizer
from ..dynamics.noise import noise_batch
from ..dynamics.white_noise import WhiteNoise
from ..errors import InputError
from .plan import Walk
from .result import Comparison, Repaired
from .run import OutOfTime, Study
from .verdict import MATCHES, MISMATCH, OPEN

POWER = 4
"""Times as many seeds where a repair is left inconclusive."""
REPAIRS = {
    "update rule": "plain SGD in the place of its update rule",
    "independent batches": "batches drawn with replacement",
    "non-degeneracy": "isotropic noise added, as large as that of the temperature",
    "isotropy": "isotropic noise of one size everywhere, in the place of the batch's",
    "small learning rate": "half the batch, and the learning rate in proportion: the same temperature",
    "prior": "the prior in what is descended",
    "stationarity": "a start from the posterior",
    "central limit": "Gaussian noise of the batch's covariance",
}
"""What each repair does; the last costs a pass over all examples a step, and is tried last."""


def possible(dynamics: Optimizer, num_examples: int) -> list[str]:
    """Repairs that change something of an optimiser."""
    gradient = dynamics.gradient
    without = set()
    if dynamics.rule == "sgd" and not dynamics.momentum:
        without |= {"update rule"}
    if type(gradient) is Minibatch:
        without |= {"independent batches"}
    if not isinstance(gradient, Minibatch):
        without |= {"independent batches", "central limit"}
    elif noise_batch(gradient, num_examples) == np.inf:
        without |= {"central limit"}
    if dynamics.objective == "posterior":
        without |= {"prior"}
    without |= set(impossible(dynamics, num_examples))
    return [name for name in REPAIRS if name not in without]


def impossible(dynamics: Optimizer, num_examples: int) -> dict[str, str]:
    """Repairs that would change something and cannot be made, and why."""
    gradient, why = dynamics.gradient, ""
    if not isinstance(gradient, Minibatch):
        why = "there is no batch to halve"
    elif gradient.batch_size < 2:
        why = "a batch of one has no half"
    elif noise_batch(gradient, num_examples) == np.inf:
        why = "an epoch of one batch has no temperature to keep"
    return {"small learning rate": why} if why else {}


def repaired(study: Study, dynamics: Optimizer, names: Iterable[str], start: dict[str, np.ndarray] | None) -> Walk:
    """The dynamics with some assumptions repaired.

    Parameters
    ----------
    study
        Model, settings and the n beta at which isotropic noise heats.
    dynamics
        What is repaired.
    names
        Of ``REPAIRS``.
    start
        Positions drawn from the posterior, where the start is repaired.
    """
    names, settings = set(names), dict[str, Any](dynamics.hyperparameters) | dict(dynamics.options)
    gradient: Any = dynamics.gradient
    rate, number = float(dynamics.step_time), study.model.num_examples
    factory: Any = dynamics.factory.function
    longer = 1
    if "update rule" in names:
        import optax

        factory, rate, settings = optax.sgd, study.learning_rate, {}
    if "independent batches" in names:
        gradient = Minibatch(batch_size=gradient.batch_size)
    if "small learning rate" in names:
        smaller = type(gradient)(batch_size=gradient.batch_size // 2)
        share = noise_batch(smaller, number) / noise_batch(gradient, number)
        rate, longer, gradient = rate * share, int(np.ceil(1 / share)), smaller
    momentum = float(settings.get("momentum", 0.0))
    if "isotropy" in names:
        gradient = WhiteNoise.heating(study.scale, rate, momentum)
    else:
        if "central limit" in names:
            gradient = GaussianNoise(noise_batch(gradient, number))
        if "non-degeneracy" in names:
            gradient = WhiteNoise.heating(study.scale, rate, momentum, gradient)
    objective = "posterior" if "prior" in names else dynamics.objective
    settings |= {"learning_rate": np.asarray(rate)}
    made = Optimizer(factory, sampling=gradient, objective=objective, **settings)
    return Walk(made, start if "stationarity" in names else None, longer)


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
    """All comparisons after repairs, and the smallest set of repairs that made a match (None if none did).

    ``missing`` is what time cut off, ``impossible`` which repairs cannot be made, and why.
    """

    tried: list[Repaired]
    smallest: tuple[str, ...] | None
    missing: tuple[str, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)

    def in_words(self) -> str:
        """What has to be repaired for the law to be the posterior."""
        untried = "; within the time not tried: " + ", ".join(self.missing[:3]) if self.missing else ""
        untried += f" and {len(self.missing) - 3} more" if len(self.missing) > 3 else ""
        untried += "".join(f"; {name} cannot be repaired: {why}" for name, why in self.impossible.items())
        if self.smallest is not None:
            parts = [f"{each} ({REPAIRS[each]})" for each in self.smallest]
            return f"it would be with {' and '.join(parts)}{untried}"
        if self.tried:
            last = self.tried[-1].comparison
            word = "whether it is with all repairs is open" if last.verdict in OPEN else "nor is it with all repairs"
            return f"{word}: {last.reason}{untried}"
        return untried.removeprefix("; ") or "no repair can be made"


def interventions(study: Study, dynamics: Optimizer, plain: Comparison, deadline: float) -> Interventions:
    """Compare again with everything repaired, with one repair less as long as it matches, then with each repair alone.

    Noise, prior and start that are repaired are those of the posterior that ``plain`` was compared with.
    """
    number, tried, missing = study.model.num_examples, [], []
    names, never = possible(dynamics, number), impossible(dynamics, number)
    start, used = posterior_start(study, plain.dynamics), plain.inverse_temperature["used"]
    assert used is not None  # a comparison has one
    study = copy(study)
    study.scale, study.until = used * number, deadline

    def matches(chosen: tuple[str, ...]) -> bool:
        walk, label = repaired(study, dynamics, chosen, start), " + ".join(chosen)
        try:
            if time.monotonic() + study.rest_seconds > deadline:
                raise OutOfTime
            tried.append(Repaired(chosen, decided(study, f"{plain.dynamics} repaired: {label}", walk, deadline)))
        except OutOfTime:
            missing.append(label if len(chosen) > 1 else f"{label} alone")
            return False
        return tried[-1].comparison.verdict in MATCHES

    # White noise of one size is Gaussian and has every direction; batches, and their order, have no part in it.
    smallest = tuple(name for name in names if name not in ("central limit", "independent batches", "non-degeneracy"))
    if not matches(smallest):
        return Interventions(tried, None, tuple(missing), never)
    for name in reversed(smallest):
        fewer = tuple(other for other in smallest if other != name)
        if fewer and matches(fewer):
            smallest = fewer
    for name in names:
        if len(smallest) == 1:
            break
        if (name,) not in [r.assumptions for r in tried] and f"{name} alone" not in missing and matches((name,)):
            smallest = (name,)
    return Interventions(tried, smallest, tuple(missing) if len(smallest) > 1 else (), never)


def explained(study: Study, plain: Comparison, deadline: float) -> Comparison:
    """The comparison with its repairs, and the smallest of them as its reason, where an optimiser's law is a mismatch."""
    dynamics = study.dynamics(plain.dynamics)
    if plain.verdict != MISMATCH or not isinstance(dynamics, Optimizer):
        return plain
    found = interventions(study, dynamics, plain, deadline)
    return replace(plain, repairs=found.tried, reason=f"{found.in_words()}; as it is: {plain.reason}")
