"""Second derivatives at a point: Hessian spectrum, covariance of one example's gradient, nearest minimum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int
from matfree import decomp
from scipy.optimize import minimize

from .model import Model, Position

DENSE = 2000
"""Most parameters for which matrices are formed."""
MOST_NUMBERS = 3 * 10**7
"""Numbers in the examples' gradients that are held at once beyond that."""
ROUNDED = 1e-12
"""Eigenvalue over the largest that is rounding, of a matrix of products in double precision."""
NO_SLOPE = 1e-9
"""Norm of a gradient that is rounding."""
LANCZOS = 40
"""Products with a vector from which extreme eigenvalues are found beyond that."""
NUM_PRIOR_DRAWS, DENSE_PRIOR = 16, 200
"""Draws over which the curvature of a prior is averaged; most parameters for which that is of matrices."""


@eqx.filter_jit
def hessian(model: Model, position: Position) -> Float[Array, "d d"]:
    """Hessian of L as a matrix; sites in alphabetical order."""
    vector, unravel = ravel_pytree(position)
    return jax.jacfwd(jax.grad(lambda v: model.loss(unravel(v))))(vector)


@eqx.filter_jit
def hessian_eigenvalues(
    model: Model,
    position: Position,
    num_lanczos: int = LANCZOS,
    dense: int = DENSE,
    root: Float[Array, " d"] | None = None,
) -> Float[Array, " k"]:
    """Eigenvalues of the Hessian of L, ascending: all of them up to ``dense`` parameters, else the Lanczos ones (matfree).

    With ``root`` those of P^(1/2) H P^(1/2), P^(1/2) = diag(root).
    """
    vector, unravel = ravel_pytree(position)
    scale = jnp.ones_like(vector) if root is None else jnp.asarray(root, vector.dtype)
    if vector.size <= dense:
        return jnp.linalg.eigvalsh(scale[:, None] * hessian(model, position) * scale)
    gradient = jax.grad(lambda v: model.loss(unravel(v)))

    def product(v):
        return scale * jax.jvp(gradient, (vector,), (scale * v,))[1]

    return lanczos_values(product, vector.size, num_lanczos)


def lanczos_values(product: Callable[[Array], Array], size: int, num_lanczos: int = LANCZOS) -> Float[Array, " k"]:
    """Ritz values, ascending, of a symmetric matrix that is known by its products, from a random start (matfree)."""
    lanczos = decomp.tridiag_sym(min(num_lanczos, size), materialize=False)
    return ritz_values(*lanczos(product, jax.random.normal(jax.random.key(0), (size,))).J_small)


def ritz_values(diagonal: Float[Array, " k"], beside: Float[Array, " j"]) -> Float[Array, " k"]:
    """Eigenvalues, ascending, of the symmetric tridiagonal matrix that Lanczos made, as far as it means anything.

    A Hessian of few distinct eigenvalues is used up before k products: an entry beside the diagonal is then rounding, and what
    follows is divided by it. The first diagonal entry, which lies within the spectrum, stands for the rest.
    """
    size = jax.lax.cummax(jnp.abs(diagonal[:-1])) + jax.lax.cummax(jnp.abs(beside))
    more = jnp.cumprod(jnp.abs(beside) > 100 * jnp.finfo(beside.dtype).eps * size).astype(bool)
    diagonal = jnp.where(jnp.append(True, more), diagonal, diagonal[0])
    beside = jnp.where(more, beside, 0.0)
    return jnp.linalg.eigvalsh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))


@eqx.filter_jit
def prior_curvatures(model: Model, dense: int = DENSE_PRIOR) -> Float[Array, " d"]:
    """Eigenvalues, ascending, of the mean Hessian of -log prior over draws of it: 1 / s^2 of normal ones of deviation s.

    Above ``dense`` parameters the mean diagonal, by products with random signs: exact of normal parameters that are independent.
    """
    key_draws, key_signs = jax.random.split(jax.random.key(0))
    draws = jax.vmap(model.sample_prior)(jax.random.split(key_draws, NUM_PRIOR_DRAWS))
    vectors = jax.vmap(lambda position: ravel_pytree(position)[0])(draws)
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], draws))[1]
    gradient = jax.grad(lambda v: -model.log_prior(unravel(v)))
    if vectors.shape[1] <= dense:
        return jnp.linalg.eigvalsh(jax.lax.map(jax.jacfwd(gradient), vectors).mean(axis=0))
    signs = jax.random.rademacher(key_signs, vectors.shape, vectors.dtype)
    return jnp.sort((signs * jax.vmap(lambda v, z: jax.jvp(gradient, (v,), (z,))[1])(vectors, signs)).mean(axis=0))


@dataclass(frozen=True)
class GradientNoise:
    """Covariance C of one example's gradient of the loss: trace and rank."""

    trace: float
    rank: int

    @property
    def per_direction(self) -> float:
        """The c of C = c I on its range: tr C / rank C."""
        return self.trace / self.rank if self.rank else 0.0


@eqx.filter_jit
def example_gradients(model: Model, position: Position, rows: Int[Array, " n"] | None = None) -> Float[Array, "n d"]:
    """Gradient of each example's loss, one row an example; of some examples where their rows are given."""
    rows = jnp.arange(model.num_examples) if rows is None else rows
    return jax.lax.map(lambda row: example_gradient(model, position, row), rows, batch_size=256)


def example_gradient(model: Model, position: Position, row: Array) -> Float[Array, " d"]:
    """Gradient of one example's loss."""
    return ravel_pytree(jax.grad(lambda p: model.example_losses(p, row[None])[0])(position))[0]


def gradient_noise(model: Model, position: Position) -> GradientNoise:
    """Trace and rank of the covariance of one example's gradient at a position.

    Up to 2,000 parameters by the gradients' singular values, beyond by the products of their pairs.
    """
    model.require_examples("the noise of the gradient")
    number, size = model.num_examples, model.num_parameters
    if size <= DENSE:
        gradients = np.asarray(example_gradients(model, position), float)
        mean = gradients.mean(axis=0)
        values = np.linalg.svd(gradients - mean, compute_uv=False)
    else:
        mean, _ = _mean_gradient(model, position)
        values = _values_by_products(model, position, mean)
    typical = np.sqrt((np.sum(values**2) / number + mean @ mean) / size)
    precision = np.finfo(np.asarray(jax.tree.leaves(position)[0]).dtype).eps
    floor = max(number, min(size, DENSE)) * precision * max(values.max(), typical)
    return GradientNoise(float((values**2).sum() / number), int(np.sum(values > floor)))


def noise_trace(model: Model, position: Position) -> float:
    """Trace of the covariance of one example's gradient at a position, of which few are held at once."""
    model.require_examples("the noise of the gradient")
    mean, square = _mean_gradient(model, position)
    return max(square - float(mean @ mean), 0.0)


def _values_by_products(model: Model, position: Position, mean: Float[np.ndarray, " d"]) -> Float[np.ndarray, " k"]:
    """Singular values of the gradients less their mean G, from the smaller of GG' and G'G, block by block.

    Of squares: what is smaller than the root of their rounding is 0.
    """
    number, size = model.num_examples, model.num_parameters
    products, blocks = np.zeros((min(number, size),) * 2), _blocks(model)
    for index, rows in enumerate(blocks):
        left = _block(model, position, rows, mean)
        if size < number:
            products += left.T @ left
            continue
        for others in blocks[: index + 1]:
            right = left if others is rows else _block(model, position, others, mean)
            products[np.ix_(rows, others)] = left @ right.T
            products[np.ix_(others, rows)] = products[np.ix_(rows, others)].T
    squares = np.linalg.eigvalsh(products)
    return np.sqrt(np.where(squares > ROUNDED * squares[-1], squares, 0.0))


def _blocks(model: Model) -> list[np.ndarray]:
    """Rows of the examples in parts whose gradients are few enough to be held."""
    parts = -(-model.num_examples * model.num_parameters // MOST_NUMBERS)
    return np.array_split(np.arange(model.num_examples), min(parts, model.num_examples))


def _block(model: Model, position: Position, rows: np.ndarray, mean: np.ndarray | float = 0.0) -> np.ndarray:
    """Gradients of some examples less the mean one."""
    gradients = np.array(example_gradients(model, position, jnp.asarray(rows)), float)
    gradients -= mean  # in place: a block is large
    return gradients


def _mean_gradient(model: Model, position: Position) -> tuple[Float[np.ndarray, " d"], float]:
    """Mean over the examples of the gradient, and of its squared norm."""
    total, squares = np.zeros(model.num_parameters), 0.0
    for rows in _blocks(model):
        gradients = _block(model, position, rows)
        total += gradients.sum(axis=0)
        squares += float(np.vdot(gradients, gradients))
    return total / model.num_examples, squares / model.num_examples


@dataclass(frozen=True)
class Minimum:
    """Where a descent ended: position, loss there, norm of the gradient."""

    position: Any
    loss: float
    gradient_norm: float


@eqx.filter_jit
def loss_and_gradient(model: Model, position: Position) -> tuple[Array, Position]:
    """L and its gradient."""
    return jax.value_and_grad(model.loss)(position)


def nearest_minimum(model: Model, position: Position, num_steps: int = 1000) -> Minimum:
    """Minimum of the empirical loss that L-BFGS (SciPy) reaches from a position: the position itself, if it has no slope."""
    vector, unravel = _ravel(position)

    def objective(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss_and_gradient(model, unravel(vector))
        value = float(value) if np.isfinite(float(value)) else 1e30
        return value, np.nan_to_num(_ravel(gradient)[0])

    value, gradient = objective(vector)
    if np.linalg.norm(gradient) < NO_SLOPE:
        return Minimum(position, value, float(np.linalg.norm(gradient)))
    found = minimize(
        objective, vector, jac=True, method="L-BFGS-B", options={"maxiter": num_steps, "ftol": 0, "gtol": 0}
    )
    position = unravel(found.x)
    value, gradient = objective(found.x)
    return Minimum(position, value, float(np.linalg.norm(gradient)))


def _ravel(position: Position) -> tuple[np.ndarray, Callable[[np.ndarray], Position]]:
    """Position as a double-precision vector on the host, and the way back."""
    leaves = {name: np.asarray(value) for name, value in position.items()}
    sizes = np.cumsum([leaf.size for leaf in leaves.values()])[:-1]

    def unravel(vector: np.ndarray) -> Position:
        parts = np.split(vector, sizes)
        shaped = zip(leaves.items(), parts, strict=True)
        return {name: jnp.asarray(part.reshape(leaf.shape).astype(leaf.dtype)) for (name, leaf), part in shaped}

    return np.concatenate([leaf.ravel() for leaf in leaves.values()]).astype(float), unravel


def reference_point(model: Model, center: Position | None = None) -> Minimum:
    """Empirical minimum reached from the centre or the optimum; without them, the best of eight prior draws' descents."""
    if center is None and model.optimum is not None:
        center = model.unconstrain(model.optimum)
    if center is not None:
        return nearest_minimum(model, center)
    starts = [model.sample_prior(jax.random.key(seed)) for seed in range(8)]
    return min((nearest_minimum(model, start) for start in starts), key=lambda found: found.loss)
