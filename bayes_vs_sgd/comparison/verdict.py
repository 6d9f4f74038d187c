"""From effects to a verdict: equivalence within margins, difference beyond them, or neither."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from ..observables import GROUPS
from .effects import LEVEL, Effect
from .embedding import GlobalTest

MATCH, DETECTABLE, MISMATCH = "match", "match-within-margins", "mismatch"
UNRESOLVED, INCONCLUSIVE, NO_VERDICT = "different-size-unresolved", "inconclusive", "no-verdict"
MATCHES, OPEN = (MATCH, DETECTABLE), (INCONCLUSIVE, UNRESOLVED)
"""Within the margins; and what more seeds would decide."""


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: any of them below the level is a rejection at that family-wise level."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def verdicts(effects: Sequence[Effect]) -> dict[str, str | None]:
    """Return a verdict for each group of observables; None where the model has no observable of it.

    match: every 90 % interval lies within its margin (two one-sided tests, intersection-union). mismatch: for some
    effect the hypothesis |effect| <= margin is rejected, Holm over all effects. different-size-unresolved: no effect
    is rejected at the margin but some is at zero. inconclusive: none of these.
    """
    outside = holm([e.p_outside for e in effects]) < LEVEL
    nonzero = holm([e.p_zero for e in effects]) < LEVEL
    found: dict[str, str | None] = {}
    for group in GROUPS:
        rows = [i for i, e in enumerate(effects) if e.group == group]
        found[group] = _verdict([effects[i] for i in rows], outside[rows], nonzero[rows]) if rows else None
    return found


def _verdict(effects: list[Effect], outside: np.ndarray, nonzero: np.ndarray) -> str:
    if all(e.inside for e in effects):
        return MATCH
    if outside.any():
        return MISMATCH
    return UNRESOLVED if nonzero.any() else INCONCLUSIVE


def overall(groups: dict[str, str | None], tests: Sequence[GlobalTest] = ()) -> str:
    """Mismatch if any group is, match if all are, else the weakest.

    A global test that rejects (by Holm) makes of a match one within the margins of laws that are detectably not identical,
    and of what is inconclusive a difference of unresolved size.
    """
    given = [v for v in groups.values() if v is not None]
    if not given:
        return NO_VERDICT
    differs = any(test.p_holm < LEVEL for test in tests)
    for verdict in (NO_VERDICT, MISMATCH, UNRESOLVED):
        if verdict in given:
            return verdict
    if INCONCLUSIVE in given:
        return UNRESOLVED if differs else INCONCLUSIVE
    return DETECTABLE if differs else MATCH


def with_margins(effects: Sequence[Effect], factor: float) -> dict[str, str | None]:
    """Return the verdicts that all margins times a factor would have given."""
    return verdicts([replace(effect, margin=factor * effect.margin) for effect in effects])


def number_needed(effects: Sequence[Effect], number: float) -> int | None:
    """Return what a number of seeds, and of effective draws of the reference, has to become if the verdict is to be a match.

    As many times both put every interval inside its margin, if the effects stay; None if they cannot.
    """
    ratios = []
    for effect in effects:
        room = effect.margin - abs(effect.value)
        if not room > 0:
            return None
        ratios.append((stats.norm.ppf(1 - LEVEL) * effect.standard_error / room) ** 2)
    return int(np.ceil(number * max(ratios, default=1.0)))


def reason(
    effects: Sequence[Effect],
    groups: dict[str, str | None],
    verdict: str,
    num_seeds: int,
    tests: Sequence[GlobalTest] = (),
    num_draws: float | None = None,
) -> str:
    """Say in one line in what way the laws differ, from the effects and tests alone; ``num_draws`` are effective ones."""
    if verdict == MATCH:
        return "every effect is within its margin"
    if verdict == DETECTABLE:
        return f"every effect is within its margin, but the laws are not identical ({rejections(tests)})"
    if verdict in OPEN:
        wide = [e for e in effects if not e.inside]
        needed = number_needed(effects, num_seeds)
        if needed is None:
            advice = "an effect is at its margin: more seeds alone may not decide"
        elif num_draws is None:
            advice = f"about {needed:,} seeds would decide"
        else:
            draws = number_needed(effects, num_draws)
            advice = f"about {needed:,} seeds and {draws:,} effective draws of the reference would decide"
        return f"{', '.join(f'{e.observable} ({e.kind})' for e in wide)} not resolved; {advice}"
    adjusted = holm([e.p_outside for e in effects])
    beyond = [e for e, p in zip(effects, adjusted, strict=True) if p < LEVEL]
    parts = []
    temperatures = [e for e in effects if e.kind == "log_temperature" and np.isfinite(e.value)]
    hot = [e for e in beyond if e.kind == "log_temperature"]
    if hot:
        spread = max(e.value for e in temperatures) - min(e.value for e in temperatures)
        ratios = ", ".join(f"{e.observable} {np.exp(e.value):.2f}" for e in temperatures)
        word = "anisotropy" if spread > 2 * hot[0].margin else "temperature"
        parts.append(f"{word}: mode temperature over the reference's: {ratios}")
    for group in GROUPS:
        worst = [e for e in beyond if e.group == group and e.kind != "log_temperature"]
        if worst and not (group == "function" and hot):
            first = max(worst, key=lambda e: abs(e.value) / e.margin)
            parts.append(f"{WORDS[group]}: {first.observable} {describe(first)}")
    return "; ".join(parts)


def rejections(tests: Sequence[GlobalTest]) -> str:
    """Tests that reject, with their p-values; nothing where none does."""
    return ", ".join(f"{t.name} p = {t.p_holm:.2g}" for t in tests if t.p_holm < LEVEL)


WORDS = {"function": "function", "geometry": "flat directions", "off_data": "off the data"}


def describe(effect: Effect) -> str:
    """Say an effect in words."""
    if effect.kind in ("mean", "median"):
        return f"{effect.kind} differs by {effect.value:+.2f} sd"
    if effect.value < np.log(1e-5):
        return "does not vary"
    noun = {"log_temperature": "temperature"}.get(effect.kind, "spread")
    return f"{noun} is {np.exp(effect.value):.2f} times the reference's"
