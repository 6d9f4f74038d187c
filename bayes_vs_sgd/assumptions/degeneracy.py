"""Directions at a minimum in which the loss does not curve, or in which the prior does most of it."""

import jax
import numpy as np

from ..model import Position
from ..posterior import Posterior
from .assumption import Assumption, from_interval
from .local import FLAT, Local
from .noise import NO_VARIANCE

LEVEL = 1e-6
"""Curvature over the largest below which a direction has none."""
DEGENERACY, PRIOR = 0.05, 0.1
"""Margins: share of flat directions; share of the prior in the curvature."""


def non_degeneracy(place: Local, target: Posterior) -> Assumption:
    """Share of directions in which the loss does not curve: none may be, for a normal law at small temperature.

    From those whose curvature is 0 but for the distance to the minimum, to all that are flat beside the steepest.

    What matters to a run is how much of tr C is there, where nothing holds noise back: tr C - tr V'CV, V the other modes.
    """
    size, model = target.model.num_parameters, target.model
    without = 1 - len(place.modes(LEVEL)[0]) / size
    _, vectors = place.modes()
    curved = vectors.shape[1]
    note = f"rank of the Hessian {curved} of {size}; {NO_VARIANCE}"
    if place.has_variance:
        assert place.noise is not None  # so are the modes
        rank, total = len(place.noise_values()), np.trace(place.noise)
        note = f"rank of the noise {rank}, of the Hessian {curved}, of {size}"
        if model.holds_examples and rank >= model.num_examples - 1:
            note += f"; no more than the {model.num_examples} examples allow"
        flat = max(1 - np.sum(vectors * (place.noise @ vectors)) / total, 0.0) if total > 0 else 0.0
        note += f"; in the flat directions {round(float(flat), 6):.2g} of tr C"
    known = model.truth.get("learning_coefficient")
    if known is not None:
        note += f"; learning coefficient {known.value:g} for d/2 = {size / 2:g}"
    share = 1 - curved / size
    if without < share:
        note += f"; {share - without:.0%} curve, but less than {FLAT:g} of the steepest"
    return from_interval("non-degeneracy", "share of flat directions", share, (without, share), 0.0, DEGENERACY, note)


def prior_share(place: Local, target: Posterior, position: Position) -> Assumption:
    """Largest share of the posterior's curvature, over its modes, that is the prior's and not in what is descended."""
    assert place.hessian is not None  # of few parameters
    vector = target.flat(position)
    prior = -np.asarray(jax.hessian(lambda v: target.log_regularizer(target.unflat(v)))(vector), float)
    total = float(target.scale) * place.hessian + prior
    values, vectors = np.linalg.eigh(total)
    share = np.einsum("ij,ik,kj->j", vectors, prior, vectors) / np.where(values > 0, values, np.nan)
    value = float(np.nanmax(share))
    return from_interval("prior", "largest share of the prior in a mode's curvature", value, (value, value), 0.0, PRIOR)
