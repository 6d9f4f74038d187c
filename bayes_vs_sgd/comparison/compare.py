"""Compare the law of a dynamics with a reference: effects, gates, verdicts, reason."""

import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import xarray as xr

from ..diagnostics import quality
from ..errors import InputError
from ..manifest import target_of
from ..margins import MARGINS, Margins
from ..observables import Observable, available, select
from ..posterior import Posterior
from ..results import final_positions
from ..start import value_shapes
from . import record
from . import verdict as rules
from .differences import Differences, differences, distances, kinds_of_functions, recorded, samples_of
from .effects import Effect, Sample, sampled
from .embedding import GlobalTest
from .events import event_odds
from .gates import broken_reference, off_anchor, too_many_lost
from .instability import instability
from .landscape import Landscape
from .matching import matched_scale
from .prediction import held_out_prediction
from .refusals import check_observables, check_runs
from .result import Comparison
from .roots import judged, with_roots
from .stationarity import confined, is_ensemble, law, unsettled
from .whole_law import EnsembleScores, ensemble_scores


def primary(target: Posterior, names: list[str] | None = None) -> dict[str, Observable]:
    """Observables that decide: the primary ones, or those named."""
    if names is None:
        return {name: item for name, item in available(target.model).items() if item.primary}
    chosen = select(target.model, names)
    values = {
        name: jax.ShapeDtypeStruct(shape, target.localization.dtype) for name, shape in value_shapes(target).items()
    }
    for name, item in chosen.items():
        if shape := jax.eval_shape(partial(item, target.model), values).shape:
            raise InputError(f"observable {name!r} has shape {shape}: only scalars can decide")
    return {name: replace(item, group=item.group or "function") for name, item in chosen.items()}


def compare(
    tree: xr.DataTree,
    reference: xr.DataTree | None,
    target: Posterior | None = None,
    *,
    name: str | None = None,
    primary_observables: list[str] | None = None,
    seeds: slice = slice(None),
    inverse_temperature: dict[str, float | None] | None = None,
    fitted: bool = False,
    margins: Margins = MARGINS,
    scores: EnsembleScores | None = None,
    scale: float | None = None,
    landscape: Landscape | None = None,
) -> Comparison:
    """Compare the law of a run with the posterior that a reference run sampled.

    Parameters
    ----------
    tree
        An ensemble (100 chains or more: the law across chains at the last draw) or a few long chains (the time average).
    reference
        Draws of the tempered posterior; None to go by its score alone, which can show a mismatch and never a match.
    target
        The reference's target; found by its manifest by default.
    name
        Name of the comparison; the dynamics' by default.
    primary_observables
        Names of what decides; the model's primary ones by default, at most four a group.
    seeds
        Seeds that are tested (those used to fit a temperature are left out).
    inverse_temperature
        ``theory``, ``fitted`` with its ``fitted_standard_error``, and ``used``, for the record; ``matched``, at which the mean
        losses agree, with its ``matched_standard_error``, is added where it is not among them.
    fitted
        Whether the reference's temperature was fitted to the run: then the global tests ask whether any temperature fits.
    margins
        Differences that do not matter, by kind of effect (``margins.py``).
    scores
        Those of the ensemble, where they are known already: they do not depend on the temperature.
    scale
        n beta at which the learning coefficient is printed; the reference's by default.
    landscape
        The model's minimum, above which the loss is compared, and curvatures there, which are found once for all comparisons
        that share it.

    Returns
    -------
    Comparison
    """
    if target is None:
        if reference is None:
            raise InputError("neither a reference nor a target: give compare the posterior that is meant")
        target = target_of(reference)
    check_runs(tree, reference, target)
    manifest = json.loads(tree.attrs["manifest"])
    chosen = primary(target, primary_observables)
    constant = check_observables(tree, reference, chosen, primary_observables is not None)
    grade = calibration = None
    if reference is not None:
        grade = quality(reference, list(chosen))
        calibration = record.of_sampler(target.model, grade.dynamics)
    landscape = landscape or Landscape(target.model, target.center)
    least_loss = landscape.minimum.loss
    names = list(judged(chosen))
    _, kept = final_positions(tree)
    tree, *others = with_roots(chosen, least_loss, tree, *([] if reference is None else [reference]))
    reference = others[0] if others else None
    lost = int((~kept).sum())
    tested = np.flatnonzero(kept)[seeds]
    effects, temperatures, tests = Differences([], [], [])
    if len(tested) >= 2 and (grade is None or grade.ess_min > 0):
        seen = (scores or ensemble_scores(tree, target, chosen)) if is_ensemble(tree) else None
        effects, temperatures, tests = differences(tree, reference, target, tested, chosen, seen, fitted, margins)
    groups, verdict, why = _verdicts(effects, tests, len(tested), None if grade is None else grade.ess_min)
    if fitted and verdict == rules.MISMATCH and (against := rules.rejections(tests)):
        why += f"; no temperature fits ({against})"
    if constant:
        why += f" ({', '.join(constant)}: constant under the posterior, left out)"
    moving = unsettled(tree, names, margins) if effects else None
    stay = confined(tree, names) if effects else {}
    why = _in_time(why, int(tree.attrs["num_steps"]), moving, {} if verdict == rules.MATCH else stay)
    if gate := broken_reference(grade, calibration) or off_anchor(target, reference) or too_many_lost(lost, kept.size):
        groups = {k: v and rules.NO_VERDICT for k, v in groups.items()}
        verdict, why = rules.NO_VERDICT, gate
    if beyond := instability(manifest["dynamics"], landscape):
        why = "; ".join(filter(None, (beyond, why)))
    if inverse_temperature is None:
        inverse_temperature = dict.fromkeys(("theory", "fitted", "fitted_standard_error"))
        inverse_temperature["used"] = float(target.inverse_temperature)
    beside = reference if effects else None
    if "matched" not in inverse_temperature:
        inverse_temperature = inverse_temperature | _matched(tree, beside, target)
    events = [] if beside is None else [k for k in target.model.properties if recorded(k, tree, beside)]
    factor = float(target.scale) if scale is None else scale
    return Comparison(
        dynamics=name or manifest["dynamics"]["name"],
        settings={k: v for k, v in manifest["dynamics"].items() if k not in ("name", "law", "objective")},
        objective=manifest["dynamics"].get("objective"),
        initial={"kind": manifest["settings"]["initial"], "scale": manifest["settings"]["initial_scale"]},
        stationary=None if moving is None else not moving,
        confined=stay,
        num_steps=int(tree.attrs["num_steps"]),
        num_seeds=len(tested),
        chains_lost=lost,
        inverse_temperature=inverse_temperature,
        reference=grade,
        calibration=calibration,
        effects=effects,
        tests=tests,
        learning_coefficient=_excess(law(tree, "loss"), factor, least_loss),
        verdicts=groups,
        verdict=verdict,
        reason=why,
        seeds_needed=rules.number_needed(effects, len(tested)) if verdict in rules.OPEN else None,
        draws_needed=rules.number_needed(effects, grade.ess_min) if verdict in rules.OPEN and grade else None,
        temperatures=temperatures,
        distances=() if beside is None else distances(tree, beside, names, tested, margins),
        patterns=() if beside is None else kinds_of_functions(tree, beside, chosen, tested),
        odds=() if gate or beside is None else event_odds(events, *samples_of(tree, beside, events, tested), margins),
        held_out=None if gate or reference is None else held_out_prediction(tree, reference, target),
    )


def _verdicts(
    effects: list[Effect], tests: list[GlobalTest], num_seeds: int, num_draws: float | None
) -> tuple[dict[str, str | None], str, str]:
    """Verdicts by group and of all, and their reason; without draws of a reference none of them is a match."""
    scores_alone = num_draws is None
    groups: dict[str, str | None] = (
        rules.verdicts(effects) if effects else dict.fromkeys(rules.GROUPS, rules.NO_VERDICT)
    )
    if scores_alone:
        groups = {k: rules.INCONCLUSIVE if v == rules.MATCH else v for k, v in groups.items()}
    verdict = rules.overall(groups, tests)
    if scores_alone and all(e.inside for e in effects):
        return groups, verdict, "every temperature is within its margin, but only draws of a reference can show a match"
    return groups, verdict, rules.reason(effects, groups, verdict, num_seeds, tests, num_draws) if effects else ""


def _in_time(why: str, num_steps: int, moving: list[str] | None, stay: dict[str, float]) -> str:
    """The reason, with what has not settled of the law and what a run shows but a share of."""
    if moving:
        why = f"law at step {num_steps:,}, where {', '.join(moving)} may still depend on the start; {why}"
    if stay:
        shares = ", ".join(f"{share:.2g} of {name}'s" for name, share in stay.items())
        why += f"; a run stays in its well, or where it froze: it shows {shares} spread"
    return why


def _matched(tree: xr.DataTree, reference: xr.DataTree | None, target: Posterior) -> dict[str, float | None]:
    """The inverse temperature at which the mean losses agree, and its standard error; none without a reference."""
    found: tuple[float | None, float | None] = (None, None)
    if reference is not None:
        found = matched_scale(law(tree, "loss"), sampled(reference, "loss"), float(target.scale))
    betas = [None if value is None else value / target.model.num_examples for value in found]
    return dict(zip(("matched", "matched_standard_error"), betas, strict=True))


def _excess(loss: Sample, factor: float, least_loss: float) -> dict[str, float | None]:
    if loss.values.size < 2:
        return {"value": None, "standard_error": None}
    mean, error = loss.mean_and_error()
    return {"value": factor * (mean - least_loss), "standard_error": factor * error, "n_beta": factor}
