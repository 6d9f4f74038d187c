"""How likely g > c is under a law: the posterior, the prior on a sublevel set, or SGD at the end of training or staying in a set.

Plain draws tell it where the event is common. Where it is rare particles are tilted towards it if the law's density is known
(``tilt.py``), and training is split (``splitting.py``), always with k and with 2k moves and in replicates; what does not agree
is not to be trusted.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..curvature import reference_point
from ..errors import InputError, nearest
from ..model import Model
from ..posterior import Posterior
from ..settings import Robustness as Settings
from .course import along
from .draws import Draws, from_posterior
from .influence import Units, agreement, influences, units
from .laws import Law, Sublevel, Training
from .matching import matched_temperature
from .methods import NUM_PARTICLES, Job, Part, by_draws, by_particles, by_splitting, by_staying
from .odds import loss_gap, odds_against
from .properties import Property
from .readout import center, members, support, survival
from .result import COMPONENTS, Robustness
from .retraining import retrained
from .training import ends, ensemble


def robustness(
    model: Model,
    property: str | None = None,
    threshold: float | None = None,
    law: str = "posterior",
    *,
    key: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Robustness:
    """Estimate P(property > threshold) under a law.

    Parameters
    ----------
    model
        A model that names properties.
    property, threshold
        The event.
    law
        ``"posterior"``, ``"sublevel"`` or ``"sgd"``.
    key
        Seed.
    folder
        Where draws and replicates are kept; those that are there already are not run again.
    progress
        Is told a line before each part.
    settings
        Further fields of ``settings.Robustness``.

    Raises
    ------
    InputError
        If the property is unknown, no scalar, not finite or constant, the set is empty, or a setting cannot be.
    """
    chosen = Settings(property=property, threshold=threshold, law=law, **settings)  # type: ignore[arg-type]
    say = progress or (lambda line: None)
    return measure(model, chosen, key, None if folder is None else Path(folder), say)


def measure(model: Model, chosen: Settings, key: int, folder: Path | None, say: Callable[[str], None]) -> Robustness:
    """Estimate with settings as the command line has them."""
    started = time.monotonic()
    name, _, threshold = check(model, chosen)
    if chosen.law != "sgd":
        return under(model, chosen, key, folder, say)[0]
    asked(model, chosen)
    target = chosen_posterior(model, chosen)
    study, tree = ensemble(target, name, chosen, key, folder, say, chosen.num_checkpoints if chosen.against else 1)
    found, _ = under(model, chosen, key, folder, say, ends(study, tree, name))
    if chosen.against is None:
        return replace(found, seconds=time.monotonic() - started)
    deadline = started + chosen.max_seconds
    matched = matched_temperature(study, tree, chosen, deadline)
    left = max(deadline - time.monotonic(), 0.0)
    law = {"law": "posterior", "against": None, "inverse_temperature": matched.inverse_temperature, "max_seconds": left}
    within = None if folder is None else folder / "against"
    bayes, parts = under(model, replace(chosen, **law), key + 1, within, say)
    odds = odds_against(found, bayes, matched, loss_gap(target, parts), along(study, tree, name, threshold))
    warnings = [*found.warnings, *odds.warnings]
    return replace(
        found,
        against=odds,
        warnings=warnings,
        trusted=not warnings,
        num_gradients=found.num_gradients + bayes.num_gradients,
        seconds=time.monotonic() - started,
    )


def under(
    model: Model,
    chosen: Settings,
    key: int,
    folder: Path | None,
    say: Callable[[str], None],
    drawn: Draws | None = None,
) -> tuple[Robustness, list[Part]]:
    """Estimate under one law, of which there may be draws already; and its weighted draws."""
    started = time.monotonic()
    name, item, threshold = check(model, chosen)
    given = asked(model, chosen)
    target = chosen_posterior(model, chosen)
    least = reference_point(model).loss
    job = Job(target, name, item, threshold, chosen, least, key, folder, say, started + chosen.max_seconds)
    if chosen.law == "posterior":
        total = (chosen.num_particles or NUM_PARTICLES) * chosen.num_replicates
        drawn = from_posterior(target, name, total, key, folder, say, chosen.max_seconds)
    staying = chosen.law == "sgd" and chosen.excess_loss is not None
    found = None if drawn is None or staying else by_draws(job, drawn)
    if staying and drawn is not None and drawn.runs is not None:
        found = by_staying(job, drawn, drawn.runs)
    elif found is None and drawn is not None and drawn.runs is not None:
        found = by_splitting(job, drawn, drawn.runs)
    elif found is None:
        found = by_particles(job, drawn)
    made = {"seed": key} | ({} if drawn is None else drawn.settings) | found.settings
    asked_of = None if staying else law_of(target, chosen, made)
    exact = known(item, asked_of, threshold)
    line = None if exact is None else lambda c: known(item, asked_of, c)
    probability = found.probability
    influence = None if given is None else influences(target, given, found.parts)
    if influence and chosen.retrain:
        rows = [int(one.example) for one in influence if one.kind == "example"][: chosen.retrain]
        changes = retrained(target, name, threshold, rows, chosen, key, folder, say, job.deadline)
        made |= {"retrain": len(rows), "retrained": len(changes)}
        influence[: len(changes)] = [replace(one, retrained=c) for one, c in zip(influence, changes, strict=False)]
    whole = Robustness(
        probability=probability,
        interval=found.interval,
        log10_probability=float(np.log10(probability)) if probability > 0 else None,
        exact=exact,
        method=found.method,
        replicates=found.replicates,
        settings=made,
        law=chosen.law,
        property=name,
        threshold=threshold,
        set_mass=found.set_mass,
        escape_rate=found.escape_rate,
        survival=survival(found.pools, threshold, line),
        least_loss=least,
        support=found.settings.get("independent_draws", 0.0) * probability or support(found.pools, threshold),
        members=members(target, item, found.unsafe, key, folder),
        num_gradients=found.num_gradients + (0.0 if drawn is None else drawn.num_gradients),
        seconds=time.monotonic() - started,
        trusted=not found.warnings,
        warnings=found.warnings,
        influence=influence,
        agreement=agreement(influence or []),
        center=center(model, item),
        note=COMPONENTS if chosen.law == "sublevel" else None,
    )
    return whole, found.parts


def chosen_posterior(model: Model, chosen: Settings) -> Posterior:
    """At the inverse temperature that is given, or 1; of a sublevel set the prior."""
    beta = 1.0 if chosen.inverse_temperature is None else chosen.inverse_temperature
    return Posterior(model, 0.0 if chosen.law == "sublevel" else beta)


def check(model: Model, chosen: Settings) -> tuple[str, Property, float]:
    """The event; refuse what cannot be before anything compiles."""
    known_names = model.properties
    if not known_names:
        raise InputError("the model names no properties: give Model(properties={name: function of (model, values)})")
    name = next(iter(known_names)) if chosen.property is None and len(known_names) == 1 else chosen.property
    if name is None:
        raise InputError(f"give --property, one of: {', '.join(sorted(known_names))}")
    if name not in known_names:
        raise InputError(f"unknown property {name!r}: {nearest(name, known_names)}")
    if chosen.threshold is None or not np.isfinite(chosen.threshold):
        raise InputError(f"threshold is {chosen.threshold}: give a finite --threshold c, the event is {name} > c")
    if chosen.law not in ("posterior", "sublevel", "sgd"):
        raise InputError(f"law is {chosen.law!r}: it must be posterior, sublevel or sgd")
    for setting, least in (("num_particles", 10), ("num_replicates", 2), ("num_seeds", 10), ("num_moves", 1)):
        value = getattr(chosen, setting)
        if value is not None and value < least:
            raise InputError(f"{setting} is {value}: it must be at least {least}")
    if chosen.against is not None:
        refuse_against(chosen)
    if chosen.excess_loss is not None and not chosen.excess_loss > 0:
        raise InputError(f"excess_loss is {chosen.excess_loss}: the set is empty, or the minimum alone; give it > 0")
    item = known_names[name]
    zeros = {site: jnp.zeros(shape) for site, shape in model.latents}
    try:
        shape = jax.eval_shape(lambda p: jnp.asarray(item(model, model.constrain(p))), zeros)
    except (TypeError, ValueError) as problem:
        raise InputError(f"property {name!r} returns no number: {str(problem).splitlines()[0]}") from problem
    if shape.shape != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise InputError(
            f"property {name!r} returns {shape.dtype} of shape {shape.shape}: it must return one real number"
        )
    return name, item, float(chosen.threshold)


def refuse_against(chosen: Settings) -> None:
    """Refuse what cannot be held against a posterior."""
    if chosen.against != "posterior":
        raise InputError(f"against is {chosen.against!r}: it must be posterior")
    if chosen.excess_loss is not None:
        raise InputError("excess_loss makes a condition of staying in a set: give it without --against")
    if chosen.law != "sgd":
        raise InputError(f"law is {chosen.law!r} against the posterior: give --law sgd, whose runs are held against it")
    if chosen.temperature not in ("fitted", "theory", "loss"):
        raise InputError(f"temperature is {chosen.temperature!r}: it must be fitted, theory or loss")
    if chosen.objective == "posterior" and chosen.inverse_temperature is None:
        raise InputError(
            "with --objective posterior the prior's pull on the runs depends on beta: give --inverse-temperature"
        )
    if chosen.num_checkpoints < 2:
        raise InputError(f"num_checkpoints is {chosen.num_checkpoints}: it must be at least 2")


def asked(model: Model, chosen: Settings) -> Units | None:
    """What is to be given weight; None where influence is not asked for."""
    if not (chosen.influence or chosen.groups or chosen.candidates or chosen.retrain):
        return None
    if chosen.law != "posterior":
        raise InputError(
            f"influence is of the posterior, law is {chosen.law!r}: for SGD give --retrain with --law posterior"
        )
    if chosen.retrain < 0:
        raise InputError(f"retrain is {chosen.retrain}: give how many examples to leave out, one at a time")
    return units(model, chosen.groups, chosen.candidates)


def law_of(target: Posterior, chosen: Settings, made: dict[str, Any]) -> Law:
    """The law by what was made of the settings."""
    if chosen.law == "posterior":
        return target
    if chosen.law == "sublevel":
        return Sublevel(target.model, made["excess_loss"])
    names = ("learning_rate", "batch_size", "num_steps", "initial_scale", "objective")
    return Training(target.model, **{name: made[name] for name in names})


def known(item: Property, law: Law | None, threshold: float) -> float | None:
    """The exact probability where the property knows it."""
    value = None if item.exact is None or law is None else item.exact(law, threshold)
    return None if value is None else float(value)
