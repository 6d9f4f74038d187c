r"""Polynomial y = f(w) x + noise in one or two weights: wells of different degeneracy, solvable by quadrature.

One weight, f = (w + w0)^d1 (w - w0)^d2: two wells with learning coefficients 1/(2 d1) and 1/(2 d2). The posterior
prefers the more degenerate one as n grows; gradient flow is split at the barrier w0 (d1 - d2)/(d1 + d2) for ever. The
global value is the smaller, 1/(2 max(d1, d2)), with multiplicity 1.

Two weights, f = (w1^2 + w2^2)^2 w1^p: in polar coordinates f^2 w dr dphi is r^(8 + 2p) cos(phi)^(2p) r dr dphi, so the
zeta function has its poles at 2/(8 + 2p), from the origin, and 1/(2p), from the line w1 = 0. Hence lambda =
min(1/(4 + p), 1/(2p)), with multiplicity 2 where they meet (p = 4) and 1 elsewhere.

Without label noise and with x'x = n the loss is K = f(w)^2 / (2 noise^2) up to a constant, exactly.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayes_vs_sgd as bvs


@dataclass(frozen=True)
class Config:
    """Degrees, prior and noise."""

    weights: int = 1  # 1 or 2
    left_degree: int = 1  # d1 >= 1, of the well at -well (one weight)
    right_degree: int = 2  # d2 >= 1, of the well at +well (one weight)
    well: float = 1.0  # w0 > 0 (one weight)
    line_degree: int = 1  # p >= 0 (two weights)
    prior: str = "uniform"  # "uniform" on [-prior_scale, prior_scale], or "normal"
    prior_scale: float = 2.0  # half width or standard deviation, > 0
    num_examples: int = 1000
    num_held_out: int = 1000  # further examples that nothing is fitted to, >= 2
    noise: float = 1.0  # standard deviation of the observations in the program, > 0
    label_noise: float = 0.0  # standard deviation of the noise that the labels really have, >= 0


def build(config: Config, key) -> bvs.Model:
    """Draw inputs with x'x = n, and labels of which the truth is 0."""
    check(config)
    sites = ("w",) if config.weights == 1 else ("w1", "w2")
    normal = config.prior == "normal"

    def slope(w):
        if config.weights == 1:
            return (w["w"] + config.well) ** config.left_degree * (w["w"] - config.well) ** config.right_degree
        return (w["w1"] ** 2 + w["w2"] ** 2) ** 2 * w["w1"] ** config.line_degree

    def program(x, y=None):
        scale = config.prior_scale
        prior = dist.Normal(0, scale) if normal else dist.Uniform(-scale, scale)
        w = {name: numpyro.sample(name, prior) for name in sites}
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(slope(w) * x, config.noise), obs=y)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    x, noise = rng.normal(size=(2, config.num_examples))
    x *= np.sqrt(config.num_examples) / np.linalg.norm(x)
    y = config.label_noise * noise
    length = np.linalg.norm(x)
    x_new, noise = rng.normal(size=(2, config.num_held_out))
    deepest = config.well if config.right_degree >= config.left_degree else -config.well
    value, multiplicity = learning_coefficient(config)
    source = "largest pole of the zeta function; see the model file"
    return bvs.Model(
        program,
        data={"x": x, "y": y},
        optimum={"w": deepest} if config.weights == 1 else dict.fromkeys(sites, 0.0),
        truth={
            "learning_coefficient": bvs.Truth(value, source),
            "multiplicity": bvs.Truth(multiplicity, source),
        },
        observables=observables(config, slope),
        compressed={"x": np.array([length]), "y": np.array([x @ y / length])},
        held_out={"x": x_new, "y": config.label_noise * noise},
    )


def learning_coefficient(config: Config) -> tuple[float, int]:
    """Learning coefficient and multiplicity; see the module."""
    if config.weights == 1:
        return 1 / (2 * max(config.left_degree, config.right_degree)), 1
    p = config.line_degree
    return min(1 / (4 + p), 1 / (2 * p) if p else np.inf), 2 if p == 4 else 1


def observables(config: Config, slope) -> dict[str, bvs.Observable]:
    """Slope of the map; which well (1: the right one), for one weight."""
    found = {"slope": bvs.observable("function", primary=True)(lambda model, values: slope(values))}
    if config.weights == 1:
        barrier = config.well * (config.left_degree - config.right_degree) / (config.left_degree + config.right_degree)
        found["right_well"] = bvs.observable("function", primary=True)(
            lambda model, values: jnp.where(values["w"] > barrier, 1.0, 0.0)
        )
    return found


def check(config: Config) -> None:
    """Refuse what cannot be."""
    if config.weights not in (1, 2):
        raise bvs.InputError(f"weights is {config.weights}: it must be 1 or 2")
    if min(config.left_degree, config.right_degree) < 1 or config.line_degree < 0:
        raise bvs.InputError(
            f"left_degree {config.left_degree} and right_degree {config.right_degree} must be >= 1, "
            f"line_degree {config.line_degree} >= 0"
        )
    if config.prior not in ("uniform", "normal"):
        raise bvs.InputError(f"prior is {config.prior!r}: it must be uniform or normal")
    if config.noise <= 0 or config.prior_scale <= 0 or config.label_noise < 0:
        raise bvs.InputError(
            f"noise {config.noise} and prior_scale {config.prior_scale} must be > 0, "
            f"label_noise {config.label_noise} >= 0"
        )
    if config.weights == 1 and not 0 < config.well < (np.inf if config.prior == "normal" else config.prior_scale):
        raise bvs.InputError(f"well is {config.well}: it must be > 0 and inside the prior (scale {config.prior_scale})")
    if config.num_examples < 1 or config.num_held_out < 2:
        raise bvs.InputError(
            f"num_examples is {config.num_examples} and num_held_out {config.num_held_out}: give at least 1 and 2"
        )
