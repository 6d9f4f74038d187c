r"""What grows as a square is compared by its root.

A loss above its least value, and a squared norm, are near a chi-square under a posterior: of few degrees of freedom, as near
singular minima, kurtosis 15 and more, so that 2,000 seeds cannot tell their spread to 10 %. The root is nearly normal:

.. math:: r = \mathrm{sign}(x - x_0) \sqrt{|x - x_0|},

x_0 the least loss, or 0. It is monotone, so nothing of the law is lost. Where draws find less than the loss at the optimum,
which may be a saddle of the empirical loss, it is theirs.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..observables import Observable

ROOT = "root_"


def judged_name(name: str, item: Observable) -> str:
    """Name of what is compared of an observable."""
    if not item.squared:
        return name
    return f"{ROOT}excess_loss" if name == "loss" else ROOT + name


def judged(chosen: Mapping[str, Observable]) -> dict[str, Observable]:
    """Observables by the names of what is compared of them."""
    return {judged_name(name, item): item for name, item in chosen.items()}


def with_roots(chosen: Mapping[str, Observable], least_loss: float, *trees: xr.DataTree) -> list[xr.DataTree]:
    """Runs that have the roots of the squares among some observables beside their other draws, all above one least loss."""
    draws = [tree["posterior"].to_dataset() for tree in trees]
    losses = [float(d["loss"].min()) for d in draws if "loss" in d]  # those that are not finite are left out
    least = {"loss": min([least_loss, *losses])}
    found = []
    for tree, values in zip(trees, draws, strict=True):
        above = {
            name: values[name] - least.get(name, 0.0) for name in chosen if chosen[name].squared and name in values
        }
        roots = {judged_name(name, chosen[name]): np.sign(x) * np.abs(x) ** 0.5 for name, x in above.items()}
        found.append(tree.copy())
        found[-1]["posterior"] = xr.DataTree(values.assign(roots))
    return found
