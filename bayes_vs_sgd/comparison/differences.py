"""What differs between the law of a run and a posterior, quantity by quantity."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from ..margins import MARGINS, Margins
from ..observables import Observable
from ..posterior import Posterior
from .distances import Distance, total_variation, wasserstein
from .effects import Effect, Sample, location_and_scale, sampled
from .embedding import GlobalTest
from .patterns import MOST_COORDINATES, PREDICTIONS, Pattern, patterns, with_predictions
from .roots import judged
from .stationarity import law
from .temperature import SteinTerms
from .whole_law import EnsembleScores, global_tests


class Differences(NamedTuple):
    """Effects that decide, temperatures that explain, and tests of the whole law."""

    effects: list[Effect]
    temperatures: list[Effect]
    tests: list[GlobalTest]


def differences(
    tree: xr.DataTree,
    reference: xr.DataTree | None,
    target: Posterior,
    tested: np.ndarray,
    chosen: dict[str, Observable],
    scores: EnsembleScores | None,
    fitted: bool,
    margins: Margins,
) -> Differences:
    """All of them, by draws of a reference, by scores of an ensemble, or by both."""
    effects: list[Effect] = []
    temperatures: list[Effect] = []
    if reference is not None:
        effects = observed_effects(tree, reference, judged(chosen), tested, margins)
    if scores is not None:
        at, alone = float(target.scale), reference is None
        deciding, temperatures = log_temperatures(scores.terms, chosen, tested, at, margins, alone)
        effects += deciding
    tests = global_tests(tree, reference, target, tested, list(judged(chosen)), scores, fitted, margins)
    return Differences(effects, temperatures, tests)


def observed_effects(
    tree: xr.DataTree, reference: xr.DataTree, chosen: dict[str, Observable], tested: np.ndarray, margins: Margins
) -> list[Effect]:
    """Location and spread of every primary observable beside the reference's."""
    found = []
    for label, item in chosen.items():
        ours, theirs = law(tree, label, tested), sampled(reference, label)
        found += location_and_scale(label, str(item.group), ours, theirs, margins)
    return found


def distances(
    tree: xr.DataTree, reference: xr.DataTree, names: list[str], tested: np.ndarray, margins: Margins = MARGINS
) -> list[Distance]:
    """Total variation over the primary observables together, at least, and Wasserstein's distance of each."""
    ours, theirs = samples_of(tree, reference, names, tested)
    found = [wasserstein(name, a, b, margins) for name, a, b in zip(names, ours, theirs, strict=True)]
    if min(len(tested), len(theirs[0].values)) < 4:  # the classifier learns on half of the chains
        return found
    our_draws, their_draws = (np.stack([s.values for s in side], axis=-1) for side in (ours, theirs))
    return [total_variation(our_draws, their_draws, ours[0].independent, margins), *found]


def kinds_of_functions(
    tree: xr.DataTree, reference: xr.DataTree, chosen: dict[str, Observable], tested: np.ndarray
) -> list[Pattern]:
    """How probable each kind of function is, by what both runs recorded of it and is a number (categories have no mean)."""
    others = [k for k, item in chosen.items() if item.group in ("function", "off_data") and k != "loss"]
    if recorded(PREDICTIONS[0], tree, reference):
        others = [k for k in others if k != "prediction_unseen"]  # the first of them
    names, (ours, theirs) = with_predictions(tree, reference)
    names = [*names, *others][:MOST_COORDINATES]
    finite = [
        name
        for name, *both in zip(names, *samples_of(ours, theirs, names, tested), strict=True)
        if all(np.isfinite(sample.values).all() for sample in both)
    ]
    return patterns(finite, *samples_of(ours, theirs, finite, tested))


def recorded(name: str, *trees: xr.DataTree) -> bool:
    """Whether all runs have it."""
    return all(name in tree["posterior"].data_vars for tree in trees)


def samples_of(
    tree: xr.DataTree, reference: xr.DataTree, names: list[str], tested: np.ndarray
) -> tuple[list[Sample], list[Sample]]:
    """Draws of some observables, the run's and the reference's."""
    return [law(tree, k, tested) for k in names], [sampled(reference, k) for k in names]


def log_temperatures(
    terms: dict[str, SteinTerms],
    chosen: dict[str, Observable],
    tested: np.ndarray,
    scale: float,
    margins: Margins,
    alone: bool,
) -> tuple[list[Effect], list[Effect]]:
    """Temperatures that decide, along the modes among the primary observables; and those along all else, which explain.

    Where nothing but scores is known (``alone``) and there are no modes, directions decide.
    """
    decide = {label: str(item.group) for label, item in chosen.items() if item.mode and label in terms}
    if not decide and alone:
        decide = {label: "function" for label in terms if label.startswith("direction") or len(terms) == 1}
    groups = dict.fromkeys(terms, "temperature") | decide
    found = {k: log_temperature(k, group, terms[k].subset(tested), scale, margins) for k, group in groups.items()}
    return [found[k] for k in decide], [effect for k, effect in found.items() if k not in decide]


def log_temperature(label: str, group: str, terms: SteinTerms, scale: float, margins: Margins = MARGINS) -> Effect:
    """Log of the temperature along an observable over the target's."""
    found, error = terms.scale()
    value = np.log(scale / found) if found > 0 else np.nan
    return Effect(label, group, "log_temperature", float(value), error / abs(found), margins["log_temperature"])
