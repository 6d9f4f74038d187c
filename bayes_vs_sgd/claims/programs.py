"""Small models that claims are measured on."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from ..model import Model


def quadratic(
    hessian: Float[np.ndarray, "d d"], noise: Float[np.ndarray, "d d"], num_examples: int = 64, seed: int = 0
) -> Model:
    r"""The mean of a normal law: L = 1/2 theta' H theta + constant, and gradients of covariance C everywhere, both exactly.

    One example's gradient is H (theta - x), so the data have mean 0 and covariance H^{-1} C H^{-1}. They are given in the
    eigenbasis of H, where the law is of independent normals: no step solves a triangular system.

    Parameters
    ----------
    hessian, noise
        H and C, symmetric and positive definite.
    num_examples
        n, more than the dimension.
    seed
        Of the data, whose third moments are not fixed.
    """
    hessian, noise = np.asarray(hessian, float), np.asarray(noise, float)
    size = len(hessian)
    rows = np.random.default_rng(seed).normal(size=(num_examples, size + 1))
    rows[:, 0] = 1
    white = np.linalg.qr(rows)[0][:, 1:] * np.sqrt(num_examples)
    spread = np.linalg.solve(hessian, np.linalg.cholesky(noise))
    curvatures, basis = np.linalg.eigh(hessian)

    def program(x):
        theta = numpyro.sample("theta", dist.Normal(0, 10).expand((size,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("x", dist.Normal(theta @ basis, curvatures**-0.5).to_event(1), obs=x)

    return Model(program, {"x": white @ spread.T @ basis}, optimum={"theta": np.zeros(size)})


def regression(inputs: Float[np.ndarray, "n d"], labels: Float[np.ndarray, " n"], noise: float = 1.0) -> Model:
    """Linear regression y = w.x + noise: L = sum_i (w.x_i - y_i)^2 / (2 n noise^2) + constant."""
    inputs, labels = np.asarray(inputs, float), np.asarray(labels, float)
    size = inputs.shape[1]

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 10).expand((size,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, noise), obs=y)

    return Model(program, {"x": inputs, "y": labels}, optimum={"w": np.linalg.lstsq(inputs, labels, rcond=None)[0]})
