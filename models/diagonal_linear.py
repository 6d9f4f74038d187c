r"""Diagonal linear network y = (u * v)·x + noise with a sparse teacher: the model of sparsity by implicit bias.

Each coordinate is a product of two weights, so gradient flow from a small start, label noise and the posterior all
favour sparse maps, each in its own way. Gradient flow keeps u^2 - v^2, label noise sends it to 0, the posterior gives
it a law: the imbalance tells them apart where the function cannot.

Learning coefficient, for inputs of full rank: K = (w - w*)' S (w - w*) / 2 noise^2 with w = u * v and S positive
definite lies between multiples of sum_i (u_i v_i - w*_i)^2, whose partition function is a product over the coordinates.
A coordinate gives (lambda, m) = (1/2, 1) where w*_i != 0 and (1/2, 2) where w*_i = 0, the product of two weights at the
origin. The lambda add up, and so do the m - 1: lambda = d/2 and m = 1 + the number of zeros in the teacher.
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
    """Teacher, inputs, noise and prior."""

    teacher: tuple[float, ...] = (2.0, 1.0, 0.0, 0.0, 0.0)  # the true map; its length is the number of inputs
    inputs: str = "whitened"  # "whitened" (X'X = n I exactly, n >= inputs) or "gaussian" (any n)
    num_examples: int = 1000
    num_held_out: int = 1000  # further examples that nothing is fitted to, with Gaussian inputs, >= 2
    noise: float = 1.0  # standard deviation of the observations, > 0
    prior_scale: float = 1.0  # standard deviation of every weight's prior, > 0


def build(config: Config, key) -> bvs.Model:
    """Draw data around a balanced teacher."""
    check(config)
    teacher = np.asarray(config.teacher, float)

    def program(x, y=None):
        prior = dist.Normal(0, config.prior_scale).expand(teacher.shape).to_event(1)
        u, v = numpyro.sample("u", prior), numpyro.sample("v", prior)
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ (u * v), config.noise), obs=y)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    x = rng.normal(size=(config.num_examples, teacher.size))
    if config.inputs == "whitened":
        x = np.linalg.qr(x)[0] * np.sqrt(config.num_examples)
    y = x @ teacher + config.noise * rng.normal(size=config.num_examples)
    q, r = np.linalg.qr(x)
    x_new = rng.normal(size=(config.num_held_out, teacher.size))
    held_out = {"x": x_new, "y": x_new @ teacher + config.noise * rng.normal(size=config.num_held_out)}
    source = "sum over coordinates, each the product of two weights; see the model file"
    known = {
        "learning_coefficient": bvs.Truth(teacher.size / 2, source),
        "multiplicity": bvs.Truth(1 + int(np.sum(teacher == 0)), source),
    }
    return bvs.Model(
        program,
        data={"x": x, "y": y},
        optimum={"u": np.sign(teacher) * np.sqrt(np.abs(teacher)), "v": np.sqrt(np.abs(teacher))},
        truth=known if config.num_examples >= teacher.size else None,
        observables=observables(teacher),
        compressed={"x": r, "y": q.T @ y},
        held_out=held_out,
    )


def observables(teacher: np.ndarray) -> dict[str, bvs.Observable]:
    """Coordinates of the map and imbalances u^2 - v^2, which no change of sign of (u_i, v_i) moves.

    The largest and the smallest coordinate of the teacher decide on the function; a coordinate that is 0 has no
    curvature at the optimum, hence no temperature.
    """
    sizes = np.abs(teacher)
    judged = {int(np.argmax(sizes)), sizes.size - 1 - int(np.argmin(sizes[::-1]))}

    def coordinate(index):
        return lambda model, values: values["u"][index] * values["v"][index]

    def imbalance(values):
        return values["u"] ** 2 - values["v"] ** 2

    def kind(index):
        return bvs.observable("function", primary=index in judged, mode=index in judged and sizes[index] > 0)

    found = {f"mode_{i + 1}": kind(i)(coordinate(i)) for i in range(sizes.size)}
    return found | {
        "map_l1": bvs.observable("function")(lambda model, values: jnp.sum(jnp.abs(values["u"] * values["v"]))),
        "imbalance": bvs.observable("geometry")(lambda model, values: imbalance(values)),
        "imbalance_norm": bvs.observable("geometry", primary=True, squared=True)(
            lambda model, values: jnp.sqrt(jnp.sum(imbalance(values) ** 2))
        ),
        "total_norm": bvs.observable("geometry", primary=True, squared=True)(
            lambda model, values: jnp.sum(values["u"] ** 2 + values["v"] ** 2)
        ),
    }


def check(config: Config) -> None:
    """Refuse what cannot be."""
    if not config.teacher or not np.all(np.isfinite(config.teacher)):
        raise bvs.InputError(f"teacher {config.teacher}: give one or more finite numbers")
    if config.inputs not in ("whitened", "gaussian"):
        raise bvs.InputError(f"inputs is {config.inputs!r}: it must be whitened or gaussian")
    fewest = len(config.teacher) if config.inputs == "whitened" else 1
    if config.num_examples < fewest:
        raise bvs.InputError(f"num_examples is {config.num_examples}: {config.inputs} inputs need at least {fewest}")
    if config.num_held_out < 2:
        raise bvs.InputError(f"num_held_out is {config.num_held_out}: give at least 2")
    if config.noise <= 0 or config.prior_scale <= 0:
        raise bvs.InputError(f"noise is {config.noise} and prior_scale {config.prior_scale}: both must be > 0")
