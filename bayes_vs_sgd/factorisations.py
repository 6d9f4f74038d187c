"""Factorisations of matrices, one chain after the other.

XLA spreads a batched one over its pool of threads, where as many of them at once as the pool has threads wait for each other
for ever. The chains are spread over the cores already, so nothing is lost but for thousands of tiny matrices.
"""

import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float


@sequential_vmap
def left_vectors(matrix: Float[Array, "m n"]) -> Float[Array, "m m"]:
    """Left singular vectors as columns, all of them."""
    return jnp.linalg.svd(matrix)[0]


@sequential_vmap
def right_vectors(matrix: Float[Array, "m n"]) -> Float[Array, "n n"]:
    """Right singular vectors as columns, all of them."""
    return jnp.linalg.svd(matrix)[2].T


@sequential_vmap
def eigenvectors(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Eigenvectors of a symmetric matrix as columns."""
    return jnp.linalg.eigh(matrix)[1]


@sequential_vmap
def eigenvalues(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Eigenvalues of a symmetric matrix, ascending."""
    return jnp.linalg.eigvalsh(matrix)


@sequential_vmap
def singular_values(matrix: Float[Array, "m n"]) -> Float[Array, " k"]:
    """Singular values, descending."""
    return jnp.linalg.svd(matrix, compute_uv=False)
