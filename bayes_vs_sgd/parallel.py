"""Work on all cores within one process."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import CORES

T = TypeVar("T")


def side_by_side(
    make: Callable[[int], T], count: int, folder: Path | None = None, fewest: int = 0, deadline: float = np.inf
) -> list[T]:
    """Results of ``make(0)``, ``make(1)``, ..., as many at once as there are cores.

    Programs are traced in one thread only, so that the first result that is made, and not read from the folder, is made alone.
    But for the fewest, those are left out that would end after the deadline, one of ``time.monotonic``.
    """
    found: list[T] = []
    while len(found) < count:
        before = _files(folder)
        found.append(make(len(found)))
        if folder is None or _files(folder) != before:
            break
    precise = jnp.zeros(()).dtype == jnp.float64
    spent = [0.0]

    def one(index: int) -> T | None:
        begun = time.monotonic()
        if index >= fewest and begun + max(spent) > deadline:
            return None
        with jax.enable_x64(bool(precise)):  # which a thread does not inherit
            result = make(index)
        spent.append(time.monotonic() - begun)
        return result

    with ThreadPoolExecutor(CORES) as pool:
        more = list(pool.map(one, range(len(found), count)))
    return [*found, *(result for result in more if result is not None)]


def rounds(count: int) -> int:
    """How many times as long as one ``side_by_side`` takes: the first is made alone, the others as cores allow."""
    return 1 + math.ceil((count - 1) / CORES)


def _files(folder: Path | None) -> set[str]:
    return set() if folder is None or not folder.is_dir() else {path.name for path in folder.iterdir()}
