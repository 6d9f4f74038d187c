r"""Is the posterior of the run regular? Its learning coefficient against half the number of parameters.

.. math:: \hat\lambda = n \beta\, (E[L] - L(\hat w)), \qquad \hat\lambda = d / 2

for a normal law, the small-temperature limit where the Hessian at the empirical minimum is of full rank; of a singular model it
is smaller (Watanabe 2009; Lau et al., arXiv:2308.12108). The share of flat directions is of one point; this is of the law, at
the n beta at which the run was compared with it, and sees directions that bend at fourth order too. The draws are those of the
comparison's reference, and ``learning_coefficient`` says whether to believe them.
"""

from typing import cast

import numpy as np
import xarray as xr

from ..errors import InputError
from ..learning_coefficient import ALONE, learning_coefficient
from ..posterior import Posterior
from .assumption import Assumption, from_interval, undefined

NAME = "regularity"
STATISTIC = "learning coefficient over d/2"
IRREGULAR = 0.1
"""Margin: as much as the prior may take off each mode within its own."""


def regularity(reference: xr.DataTree, target: Posterior) -> Assumption:
    """Hold the learning coefficient of draws of a posterior against d/2; undecided where it is not to be trusted.

    Parameters
    ----------
    reference
        Draws of the target, with recorded positions or ``squared_norm``: else nothing says whether the weights' scale mixes.
    target
        Model and inverse temperature.
    """
    half = target.model.num_parameters / 2
    try:
        found = learning_coefficient(with_squared_norm(reference, target), target, baseline="minimum")
    except InputError as error:
        return undefined(NAME, STATISTIC, 1.0, IRREGULAR, str(error))
    low, high = (bound / half for bound in found.interval)
    said = f"{found.value:.3g} ± {found.standard_error:.2g} at n beta = {float(target.scale):.3g}, d/2 = {half:g}"
    known = "" if found.truth is None else f"; as n grows {found.truth['value']:g}"
    if found.trusted:
        return from_interval(NAME, STATISTIC, found.value / half, (low, high), 1.0, IRREGULAR, said + known)
    doubts = "; ".join(f"{ALONE}: `llc` asks a second" if ALONE in doubt else doubt for doubt in found.warnings)
    return Assumption(NAME, STATISTIC, found.value / half, (low, high), 1.0, IRREGULAR, None, f"{said}; {doubts}")


def with_squared_norm(tree: xr.DataTree, target: Posterior) -> xr.DataTree:
    """The tree with the squared norm of its recorded positions; as it is where there are none."""
    drawn, sites = tree["posterior"].to_dataset(), [name for name, _ in target.model.latents]
    if "squared_norm" in drawn or not set(sites) <= set(drawn.data_vars):
        return tree
    squares = [np.square(np.asarray(drawn[site].values, float)) for site in sites]
    norm = sum(np.sum(v.reshape(*v.shape[:2], -1), axis=2) for v in squares)
    return cast(
        xr.DataTree, tree.assign({"posterior": xr.DataTree(drawn.assign(squared_norm=(("chain", "draw"), norm)))})
    )
