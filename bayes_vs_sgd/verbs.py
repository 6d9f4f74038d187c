"""What each verb does: from settings to an answer, a table and a page."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from .along import along_training
from .assumptions.along import audit_along
from .assumptions.audit import audit
from .comparison.control import Control, run_control
from .comparison.interventions import explained
from .comparison.result import Comparison
from .comparison.run import Study
from .errors import InputError
from .free_energy import free_energy
from .measure import measure_posterior, posterior
from .model import Model
from .posterior import Posterior
from .report.audits import audit_page, audit_table
from .report.audits_along import audit_along_page, audit_along_table
from .report.estimates import along_table, free_energy_table, llc_table
from .report.influences import influence_table
from .report.page import along_page, comparison_page, free_energy_page, llc_page
from .report.robustness import robustness_page, robustness_table
from .report.tables import comparison_table
from .robustness.run import measure
from .settings import LLC, AuditSettings, Compare, FreeEnergy, Robustness, Run
from .store import write_file

EARLY = 1
"""Comparisons after which there is a page to look at while the others run; the first is of plain SGD."""

UNUSED_ALONG = ("sampler", "precision", "baseline", "step_size", "batch_size", "initial_scale", "second")
"""Settings of a measurement that one along a run does not have."""


def compare_verb(model: Model, settings: Compare, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Compare every dynamics with the posterior, and write the page of what there is, also when interrupted."""
    started = time.monotonic()
    study = Study(model, settings, run.seed, folder)
    missing = [*study.names, *(controls := model.facts.get("controls", {}))]
    found: list[Comparison] = []
    seen: list[Control] = []

    def show(what: str) -> None:
        page = comparison_page(found, study, describe_model(model), repeat(), missing, seen)
        write_file(folder / "compare.html", page)
        console.print(f"{what} {folder / 'compare.html'}", highlight=False, soft_wrap=True)

    try:
        for comparison in study.run():
            found.append(comparison)
            missing.remove(comparison.dynamics)
            console.print(
                f"{comparison.dynamics}: [bold]{comparison.verdict}[/bold] ({comparison.reason})", highlight=False
            )
            if len(found) == EARLY and missing:
                show("page so far")
        for title, control in controls.items():
            if time.monotonic() < started + settings.max_seconds:
                seen.append(run_control(study, title, control))
                missing.remove(title)
        for index, comparison in enumerate(found if settings.repairs else ()):
            left = started + settings.max_seconds - time.monotonic()
            found[index] = explained(study, comparison, time.monotonic() + left / (len(found) - index))
            console.print(f"{comparison.dynamics}: {found[index].reason}", highlight=False)
    finally:
        if found or not isinstance(sys.exception(), InputError):
            show("page")
    console.print(comparison_table(found, seen))
    if missing:
        console.print(f"not looked at within {settings.max_seconds:g} s: {', '.join(missing)}; give --max-seconds")
    judged = [c.reference for c in found if c.reference is not None]
    worst = max(judged, key=lambda r: (not r.passed, r.rhat_max, -r.ess_min), default=None)
    return {
        "model": describe_model(model),
        "reference": None if worst is None else worst.to_json(),
        "comparisons": [c.to_json() for c in found],
        "controls": [c.to_json() for c in seen],
    }


def audit_verb(model: Model, settings: AuditSettings, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Audit an optimiser, or hold what needs only a point against the checkpoints of a run."""
    if settings.along is not None:
        places = audit_along(model, settings.along, settings=settings, key=run.seed)
        console.print(audit_along_table(places))
        page = audit_along_page(places, model, describe_model(model), repeat())
        write_page(console, folder / "audit.html", page)
        return places.to_json() | {"model": describe_model(model), "run": str(settings.along)}
    found = audit(model, settings=settings, key=run.seed, folder=folder)
    console.print(audit_table(found))
    write_page(console, folder / "audit.html", audit_page(found, model, describe_model(model), repeat()))
    return found.to_json() | {"model": describe_model(model)}


def repeat() -> str:
    """Return the command line that repeats this run in a folder of its own."""
    arguments, kept = sys.argv[1:], []
    skip = False
    for argument in arguments:
        name = argument.split("=")[0]
        if not skip and name not in ("--out", "--resume", "--json"):
            kept.append(argument)
        skip = not skip and name in ("--out", "--resume", "--json") and "=" not in argument
    return "bayes-vs-sgd " + shlex.join(kept)


def llc_verb(model: Model, settings: LLC, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Measure the learning coefficient."""
    target = posterior(model, settings)
    if settings.along is not None:
        return along_verb(target, settings, run, folder, console)
    found, tree = measure_posterior(target, settings, run.seed, folder)
    console.print(llc_table(found, target))
    write_page(console, folder / "llc.html", llc_page(found, tree, target, describe_model(model), repeat()))
    more = {"inverse_temperature": float(target.inverse_temperature), "localization": settings.localization}
    return found.to_json() | {"model": describe_model(model)} | more


def along_verb(target: Posterior, settings: LLC, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Measure around the checkpoints of a run."""
    assert settings.along is not None
    unused = [name for name in UNUSED_ALONG if getattr(settings, name) != getattr(LLC, name)]
    if unused:
        raise InputError(
            f"{', '.join(unused)}: no part of a measurement along a run, which chooses by itself; leave it out"
        )
    lengths = (settings.num_checkpoints, settings.chains(target.model.num_parameters), settings.num_draws)
    found = along_training(settings.along, target, run.seed, *lengths, max_seconds=settings.max_seconds)
    console.print(along_table(found))
    for point in found:
        if point.warnings:
            console.print(f"not to be trusted at step {point.step:,}: {'; '.join(point.warnings)}", highlight=False)
    described = describe_model(target.model)
    write_page(console, folder / "llc.html", along_page(found, target, described, repeat()))
    more = {"inverse_temperature": float(target.inverse_temperature), "localization": settings.localization}
    return {"along": [point.to_json() for point in found], "model": described, "run": str(settings.along)} | more


def free_energy_verb(model: Model, settings: FreeEnergy, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Estimate the free energy."""
    started = time.monotonic()
    chosen = {name: getattr(settings, name) for name in ("num_particles", "num_moves", "num_replicates", "max_seconds")}
    chosen |= {"key": run.seed, "folder": folder / "ladders"}
    with console.status("free energy") as status:
        say = status.update if console.is_terminal else lambda line: print(line, file=sys.stderr, flush=True)
        found = free_energy(model, settings.inverse_temperature, progress=say, **chosen)
    seconds = time.monotonic() - started
    console.print(free_energy_table(found, model))
    page = free_energy_page(found, model, describe_model(model), repeat())
    write_page(console, folder / "free-energy.html", page)
    return found.to_json() | {"model": describe_model(model), "seconds": seconds}


def robustness_verb(model: Model, settings: Robustness, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Estimate how likely a property exceeds its threshold."""
    with console.status("robustness") as status:
        say = status.update if console.is_terminal else lambda line: print(line, file=sys.stderr, flush=True)
        found = measure(model, settings, run.seed, folder, say)
    console.print(robustness_table(found))
    if found.influence:
        console.print(influence_table(found.influence))
    write_page(console, folder / "robustness.html", robustness_page(found, model, describe_model(model), repeat()))
    return found.to_json() | {"model": describe_model(model)}


def write_page(console: Console, path: Path, page: str) -> None:
    """Write a page, and say where it is."""
    write_file(path, page)
    console.print(f"page {path}", highlight=False, soft_wrap=True)


def describe_model(model: Model) -> dict[str, Any]:
    """Where a model comes from, and its size."""
    return {
        "path": model.facts.get("path"),
        "config": model.facts.get("config"),
        "num_parameters": model.num_parameters,
        "num_examples": model.num_examples,
    } | ({"center": model.facts["center"]} if "center" in model.facts else {})


VERBS = {
    "compare": (compare_verb, Compare),
    "audit": (audit_verb, AuditSettings),
    "llc": (llc_verb, LLC),
    "free-energy": (free_energy_verb, FreeEnergy),
    "robustness": (robustness_verb, Robustness),
}
"""What runs, and its settings."""
