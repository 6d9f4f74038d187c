"""A verb's command line: flags, run folder, and what is written when it is done."""

import contextlib
import dataclasses
import io
import json
import re
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import jax
import matplotlib
import tyro
from rich.console import Console

from .cli import write_json
from .errors import InputError, nearest
from .load import at_checkpoint, build_controls, build_model, load_module
from .model import Model
from .settings import Run
from .store import write_file
from .verbs import VERBS, describe_model

TABLE_WIDTH = 110
"""Narrower terminals wrap lines rather than lose columns."""


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
    default = "float32" if verb in ("compare", "audit") else "float64"
    matplotlib.use("agg")  # a page needs no display
    jax.config.update("jax_enable_x64", (run.dtype or default) == "float64")
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
        content = VERBS[verb][0](model, settings, run, folder, console)
    except KeyboardInterrupt:
        print(f"continue with the same command line and --resume {folder}", file=sys.stderr)
        raise
    except InputError:
        if [path.name for path in folder.iterdir()] == [
            "job.json"
        ]:  # refused before anything ran: the name is free again
            (folder / "job.json").unlink()
            folder.rmdir()
        raise
    write_file(folder / f"{verb}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_json(content, run.json)
    console.print(f"[dim]run folder {folder}[/dim]", highlight=False)
    return 0


def parse(verb: str, config: type | None, arguments: list[str]) -> tuple[Run, Any, Any]:
    """Parse flags: the shared ones, the verb's, and the model's ``Config`` under ``--model.``."""
    flat = tyro.conf.arg(name="")
    fields: list[Any] = [("run", Annotated[Run, flat]), ("settings", Annotated[VERBS[verb][1], flat])]
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
        raise InputError(in_plain_words(errors.getvalue(), arguments)) from None
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for c in (Run, VERBS[verb][1]) for name in c.__dataclass_fields__]
        flags += [f"--model.{f.name.replace('_', '-')}" for f in dataclasses.fields(config)] if config else []
        raise InputError(f"unknown flag {unknown[0]!r}: {nearest(unknown[0], flags)}")
    return made.run, made.settings, getattr(made, "model", None)


def in_plain_words(complaint: str, arguments: list[str]) -> str:
    """Tyro's complaint in one line: what was given, and what is taken."""
    text = " ".join(re.sub(r"[╭╮╰╯│─]|-{5,}", " ", complaint).split())
    text = re.sub(r"^(Parsing error|Value error|Missing argument|Invalid choice) ", "", text)
    found = re.match(r"Error parsing (\S+): .*Argument helptext: \1 (.*?) \(default: ", text)
    if found is None:
        return text
    flag, taken = found.groups()
    after = arguments[arguments.index(flag) + 1 :] if flag in arguments else []
    given = takewhile(lambda word: not word.startswith("--"), after)
    return f"{' '.join([flag, *given])}: it takes {taken.removeprefix('{None}|')}"


def run_folder(verb: str, run: Run, settings: Any, model: Model) -> Path:
    """Return the run's folder: the one to resume, the one given, or a fresh one under runs/."""
    if run.out is not None and run.resume is not None:
        raise InputError("give --out for a new run or --resume for an old one, not both")
    job = {"verb": verb, "model": describe_model(model) | {"program": model.program.digest}, "seed": run.seed}
    job |= {"settings": dataclasses.asdict(settings), "dtype": str(jax.numpy.zeros(()).dtype)}
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
    folder = new_folder(run.out, f"{verb}-{Path(str(model.facts['path'])).stem}")
    write_file(folder / "job.json", json.dumps(job, indent=1) + "\n")
    return folder


def new_folder(out: Path | None, name: str) -> Path:
    """Make the folder that is given, which must be empty or not exist, or a fresh one under runs/."""
    folder = out
    if folder is None:
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        tries = [Path("runs") / stem, *(Path("runs") / f"{stem}-{i}" for i in range(2, 100))]
        folder = next(f for f in tries if not f.exists())
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder} is not an empty folder: give another, or --resume {folder} to continue a run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from error
    return folder
