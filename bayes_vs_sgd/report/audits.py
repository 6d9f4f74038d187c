"""An audit as a table on the terminal, a figure, and a page."""

from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..assumptions.assumption import Assumption
from ..assumptions.audit import Audit
from ..model import Model
from .figures import new_figure
from .page import render, svg
from .tables import coloured, number, repair_rows, repairs_table

COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}
MARKS = {"holds": ("o", "#0a7d4f"), "fails": ("s", "#c0392b"), "undecided": ("D", "#9a6700")}
FAR = 4.0
"""Margins at which the figure ends."""


def audit_table(found: Audit) -> Group:
    """Every assumption, the comparison after each repair, the refined models, and the reason."""
    held = Table(
        title=f"Assumptions of Langevin dynamics, {found.dynamics}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("assumption", "statistic", "value", "95 % interval", "null", "margin", ""):
        held.add_column(column, justify="right" if column in ("value", "null", "margin") else "left")
    for a in found.assumptions:
        numbers = (number(a.value), interval(a), f"{a.null:g}", f"{a.margin:g}")
        held.add_row(a.name, a.statistic, *numbers, Text(a.word, COLOURS[a.word]))
    parts: list[Any] = [held]
    if found.left_out:
        parts.append(f"not looked at: {left_out_in_words(found)}\n")
    parts.append(repairs_table(found.comparison, found.repairs))
    if found.models:
        models = Table(title="Which equation describes the run?", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        models.add_column("equation")
        models.add_column("its law at the end, against the run's")
        models.add_column("largest difference, in margins", justify="right")
        for m in found.models:
            models.add_row(m.dynamics, coloured(m.verdict), number(m.furthest))
        parts.append(models)
    if found.missing:
        parts.append(f"no time for {', '.join(found.missing)}: give --max-seconds")
    return Group(*parts, Text(found.reason, "bold"))


def left_out_in_words(found: Audit) -> str:
    """What was not looked at, by what that takes."""
    groups = groupby(sorted(found.left_out.items(), key=itemgetter(1)), key=itemgetter(1))
    return "; ".join(f"{', '.join(name for name, _ in names)} (takes {need})" for need, names in groups)


def interval(a: Assumption) -> str:
    """The interval; that it has no end, no width, or that there is nothing to measure."""
    low, high = a.interval
    if not np.isfinite(low):
        return "-"
    if not np.isfinite(high):
        return f"above {number(low)}"
    return "exact" if low == high else f"{number(low)} to {number(high)}"


def audit_figure(found: Audit) -> Figure:
    """Every assumption as its distance from where it holds, in margins."""
    shown = [a for a in found.assumptions if a.margin > 0]
    figure = new_figure(6.4, 0.6 + 0.32 * len(shown))
    axes = figure.subplots()
    axes.axvspan(-1, 1, color="#8883", lw=0)
    for place, a in enumerate(reversed(shown)):
        mark, colour = MARKS[a.word]
        ends = [min(max((x - a.null) / a.margin, -FAR), FAR) for x in (a.value, *a.interval)]
        axes.plot(ends[1:], [place, place], color=colour, lw=2)
        beyond = abs(a.value - a.null) > FAR * a.margin
        axes.plot(ends[0], place, ">" if beyond and a.value > a.null else "<" if beyond else mark, color=colour, ms=6)
    axes.set_yticks(range(len(shown)), [a.name for a in reversed(shown)])
    axes.set_xlim(-FAR - 0.2, FAR + 0.2)
    axes.set_xlabel("distance from where the assumption holds, in margins")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def audit_page(found: Audit, model: Model, described: dict[str, Any], command: str) -> str:
    """HTML of an audit."""
    failing = [a.name for a in found.assumptions if a.holds is False]
    return render(
        "audit.html",
        answer=found.reason,
        found=found,
        rows=repair_rows(found.comparison, found.repairs),
        interval=interval,
        left_out=left_out_in_words(found),
        figure=svg(audit_figure(found), f"Assumptions and their margins; failing: {', '.join(failing) or 'none'}"),
        model=described,
        truth=model.truth,
        command=command,
    )
