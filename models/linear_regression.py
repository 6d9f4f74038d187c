"""Linear regression y = w·x + noise: the regular model, where the law of SGD is known in closed form.

The Hessian of the loss is H = S / noise^2, with S the inputs' covariance. Near the optimum one example's gradient has
covariance C = H: SGD then has the stationary covariance (eta / 2B) I, and the posterior H^{-1} / n. They agree only
where S is isotropic, so the eigenvalues of S turn the agreement on and off. With ``isotropic`` the data are Hadamard
columns, with residuals +-noise in a column of their own: the optimum is the empirical minimum, and there C = H =
I s / noise^2 without sampling error, s being the one eigenvalue of S.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.linalg
import scipy.stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.evidence import regression_total_loss


@dataclass(frozen=True)
class Config:
    """Covariance of the inputs, true weights, noise and prior."""

    covariance: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25, 0.125)  # eigenvalues > 0; their number is the dimension
    rotated: bool = False  # random eigenvectors instead of the coordinate axes
    inputs: str = "whitened"  # "whitened" (X'X = n covariance exactly) or "gaussian"
    isotropic: bool = False  # Hadamard data: equal covariance eigenvalues and num_examples a power of two
    weights: tuple[float, ...] = ()  # true weights along the eigenvectors, one an eigenvalue; all 1 if empty
    num_examples: int = 1024
    num_held_out: int = 1000  # further examples that nothing is fitted to, with Gaussian inputs and residuals, >= 2
    noise: float = 1.0  # standard deviation of the observations, > 0
    prior_scale: float = 1.0  # standard deviation of every weight's prior, > 0


def build(config: Config, key) -> bvs.Model:
    """Draw data around the true weights."""
    check(config)
    dimension = len(config.covariance)

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, config.prior_scale).expand((dimension,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, config.noise), obs=y)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    basis = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0] if config.rotated else np.eye(dimension)
    weights = basis @ np.asarray(config.weights or np.ones(dimension))

    def examples(whitened, residuals):
        x = whitened * np.sqrt(config.covariance) @ basis.T
        return {"x": x, "y": x @ weights + config.noise * residuals}

    data = examples(*(draw_hadamard(config) if config.isotropic else draw(config, rng)))
    q, r = np.linalg.qr(data["x"])
    return bvs.Model(
        program,
        data=data,
        optimum={"w": weights},
        truth={
            "learning_coefficient": bvs.Truth(dimension / 2, "regular model: half the number of parameters"),
            "multiplicity": bvs.Truth(1, "regular model"),
        },
        observables=coordinates(config.covariance, basis),
        exact_sampler=bvs.LinearNetworkGibbs(("w",), config.noise, config.prior_scale),
        compressed={"x": r, "y": q.T @ data["y"]},
        held_out=examples(*draw(replace(config, inputs="gaussian", num_examples=config.num_held_out), rng)),
        densities={f"mode_{i + 1}": marginal(basis[:, i], config) for i in range(dimension)},
        expected_loss=partial(expected_loss, config),
        fresh=partial(fresh, config, basis, weights),
    )


def fresh(config: Config, basis: np.ndarray, weights: np.ndarray, key, count: int) -> dict:
    """Examples that nobody has seen, with normal inputs."""
    key_inputs, key_labels = jax.random.split(key)
    x = jax.random.normal(key_inputs, (count, len(weights))) * np.sqrt(config.covariance) @ basis.T
    return {"x": x, "y": x @ weights + config.noise * jax.random.normal(key_labels, (count,))}


def expected_loss(config: Config, target: bvs.Posterior) -> float:
    """E[L] of a normal posterior, in closed form (``theory/evidence.py``)."""
    model, beta = target.model, float(target.inverse_temperature)
    x, y = (np.asarray(model.compressed[name], float) for name in "xy")
    total = regression_total_loss(x, y, config.noise, config.prior_scale, beta)
    return (total + float(model.offset)) / model.num_examples


def marginal(direction: np.ndarray, config: Config):
    """Posterior density along a direction: the weights are normal, of precision beta X'X / noise^2 + 1 / prior_scale^2."""
    noise, prior_scale = config.noise, config.prior_scale

    def density(target, values):
        x, y = (np.asarray(target.model.data[name], float) for name in "xy")
        beta = float(target.inverse_temperature) / noise**2
        precision = beta * x.T @ x + np.eye(len(direction)) / prior_scale**2
        mean = direction @ np.linalg.solve(precision, beta * x.T @ y)
        variance = direction @ np.linalg.solve(precision, direction)
        return scipy.stats.norm.pdf(values, mean, np.sqrt(variance))

    return density


def draw(config: Config, rng) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of unit covariance and residuals of unit variance."""
    x = rng.normal(size=(config.num_examples, len(config.covariance)))
    if config.inputs == "whitened":
        x = np.linalg.qr(x)[0] * np.sqrt(config.num_examples)
    return x, rng.normal(size=config.num_examples)


def draw_hadamard(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Columns of a Hadamard matrix as inputs and as residuals.

    Columns 1, 2, 4, ... where there are enough: no product of distinct ones is constant, as for independent signs, so
    that C is an even function of the distance to the optimum.
    """
    count = len(config.covariance) + 1
    columns = 2 ** np.arange(count) if 2**count <= config.num_examples else np.arange(1, count + 1)
    signs = scipy.linalg.hadamard(config.num_examples)[:, columns].astype(float)
    return signs[:, :-1], signs[:, -1]


def coordinates(covariance: tuple[float, ...], basis: np.ndarray) -> dict[str, bvs.Observable]:
    """Weights along the eigenvectors; the sharpest and the flattest direction decide."""
    judged = {int(np.argmax(covariance)), len(covariance) - 1 - int(np.argmin(covariance[::-1]))}

    def coordinate(index):
        return lambda model, values: values["w"] @ basis[:, index]

    return {
        f"mode_{i + 1}": bvs.observable("function", primary=i in judged, mode=i in judged)(coordinate(i))
        for i in range(len(covariance))
    }


def check(config: Config) -> None:
    """Refuse what cannot be."""
    dimension, n = len(config.covariance), config.num_examples
    if dimension == 0 or min(config.covariance) <= 0:
        raise bvs.InputError(f"covariance {config.covariance}: give one or more eigenvalues, all > 0")
    if config.weights and len(config.weights) != dimension:
        raise bvs.InputError(f"weights {config.weights} for {dimension} inputs: give one an input, or none")
    if config.inputs not in ("whitened", "gaussian"):
        raise bvs.InputError(f"inputs is {config.inputs!r}: it must be whitened or gaussian")
    if n < dimension:
        raise bvs.InputError(f"num_examples is {n}: give at least the number of inputs {dimension}")
    if config.num_held_out < 2:
        raise bvs.InputError(f"num_held_out is {config.num_held_out}: give at least 2")
    if config.noise <= 0 or config.prior_scale <= 0:
        raise bvs.InputError(f"noise is {config.noise} and prior_scale {config.prior_scale}: both must be > 0")
    if config.isotropic and len(set(config.covariance)) > 1:
        raise bvs.InputError(f"isotropic needs equal eigenvalues, covariance is {config.covariance}")
    if config.isotropic and (n & (n - 1) or n < dimension + 2):
        raise bvs.InputError(f"isotropic needs a power of two >= {dimension + 2} examples, num_examples is {n}")
