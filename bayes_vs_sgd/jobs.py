"""The verbs: from settings to an answer."""

import contextlib
import dataclasses
import io
import json
import math
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import matplotlib
import tyro
from rich.console import Console

from .cli import write_json
from .comparison.compare import Comparison
from .comparison.control import Control, run_control
from .comparison.run import Study
from .curvature import hessian_eigenvalues, reference_point
from .dynamics import NUTS, SGLD, Dynamics, Grid
from .errors import InputError, nearest
from .learning_coefficient import learning_coefficient
from .load import at_checkpoint, build_controls, build_model, load_module
from .model import Model
from .posterior import Posterior
from .report.page import comparison_page, llc_page
from .report.tables import comparison_table, llc_table
from .results import whole
from .settings import LLC, SAMPLERS, Compare, Run
from .simulate import simulate
from .store import write_file

SETTINGS = {"compare": Compare, "llc": LLC}
TABLE_WIDTH = 110
"""Narrower terminals wrap lines rather than lose columns."""
EARLY = 1
"""Comparisons after which there is a page to look at while the others run; the first is of plain SGD."""


def run_verb(verb: str, arguments: list[str]) -> int:
    """Parse a verb's arguments, run it, print the answer."""
    path = next(
        (a for i, a in enumerate(arguments) if a.endswith(".py") and (i == 0 or not arguments[i - 1].startswith("-"))),
        None,
    )
    path = arguments[0] if path is None and not arguments[0].startswith("-") else path
    if path is None:
        if {"-h", "--help"} & set(arguments):
            parse(verb, None, ["--help"])
        raise InputError(f"{verb} needs a model file, as in: bayes-vs-sgd {verb} models/deep_linear.py")
    rest = [a for a in arguments if a != path]
    module = load_module(path)
    run, settings, config = parse(verb, module.Config, rest)
    default = "float64" if verb == "llc" else "float32"
    matplotlib.use("agg")  # a page needs no display
    jax.config.update("jax_enable_x64", (run.precision or default) == "float64")
    if run.json not in (None, "-") and not Path(run.json).parent.is_dir():
        raise InputError(f"--json {run.json}: there is no folder {Path(run.json).parent}")
    model = build_model(module, config, run.data_seed)
    if run.center is not None:
        model = at_checkpoint(model, run.center)
    if verb == "compare" and settings.controls:
        model.facts["controls"] = build_controls(module, config, run.data_seed)
    folder = run_folder(verb, run, settings, model)
    console = Console(stderr=run.json == "-")
    console.width = max(console.width, TABLE_WIDTH)
    try:
        content = {"compare": compare_verb, "llc": llc_verb}[verb](model, settings, run, folder, console)
    except KeyboardInterrupt:
        print(f"continue with the same command line and --resume {folder}", file=sys.stderr)
        raise
    write_file(folder / f"{verb}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_json(content, run.json)
    console.print(f"[dim]run folder {folder}[/dim]", highlight=False)
    return 0


def compare_verb(model: Model, settings: Compare, run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Compare every dynamics with the posterior, and write the page of what there is, also when interrupted."""
    started = time.monotonic()
    study = Study(model, settings, run.seed, folder)
    missing = [*study.names, *(controls := model.facts.get("controls", {}))]
    found: list[Comparison] = []
    seen: list[Control] = []

    def write_page(what: str) -> None:
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
                write_page("page so far")
        for title, control in controls.items():
            if time.monotonic() < started + settings.max_seconds:
                seen.append(run_control(study, title, control))
                missing.remove(title)
    finally:
        if found or not isinstance(sys.exception(), InputError):
            write_page("page")
    console.print(comparison_table(found, seen))
    if missing:
        console.print(f"not looked at within {settings.max_seconds:g} s: {', '.join(missing)}; give --max-seconds")
    worst = max(found, key=lambda c: (not c.reference.passed, c.reference.rhat_max, -c.reference.ess_min))
    return {
        "model": describe_model(model),
        "reference": worst.reference.to_json(),
        "comparisons": [c.to_json() for c in found],
        "controls": [c.to_json() for c in seen],
    }


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
    """Estimate the learning coefficient."""
    started = time.monotonic()
    beta = settings.inverse_temperature
    if beta is None:
        beta = 1 / math.log(max(model.num_examples, 3))
    target = Posterior(model, beta, settings.localization)
    dynamics = sampler(settings, target)
    tree = simulate(
        dynamics,
        target,
        key=run.seed,
        num_chains=settings.num_chains,
        num_draws=settings.num_draws,
        num_warmup=settings.num_warmup,
        initial_scale=settings.initial_scale,
        folder=folder / "draws",
        max_seconds=settings.max_seconds,
    )
    found = learning_coefficient(whole(tree), target, settings.baseline, time.monotonic() - started)
    console.print(llc_table(found, type(dynamics).__name__, target))
    page = llc_page(found, tree, target, describe_model(model), type(dynamics).__name__, repeat())
    write_file(folder / "llc.html", page)
    console.print(f"page {folder / 'llc.html'}", highlight=False, soft_wrap=True)
    shared = {"model": describe_model(model), "sampler": {"dynamics": type(dynamics).__name__, **dynamics.settings}}
    return found.to_json() | shared | {"inverse_temperature": beta, "localization": settings.localization}


def sampler(settings: LLC, target: Posterior) -> Dynamics:
    """Return the sampler asked for, or the best the model has: its exact one, a grid, NUTS."""
    model, name = target.model, settings.sampler
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler {name!r}: {nearest(name, SAMPLERS)}")
    if name == "auto":
        name = "exact" if model.exact_sampler is not None else "grid" if model.num_parameters <= 2 else "nuts"
    if name == "exact":
        if model.exact_sampler is None:
            raise InputError("this model declares no exact sampler: give --sampler nuts")
        return model.exact_sampler
    if name == "grid":
        return Grid()
    if name == "nuts":
        return NUTS()
    step_size = settings.step_size
    if step_size is None:
        sharpness = float(hessian_eigenvalues(model, reference_point(model, target.center).position)[-1])
        step_size = 0.1 / (float(target.scale) * sharpness + 1.0)
    return SGLD(step_size)


def describe_model(model: Model) -> dict[str, Any]:
    """Where a model comes from, and its size."""
    return {
        "path": model.facts.get("path"),
        "config": model.facts.get("config"),
        "num_parameters": model.num_parameters,
        "num_examples": model.num_examples,
    } | ({"center": model.facts["center"]} if "center" in model.facts else {})


def parse(verb: str, config: type | None, arguments: list[str]) -> tuple[Run, Any, Any]:
    """Parse flags: the shared ones, the verb's, and the model's ``Config`` under ``--model.``."""
    flat = tyro.conf.arg(name="")
    fields: list[Any] = [("run", Annotated[Run, flat]), ("settings", Annotated[SETTINGS[verb], flat])]
    if config is not None:
        fields.append(("model", config, dataclasses.field(default_factory=config)))
    job = dataclasses.make_dataclass("Job", fields)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            made, unknown = tyro.cli(
                job,
                prog=f"bayes-vs-sgd {verb} MODEL.py",
                description=f"Settings of {verb}" + ("" if config else "; with a model file, also those of the file"),
                args=arguments,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = " ".join(re.sub(r"[╭╮╰╯│─]", " ", errors.getvalue()).split())
        raise InputError(text.removeprefix("Parsing error ")) from None
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for c in (Run, SETTINGS[verb]) for name in c.__dataclass_fields__]
        flags += [f"--model.{f.name.replace('_', '-')}" for f in dataclasses.fields(config)] if config else []
        raise InputError(f"unknown flag {unknown[0]!r}: {nearest(unknown[0], flags)}")
    return made.run, made.settings, getattr(made, "model", None)


def run_folder(verb: str, run: Run, settings: Any, model: Model) -> Path:
    """Return the run's folder: the one to resume, the one given, or a fresh one under runs/."""
    if run.out is not None and run.resume is not None:
        raise InputError("give --out for a new run or --resume for an old one, not both")
    job = {"verb": verb, "model": describe_model(model) | {"program": model.program.digest}, "seed": run.seed}
    job |= {"settings": dataclasses.asdict(settings), "precision": str(jax.numpy.zeros(()).dtype)}
    job = json.loads(json.dumps(job, default=str))
    if run.resume is not None:
        folder = run.resume
        if not (folder / "job.json").is_file():
            raise InputError(f"--resume {folder}: there is no run in this folder (no job.json)")
        try:
            found = json.loads((folder / "job.json").read_text())
        except ValueError as error:
            raise InputError(f"{folder / 'job.json'} is damaged: {error}") from error
        for name in job:
            old, new = ({**x, "max_seconds": None} if name == "settings" else x for x in (found.get(name), job[name]))
            if old != new:
                differing = (
                    [k for k in new if not isinstance(old, dict) or old.get(k) != new[k]]
                    if isinstance(new, dict)
                    else [name]
                )
                raise InputError(
                    f"--resume {folder}: that run has another {name} ({', '.join(differing)}); give the same settings"
                )
        return folder
    folder = run.out
    if folder is None:
        stem = f"{verb}-{Path(str(model.facts['path'])).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        tries = [Path("runs") / stem, *(Path("runs") / f"{stem}-{i}" for i in range(2, 100))]
        folder = next(f for f in tries if not f.exists())
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder} is not an empty folder: give another, or --resume {folder} to continue a run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from error
    write_file(folder / "job.json", json.dumps(job, indent=1) + "\n")
    return folder
