"""Claims of theory beside their measurements: a figure and a page."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..claims.claim import FAILS, HOLDS, UNDECIDED, Measured, Reading
from .figures import COLOURS, GREY, new_figure
from .page import listed, render, svg

FAR = 0.3
"""Relative distance from the prediction at which the figure ends."""
SHADES = {HOLDS: COLOURS[2], FAILS: COLOURS[1], UNDECIDED: COLOURS[4]}
CLASSES = {HOLDS: "match", FAILS: "mismatch", UNDECIDED: "other"}
GAP = 1.5
"""Between claims, in readings."""


def claims_figure(found: Sequence[Measured]) -> Figure:
    """Measured over predicted with its interval, a line a reading; grey crosses are mistakes that must be ruled out.

    Readings of a prediction of 0 have no ratio, and stand in the table only.
    """
    shown = {m.claim.id: [r for r in m.readings if r.predicted and r.measured == r.measured] for m in found}
    shown = {id: readings for id, readings in shown.items() if readings}
    places, height = {}, 0.0
    for id, readings in shown.items():
        places[id] = [height + index for index in range(len(readings))]
        height += len(readings) - 1 + GAP
    figure = new_figure(6.4, 1.0 + 0.09 * height)
    axes = figure.subplots()
    axes.axvline(1, color=GREY, linewidth=0.8)
    for id, readings in shown.items():
        for place, reading in zip(places[id], readings, strict=True):
            draw(axes, place, reading)
    axes.set_yticks([sum(p) / len(p) for p in places.values()], list(places))
    axes.set_ylim(max(height - GAP, 0) + 1, -1)
    axes.set_xlim(1 - 1.05 * FAR, 1 + 1.05 * FAR)
    axes.set_xlabel("measured over predicted")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def draw(axes, place: float, reading: Reading) -> None:
    """One reading; an arrow head where it is off the figure."""
    shade = SHADES[reading.verdict]
    value, low, high = (within(x / reading.predicted) for x in (reading.measured, *reading.interval))
    axes.plot([low, high], [place, place], color=shade, linewidth=1.2)
    mark = "o" if abs(value - 1) < FAR else ">" if value > 1 else "<"
    axes.plot(value, place, mark, color=shade, markersize=3)
    mistake = reading.mistake / reading.predicted
    if abs(mistake - 1) < FAR:
        axes.plot(mistake, place, "x", color=GREY, markersize=3, markeredgewidth=0.8)


def within(ratio: float) -> float:
    """A ratio, or the end of the figure."""
    return min(max(ratio, 1 - FAR), 1 + FAR)


def sentence(found: Sequence[Measured]) -> str:
    """How many claims hold, and which do not."""
    by = {verdict: [m.claim.id for m in found if m.verdict == verdict] for verdict in (HOLDS, FAILS, UNDECIDED)}
    parts = [f"{len(by[HOLDS])} of {len(found)} claims hold"]
    parts += [f"{listed(by[FAILS])} {'fails' if len(by[FAILS]) == 1 else 'fail'}"] if by[FAILS] else []
    parts += [f"undecided: {listed(by[UNDECIDED])}"] if by[UNDECIDED] else []
    return "; ".join(parts)


def claims_page(found: Sequence[Measured], missing: Sequence[str], command: str) -> str:
    """HTML of what was measured.

    Parameters
    ----------
    found
        Claims and their readings.
    missing
        Ids of claims for which there was no time.
    command
        The command line that repeats it.
    """
    answer = sentence(found)
    return render(
        "claims.html",
        answer=answer,
        found=found,
        missing=missing,
        classes=CLASSES,
        figure=svg(claims_figure(found), f"Measured over predicted of each reading, with intervals. {answer}"),
        far=FAR,
        model=None,
        truth={},
        command=command,
    )
