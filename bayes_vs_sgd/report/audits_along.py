"""An audit along a run as a table on the terminal, a figure, and a page."""

from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..assumptions.along import AuditAlong
from ..assumptions.assumption import Assumption
from ..model import Model
from .audits import COLOURS, MARKS, interval
from .figures import GREY, new_figure
from .page import listed, render, svg
from .tables import number

SIGNS = {"holds": "", "fails": " x", "undecided": " ?"}


def names(found: AuditAlong) -> list[str]:
    """Assumptions that are held against every checkpoint: some need few curved directions, which not every place has."""
    every = set.intersection(*({a.name for a in place.assumptions} for place in found.places))
    return [a.name for a in found.places[0].assumptions if a.name in every]


def history(found: AuditAlong, name: str) -> list[Assumption]:
    """One assumption at all checkpoints."""
    return [next(a for a in place.assumptions if a.name == name) for place in found.places]


def cell(a: Assumption) -> str:
    """Value, half the width of its interval where there is one, and a sign where it does not hold."""
    low, high = a.interval
    half = f" ± {number((high - low) / 2, 1)}" if low < high < float("inf") else ""
    return f"{number(a.value)}{half}{SIGNS[a.word]}"


def audit_along_table(found: AuditAlong) -> Table:
    """A row a checkpoint, a column an assumption."""
    title = "Assumptions of Langevin dynamics along the run (x fails, ? undecided; ± half a 95 % interval)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("loss", justify="right")
    shown = names(found)
    for name in shown:
        table.add_column(name, justify="right", overflow="fold")
    for place in found.places:
        cells = [Text(cell(a), COLOURS[a.word]) for a in place.assumptions if a.name in shown]
        table.add_row(f"{place.step:,}", f"{place.loss:.5g}", *cells)
    return table


def audit_along_figure(found: AuditAlong) -> Figure:
    """Each statistic against the step, with its interval; grey is where the assumption holds."""
    shown = names(found)
    figure = new_figure(6.4, 1.5 * ((len(shown) + 1) // 2))
    panels = figure.subplots((len(shown) + 1) // 2, 2, sharex=True, squeeze=False)
    for axes, name in zip(panels.flat, shown, strict=False):
        entries, steps = history(found, name), [place.step for place in found.places]
        first = entries[0]
        for step, a in zip(steps, entries, strict=True):
            mark, shade = MARKS[a.word]
            axes.plot([step, step], a.interval, color=shade, linewidth=1)
            axes.plot(step, a.value, mark, color=shade, markersize=4)
        axes.plot(steps, [a.value for a in entries], color=GREY, linewidth=0.7, zorder=0)
        if first.margin > 0:
            axes.axhspan(first.null - first.margin, first.null + first.margin, color="#8883", lw=0)
        else:
            axes.axhline(first.null, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize="small")
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("step")
    return figure


def sentence(found: AuditAlong) -> str:
    """Which assumptions fail all along, and which at some checkpoints."""
    failing = {name: sum(a.holds is False for a in history(found, name)) for name in names(found)}
    always = [name for name, count in failing.items() if count == len(found.places)]
    sometimes = [f"{name} ({count})" for name, count in failing.items() if 0 < count < len(found.places)]
    parts = [f"all along: {listed(always)}"] if always else []
    parts += [f"at some: {listed(sometimes)}"] if sometimes else []
    said = (
        f"Failing at {len(found.places)} checkpoints, {'; '.join(parts)}" if parts else "No assumption of a point fails"
    )
    return said


def audit_along_page(found: AuditAlong, model: Model, described: dict[str, Any], command: str) -> str:
    """HTML of an audit along a run."""
    return render(
        "audit_along.html",
        answer=sentence(found),
        found=found,
        heads=names(found),
        interval=interval,
        figure=svg(audit_along_figure(found), f"Assumptions along the run. {sentence(found)}"),
        model=described,
        truth=model.truth,
        command=command,
    )
