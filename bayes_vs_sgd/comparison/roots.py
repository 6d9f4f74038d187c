r"""What grows as a square is compared by its root.

A loss above its least value, and a squared norm, are near a chi-square under a posterior: of few degrees of freedom, as near
singular minima, kurtosis 15 and more, so that 2,000 seeds cannot tell their spread to 10 %. The root is nearly normal:

.. math:: r = \mathrm{sign}(x - x_0) \sqrt{|x - x_0|},

x_0 the least loss, or 0. It is monotone, so nothing of the law is lost.
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


def with_roots(tree: xr.DataTree, chosen: Mapping[str, Observable], least_loss: float) -> xr.DataTree:
    """Run that has the roots of the squares among some observables beside its other draws."""
    draws = tree["posterior"].to_dataset()
    squares = {name: item for name, item in chosen.items() if item.squared and name in draws}
    above = {name: draws[name] - (least_loss if name == "loss" else 0.0) for name in squares}
    found = {judged_name(name, squares[name]): np.sign(x) * np.abs(x) ** 0.5 for name, x in above.items()}
    joined = tree.copy()
    joined["posterior"] = xr.DataTree(draws.assign(found))
    return joined
