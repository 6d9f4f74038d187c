"""Robustness as rows of names and values, a survival curve, and a page."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from ..model import Model
from ..robustness.result import Robustness, rounded
from .estimates import rows_table
from .figures import COLOURS, GREY, TWO_SIDED, new_figure
from .influences import HEADS, influence_figure, influence_rows, influence_words
from .odds import course_figure, odds_rows
from .page import render, svg


def robustness_rows(found: Robustness) -> list[tuple[str, str]]:
    """The probability with its interval, how it was found, and what says whether to believe it."""
    low, high = found.interval
    event = f"P({found.property} > {found.threshold:g})"
    rows = [(event, f"{found.probability:.3g} (95 %: {low:.3g} .. {high:.3g})"), ("in words", found.in_words())]
    if found.log10_probability is not None:
        rows.append(("log10", f"{found.log10_probability:.3f}"))
    if found.exact is not None:
        rows.append((exact_name(found), f"{found.exact:.6g}"))
    if found.against is not None:
        rows += odds_rows(found.against)
    if found.set_mass is not None:
        mass, error = found.set_mass.value, found.set_mass.standard_error
        rows.append(
            (
                "prior mass of the set",
                f"{mass:.4g} ± {error:.2g}: L within {found.settings['excess_loss']:.3g} of the least",
            )
        )
    if found.escape_rate is not None:
        rate, error = found.escape_rate.value, found.escape_rate.standard_error
        rows.append(("escape rate", f"{rate:.4g} ± {error:.2g} a step"))
    names = {"draws": "parts of the draws", "moves": "replicates, k moves", "twice_the_moves": "replicates, 2k moves"}
    names |= {"set_mass": "replicates, mass of the set"}
    names |= {"third_quarter": "replicates, third quarter", "last_quarter": "replicates, last quarter"}
    for name, values in found.replicates.items():
        rows.append((names[name], ", ".join(f"{value:.3g}" for value in values)))
    supported = f", {found.support:,.0f} draws beyond the threshold"
    k = f", k = {found.settings['num_moves']}" if "num_moves" in found.settings else ""
    rows.append(("law", f"{found.law}: {law_words(found)}"))
    rows.append(
        ("method", f"{found.method}{k}{supported}, {found.num_gradients:,.3g} example gradients, {found.seconds:.0f} s")
    )
    beside = f"at the minimum {found.least_loss:.6g}"
    if found.center is not None:
        rows.append((found.center.source, f"{found.property} {found.center.value:.4g}, loss {found.center.loss:.6g}"))
        beside = f"at {found.center.source} {found.center.loss:.6g}, {beside}"
    for number, member in enumerate(found.members, start=1):
        more = f"loss {member.loss:.6g}, {beside}"
        rows.append((f"unsafe member {number}", f"{found.property} {member.value:.4g}, {more}"))
    if "retrained" in found.settings:
        done, wanted = found.settings["retrained"], found.settings["retrain"]
        again = f"without {done:g} examples, one at a time"
        again += f"; the time was over before the other {wanted - done:g}: give --max-seconds" if done < wanted else ""
        if found.agreement is not None:
            low, high = found.agreement.interval
            again += f"; ranked as by influence: Spearman {found.agreement.value:.2f} (95 %: {low:.2f} .. {high:.2f})"
        rows.append(("SGD trained again", again))
    rows.append(("trusted", "yes" if found.trusted else "no: " + "; ".join(found.warnings)))
    return rows


def exact_name(found: Robustness) -> str:
    """What is known of SGD is known of the limit of small steps."""
    return "exact, of gradient flow" if found.law == "sgd" else "exact"


def law_words(found: Robustness) -> str:
    """What the law is, with its settings."""
    settings = found.settings
    if found.law == "posterior":
        return f"tempered posterior at beta {settings['inverse_temperature']:g}"
    if found.law == "sublevel":
        return f"prior on the set of least loss; {found.note}"
    parts = ("learning_rate", "batch_size", "num_steps", "initial_scale")
    staying = (
        f", staying within {settings['excess_loss']:.3g} of the least loss" if found.escape_rate is not None else ""
    )
    return ", ".join(f"{name.replace('_', ' ')} {settings[name]:g}" for name in parts) + staying


def robustness_table(found: Robustness) -> Table:
    """The same on the terminal."""
    return rows_table(robustness_rows(found))


def survival_figure(found: Robustness) -> Figure:
    """P(g > c) against c with 95 % intervals, the exact line where it is known, and the threshold that was asked about."""
    curve = found.survival
    thresholds, probabilities = np.array(curve.thresholds), np.array(curve.probabilities)
    errors = np.divide(curve.standard_errors, probabilities, out=np.zeros(len(probabilities)), where=probabilities > 0)
    figure = new_figure(5.5, 3.2)
    axes = figure.subplots()
    if curve.exact is not None:
        axes.plot(thresholds, np.array(curve.exact, float), color=GREY, linewidth=3, alpha=0.6, label=exact_name(found))
    axes.plot(thresholds, probabilities, color=COLOURS[0], linewidth=1.2, label=found.method)
    low, high = (probabilities * np.exp(sign * TWO_SIDED * errors) for sign in (-1, 1))
    axes.fill_between(thresholds, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.axvline(found.threshold, color=COLOURS[1], linewidth=1, linestyle=":", label="threshold")
    axes.set_yscale("log")
    axes.set_xlabel(f"c, of {found.property}")
    axes.set_ylabel(f"P({found.property} > c)")
    axes.legend(frameon=False, fontsize="small")
    return figure


def robustness_page(found: Robustness, model: Model, described: dict[str, Any], command: str) -> str:
    """HTML of a rare event."""
    event = f"{found.property} > {found.threshold:g}"
    often = "never" if not found.probability > 0 else f"about 1 in {rounded(1 / found.probability)}"
    return render(
        "robustness.html",
        answer=found.in_words(),
        found=found,
        rows=robustness_rows(found),
        survival=svg(survival_figure(found), f"Probability that {found.property} exceeds a threshold; here {often}"),
        heads=HEADS,
        influence=influence_rows(found.influence or []),
        words=influence_words(found.influence)
        if found.influence
        else "No draw is unsafe: nothing is known of what matters.",
        curves=svg(influence_figure(found.influence, found.probability), "Probability against the weight of an example")
        if found.influence
        else None,
        course=None
        if found.against is None
        else svg(course_figure(found.against, event), f"Probability of {event} at checkpoints of training"),
        model=described,
        truth=model.truth,
        command=command,
    )
