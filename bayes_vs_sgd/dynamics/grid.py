"""Independent draws by quadrature, for at most two parameters: the reference where chains cannot cross."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info

NEGLIGIBLE = 30.0
"""Cells whose log density is this far below the largest are outside the box."""


class GridState(NamedTuple):
    """Position."""

    position: Position


class Grid(Dynamics):
    """Draws from the density on a fine grid of the unconstrained space, uniform within a cell.

    The box starts from prior draws and is shrunk to where the density is not negligible. The error is that of the
    midpoint rule, O(cell width squared).

    Parameters
    ----------
    num_points
        Cells along each axis (the square root of it for two parameters).
    """

    law: ClassVar = "exact"
    num_points: int = eqx.field(static=True)
    cumulative: Array | None
    lower: Array | None
    width: Array | None

    def __init__(self, num_points: int = 2**20):
        self.num_points = num_points
        self.cumulative = self.lower = self.width = None

    def prepare(self, target: Posterior) -> "Grid":
        """Tabulate the density, once."""
        if self.cumulative is not None:
            return self
        dimension = target.model.num_parameters
        if dimension > 2:
            raise InputError(f"a grid needs at most two parameters, the model has {dimension}: use nuts")
        if target.inverse_temperature.ndim > 0:
            raise InputError("a grid has one inverse temperature: run one grid for each")
        keys = jax.random.split(jax.random.key(0), 4096)
        draws = np.asarray(jax.vmap(lambda k: target.flat(target.model.sample_prior(k)))(keys), float)
        margin = np.ptp(draws, axis=0) / 2 + 1e-3
        lower, upper = draws.min(axis=0) - margin, draws.max(axis=0) + margin
        per_axis = round(self.num_points ** (1 / dimension))

        def tabulate(lower, upper):
            width = (upper - lower) / per_axis
            axes = [lower[i] + width[i] * (np.arange(per_axis) + 0.5) for i in range(dimension)]
            points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimension)
            values = np.asarray(_log_densities(target, jnp.asarray(points, float)), float)
            return width, points, np.where(np.isfinite(values), values, -np.inf)

        for _ in range(2):
            width, points, values = tabulate(lower, upper)
            kept = points[values > values.max() - NEGLIGIBLE]
            if not len(kept):
                raise InputError(f"the density is 0 or not a number everywhere between {lower} and {upper}")
            lower = np.maximum(lower, kept.min(axis=0) - 2 * width)
            upper = np.minimum(upper, kept.max(axis=0) + 2 * width)
        width, _, values = tabulate(lower, upper)
        probabilities = np.exp(values - values.max())
        occupied = probabilities.sum() ** 2 / (probabilities**2).sum()
        if occupied < 50**dimension:
            raise InputError(
                f"the density fills only {occupied:.0f} of {len(values)} cells of the grid between {lower} and "
                f"{upper}: give Grid more num_points than {self.num_points}, or lower the inverse temperature"
            )
        cumulative = jnp.asarray(np.cumsum(probabilities) / probabilities.sum(), float)
        leaves = (cumulative, jnp.asarray(lower, float), jnp.asarray(width, float))
        where = lambda s: (s.cumulative, s.lower, s.width)  # noqa: E731
        return eqx.tree_at(where, self, leaves, is_leaf=lambda x: x is None)

    def init(self, target: Posterior, key: Array, position: Position) -> GridState:
        """Any position; the first step forgets it."""
        return GridState(position)

    def step(self, target: Posterior, key: Array, state: GridState) -> tuple[GridState, Info]:
        """One independent draw."""
        key_cell, key_within = jax.random.split(key)
        assert self.cumulative is not None  # by prepare
        assert self.lower is not None
        assert self.width is not None
        cell = jnp.searchsorted(self.cumulative, jax.random.uniform(key_cell))
        dimension = self.lower.shape[0]
        per_axis = round(self.cumulative.shape[0] ** (1 / dimension))
        index = jnp.stack(jnp.unravel_index(cell, (per_axis,) * dimension))
        vector = self.lower + self.width * (index + jax.random.uniform(key_within, (dimension,)))
        return GridState(target.unflat(vector)), {"num_gradients": jnp.zeros(())}

    @property
    def settings(self) -> dict[str, Any]:
        """Number of cells."""
        return {"num_points": self.num_points}


@eqx.filter_jit
def _log_densities(target: Posterior, points: Array) -> Array:
    return jax.lax.map(lambda x: target.log_density(target.unflat(x)), points, batch_size=4096)
