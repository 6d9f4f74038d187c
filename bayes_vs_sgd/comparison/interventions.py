"""Which assumption is to blame? Repair all, then fewer and fewer, then one at a time, and compare again.

The reason of a mismatch is the smallest set of repairs (``repairs.py``) that makes a match. Where noise of one size everywhere is
in it, isotropic noise that is as large as the batch's at each position is tried in its place.
"""

import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from ..dynamics import Optimizer
from ..errors import InputError
from .plan import Walk
from .repairs import ONE_SIZE, REPAIRS, impossible, isotropic_scale, possible, repaired
from .result import Comparison, Repaired
from .run import OutOfTime, Study
from .verdict import MATCHES, MISMATCH, OPEN

POWER = 4
"""Times as many seeds where a repair is left inconclusive."""


def posterior_start(study: Study, reference: xr.DataTree) -> dict[str, np.ndarray]:
    """Positions of a reference, enough for the most seeds."""
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

    Noise, prior and start that are repaired are those of the posterior that ``plain`` was compared with; where isotropic noise of
    the same trace has another temperature, and no temperature is set, prior and start are those of the posterior at that one.
    """
    number, tried, missing = study.model.num_examples, [], []
    names, never = possible(dynamics, study.model), impossible(dynamics, number)
    reference, used = study.trees[plain.dynamics][1], plain.inverse_temperature["used"]
    assert reference is not None  # an audit has one
    assert used is not None  # a comparison has one
    start, fitted = posterior_start(study, reference), study.settings.inverse_temperature is None
    study = copy(study)
    study.until = deadline

    def made(chosen: tuple[str, ...]) -> Walk:
        study.scale = used * number
        walk = repaired(study, dynamics, chosen, start)
        own = isotropic_scale(study, walk.dynamics) if "isotropy" in chosen and fitted else None
        if own is not None:
            study.scale = own
            if "stationarity" in chosen:
                if time.monotonic() + 2 * study.rest_seconds > deadline:  # for another posterior
                    raise OutOfTime
                walk = replace(walk, initial=posterior_start(study, study.reference(own, plain.dynamics)))
        return walk

    def matches(chosen: tuple[str, ...]) -> bool:
        label = " + ".join(chosen)
        try:
            if time.monotonic() + study.rest_seconds > deadline:
                raise OutOfTime
            walk = made(chosen)
            tried.append(Repaired(chosen, decided(study, f"{plain.dynamics} repaired: {label}", walk, deadline)))
        except OutOfTime:
            missing.append(label if len(chosen) > 1 else f"{label} alone")
            return False
        return tried[-1].comparison.verdict in MATCHES

    # Noise of one size is Gaussian and has every direction alike; batches, and their order, have no part in it.
    covered = ("central limit", "independent batches", "non-degeneracy", "isotropy")
    smallest = tuple(name for name in names if name not in covered)
    if not matches(smallest):
        return Interventions(tried, None, tuple(missing), never)
    for name in reversed(smallest):
        fewer = tuple(other for other in smallest if other != name)
        if fewer and matches(fewer):
            smallest = fewer
    weaker = tuple("isotropy" if name == ONE_SIZE else name for name in smallest)
    if "isotropy" in names and weaker != smallest and matches(weaker):
        smallest = weaker
    for name in names:
        if len(smallest) == 1:
            break
        if (name,) not in [r.assumptions for r in tried] and f"{name} alone" not in missing and matches((name,)):
            smallest = (name,)
    if len(smallest) == 1:  # what is smaller still
        missing = [label for label in missing if smallest == (ONE_SIZE,) and label == "isotropy alone"]
    return Interventions(tried, smallest, tuple(missing), never)


def explained(study: Study, plain: Comparison, deadline: float) -> Comparison:
    """The comparison with its repairs, and the smallest of them as its reason, where an optimiser's law is a mismatch."""
    dynamics = study.dynamics(plain.dynamics)
    if plain.verdict != MISMATCH or not isinstance(dynamics, Optimizer):
        return plain
    found = interventions(study, dynamics, plain, deadline)
    return replace(plain, repairs=found.tried, reason=f"{found.in_words()}; as it is: {plain.reason}")
