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

from ..curvature import DENSE, LANCZOS, example_gradients, hessian, hessian_eigenvalues
from ..dynamics.gradients import Fresh, Gradient, Minibatch, Shuffled
from ..dynamics.noise import GaussianNoise, StableNoise
from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .assumption import Assumption, from_interval, measured, undefined

NUM_PROBES = 32
"""Random vectors beyond 2,000 parameters."""
NUM_DRAWS = 20_000
MOST_DRAWS_OF_A_TRACE = 1000
"""Gradients drawn where their covariance is not known from the examples."""
MOST_NUMBERS = 4 * 10**7
"""Numbers in the gradients drawn at a position."""
MISSED = 0.05
"""Share of its spread by which 40 Lanczos products may miss the end of a spectrum, with a probability of 1e-7 sqrt(d)."""
ROUNDING = 1e-8
"""Eigenvalue of C over the largest that is zero but for rounding."""
FLAT, LEVEL = 1e-3, 1e-6
"""Curvature over the largest below which a direction is flat, and below which it is none."""
ISOTROPY, COMMUTATION, KURTOSIS, PRIOR, DEGENERACY = 0.2, 0.1, 1.0, 0.1, 0.05
"""Margins: relative spread of the temperatures; share of HC that does not commute; excess kurtosis; share of the prior; share
of flat directions."""
NO_VARIANCE = "the noise has no variance, so there is no covariance to look at"


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

    def modes(self, flat: float = FLAT) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, ascending, and eigenvectors of the Hessian where they are above a share of the largest."""
        if self.hessian is None:
            raise InputError(f"modes of the Hessian need at most {DENSE:,} parameters, the model has more")
        values, vectors = np.linalg.eigh(self.hessian)
        kept = values > flat * values[-1]
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
        return Local(z, h, c, (c @ sharp, h @ noise), sharp, noise, (largest, largest), number)
    if batch is None:
        raise InputError(f"noise of {gradient.name}: its covariance needs at most {DENSE:,} parameters")
    rng = np.random.default_rng(seed)
    z = rng.choice([-1.0, 1.0], size=(NUM_PROBES, size))

    def products(product: Callable, vectors: np.ndarray) -> np.ndarray:
        made = [product(target, position, jnp.asarray(root * v, float)) for v in vectors]
        return root * np.asarray(made, float)

    h, c = products(hessian_product, z), products(noise_product, z) / batch
    commutators = products(hessian_product, c), products(noise_product, h) / batch
    return Local(z, h, c, commutators, None, None, _sharpness(target, position, root))


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


def batch_size_of(gradient: Gradient, num_examples: int) -> float | None:
    """B of noise that has the covariance C/B, of batches without repetition B (n - 1)/(n - B); None where it has another."""
    if isinstance(gradient, Fresh) or not isinstance(gradient, (Minibatch, GaussianNoise)):
        return None
    batch = float(gradient.batch_size)
    if not isinstance(gradient, Shuffled):
        return batch
    return batch * (num_examples - 1) / (num_examples - batch) if batch < num_examples else np.inf


def has_variance(gradient: Gradient) -> bool:
    """Whether the noise has a covariance: not where it is stable with a tail index below 2."""
    return not (isinstance(gradient, StableNoise) and bool(np.any(np.asarray(gradient.alpha) < 2)))


def noise_samples(target: Posterior, gradient: Gradient, position: Position, seed: int, num_draws: int) -> np.ndarray:
    """Gradients drawn at a position less the mean gradient, one a row; each at the beginning of an epoch."""
    draws = gradient_samples(target, gradient, position, jax.random.key(seed), num_draws)
    return np.asarray(draws, float) - np.asarray(mean_gradient(target, position), float)


@eqx.filter_jit
def gradient_samples(
    target: Posterior, gradient: Gradient, position: Position, key: Array, num_draws: int
) -> Float[Array, "s d"]:
    """Gradients drawn at a position, one a row; each at the beginning of an epoch."""
    keys = jax.random.split(key, num_draws)
    return jax.lax.map(lambda key: drawn(target, gradient, position, key), keys, batch_size=256)


@eqx.filter_jit
def mean_gradient(target: Posterior, position: Position) -> Float[Array, " d"]:
    """Gradient of the loss on all examples."""
    return target.flat(jax.grad(target.model.loss)(position))


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
    batch = batch_size_of(gradient, target.model.num_examples)
    if batch is None:
        return noise_samples(target, gradient, position, seed, num_draws(target)), 1.0
    rows = np.asarray(example_gradients(target.model, position), float)
    return rows - rows.mean(axis=0), batch


def num_draws(target: Posterior) -> int:
    """How many gradients are drawn at a position: fewer of many parameters."""
    return int(np.clip(MOST_NUMBERS // target.model.num_parameters, 16, NUM_DRAWS))


def noise_traces(target: Posterior, gradient: Gradient, positions: Position, seed: int = 0) -> Float[np.ndarray, " p"]:
    """Tr Cov g_B at each of some positions: from all examples where it is C/B and parameters are few, else of gradients drawn."""
    batch = batch_size_of(gradient, target.model.num_examples) if target.model.num_parameters <= DENSE else None
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
        return gradient_samples(target, gradient, position, key, number).var(axis=0).sum()

    return jax.lax.map(trace, positions)


def isotropy(place: Local) -> Assumption:
    """Relative standard deviation of the eigenvalues of C: of the temperatures of all directions."""
    size, statistic = place.probes.shape[1], "relative spread of the noise's eigenvalues"
    if not place.has_variance:
        return undefined("isotropy", statistic, 0.0, ISOTROPY, NO_VARIANCE)
    value, error = place.statistic(lambda t: np.sqrt(max(size * t[1] / t[0] ** 2 - 1, 0.0)) if t[0] else np.nan)
    if place.num_draws is not None:
        value, error = without_chance(value, (size + 1) / place.num_draws, 2 / place.num_draws)
    effective, _ = place.statistic(lambda t: t[0] ** 2 / t[1] if t[1] else 0.0)
    note = f"effective rank {effective:.1f} of {size}{spread_in_words(place.noise)}; {fit_in_words(place)}"
    return measured("isotropy", statistic, value, error, 0.0, ISOTROPY, note)


def without_chance(value: float, square: float, error: float) -> tuple[float, float]:
    r"""A root less the part of its square that chance adds, with its error there; and its own, by the delta method.

    Of N normal draws of an isotropic law in d dimensions the squared relative spread of the eigenvalues has mean (d + 1)/N and
    standard deviation 2/N (John 1972).
    """
    rest = np.sqrt(max(value**2 - square, 0.0))
    return float(rest), float(error / (2 * max(rest, np.sqrt(error))))


def spread_in_words(noise: Float[np.ndarray, "d d"] | None) -> str:
    """Extreme eigenvalues of C that are not zero, and their ratio; nothing beyond 2,000 parameters."""
    values = np.zeros(0) if noise is None else np.linalg.eigvalsh(noise)
    values = values[values > ROUNDING * max(values[-1:].sum(), 0.0)]
    if not len(values):
        return ""
    low, high = values[0], values[-1]
    return f"; {len(values)} eigenvalues of C are not zero, {low:.3g} to {high:.3g} (condition number {high / low:.3g})"


def fit_in_words(place: Local) -> str:
    """The c = tr HC / tr H^2 for which c H is nearest to C, what it leaves of C, and the cosine between them."""
    cosine, _ = place.statistic(lambda t: t[3] / np.sqrt(t[1] * t[2]) if t[1] * t[2] > 0 else np.nan)
    factor, _ = place.statistic(lambda t: t[3] / t[2] if t[2] else np.nan)
    left = np.sqrt(max(1 - cosine**2, 0.0))
    return f"C is {factor:.3g} H but for {left:.2f} of its norm; cosine of C with the Hessian {cosine:.2f}"


def commutation(place: Local) -> Assumption:
    """Norm of HC - CH over that of HC and CH together: 0 if they commute, at most 1."""
    statistic = "|HC - CH| / 2 |HC|"
    if not place.has_variance:
        return undefined("detailed balance", statistic, 0.0, COMMUTATION, NO_VARIANCE)
    value, error = place.statistic(lambda t: np.sqrt(max(t[4], 0.0) / t[5] / 2) if t[5] else 0.0)
    if place.num_draws is not None:
        chance = commutator_by_chance(place) / place.num_draws / 2 / place.traces().mean(axis=0)[5]
        value, error = without_chance(value, chance, 2 * chance / place.probes.shape[1])
    return measured("detailed balance", statistic, value, error, 0.0, COMMUTATION)


def commutator_by_chance(place: Local) -> float:
    """N times the mean of |HC - CH|^2 of the covariance of N normal draws, where it is 0: Var C_ij = (C_ii C_jj + C_ij^2) / N."""
    assert place.hessian is not None  # of few parameters
    assert place.noise is not None
    values, vectors = np.linalg.eigh(place.hessian)
    noise = vectors.T @ place.noise @ vectors
    sizes = np.diag(noise)
    return float(np.sum((values[:, None] - values) ** 2 * (np.outer(sizes, sizes) + noise**2)))


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
        values, total = np.linalg.eigvalsh(place.noise), np.trace(place.noise)
        rank = int(np.sum(values > FLAT * max(values[-1], 0.0)))
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


def central_limit(target: Posterior, gradient: Gradient, position: Position, seed: int = 0) -> Assumption:
    """Excess kurtosis of the noise along its main directions (random ones beyond 2,000 parameters), the largest in size.

    Of a batch drawn with replacement it is that of one example over B, from all examples; without a variance it is infinite.
    """
    statistic = "excess kurtosis of the noise"
    if not has_variance(gradient):
        return from_interval("central limit", statistic, np.inf, (np.inf, np.inf), 0.0, KURTOSIS, NO_VARIANCE)
    sampled = isinstance(gradient, Minibatch) and not isinstance(gradient, Fresh)
    if target.model.num_parameters > DENSE:
        directions = np.random.default_rng(seed).normal(size=(NUM_PROBES, target.model.num_parameters))
        if sampled:
            along = np.stack([np.asarray(_slopes(target, position, jnp.asarray(v, float))) for v in directions], axis=1)
            batch = batch_size_of(gradient, target.model.num_examples) or 1.0
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
    return measured("central limit", statistic, excess[worst] / batch, error, 0.0, KURTOSIS, note)


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
    return from_interval("prior", "largest share of the prior in a mode's curvature", value, (value, value), 0.0, PRIOR)
