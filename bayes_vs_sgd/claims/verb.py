"""The verb ``claims``: list the statements of theory, or measure them and print predicted beside measured."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import tyro
from rich.console import Console
from rich.table import Table

from ..cli import write_json
from ..diagnostics import finite_or_none
from ..jobs import new_folder
from ..report.claims import claims_page
from ..settings import check_seconds
from ..verbs import repeat, write_page
from . import Claim, Measured, chosen

WIDTH = 150
"""Narrower terminals wrap lines rather than lose columns."""


@dataclass(frozen=True)
class Claims:
    """Which claims are measured."""

    run: tuple[str, ...] | None = None
    """Measure these, by their ids or families (C1, D), or all of them if none is named; without --run they are listed."""
    seed: int = 0
    """Seed of the measurements."""
    max_seconds: float = 600.0
    """After this wall time no further claim is begun."""
    out: Path | None = None
    """Folder of the page; a fresh one under runs/ by default."""
    json: str | None = None
    """Also write the answer as JSON to this file, or to standard output for -."""


def claims_verb(arguments: list[str]) -> int:
    """List claims, or measure some and write their page."""
    settings = tyro.cli(Claims, prog="bayes-vs-sgd claims", args=arguments)
    check_seconds(settings.max_seconds)
    console = Console(stderr=settings.json == "-")
    console.width = max(console.width, WIDTH)
    wanted = chosen(settings.run or ())
    if settings.run is None:
        console.print(list_of(wanted))
        write_json([{"id": c.id, "statement": c.statement, "source": c.source} for c in wanted], settings.json)
        return 0
    matplotlib.use("agg")  # a page needs no display
    folder, found = new_folder(settings.out, "claims"), []
    try:
        for measured in measure(wanted, settings.seed, settings.max_seconds):
            found.append(measured)
            console.print(readings(measured))
    finally:  # what is measured when interrupted has a page too
        missing = [c.id for c in wanted[len(found) :]]
        if found:
            write_page(console, folder / "claims.html", claims_page(found, missing, repeat()))
            content = [entry for measured in found for entry in rows(measured)]
            write_json(content, str(folder / "claims.json"))
    if missing:
        console.print(f"not measured within {settings.max_seconds:g} s: {', '.join(missing)}; give --max-seconds")
    counts = {v: sum(m.verdict == v for m in found) for v in ("holds", "fails", "undecided")}
    console.print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    write_json([entry for measured in found for entry in rows(measured)], settings.json)
    console.print(f"[dim]run folder {folder}[/dim]", highlight=False)
    return 0


def measure(claims: list[Claim], seed: int, max_seconds: float) -> Iterator[Measured]:
    """Measure claims one by one, as long as there is time."""
    started = time.monotonic()
    for item in claims:
        begun = time.monotonic()
        if begun - started > max_seconds:
            return
        found = item.measure(seed)
        yield Measured(item, found, time.monotonic() - begun)


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One entry a reading, as plain values; not-a-number becomes null. The seconds are those of all readings of a claim."""
    known = {"id": measured.claim.id, "statement": measured.claim.statement, "source": measured.claim.source}
    return [
        finite_or_none(
            known
            | {"reading": r.name, "predicted": r.predicted, "measured": r.measured, "interval": list(r.interval)}
            | {"mistake": r.mistake, "verdict": r.verdict, "seconds": measured.seconds}
        )
        for r in measured.readings
    ]


def list_of(claims: list[Claim]) -> Table:
    """Ids, statements and sources."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for item in claims:
        table.add_row(f"[bold]{item.id}[/bold]", item.statement, f"[dim]{item.source}[/dim]")
    return table


def readings(measured: Measured) -> Table:
    """Predicted beside measured, with the interval and the mistake that it rules out."""
    title = f"[bold]{measured.claim.id}[/bold] {measured.claim.statement}: [bold]{measured.verdict}[/bold]"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for head in ("", "predicted", "measured", "interval", "mistake", ""):
        table.add_column(head, justify="left" if not head else "right")
    for r in measured.readings:
        low, high = r.interval
        mistake = "" if r.mistake != r.mistake else f"{r.mistake:.5g}"
        table.add_row(r.name, f"{r.predicted:.5g}", f"{r.measured:.5g}", f"[{low:.5g}, {high:.5g}]", mistake, r.verdict)
    return table
