"""Work on all cores within one process."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import CORES

T = TypeVar("T")
TRACING = threading.Lock()
"""Held while a program is traced, which two threads cannot do at once: handlers of numpyro are the process's own."""


def side_by_side(make: Callable[[int], T], count: int, fewest: int = 0, deadline: float = np.inf) -> list[T]:
    """Results of ``make(0)``, ``make(1)``, ..., as many at once as there are cores; programs are traced under ``TRACING``.

    But for the fewest, those are left out that would end after the deadline, one of ``time.monotonic``.
    """
    precise = jnp.zeros(()).dtype == jnp.float64
    spent = [0.0]

    def one(index: int) -> T | None:
        begun = time.monotonic()
        if index >= fewest and begun + spent[-1] > deadline:
            return None
        with jax.enable_x64(bool(precise)):  # which a thread does not inherit
            result = make(index)
        spent.append(time.monotonic() - begun)
        return result

    with ThreadPoolExecutor(CORES) as pool:
        found = list(pool.map(one, range(count)))
    return [result for result in found if result is not None]


def rounds(count: int) -> int:
    """How many times as long as one ``side_by_side`` takes."""
    return math.ceil(count / CORES)
