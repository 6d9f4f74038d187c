"""Small tanh network y = W_L tanh(... tanh(W_1 x + b_1) ...) + b_L + noise, written in Equinox, with normal priors.

The smallest network whose function is not linear in x. A teacher that uses only some of the hidden units makes the
model singular: the weights into an unused unit are free where the weight out of it is 0. Its posterior has no known
closed form, so NUTS is the reference. Permutations and signs of the hidden units are symmetries: only what they leave
alone is judged.

``random_eqx_module`` samples every weight of the network as a site. It also registers the given network as a
``numpyro.param``, which is hidden here since all of its values are replaced.
"""

from dataclasses import dataclass
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.module import random_eqx_module

import bayes_vs_sgd as bvs


@dataclass(frozen=True)
class Config:
    """Widths, teacher, noise and prior."""

    widths: tuple[int, ...] = (1, 3, 1)  # from input to output
    teacher_units: int = 1  # units of each hidden layer that the teacher uses, >= 0
    teacher_scale: float = 1.0  # standard deviation of the teacher's weights and biases, > 0
    num_examples: int = 200
    num_held_out: int = 1000  # further examples that nothing is fitted to, >= 2
    noise: float = 0.2  # standard deviation of the observations, > 0
    prior_scale: float = 1.0  # standard deviation of the prior of every weight and bias, > 0


class Network(eqx.Module):
    """Linear layers with tanh between them."""

    layers: list[eqx.nn.Linear]

    def __init__(self, widths: tuple[int, ...], key):
        keys = jax.random.split(key, len(widths) - 1)
        self.layers = [eqx.nn.Linear(into, out, key=k) for (into, out), k in zip(pairwise(widths), keys, strict=True)]

    def __call__(self, x):
        """Outputs for one example."""
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)


def build(config: Config, key) -> bvs.Model:
    """Draw a teacher, standard normal inputs, and data from it."""
    check(config)
    shapes = eqx.filter_eval_shape(Network, config.widths, key)
    template = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)

    def program(x, y=None):
        with numpyro.handlers.block(hide_fn=lambda site: site["type"] == "param"):
            prior = dist.Normal(0, config.prior_scale)
            network = random_eqx_module("net", template, prior, scope_divider=".")
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(jax.vmap(network)(x), config.noise).to_event(1), obs=y)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    teacher = draw_teacher(config, rng)
    return bvs.Model(
        program,
        data=draw(config, teacher, config.num_examples, rng),
        optimum=teacher,
        probes={"x": np.full((1, config.widths[0]), 5.0)},
        observables={
            "first_prediction": bvs.observable("function", primary=True)(first_prediction),
            "layer_norms": bvs.observable("geometry")(layer_norms),
        },
        held_out=draw(config, teacher, config.num_held_out, rng),
    )


def draw(config: Config, teacher: dict[str, np.ndarray], count: int, rng) -> dict[str, np.ndarray]:
    """Examples of the teacher."""
    x = rng.normal(size=(count, config.widths[0]))
    hidden = x
    for layer in range(len(config.widths) - 1):
        hidden = np.tanh(hidden) if layer else hidden
        hidden = hidden @ teacher[f"net.layers[{layer}].weight"].T + teacher[f"net.layers[{layer}].bias"]
    return {"x": x, "y": hidden + config.noise * rng.normal(size=hidden.shape)}


def draw_teacher(config: Config, rng) -> dict[str, np.ndarray]:
    """Normal weights and biases; all those of the hidden units that are not used are 0."""
    values, last = {}, len(config.widths) - 2
    for layer, (into, out) in enumerate(pairwise(config.widths)):
        weight = config.teacher_scale * rng.normal(size=(out, into))
        bias = config.teacher_scale * rng.normal(size=out)
        if layer > 0:
            weight[:, config.teacher_units :] = 0
        if layer < last:
            weight[config.teacher_units :] = bias[config.teacher_units :] = 0
        values |= {f"net.layers[{layer}].weight": weight, f"net.layers[{layer}].bias": bias}
    return values


def first_prediction(model, values):
    """First output at the first example."""
    rows = {"x": model.data["x"][:1]}
    return model.predictions(model.unconstrain(values), rows)["y"].ravel()[0]


def layer_norms(model, values):
    """Squared norms of the weight matrices, from input to output."""
    return jnp.stack([jnp.sum(values[f"net.layers[{i}].weight"] ** 2) for i in range(len(values) // 2)])


def check(config: Config) -> None:
    """Refuse what cannot be."""
    if len(config.widths) < 3 or min(config.widths) < 1:
        raise bvs.InputError(f"widths {config.widths}: give three or more positive numbers, so that a layer is hidden")
    if not 0 <= config.teacher_units <= min(config.widths[1:-1]):
        raise bvs.InputError(
            f"teacher_units is {config.teacher_units}: it must be between 0 and the smallest hidden width "
            f"{min(config.widths[1:-1])}"
        )
    if config.num_examples < 1 or config.num_held_out < 2:
        raise bvs.InputError(
            f"num_examples is {config.num_examples} and num_held_out {config.num_held_out}: give at least 1 and 2"
        )
    if min(config.noise, config.prior_scale, config.teacher_scale) <= 0:
        raise bvs.InputError(
            f"noise {config.noise}, prior_scale {config.prior_scale} and teacher_scale {config.teacher_scale}: "
            "all must be > 0"
        )
