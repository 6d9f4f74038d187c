"""Gates: what takes a comparison its verdict, in one line each; nothing where it does not."""

import json
from typing import Any

import xarray as xr

from ..diagnostics import Quality
from ..posterior import Posterior
from . import record
from .effects import sampled

LOST_LIMIT = 0.01
"""Most of the runs that may be lost: to leave them out changes the law."""
ANCHORED = 5.0
"""Standard errors by which a reference's mean loss may miss the exact one: by chance in 6e-7."""


def broken_reference(judged: Quality | None, calibration: dict[str, Any] | None) -> str:
    """What is said of a reference that has not converged, or whose sampler failed on simulated data; None for no reference."""
    if judged is None:
        return ""
    if not judged.passed:
        energy = "" if judged.bfmi_min is None else f", E-BFMI {judged.bfmi_min:.2f}"
        return (
            f"the reference is not good enough: R-hat {judged.rhat_max:.3f}, ESS {judged.ess_min:.0f}, "
            f"{judged.num_divergences or 0} divergences{energy}, {judged.chains_lost} chains lost"
        )
    if calibration is not None and calibration["p"] < record.FAILED:
        return f"{judged.dynamics} failed simulation-based calibration on this model file (p = {calibration['p']:.1g})"
    return ""


def off_anchor(target: Posterior, reference: xr.DataTree | None) -> str:
    """What is said of a sampler of the posterior whose mean loss is not the exact one, where the model knows it."""
    if reference is None or json.loads(reference.attrs["manifest"])["dynamics"]["law"] == "none":
        return ""
    if (exact := target.expected_loss()) is None:
        return ""
    mean, error = sampled(reference, "loss").mean_and_error()
    if abs(mean - exact) <= ANCHORED * error:
        return ""
    return f"the reference is wrong: its mean loss is {mean:.6g} ± {error:.2g}, and exactly it is {exact:.6g}"


def too_many_lost(lost: int, num_chains: int) -> str:
    """What is said of runs of which more were lost than may be."""
    if lost <= LOST_LIMIT * num_chains:
        return ""
    return f"{lost} of {num_chains} chains were lost: leaving them out would change the law"
