"""Statements of theory that are measured: one file a topic. Importing this package registers all of them."""

from . import (  # noqa: F401
    adaptive,
    collapse,
    corrupted_labels,
    currents,
    diagonal_networks,
    fractional,
    label_noise,
    langevin,
    modes,
    tails,
)
from .claim import CLAIMS, Claim, Measured, Reading, chosen

__all__ = ["CLAIMS", "Claim", "Measured", "Reading", "chosen"]
