r"""Hessian and gradient noise at one position: whether the noise is isotropic, and commutes with the Hessian.

Langevin dynamics has noise of covariance c I, and the tempered posterior is its law. Under a preconditioner P, such as that of
RMSprop, the condition is that P C P is proportional to P; in the coordinates P^{-1/2} theta it is isotropy again:

.. math:: \tilde C = P^{1/2} C P^{1/2}, \qquad \tilde H = P^{1/2} H P^{1/2}.

A stationary law without currents (detailed balance) needs less: that they commute. Both are traces of products of the two
matrices, computed exactly up to 2,000 parameters, and estimated from products with random signs (Hutchinson) beyond.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..curvature import DENSE, example_gradients, hessian
from ..dynamics.gradients import Fresh, Gradient, Minibatch
from ..dynamics.noise import GaussianNoise
from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .assumption import Assumption, judged, measured

NUM_PROBES = 32
"""Random vectors beyond 2,000 parameters."""
NUM_DRAWS = 20_000
MOST_DRAWS_OF_A_TRACE = 1000
"""Gradients drawn where their covariance is not known from the examples."""
MOST_NUMBERS = 4 * 10**7
"""Numbers in the gradients drawn at a position."""
FLAT = 1e-3
"""Curvature over the largest below which a direction is flat."""
ISOTROPY, COMMUTATION, KURTOSIS, PRIOR = 0.2, 0.1, 1.0, 0.1
"""Margins: relative spread of the temperatures; share of HC that does not commute; excess kurtosis; share of the prior."""


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
        The matrices; None beyond 2,000 parameters.
    """

    probes: np.ndarray
    hessian_probes: np.ndarray
    noise_probes: np.ndarray
    commutators: tuple[np.ndarray, np.ndarray]
    hessian: np.ndarray | None
    noise: np.ndarray | None

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

    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, ascending, and eigenvectors of the Hessian in the directions that are not flat."""
        if self.hessian is None:
            raise InputError(f"modes of the Hessian need at most {DENSE:,} parameters, the model has more")
        values, vectors = np.linalg.eigh(self.hessian)
        kept = values > FLAT * values[-1]
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
    if size <= DENSE:
        sharp = root[:, None] * np.asarray(hessian(target.model, position), float) * root
        noise = root[:, None] * noise_covariance(target, gradient, position, seed) * root
        z = np.sqrt(size) * np.eye(size)
        h, c = z @ sharp, z @ noise
        return Local(z, h, c, (c @ sharp, h @ noise), sharp, noise)
    batch = batch_size_of(gradient)
    if batch is None:
        raise InputError(f"noise of {gradient.name}: its covariance needs at most {DENSE:,} parameters")
    rng = np.random.default_rng(seed)
    z = rng.choice([-1.0, 1.0], size=(NUM_PROBES, size))

    def products(product: Callable, vectors: np.ndarray) -> np.ndarray:
        made = [product(target, position, jnp.asarray(root * v, float)) for v in vectors]
        return root * np.asarray(made, float)

    h, c = products(hessian_product, z), products(noise_product, z) / batch
    return Local(z, h, c, (products(hessian_product, c), products(noise_product, h) / batch), None, None)


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


def batch_size_of(gradient: Gradient) -> float | None:
    """B of noise that has the covariance C/B; None where it has another."""
    if isinstance(gradient, Fresh) or not isinstance(gradient, (Minibatch, GaussianNoise)):
        return None
    return float(gradient.batch_size)


def noise_samples(target: Posterior, gradient: Gradient, position: Position, seed: int, num_draws: int) -> np.ndarray:
    """Gradients drawn at a position less the mean gradient, one a row; each at the beginning of an epoch."""
    draws = _noise_samples(target, gradient, position, jax.random.key(seed), num_draws)
    return np.asarray(draws, float) - np.asarray(target.flat(jax.grad(target.model.loss)(position)), float)


@eqx.filter_jit
def _noise_samples(target, gradient, position, key, num_draws):
    keys = jax.random.split(key, num_draws)
    return jax.lax.map(lambda key: drawn(target, gradient, position, key), keys, batch_size=256)


def drawn(target: Posterior, gradient: Gradient, position: Position, key: Array) -> Float[Array, " d"]:
    """One gradient at a position, at the beginning of an epoch."""
    key_state, key_draw = jax.random.split(key)
    state = gradient.init(target.model.num_examples, key_state)
    return target.flat(gradient.estimate(target, key_draw, state, position)[0])


def noise_covariance(
    target: Posterior, gradient: Gradient, position: Position, seed: int = 0
) -> Float[np.ndarray, "d d"]:
    """Cov g_B: from all examples where it is C/B, else of gradients drawn."""
    rows, batch = noise_rows(target, gradient, position, seed)
    return np.cov(rows, rowvar=False, bias=True).reshape(rows.shape[1], -1) / batch


def noise_rows(
    target: Posterior, gradient: Gradient, position: Position, seed: int = 0
) -> tuple[Float[np.ndarray, "m d"], float]:
    """Noise of each example's gradient, and B; or of gradients drawn, and 1."""
    batch = batch_size_of(gradient)
    if batch is None:
        return noise_samples(target, gradient, position, seed, num_draws(target)), 1.0
    rows = np.asarray(example_gradients(target.model, position), float)
    return rows - rows.mean(axis=0), batch


def num_draws(target: Posterior) -> int:
    """How many gradients are drawn at a position: fewer of many parameters."""
    return int(np.clip(MOST_NUMBERS // target.model.num_parameters, 16, NUM_DRAWS))


def noise_traces(target: Posterior, gradient: Gradient, positions: Position, seed: int = 0) -> Float[np.ndarray, " p"]:
    """Tr Cov g_B at each of some positions: from all examples where it is C/B and parameters are few, else of gradients drawn."""
    batch = batch_size_of(gradient) if target.model.num_parameters <= DENSE else None
    if batch is not None:
        return np.asarray(_example_traces(target.model, positions), float) / batch
    number = min(num_draws(target), MOST_DRAWS_OF_A_TRACE)
    return np.asarray(_drawn_traces(target, gradient, positions, jax.random.key(seed), number), float)


@eqx.filter_jit
def _example_traces(model, positions):
    return jax.lax.map(lambda position: example_gradients(model, position).var(axis=0).sum(), positions)


@eqx.filter_jit
def _drawn_traces(target, gradient, positions, key, number):
    def trace(position):
        return _noise_samples(target, gradient, position, key, number).var(axis=0).sum()

    return jax.lax.map(trace, positions)


def isotropy(place: Local) -> Assumption:
    """Relative standard deviation of the eigenvalues of C: of the temperatures of all directions."""
    size = place.probes.shape[1]
    value, error = place.statistic(lambda t: np.sqrt(max(size * t[1] / t[0] ** 2 - 1, 0.0)) if t[0] else np.nan)
    alignment, _ = place.statistic(lambda t: t[3] / np.sqrt(t[1] * t[2]) if t[1] * t[2] else np.nan)
    effective, _ = place.statistic(lambda t: t[0] ** 2 / t[1] if t[1] else 0.0)
    note = f"effective rank {effective:.1f} of {size}; cosine of C with the Hessian {alignment:.2f}"
    return measured("isotropy", "relative spread of the noise's eigenvalues", value, error, 0.0, ISOTROPY, note)


def commutation(place: Local) -> Assumption:
    """Norm of HC - CH over that of HC and CH together: 0 if they commute, at most 1."""
    value, error = place.statistic(lambda t: np.sqrt(max(t[4], 0.0) / t[5] / 2) if t[5] else 0.0)
    return measured("detailed balance", "|HC - CH| / 2 |HC|", value, error, 0.0, COMMUTATION)


def non_degeneracy(place: Local, target: Posterior) -> Assumption:
    """Share of directions in which the loss does not curve: none may be, for a normal law at small temperature."""
    size, model = target.model.num_parameters, target.model
    curved = len(place.modes()[0])
    assert place.noise is not None  # so are the modes
    values = np.linalg.eigvalsh(place.noise)
    rank = int(np.sum(values > FLAT * max(values[-1], 0.0)))
    note = f"rank of the noise {rank}, of the Hessian {curved}, of {size}"
    if model.holds_examples and rank >= model.num_examples - 1:
        note += f"; no more than the {model.num_examples} examples allow"
    known = model.truth.get("learning_coefficient")
    if known is not None:
        note += f"; learning coefficient {known.value:g} for d/2 = {size / 2:g}"
    share = 1 - curved / size
    return judged("non-degeneracy", "share of flat directions", share, (share, share), 0.0, 0.0, note)


def central_limit(target: Posterior, gradient: Gradient, position: Position, seed: int = 0) -> Assumption:
    """Excess kurtosis of the noise along its main directions (random ones beyond 2,000 parameters), the largest in size.

    Of a batch drawn with replacement it is that of one example over B, from all examples.
    """
    sampled = isinstance(gradient, Minibatch) and not isinstance(gradient, Fresh)
    if target.model.num_parameters > DENSE:
        directions = np.random.default_rng(seed).normal(size=(NUM_PROBES, target.model.num_parameters))
        if sampled:
            along = np.stack([np.asarray(_slopes(target, position, jnp.asarray(v, float))) for v in directions], axis=1)
            batch = batch_size_of(gradient) or 1.0
        else:
            along, batch = noise_samples(target, gradient, position, seed, num_draws(target)) @ directions.T, 1.0
    else:
        if sampled:
            rows, batch = noise_rows(target, gradient, position)
        else:  # normal weights on the examples make another law than a batch
            rows, batch = noise_samples(target, gradient, position, seed, num_draws(target)), 1.0
        _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
        share = np.cumsum(sizes**2) / max(np.sum(sizes**2), np.finfo(float).tiny)
        along = rows @ directions[: int(np.searchsorted(share, 0.99)) + 1].T
    along = along - along.mean(axis=0)
    fourth = along**4 / np.mean(along**2, axis=0) ** 2
    excess = fourth.mean(axis=0) - 3
    worst = int(np.argmax(np.abs(excess)))
    error = 0.0 if sampled else fourth[:, worst].std() / np.sqrt(len(along))
    needed = f"; within the margin from batches of {np.ceil(abs(excess[worst]) / KURTOSIS):,.0f} on"
    note = f"largest of {along.shape[1]} directions" + (needed if sampled else "")
    return measured("central limit", "excess kurtosis of the noise", excess[worst] / batch, error, 0.0, KURTOSIS, note)


@eqx.filter_jit
def _slopes(target: Posterior, position: Position, vector: Float[Array, " d"]) -> Float[Array, " n"]:
    """Slope of each example's loss along a direction."""
    here = target.flat(position)
    return jax.jvp(lambda v: target.model.example_losses(target.unflat(v)), (here,), (vector,))[1]


def prior_share(place: Local, target: Posterior, position: Position) -> Assumption:
    """Largest share of the posterior's curvature, over its modes, that is the prior's and not in what is descended."""
    assert place.hessian is not None  # of few parameters
    vector = target.flat(position)
    prior = -np.asarray(jax.hessian(lambda v: target.log_regularizer(target.unflat(v)))(vector), float)
    total = float(target.scale) * place.hessian + prior
    values, vectors = np.linalg.eigh(total)
    share = np.einsum("ij,ik,kj->j", vectors, prior, vectors) / np.where(values > 0, values, np.nan)
    value = float(np.nanmax(share))
    return judged("prior", "largest share of the prior in a mode's curvature", value, (value, value), 0.0, PRIOR)
