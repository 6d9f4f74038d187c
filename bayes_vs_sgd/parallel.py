"""Work on all cores within one process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp

from . import CORES

T = TypeVar("T")


def side_by_side(make: Callable[[int], T], count: int, folder: Path | None = None) -> list[T]:
    """Results of ``make(0)``, ``make(1)``, ..., as many at once as there are cores.

    Programs are traced in one thread only, so that the first result that is made, and not read from the folder, is made alone.
    """
    found: list[T] = []
    while len(found) < count:
        before = _files(folder)
        found.append(make(len(found)))
        if folder is None or _files(folder) != before:
            break
    precise = jnp.zeros(()).dtype == jnp.float64

    def one(index: int) -> T:
        with jax.enable_x64(bool(precise)):  # which a thread does not inherit
            return make(index)

    with ThreadPoolExecutor(CORES) as pool:
        return [*found, *pool.map(one, range(len(found), count))]


def _files(folder: Path | None) -> set[str]:
    return set() if folder is None or not folder.is_dir() else {path.name for path in folder.iterdir()}
