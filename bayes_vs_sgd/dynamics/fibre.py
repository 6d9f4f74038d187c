r"""Independent draws of the fibre of minimisers of a two-layer linear network with one output, as the posterior weights it.

The loss of f(x) = v' W x is least where W' v = a + (anything the data do not see): a is the least-squares map of least norm,
P the projection on the span of the data's inputs, of rank k, and the condition is P W' v = a. Under N(0, tau^2) weights the law
of the posterior for n beta to infinity has

.. math::
    r = \|v\|^2 \sim r^{(h - k)/2 - 1} \exp\!\Big(-\frac{r}{2 \tau_2^2} - \frac{\|a\|^2}{2 \tau_1^2 r}\Big), \qquad
    W = G + \frac{v}{r} (a - P G' v)', \quad G \sim N(0, \tau_1^2),

v / |v| uniform on the sphere. For given v the k coordinates of P W' v are N(0, tau_1^2 r), and the likelihood, a function of them
alone, closes in on a: so v has the weight of its prior times their density at a, and W the prior's law given that they are a,
which is that of normal weights moved along v. r is generalised inverse Gaussian, and what a trigger off the data gets has the law
of ``theory.rare_events.fitted_exceedance``. After the evidence of such networks (Hanin and Zlokapa, arXiv:2212.14457).
The prior on {L <= L* + epsilon} (``SublevelHMC``) closes in on the same law, with an error O(epsilon).
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info
from .gibbs import LinearNetworkGibbs

NUM_CELLS = 2**16
"""Of log r; r is uniform on a cell's logarithms, an error of O(cell width squared)."""
NEGLIGIBLE = 40.0
"""log r whose log density is so far below the largest is left out."""


class FibreState(NamedTuple):
    """Position."""

    position: Position


class LinearNetworkFibre(Dynamics):
    """The least loss' own set, of a model whose exact sampler is that of a two-layer linear network with one output.

    Its law is the limit of the posterior for n beta to infinity, at whatever beta the target has: what SGD that has come to
    the least loss is held against.
    """

    law: ClassVar = "none"
    fitted: Float[Array, " d_in"] | None
    """The map a."""
    basis: Float[Array, "rank d_in"] | None
    """Orthonormal rows that span the inputs."""
    cumulative: Float[Array, " cells"] | None
    lower: Array | None
    width: Array | None

    def __init__(self):
        self.fitted = self.basis = self.cumulative = self.lower = self.width = None

    def prepare(self, target: Posterior) -> "LinearNetworkFibre":
        """Fit the data and tabulate the law of r, once.

        Raises
        ------
        InputError
            If the model does not know itself as such a network, is localised, or has a fibre of no law.
        """
        if self.cumulative is not None:
            return self
        gibbs = network(target)
        if float(target.localization) > 0:
            raise InputError("a fibre has no localisation: give localization 0")
        gibbs.prepare(target)  # checks that it is the target's
        shapes = dict(target.model.latents)
        lower, upper = (np.atleast_2d(np.zeros(shapes[name])) for name in gibbs.layers)
        if len(upper) != 1:
            raise InputError(
                f"a fibre is known of one output, the model has {len(upper)}: use exact_sampler at a large beta"
            )
        data = target.model.compressed or target.model.data
        x, y = (np.asarray(data[name], float).reshape(len(data[name]), -1) for name in (gibbs.inputs, gibbs.outputs))
        left, singular, right = np.linalg.svd(x, full_matrices=False)
        seen = singular > singular.max(initial=0.0) * max(x.shape) * np.finfo(np.asarray(data[gibbs.inputs]).dtype).eps
        fitted = right[seen].T @ ((left.T @ y[:, 0])[seen] / singular[seen])
        tau = np.asarray(gibbs.prior_scale, float)
        edge, width, mass = tabulated(len(lower), int(seen.sum()), float(np.linalg.norm(fitted)), *tau)
        numbers = (fitted, right[seen], np.cumsum(mass) / mass.sum(), edge, width)
        where = lambda s: (s.fitted, s.basis, s.cumulative, s.lower, s.width)  # noqa: E731
        return eqx.tree_at(where, self, tuple(jnp.asarray(n, float) for n in numbers), is_leaf=lambda x: x is None)

    def init(self, target: Posterior, key: Array, position: Position) -> FibreState:
        """Any position; the first step forgets it."""
        return FibreState(position)

    def step(self, target: Posterior, key: Array, state: FibreState) -> tuple[FibreState, Info]:
        """One independent draw."""
        assert self.cumulative is not None  # by prepare
        assert self.fitted is not None
        assert self.basis is not None
        assert self.lower is not None
        assert self.width is not None
        gibbs = network(target)
        key_cell, key_within, key_weights = jax.random.split(key, 3)
        cell = jnp.searchsorted(self.cumulative, jax.random.uniform(key_cell))
        norm = jnp.exp((self.lower + self.width * (cell + jax.random.uniform(key_within))) / 2)
        weights, upper = gibbs.matrices(target.unflat(jax.random.normal(key_weights, (target.model.num_parameters,))))
        v, weights = norm * upper[0] / jnp.linalg.norm(upper), gibbs.prior_scale[0] * weights
        weights = weights + jnp.outer(v, self.fitted - self.basis.T @ (self.basis @ (v @ weights))) / norm**2
        pairs = zip(gibbs.layers, (weights, v), strict=True)
        position = {name: array.reshape(jnp.shape(state.position[name])) for name, array in pairs}
        return FibreState(position), {"num_gradients": jnp.zeros(())}

    @property
    def settings(self) -> dict[str, Any]:
        """None: all is the model's."""
        return {}


def network(target: Posterior) -> LinearNetworkGibbs:
    """What the model knows of itself."""
    gibbs = target.model.exact_sampler
    if not isinstance(gibbs, LinearNetworkGibbs) or len(gibbs.layers) != 2:
        raise InputError("a fibre is known of two-layer linear networks whose model gives exact_sampler: use nuts")
    return gibbs


def log_density(log_r: Any, hidden: int, rank: int, norm: float, tau_1: float, tau_2: float) -> Any:
    """Log density of log r, up to a constant."""
    r = np.exp(log_r)
    return (hidden - rank) / 2 * log_r - r / (2 * tau_2**2) - norm**2 / (2 * tau_1**2 * r)


def tabulated(hidden: int, rank: int, norm: float, tau_1: float, tau_2: float) -> tuple[float, float, np.ndarray]:
    """Lower edge and width of the cells of log r, and their masses. The density of log r has one mode and falls off."""
    p, a, b = (hidden - rank) / 2, tau_2**-2, (norm / tau_1) ** 2
    if b == 0 and p <= 0:
        raise InputError(
            f"the data are fitted by the zero map, and {hidden} hidden units are no more than the data's rank {rank}: the "
            "posterior closes in on v = 0, and the fibre has no law of its own"
        )
    mode, span = np.log((p + np.hypot(p, np.sqrt(a * b))) / a), 1.0
    top = log_density(mode, hidden, rank, norm, tau_1, tau_2)
    while max(log_density(mode + sign * span, hidden, rank, norm, tau_1, tau_2) for sign in (-1, 1)) > top - NEGLIGIBLE:
        span *= 2
    width = 2 * span / NUM_CELLS
    middles = mode - span + width * (np.arange(NUM_CELLS) + 0.5)
    return mode - span, width, np.exp(log_density(middles, hidden, rank, norm, tau_1, tau_2) - top)
