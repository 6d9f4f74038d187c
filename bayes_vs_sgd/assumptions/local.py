r"""Hessian and gradient noise at one position, in coordinates in which an optimiser's preconditioner is the identity.

Langevin dynamics has noise of covariance c I, and the tempered posterior is its law. Under a preconditioner P, such as that of
RMSprop, the condition is that P C P is proportional to P; in the coordinates P^{-1/2} theta it is isotropy again:

.. math:: \tilde C = P^{1/2} C P^{1/2}, \qquad \tilde H = P^{1/2} H P^{1/2}.

What is asked of both are traces of their products, computed exactly up to 2,000 parameters, and estimated from products with
random signs (Hutchinson) beyond.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..curvature import DENSE, LANCZOS, hessian, hessian_eigenvalues, lanczos_values
from ..dynamics.gradients import Gradient
from ..dynamics.noise import batch_size_of
from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .noise import has_variance, noise_covariance, num_draws

NUM_PROBES = 32
"""Random vectors beyond 2,000 parameters."""
MISSED = 0.05
"""Share of its spread by which 40 Lanczos products may miss the end of a spectrum, with a probability of 1e-7 sqrt(d)."""
FLAT = 1e-3
"""Curvature over the largest below which a direction is flat."""
ROUNDING = 1e-8
"""Eigenvalue of C over the largest that is zero but for rounding."""


@dataclass(frozen=True)
class Local:
    """Hessian and gradient noise at a position, in coordinates in which the preconditioner is the identity.

    Parameters
    ----------
    probes, hessian_probes, noise_probes
        Vectors z, one a row, with E zz' = I, and H z, C z. Up to 2,000 parameters the z are the coordinate axes.
    commutators
        HC z and CH z.
    hessian, noise
        The matrices; None beyond 2,000 parameters. The noise is not-a-number where it has no variance.
    sharpness
        Bounds of the largest eigenvalue of the Hessian; alike up to 2,000 parameters.
    """

    probes: np.ndarray
    hessian_probes: np.ndarray
    noise_probes: np.ndarray
    commutators: tuple[np.ndarray, np.ndarray]
    hessian: np.ndarray | None
    noise: np.ndarray | None
    sharpness: tuple[float, float]
    noise_ends: tuple[float, float] | None = None
    """Least and largest eigenvalue of C that Lanczos sees; None up to 2,000 parameters."""
    num_draws: int | None = None
    """Gradients that the noise is known from; None where it is known from all examples."""

    @property
    def has_variance(self) -> bool:
        """Whether the noise has a covariance here."""
        return bool(np.all(np.isfinite(self.noise_probes)))

    def traces(self) -> np.ndarray:
        """Estimates, one row a probe, of tr C, tr C^2, tr H^2, tr HC, |HC - CH|^2, |HC|^2 + |CH|^2."""
        z, h, c, (hc, ch) = self.probes, self.hessian_probes, self.noise_probes, self.commutators
        pairs = ((z, c), (c, c), (h, h), (h, c), (hc - ch, hc - ch))
        both = np.sum(hc * hc, axis=1) + np.sum(ch * ch, axis=1)
        return np.stack([*(np.sum(a * b, axis=1) for a, b in pairs), both], axis=1)

    def statistic(self, function: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """Return a function of the traces and its standard error (jackknife over the probes; 0 for exact traces)."""
        rows = self.traces()
        value = float(function(rows.mean(axis=0)))
        if self.hessian is not None:
            return value, 0.0
        total = rows.sum(axis=0)
        left_out = np.array([function((total - row) / (len(rows) - 1)) for row in rows])
        return value, float(np.sqrt((len(rows) - 1) * left_out.var()))

    def noise_values(self) -> np.ndarray:
        """Eigenvalues of C, ascending, that are not zero but for rounding: as many as its rank; none beyond 2,000 parameters."""
        values = np.zeros(0) if self.noise is None else np.linalg.eigvalsh(self.noise)
        return values[values > ROUNDING * max(values[-1:].sum(), 0.0)]

    def modes(self, flat: float | None = FLAT) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, ascending, and eigenvectors of the Hessian where they are above a share of the largest; None: all."""
        if self.hessian is None:
            raise InputError(f"modes of the Hessian need at most {DENSE:,} parameters, the model has more")
        values, vectors = np.linalg.eigh(self.hessian)
        kept = slice(None) if flat is None else values > flat * values[-1]
        return values[kept], vectors[:, kept]


def local(
    target: Posterior,
    gradient: Gradient,
    position: Position,
    preconditioner: Float[np.ndarray, " d"] | None = None,
    seed: int = 0,
) -> Local:
    """Hessian of L and covariance of the gradient's noise at a position, or their products with random vectors."""
    size = target.model.num_parameters
    root = np.sqrt(np.ones(size) if preconditioner is None else preconditioner)
    batch = batch_size_of(gradient, target.model.num_examples)
    if size <= DENSE:
        sharp = root[:, None] * np.asarray(hessian(target.model, position), float) * root
        covariance = noise_covariance(target, gradient, position, seed) if has_variance(gradient) else np.nan
        noise = root[:, None] * covariance * root
        z = np.sqrt(size) * np.eye(size)
        h, c = z @ sharp, z @ noise
        largest = float(np.linalg.eigvalsh(sharp)[-1])
        number = num_draws(target) if batch is None else None
        return Local(z, h, c, (c @ sharp, h @ noise), sharp, noise, (largest, largest), None, number)
    if batch is None:
        raise InputError(f"noise of {gradient.name}: its covariance needs at most {DENSE:,} parameters")
    rng = np.random.default_rng(seed)
    z = rng.choice([-1.0, 1.0], size=(NUM_PROBES, size))

    def products(product: Callable, vectors: np.ndarray) -> np.ndarray:
        made = [product(target, position, jnp.asarray(root * v, float)) for v in vectors]
        return root * np.asarray(made, float)

    h, c = products(hessian_product, z), products(noise_product, z) / batch
    commutators = products(hessian_product, c), products(noise_product, h) / batch
    found = np.asarray(noise_ritz_values(target, position, jnp.asarray(root, float)), float) / batch
    ends = (0.0 if target.model.num_examples <= size else found[0], found[-1])
    return Local(z, h, c, commutators, None, None, _sharpness(target, position, root), ends)


def _sharpness(target: Posterior, position: Position, root: Float[np.ndarray, " d"]) -> tuple[float, float]:
    r"""Bounds of the largest eigenvalue by Lanczos: its Ritz value from below, and what k products surely see from above.

    A random start misses more than the share :math:`\epsilon` of the spread with a probability below :math:`1.648 \sqrt d\,
    e^{-\sqrt\epsilon (2k - 1)}` (Kuczynski and Wozniakowski 1992, theorem 4.2, of H less its least eigenvalue).
    """
    found = np.asarray(hessian_eigenvalues(target.model, position, LANCZOS, 0, jnp.asarray(root, float)), float)
    missed = MISSED / (1 - 2 * MISSED) * (found[-1] - found[0])  # either end may be missed
    return float(found[-1]), float(found[-1] + missed)


@eqx.filter_jit
def hessian_product(target: Posterior, position: Position, vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """H v of the loss."""
    gradient = jax.grad(lambda v: target.model.loss(target.unflat(v)))
    return jax.jvp(gradient, (target.flat(position),), (vector,))[1]


@eqx.filter_jit
def noise_product(target: Posterior, position: Position, vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """C v: one pass forwards and one backwards through the losses of all examples."""

    def losses(v):
        return target.model.example_losses(target.unflat(v))

    here = target.flat(position)
    along = jax.jvp(losses, (here,), (vector,))[1]
    return jax.vjp(losses, here)[1](along - along.mean())[0] / along.size


@eqx.filter_jit
def noise_ritz_values(target: Posterior, position: Position, root: Float[Array, " d"]) -> Float[Array, " k"]:
    """Ritz values of P^(1/2) C P^(1/2), ascending, P^(1/2) = diag(root)."""
    return lanczos_values(lambda v: root * noise_product(target, position, root * v), root.size)
