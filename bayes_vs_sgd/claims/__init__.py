"""Statements of theory that are measured: one file a topic. Importing this package registers all of them."""

from . import (  # noqa: F401
    adaptive,
    collapse,
    corrupted_labels,
    currents,
    diagonal_networks,
    fractional,
    histograms,
    label_noise,
    langevin,
    learning_coefficients,
    modes,
    plateaus,
    rare_events,
    tails,
)
from .claim import CLAIMS, Claim, Measured, Reading, chosen

__all__ = ["CLAIMS", "Claim", "Measured", "Reading", "chosen"]
