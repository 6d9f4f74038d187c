"""Load a model file: a NumPyro program with a ``Config`` dataclass and ``build(config, key)``."""

import dataclasses
import hashlib
import sys
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .errors import InputError, nearest
from .model import Model


def load_module(path: str | Path) -> types.ModuleType:
    """Execute a model file as a module of its own; the user's own line is shown where it fails."""
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        near = (
            nearest(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else "no such folder"
        )
        raise InputError(f"no model file at {path}: {near}")
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()[:16]
    name = f"bayes_vs_sgd_model_{path.stem}_{digest}"
    if (loaded := sys.modules.get(name)) is not None and loaded.__file__ == str(path):
        return loaded
    module = types.ModuleType(name)
    module.__file__ = str(path)
    vars(module)["__digest__"] = digest
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{path} does not run: {user_line(error, path)}") from error
    for wanted in ("Config", "build"):
        if not hasattr(module, wanted):
            raise InputError(f"{path} has no {wanted}: a model file defines a dataclass Config and build(config, key)")
    if not dataclasses.is_dataclass(module.Config):
        raise InputError(f"Config in {path} is not a dataclass: decorate it with @dataclass(frozen=True)")
    return module


def build_model(module: types.ModuleType, config: Any, data_seed: int = 0) -> Model:
    """Call the file's ``build`` and remember where the model comes from."""
    path = module.__file__
    try:
        model = module.build(config, jax.random.key(data_seed))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        raise InputError(f"{path} cannot be built: {user_line(error, Path(path or ''))}") from error
    if not isinstance(model, Model):
        raise InputError(f"build in {path} returned {type(model).__name__}: it must return a bayes_vs_sgd.Model")
    model.facts["path"] = path
    model.facts["digest"] = getattr(module, "__digest__", None)
    model.facts["config"] = dataclasses.asdict(config) | {"data_seed": data_seed}
    return model


def build_controls(module: types.ModuleType, config: Any, data_seed: int = 0) -> dict[str, Model]:
    """Models that the file names as controls, by title: what its function ``controls(config, key)`` returns, if it has one."""
    if not hasattr(module, "controls"):
        return {}
    try:
        return dict(module.controls(config, jax.random.key(data_seed)))
    except Exception as error:
        path = Path(module.__file__ or "")
        warnings.warn(f"no controls: those of {path} cannot be built: {user_line(error, path)}", stacklevel=2)
        return {}


def load_model(path: str | Path, data_seed: int = 0, **config: Any) -> Model:
    """Load a model file and build its model with the given settings of its ``Config``."""
    module = load_module(path)
    fields = {field.name for field in dataclasses.fields(module.Config)}
    for name in config:
        if name not in fields:
            raise InputError(f"{path} has no setting {name!r}: {nearest(name, fields)}")
    try:
        made = module.Config(**config)
    except Exception as error:
        raise InputError(f"{path}: {error}") from error
    return build_model(module, made, data_seed)


def at_checkpoint(model: Model, path: str | Path) -> Model:
    """Put the values in an .npz file, one array a site of the program, in the place of the model's optimum."""
    values = read_arrays(path, "--center")
    try:
        return model.at(values, str(path))
    except InputError as error:
        raise InputError(f"--center {path}: {error}") from error


def read_arrays(path: str | Path, flag: str) -> dict[str, np.ndarray]:
    """Arrays of an .npz file that a flag names."""
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{flag} {path}: there is no such file") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{flag} {path} is no .npz file: make it with numpy.savez({str(path)!r}, w=...)") from error


def user_line(error: BaseException, path: Path) -> str:
    """The error with the last line of the user's file it came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = ""
    if frames:
        lines = path.read_text(errors="replace").splitlines()
        number = frames[-1].lineno or 1
        line = f"line {number}: {lines[number - 1].strip()}: "
    message = str(error).strip().splitlines()
    return f"{line}{type(error).__name__}: {message[0] if message else ''}"
