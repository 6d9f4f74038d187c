"""Functions that are equal when their code is: the same file loaded twice compiles once."""

import dataclasses
import functools
import hashlib
import re
import sys
import types
from collections.abc import Callable

import numpy as np

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Function:
    """A function as a static leaf of a pytree, equal by code, constants, closure and the globals it uses.

    JAX caches compiled programs by the equality of their static parts, and Python functions are equal
    only by identity. Two programs loaded from one file, or two lambdas made by the same line, are equal here.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.identity = _identity(function, ())

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __eq__(self, other):
        return isinstance(other, Function) and self.identity == other.identity

    def __hash__(self):
        return hash(self.identity)

    def __repr__(self):
        return getattr(self.function, "__qualname__", repr(self.function))

    @property
    def digest(self) -> str:
        """A short text that stays the same across processes."""
        return hashlib.sha256(repr(self.identity).encode()).hexdigest()[:16]


def _identity(value, seen: tuple):
    """Return a hashable description of a value, following functions into what they refer to."""
    if isinstance(value, Function):
        return value.identity
    if isinstance(value, functools.partial):
        return ("partial", _identity(value.func, seen), _identity(value.args, seen), _identity(value.keywords, seen))
    if isinstance(value, types.MethodType):
        return ("method", _identity(value.__func__, seen), _identity(value.__self__, seen))
    if isinstance(value, types.FunctionType):
        if value in seen:
            return ("recursion", value.__qualname__)
        if not _is_users(value):
            return (value.__module__, value.__qualname__)
        seen = (*seen, value)
        used = {name: value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__}
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (cells, value.__defaults__, value.__kwdefaults__, used)
        return ("function", value.__qualname__, _code(value.__code__), *(_identity(part, seen) for part in parts))
    if isinstance(value, dict):
        return ("dict", *sorted((str(k), _identity(v, seen)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(_identity(v, seen) for v in value))
    if isinstance(value, types.ModuleType):
        return ("module", value.__name__)
    if isinstance(value, type):
        if value in seen or "site-packages" in (
            getattr(sys.modules.get(value.__module__), "__file__", None) or "site-packages"
        ):
            return ("type", value.__module__, value.__qualname__)
        methods = {k: v for k, v in vars(value).items() if isinstance(v, types.FunctionType)}
        return ("type", value.__module__, value.__qualname__, _identity(methods, (*seen, value)))
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return ("array", array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest())
    if value is None or isinstance(value, str | int | float | bool | complex | bytes):
        return value
    if callable(value) and (wrapped := getattr(value, "__wrapped__", value)) is not value:
        return ("wrapped", type(value).__qualname__, _identity(wrapped, seen))
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return ("dataclass", _identity(type(value), seen), _identity(fields, seen))
    return ("object", _identity(type(value), seen), _ADDRESS.sub("", repr(value)))


def _is_users(function: types.FunctionType) -> bool:
    """Tell the user's own functions, whose inside may change, from those of installed packages."""
    filename = function.__code__.co_filename
    return "site-packages" not in filename and not filename.startswith("<frozen")


def _names(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*(_names(c) for c in inner))


def _code(code: types.CodeType) -> tuple:
    constants = tuple(_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return (code.co_name, code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars)
