"""Product of scalars y = w_1 w_2 ... w_L x + noise: the smallest singular model.

With target 0 the loss vanishes on the union of the planes w_l = 0, and the learning coefficient is 1/2 with
multiplicity L: two weights give F_n = n L_n + (log n)/2 - log log n + O(1), where a regular model has log n. With
N(0, tau^2) priors the product z = w_1 w_2 has posterior density proportional to K_0(|z| / tau^2) exp(-(b/2) (z - s)^2),
b = beta x'x / noise^2 and s = x'y / x'x, which ``exact`` data make equal to beta n / noise^2 and ``target``.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import k0

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.linear_networks import learning_coefficient
from bayes_vs_sgd.theory.normal_crossings import crossing_total_loss
from bayes_vs_sgd.theory.rare_events import product_exceedance


@dataclass(frozen=True)
class Config:
    """Depth, target, noise and prior."""

    depth: int = 2  # number of weights L >= 1
    target: float = 0.0  # the true product
    exact: bool = True  # x'x = n and x'y = n target exactly; otherwise x and the labels' noise are normal draws
    num_examples: int = 1000
    num_held_out: int = 1000  # further examples that nothing is fitted to, >= 2
    noise: float = 1.0  # standard deviation of the observations, > 0
    prior_scale: float = 1.0  # standard deviation of every weight's prior, > 0


def build(config: Config, key) -> bvs.Model:
    """Draw data around a balanced teacher, the first weight of which has the target's sign."""
    check(config)
    sites = tuple(f"w{i + 1}" for i in range(config.depth))

    def program(x, y=None):
        product = 1.0
        for name in sites:
            product = product * numpyro.sample(name, dist.Normal(0, config.prior_scale))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(product * x, config.noise), obs=y)

    size = abs(config.target) ** (1 / config.depth)
    optimum = dict.fromkeys(sites, size) | {"w1": float(np.copysign(size, config.target))}
    known = learning_coefficient((1,) * (config.depth + 1), int(config.target != 0))
    aoyagi = "Aoyagi, Neural Networks 172 (2024) 106132"
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    x, y = draw(config, rng)
    x_new, noise = rng.normal(size=(2, config.num_held_out))
    length = np.linalg.norm(x)
    return bvs.Model(
        program,
        data={"x": x, "y": y},
        optimum=optimum,
        truth={
            "learning_coefficient": bvs.Truth(known.value, aoyagi),
            "multiplicity": bvs.Truth(known.multiplicity, aoyagi),
        },
        observables=bvs.linear_network(sites, np.array([[config.target]])),
        exact_sampler=bvs.LinearNetworkGibbs(sites, config.noise, config.prior_scale),
        compressed={"x": np.array([length]), "y": np.array([x @ y / length])},
        held_out={"x": x_new, "y": config.target * x_new + config.noise * noise},
        properties={"size": bvs.trigger_response({"x": np.ones(1)}, partial(exceedance, config))},
        densities={"mode_1": density(config)} if config.depth == 2 else None,
        expected_loss=partial(expected_loss, config),
    )


def expected_loss(config: Config, target: bvs.Posterior) -> float | None:
    """E[L] by quadrature over the product (``theory/normal_crossings.py``), at beta > 0."""
    model, beta = target.model, float(target.inverse_temperature)
    x, y = model.compressed["x"], model.compressed["y"]
    total = crossing_total_loss(x, y, (1,) * config.depth, config.noise, config.prior_scale, beta)
    return None if total is None else (total + float(model.offset)) / model.num_examples


def exceedance(config: Config, law, threshold: float) -> float | None:
    """P(|w_1 ... w_L| > c) under the prior, that is the posterior at beta = 0, of at most three weights."""
    if not isinstance(law, bvs.Posterior) or config.depth > 3:
        return None
    if float(law.inverse_temperature) > 0 or float(law.localization) > 0:
        return None
    return product_exceedance(threshold, config.depth, config.prior_scale)


def density(config: Config):
    """Posterior density of the product of two weights along the teacher's sign, up to a factor; see the module."""
    noise, prior_scale, sign = config.noise, config.prior_scale, -1.0 if config.target < 0 else 1.0

    def of_product(target, values):
        x, y = (np.asarray(target.model.data[name], float) for name in "xy")
        b, peak = float(target.inverse_temperature) * x @ x / noise**2, sign * x @ y / (x @ x)
        return k0(np.abs(values) / prior_scale**2) * np.exp(-b / 2 * (values - peak) ** 2)

    return of_product


def draw(config: Config, rng) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and observations; exact ones have the labels' noise orthogonal to x and of mean square noise^2."""
    x, residuals = rng.normal(size=(2, config.num_examples))
    if config.exact:
        x *= np.sqrt(config.num_examples) / np.linalg.norm(x)
        residuals -= x * (x @ residuals) / config.num_examples
        residuals *= np.sqrt(config.num_examples) / np.linalg.norm(residuals)
    return x, config.target * x + config.noise * residuals


def check(config: Config) -> None:
    """Refuse what cannot be."""
    if config.depth < 1:
        raise bvs.InputError(f"depth is {config.depth}: give 1 or more weights")
    if config.num_examples < 2:
        raise bvs.InputError(f"num_examples is {config.num_examples}: give at least 2")
    if config.num_held_out < 2:
        raise bvs.InputError(f"num_held_out is {config.num_held_out}: give at least 2")
    if config.noise <= 0 or config.prior_scale <= 0:
        raise bvs.InputError(f"noise is {config.noise} and prior_scale {config.prior_scale}: both must be > 0")
    if not np.isfinite(config.target):
        raise bvs.InputError(f"target is {config.target}: it must be finite")
