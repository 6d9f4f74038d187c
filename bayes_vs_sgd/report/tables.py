"""Answers as tables on the terminal; the same numbers go to the JSON."""

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .. import estimate
from ..comparison.control import Control
from ..comparison.effects import Effect
from ..comparison.embedding import GlobalTest
from ..comparison.events import EventOdds
from ..comparison.result import Comparison, Repaired
from ..comparison.spectrum import Spectrum
from ..margins import INSIDE, OUTSIDE, place
from ..observables import GROUPS

COLOURS = {"match": "green", "match-within-margins": "green", "mismatch": "red"}


def comparison_table(comparisons: Sequence[Comparison], controls: Sequence[Control] = ()) -> Group:
    """Every effect with its interval and margin, the verdicts of all dynamics, temperatures, predictions, controls."""
    effects = Table(title="Effects and their 90 % intervals", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("dynamics", "observable", "effect", "", "margin", ""):
        effects.add_column(column, justify="right" if column == "margin" else "left", no_wrap=True)
    for c in comparisons:
        for index, e in enumerate(c.effects):
            low, high = e.interval
            name = c.dynamics if index == 0 else ""
            span = f"{e.value:+.2f} [{low:+.2f}, {high:+.2f}]"
            last = index == len(c.effects) - 1
            effects.add_row(name, e.observable, KINDS[e.kind], span, f"{e.margin:g}", place_of(e), end_section=last)
    title = "Is its law the tempered posterior?"
    verdicts = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("dynamics", "function", "geometry", "off data", "steps", "beta", "theory", "excess loss"):
        words = column in ("function", "geometry", "off data")
        verdicts.add_column(column, justify="left" if words or column == "dynamics" else "right", no_wrap=not words)
    for c in comparisons:
        cells = [coloured(c.verdicts.get(g)) for g in GROUPS]
        steps = f"{c.num_steps:,}" + ("*" if c.stationary is False else "")
        excess = c.learning_coefficient
        numbers = (used_beta(c), number(c.inverse_temperature["theory"]))
        loss = f"{number(excess['value'])} ± {number(excess['standard_error'], 1)}"
        verdicts.add_row(c.dynamics, *cells, steps, *numbers, loss)
    spectra = [c.spectrum for c in comparisons if c.spectrum is not None]
    parts: list[Table | Text] = [effects, verdicts]
    if any(c.tests for c in comparisons):
        parts.append(tests_table(comparisons))
    if spectra:
        parts.append(spectrum_table(spectra))
    parts += [repairs_table(c, c.repairs) for c in comparisons if c.repairs]
    for control in controls:
        if control.spectra:
            parts.append(spectrum_table(control.spectra, f"Control: {control.title}"))
        if control.comparison is not None or control.problem:
            parts.append(Text(control_sentence(control) + "\n"))
    if any(c.held_out for c in comparisons):
        parts.append(held_out_table(comparisons))
    return Group(*parts, Text(legend(comparisons)))


def repairs_table(comparison: Comparison, repairs: Sequence[Repaired]) -> Table:
    """Is the law the posterior, as it is and after each repair."""
    title = f"Is the law of {comparison.dynamics} the tempered posterior?"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("repaired", "function", "geometry", "off data", "verdict"):
        table.add_column(column, no_wrap=column == "verdict")
    for name, found in repair_rows(comparison, repairs):
        cells = [coloured(found.verdicts.get(g)) for g in GROUPS]
        table.add_row(name, *cells, coloured(found.verdict))
    return table


def repair_rows(comparison: Comparison, repairs: Sequence[Repaired]) -> list[tuple[str, Comparison]]:
    """The comparison without a repair, and with each."""
    return [("nothing", comparison), *((" + ".join(r.assumptions), r.comparison) for r in repairs)]


def control_sentence(control: Control) -> str:
    """What became of SGD on a control."""
    if control.comparison is None:
        return f"Control, {control.title}: {control.problem}."
    words = {"off_data": "off the data"}
    found = [f"{words.get(group, group)} {v}" for group, v in control.comparison.verdicts.items() if v is not None]
    return f"Control, {control.title}, SGD with the prior's pull: {', '.join(found)} ({control.comparison.reason})."


def tests_table(comparisons: Sequence[Comparison]) -> Table:
    """Whether laws are identical, whatever the margins."""
    title = "Are they detectably different at all? p-values by Holm (power at the margin)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    names = list(dict.fromkeys(t.name for c in comparisons for t in c.tests))
    table.add_column("dynamics", no_wrap=True)
    for name in names:
        table.add_column(TESTS.get(name, name), justify="right")
    for c in comparisons:
        by = {t.name: t for t in c.tests}
        table.add_row(c.dynamics, *(p_and_power(by.get(name)) for name in names))
    return table


def p_and_power(test: GlobalTest | None) -> str:
    """A p-value, and how often the test would see an effect at its margin."""
    if test is None:
        return "-"
    power = "" if test.power_at_margin is None else f" ({test.power_at_margin:.0%})"
    return f"{test.p_holm:.2g}{power}"


def odds_ratio(found: EventOdds | None) -> str:
    """A ratio of odds and its interval; one bound of it where one law never has the event, or always."""
    if found is None:
        return "-"
    low, high = np.exp(found.log_odds_interval)
    if found.log_odds_ratio is None:
        return (f"at most {high:.2g}" if np.isfinite(high) else f"at least {low:.2g}") + f", {found.place}"
    return f"{np.exp(found.log_odds_ratio):.3g} ({low:.3g} .. {high:.3g}), {found.place}"


TESTS = {"mmd": "observables (MMD)", "stein": "Stein identities", "ksd": "positions (KSD)"}


def held_out_table(comparisons: Sequence[Comparison]) -> Table:
    """Expected log predictive density of new examples."""
    title = "Log predictive density of held-out examples, each (standard errors)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("dynamics", "Bayes", "ensemble - Bayes", "single run - Bayes"):
        table.add_column(column, justify="left" if column == "dynamics" else "right", no_wrap=True)
    for c in comparisons:
        if c.held_out:
            names = ("bayes", "ensemble_less_bayes", "single_less_bayes")
            table.add_row(c.dynamics, *(with_error(**c.held_out[name]) for name in names))
    return table


def with_error(value: float | None, standard_error: float | None) -> str:
    """A number to two digits of its error, a dash for none."""
    if value is None or standard_error is None or not np.isfinite([value, standard_error]).all():
        return "-"
    return str(estimate.with_error(value, standard_error))


def spectrum_table(
    spectra: Sequence[Spectrum], title: str = "Temperature of the modes at the minimum (slope 0 under the posterior)"
) -> Table:
    """Temperatures of the modes at the minimum, and what they add up to."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in (
        "dynamics",
        "modes",
        "coldest / T0",
        "hottest / T0",
        "slope",
        "predicted",
        "(E[L] - L*) / T0",
        "tr H / 2",
    ):
        table.add_column(column, justify="left" if column == "dynamics" else "right", no_wrap=True)
    for s in spectra:
        missing = "-" if s.is_resolved else "unresolved"
        slope = missing if s.slope is None else f"{s.slope:.2f} ± {number(s.slope_error, 1)}"
        excess = f"{number(s.excess)} ± {number(s.excess_error, 1)}"
        ends = (number(float(s.temperatures.min())), number(float(s.temperatures.max())))
        table.add_row(
            s.dynamics, str(len(s.eigenvalues)), *ends, slope, number(s.predicted_slope), excess, number(s.half_trace)
        )
    return table


def used_beta(comparison: Comparison) -> str:
    """Inverse temperature of the reference, with its standard error where it was fitted."""
    beta = comparison.inverse_temperature
    used, fitted = beta["used"], beta["fitted"]
    if not used or not fitted or abs(used / fitted - 1) > 1e-3:
        return number(used)
    return f"{number(used)} ± {number(beta['fitted_standard_error'], 1)}"


def place_of(effect: Effect) -> Text:
    """Where an effect's interval lies."""
    where = place(*effect.interval, effect.margin)
    return Text(where, {INSIDE: "green", OUTSIDE: "red"}.get(where, "yellow"))


KINDS = {
    "mean": "mean, in sd",
    "median": "median, in sd",
    "log_deviation_ratio": "log spread ratio",
    "log_mad_ratio": "log spread ratio",
    "log_temperature": "log temperature",
}


def _calibrated(comparisons: Sequence[Comparison]) -> str:
    found = next((c.calibration for c in comparisons if c.calibration is not None), None)
    if found is None:
        return "their sampler has no simulation-based calibration on record for this model file"
    return (
        f"simulation-based calibration on this model file: p = {found['p']:.2g}, {found['num_simulations']} data sets"
    )


def legend(comparisons: Sequence[Comparison]) -> str:
    """What the numbers mean, and what they rest on."""
    references = [c.reference for c in comparisons if c.reference is not None]
    names = ", ".join(sorted({r.dynamics for r in references}))
    run = [c for c in comparisons if c.initial["kind"] != "given"]
    lines = [f"Up to {max(c.num_seeds for c in comparisons):,} seeds a test."]
    if run:
        objective = next((c.objective for c in run if c.objective), "loss")
        start = run[0].initial
        lines[0] += (
            f" Runs start from {start['kind']} draws times {start['scale']:g}; optimisers descend the {objective}."
        )
    scale = number(comparisons[0].learning_coefficient.get("n_beta"))
    lines += [
        "beta: of the posterior that the law is compared with; with an error where it was fitted, on half the seeds.",
        f"excess loss: n beta0 (E[L] - L*) at n beta0 = {scale}; lambda under Bayes.",
    ]
    if references:
        worst, least = max(r.rhat_max for r in references), min(r.ess_min for r in references)
        quality = f"{references[0].num_chains} chains, R-hat at most {worst:.3f}, ESS at least {least:,.0f}"
        lines.append(f"References: {names}, {quality}; {_calibrated(comparisons)}.")
    else:
        lines.append("No reference: temperatures and tests by the score of the posterior alone.")
    plain = [c for c in run if c.dynamics == "sgd"]
    if plain and all(c.inverse_temperature["theory"] is None for c in plain):
        lines.append("theory: none where the gradients have no noise at the minimum; beta = 1 unless it was given.")
    if any(c.stationary is False for c in comparisons):
        lines.append(
            "* not shown to be stationary: some observables may still depend on the start; the verdict is of this step."
        )
    return "\n".join(lines)


def coloured(verdict: str | None) -> Text:
    """A verdict in its colour; a dash where there is none."""
    return Text("-" if verdict is None else verdict.replace("-", " "), COLOURS.get(str(verdict), "yellow"))


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few digits, a dash for none."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}g}"
