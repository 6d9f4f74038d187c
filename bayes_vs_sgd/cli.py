"""Command line: parses, calls the library, prints."""

import contextlib
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import CORES
from .errors import InputError, nearest

VERBS = ("compare", "audit", "llc", "free-energy", "robustness", "claims", "models")
WITHOUT_MODEL = ("claims", "models")
USAGE = """usage: bayes-vs-sgd VERB MODEL.py [--model.SETTING VALUE ...] [--SETTING VALUE ...]

Does SGD sample the Bayesian posterior? Settled on your own model.

verbs:
  compare MODEL.py   is the law of each dynamics the tempered posterior, and at what temperature?
  audit MODEL.py     which assumption of Langevin dynamics does SGD break, by how much, and which one matters?
  llc MODEL.py       local learning coefficient of the tempered posterior, with its budget of errors
  free-energy MODEL.py
                     log evidence; learning coefficient, multiplicity and WAIC from the same ladder of temperatures
  robustness MODEL.py --property NAME --threshold C
                     how likely is property > C among the parameters that fit as well, down to one in a million and below?
  claims [--run ID...]
                     list the statements of theory, or measure them: predicted beside measured
  models [FOLDER]    list the model files of a folder (models/ by default) with their settings

bayes-vs-sgd VERB MODEL.py --help lists the settings of a verb and of the model file.
exit status: 0 an answer was reached, 1 a run failed or was interrupted, 2 bad input"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``bayes-vs-sgd``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"bayes-vs-sgd: {message}", file=sys.stderr)
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("bayes_vs_sgd"))
        return 0
    verb, *rest = arguments
    try:
        if verb not in VERBS:
            raise InputError(f"unknown verb {verb!r}: {nearest(verb, VERBS)}")
        if not rest and verb not in WITHOUT_MODEL:
            raise InputError(f"{verb} needs a model file, as in: bayes-vs-sgd {verb} models/deep_linear.py")
        if verb == "models":
            return list_models(rest)
        prepare_jax()
        if verb == "claims":
            from .claims.verb import claims_verb

            return claims_verb(rest)
        from . import jobs

        return jobs.run_verb(verb, rest)
    except InputError as error:
        print(f"bayes-vs-sgd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bayes-vs-sgd: interrupted; what is done is kept", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("BAYES_VS_SGD_TRACEBACK"):
            raise
        print(
            f"bayes-vs-sgd: failed: {type(error).__name__}: {error} (BAYES_VS_SGD_TRACEBACK=1 shows where)",
            file=sys.stderr,
        )
        return 1


def prepare_jax() -> None:
    """Before jax starts: one device a core, so that chains use all of them; LAPACK's own threads would be in the way."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    from .cache import enable_cache

    with contextlib.suppress(AttributeError, RuntimeError):
        jax.config.update("jax_num_cpu_devices", CORES)
    enable_cache()


def list_models(arguments: list[str]) -> int:
    """Print each model file with its first line and settings."""
    import ast

    folder = Path(arguments[0] if arguments else "models")
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give one that holds model files, as in: bayes-vs-sgd models my_models")
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text())
        first = (ast.get_docstring(tree) or "").split("\n")[0]
        print(f"{path}\n    {first}")
        configs = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config"]
        for field in [n for c in configs for n in c.body if isinstance(n, ast.AnnAssign)]:
            default = ast.unparse(field.value) if field.value else "required"
            print(f"    --model.{ast.unparse(field.target).replace('_', '-')} {default}")
    return 0


def write_json(content: Any, where: str | None) -> None:
    """Write an answer as JSON to a file, or to standard output for ``-``."""
    if where is None:
        return
    text = json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n"
    if where == "-":
        print(text, end="")
        return
    from .store import write_file

    write_file(where, text)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        assert not isinstance(value, type)
        return dataclasses.asdict(value)
    return value.item()


if __name__ == "__main__":
    main()
