"""What cannot be compared, and how to mend it."""

import json
from collections.abc import Iterable
from itertools import product

import numpy as np
import xarray as xr

from ..errors import InputError
from ..posterior import Posterior
from ..results import final_positions
from .effects import scalar_draws
from .stationarity import ENSEMBLE, is_ensemble, surviving


def check_runs(tree: xr.DataTree, reference: xr.DataTree | None, target: Posterior) -> None:
    """Refuse runs that are too short or too few, and runs of different models, data, temperatures or localisations."""
    _, kept = final_positions(tree)
    num_draws = tree["posterior"].sizes["draw"]
    if kept.size < 2:
        raise InputError(f"a run of {kept.size} chain: give {ENSEMBLE} seeds or more, or several long chains")
    if not is_ensemble(tree) and (reference is None or num_draws < 4):
        raise InputError(
            f"{kept.size} chains of {num_draws} draws{'' if reference is not None else ' and no reference'}: give {ENSEMBLE} "
            "chains, or longer ones beside a reference"
        )
    if reference is None:
        return
    if reference["posterior"].sizes["chain"] < 2:
        raise InputError("a reference of 1 chain: give several, so that its error is known")
    ours, theirs = (json.loads(t.attrs["manifest"]) for t in (tree, reference))
    for part in ("program", "data"):
        if ours["model"][part] != theirs["model"][part]:
            raise InputError(f"the run and the reference differ in their model's {part}: give two runs of one model")
    meant = {name: np.ravel(getattr(target, name)) for name in ("inverse_temperature", "localization")}
    compared = [("run", ours), ("target", None)] if ours["dynamics"]["law"] != "none" else [("target", None)]
    for (title, manifest), (name, of_target) in product(compared, meant.items()):
        other = of_target if manifest is None else np.ravel(manifest["target"][name])
        own = np.ravel(theirs["target"][name])
        if not np.allclose(other, own, rtol=1e-5):
            raise InputError(
                f"the {title} has {name} {other[0]:.6g} and the reference {own[0]:.6g}: give two of one posterior"
            )


def check_observables(tree: xr.DataTree, reference: xr.DataTree | None, names: Iterable[str], named: bool) -> list[str]:
    """Refuse values that are not finite, and observables asked for by name that are constant; return those that are constant."""
    constant = []
    for name in names:
        for title, values in {
            "run": surviving(tree, name),
            "reference": None if reference is None else scalar_draws(reference, name),
        }.items():
            if values is not None and not np.isfinite(values).all():
                count = int((~np.isfinite(values)).sum())
                raise InputError(f"observable {name!r} is not finite in {count} of {values.size} draws of the {title}")
        if reference is not None and np.ptp(scalar_draws(reference, name)) == 0:
            constant.append(name)
    if constant and named:
        raise InputError(f"{', '.join(constant)}: constant under the posterior, which can decide nothing; leave it out")
    return constant
