"""The temperature of the posterior that an ensemble of training runs is held against, as ``compare`` chooses it."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from ..comparison.effects import Sample
from ..comparison.run import Study
from ..comparison.temperature import stein_terms
from ..errors import InputError
from ..results import final_positions
from ..settings import Robustness as Settings


class Matched(NamedTuple):
    """Inverse temperature beta, its standard error, how it was found, and reasons for doubt."""

    inverse_temperature: float
    standard_error: float | None
    how: str
    doubts: list[str]


def matched_temperature(study: Study, tree: xr.DataTree, chosen: Settings, deadline: float) -> Matched:
    """The beta at which a posterior is most like the ends of the runs, in the ways that ``compare`` has.

    All runs are fitted to, where ``compare`` fits to half and tests the other: Delta at the fitted beta has the same error
    either way, since the posterior's draws are new. For equal mean losses posteriors are drawn from until the deadline.

    Raises
    ------
    InputError
        If the mean losses agree at no temperature.
    """
    if chosen.inverse_temperature is not None:
        return Matched(chosen.inverse_temperature, None, "given", [])
    if study.theory is None:
        return Matched(1.0, None, "1: the gradients at the minimum have no noise, so that training has none", [])
    count = study.model.num_examples
    if chosen.temperature == "theory":
        return Matched(rounded(study.theory / count), None, "theory: 1/T0 of SGD", [])
    positions, kept = final_positions(tree)
    ends = {site: values[kept] for site, values in positions.items()}
    scale, error = stein_terms(study.target(study.theory), ends)["loss"].scale()
    if not (np.isfinite(scale) and scale > 0):
        doubt = (
            f"Stein's identity fits n beta = {scale:.3g} to the runs, which is no temperature: that of theory is used"
        )
        return Matched(rounded(study.theory / count), None, "theory: 1/T0 of SGD", [doubt])
    if chosen.temperature == "fitted":
        return Matched(rounded(scale / count), error / count, "fitted to the runs by Stein's identity", [])
    losses = np.asarray(tree["posterior"]["loss"].values, float)[kept, -1:]
    found, error = study.matched(Sample(losses, True), study.reference(scale, "sgd"), scale, "sgd", deadline)
    if found is None or error is None:
        raise InputError(
            f"the posterior has the runs' mean loss {losses.mean():.6g} at no beta that draws could be taken at: give "
            "--temperature fitted, or --inverse-temperature"
        )
    return Matched(rounded(found / count), error / count, "that of equal mean loss", [])


def rounded(beta: float) -> float:
    """Four digits, so that a run that is read again has the same beta."""
    return float(f"{beta:.4g}")
