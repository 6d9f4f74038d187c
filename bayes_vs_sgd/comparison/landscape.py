"""The empirical minimum of a model, and how the loss curves there: what learning rates are held against."""

from functools import cached_property

import jax
import numpy as np

from ..curvature import Minimum, hessian_eigenvalues, nearest_minimum, reference_point
from ..mean_square import curved_modes
from ..model import Model, Position
from ..posterior import Posterior

DEGENERATE = 1e-6
"""A Hessian at the minimum this much smaller than elsewhere is zero."""


class Landscape:
    """A model's minimum from its centre or optimum, and curvatures there; each is found when it is first asked for."""

    def __init__(self, model: Model, center: Position | None = None):
        self.model, self.center = model, center

    @cached_property
    def minimum(self) -> Minimum:
        """Empirical minimum."""
        return reference_point(self.model, self.center)

    @cached_property
    def sharpness(self) -> float:
        """Largest Hessian eigenvalue at the minimum; where that is degenerate, at the minima that prior draws descend to."""
        starts = [self.model.sample_prior(jax.random.key(seed)) for seed in range(8)]
        here, *there = (float(hessian_eigenvalues(self.model, p)[-1]) for p in (self.minimum.position, *starts))
        if here > DEGENERATE * np.median(there):
            return here
        reached = [nearest_minimum(self.model, start).position for start in starts]
        return max(float(hessian_eigenvalues(self.model, position)[-1]) for position in reached)

    @cached_property
    def curved_modes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean products of the examples' Hessians at the minimum, in the directions that curve; None where they are too dear."""
        return curved_modes(Posterior(self.model), self.minimum.position)
