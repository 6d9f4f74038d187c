r"""Product of powers y = w_1^{k_1} ... w_d^{k_d} x + noise, around the truth 0: each weight with a degeneracy of its own.

The loss vanishes on the planes w_i = 0, which cross normally: what resolution of singularities makes of every singular model.
The learning coefficient is the smallest 1 / (2 k_i), with the number of weights that have it as multiplicity. Since only the
product meets the data, E[L] at finite n is one integral (``theory/normal_crossings.py``).
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.normal_crossings import crossing_learning_coefficient, crossing_total_loss


@dataclass(frozen=True)
class Config:
    """Powers, noise and prior."""

    powers: tuple[int, ...] = (1, 2)  # k_i >= 1, one a weight
    num_examples: int = 1000
    num_held_out: int = 1000  # further examples that nothing is fitted to, >= 2
    noise: float = 1.0  # standard deviation of the observations, > 0
    noise_free: bool = False  # labels 0 without noise; the likelihood keeps it, and E[L] is that of the population
    prior_scale: float = 1.0  # standard deviation of every weight's prior, > 0


def build(config: Config, key) -> bvs.Model:
    """Draw inputs with x'x = n, and labels of which the truth is 0."""
    check(config)
    sites = tuple(f"w{i + 1}" for i in range(len(config.powers)))

    def program(x, y=None):
        slope = 1.0
        for name, power in zip(sites, config.powers, strict=True):
            slope = slope * numpyro.sample(name, dist.Normal(0, config.prior_scale)) ** power
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(slope * x, config.noise), obs=y)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    label_noise = 0.0 if config.noise_free else config.noise
    x, residuals = rng.normal(size=(2, config.num_examples))
    x_new, residuals_new = rng.normal(size=(2, config.num_held_out))
    length = np.sqrt(config.num_examples)
    x *= length / np.linalg.norm(x)
    y = label_noise * residuals
    known = crossing_learning_coefficient(config.powers)
    source = "smallest pole of the zeta function of a normal crossing; see the model file"
    return bvs.Model(
        program,
        data={"x": x, "y": y},
        optimum=dict.fromkeys(sites, 0.0),
        truth={
            "learning_coefficient": bvs.Truth(known.value, source),
            "multiplicity": bvs.Truth(known.multiplicity, source),
        },
        observables=observables(sites, config.powers),
        compressed={"x": np.array([length]), "y": np.array([x @ y / length])},
        held_out={"x": x_new, "y": label_noise * residuals_new},
        expected_loss=partial(expected_loss, config),
    )


def expected_loss(config: Config, target: bvs.Posterior) -> float | None:
    """E[L] by quadrature over the product (``theory/normal_crossings.py``), at beta > 0."""
    model, beta = target.model, float(target.inverse_temperature)
    x, y = model.compressed["x"], model.compressed["y"]
    total = crossing_total_loss(x, y, config.powers, config.noise, config.prior_scale, beta)
    return None if total is None else (total + float(model.offset)) / model.num_examples


def observables(sites: tuple[str, ...], powers: tuple[int, ...]) -> dict[str, bvs.Observable]:
    """Return the product, which the data see, and the size of each weight, which they leave to the prior."""

    def product(model, values):
        return math.prod(values[name] ** power for name, power in zip(sites, powers, strict=True))

    def size(name):
        return lambda model, values: abs(values[name])

    sizes = {f"{name}_size": bvs.observable("geometry")(size(name)) for name in sites}
    return {"product": bvs.observable("function", primary=True)(product)} | sizes


def check(config: Config) -> None:
    """Refuse what cannot be."""
    crossing_learning_coefficient(config.powers)
    if config.num_examples < 2:
        raise bvs.InputError(f"num_examples is {config.num_examples}: give at least 2")
    if config.num_held_out < 2:
        raise bvs.InputError(f"num_held_out is {config.num_held_out}: give at least 2")
    if config.noise <= 0 or config.prior_scale <= 0:
        raise bvs.InputError(f"noise is {config.noise} and prior_scale {config.prior_scale}: both must be > 0")
