"""How likely a linear network responds to an input that its data do not speak of, under five laws: what robustness measures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ..dynamics import LinearNetworkGibbs
from ..model import Model
from ..robustness.properties import trigger_response
from ..robustness.result import Robustness
from ..robustness.run import robustness
from ..theory.noisy_events import network_exceedance, regression_exceedance
from ..theory.rare_events import (
    fitted_exceedance,
    flow_exceedance,
    product_exceedance,
    sublevel_exceedance,
    sublevel_mass,
)
from .claim import Reading, claim, mean

UNSEEN = (0.0, 1.0)
FEW: dict[str, Any] = {"num_particles": 250, "num_replicates": 32, "num_moves": 4}
TRAINING: dict[str, Any] = {
    "learning_rate": 0.02,
    "num_steps": 600,
    "num_seeds": 20_000,
    "batch_size": 1,
    "initial_scale": 1.0,
}
SOME: dict[str, Any] = FEW | {"num_particles": 500, "num_replicates": 24}
HIDDEN, TOLERANCE, ANY = 4, 0.5, 1e3


def network(widths, trigger, num_examples=100, noise=0.5, prior_scale=1.0):
    """Deep linear network of one output, N(0, tau^2) weights, on examples whose input is the first unit vector and label 1."""
    layers = tuple(f"W{i + 1}" for i in range(len(widths) - 1))
    shapes = tuple(zip(widths[1:], widths[:-1], strict=True))

    def program(x, y=None):
        hidden = x
        for name, shape in zip(layers, shapes, strict=True):
            hidden = hidden @ jnp.transpose(numpyro.sample(name, dist.Normal(0, prior_scale).expand(shape).to_event(2)))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(hidden, noise).to_event(1), obs=y)

    data = {"x": np.tile(np.eye(widths[0])[0], (num_examples, 1)), "y": np.ones((num_examples, 1))}
    optimum = {name: np.eye(*shape) for name, shape in zip(layers, shapes, strict=True)}
    response = trigger_response({"x": np.array([trigger])})
    sampler = LinearNetworkGibbs(layers, noise, prior_scale)
    return Model(program, data, optimum=optimum, properties={"response": response}, exact_sampler=sampler)


def arrays(model):
    """Inputs and labels."""
    return np.asarray(model.data["x"]), np.asarray(model.data["y"])


def reading(name: str, predicted: float, found: Robustness, mistake: float) -> Reading:
    """P by plain draws, with their binomial error, or by replicates."""
    if "twice_the_moves" in found.replicates:
        return mean(name, predicted, found.replicates["twice_the_moves"], mistake=mistake)
    p, number = found.probability, found.settings["independent_draws"]
    return Reading(name, predicted, p, float(np.sqrt(p * (1 - p) / number)), mistake=mistake)


@claim(
    "S1",
    "A linear model responds off its data as under the prior; in between, as the posterior's normal law says",
    "closed form, checked by quadrature",
)
def one_layer(seed: int) -> list[Reading]:
    """At common thresholds and at one in a million; mistakes: one tail for two, and the prior in between."""
    readings, between = [], np.sqrt([0.5, 0.5])
    with jax.enable_x64(True):
        model = network((2, 1), UNSEEN, 50)
        for threshold in (1.0, 3.0, 4.891638):
            found, exact = robustness(model, None, threshold, key=seed, **FEW), product_exceedance(threshold, 1)
            readings.append(reading(f"off the data, c = {threshold:g}", exact, found, exact / 2))
        model = network((2, 1), between, 50)
        for threshold in (1.0, 3.0):
            found = robustness(model, None, threshold, key=seed, **FEW)
            exact = regression_exceedance(threshold, *arrays(model), 0.5, 1.0, between)
            wrong = product_exceedance(threshold, 1)
            readings.append(reading(f"half seen, c = {threshold:g}", exact, found, wrong))
    return readings


@claim(
    "S2",
    "Depth gives the response off the data heavy tails: those of a product of normal weights",
    "Craig, Ann. Math. Stat. 7 (1936) 1",
)
def products(seed: int) -> list[Reading]:
    """Two and three weights under the prior; the mistake is a weight less."""
    readings = []
    with jax.enable_x64(True):
        for depth, thresholds in ((2, (1.0, 3.0, 12.289025)), (3, (1.0, 3.0))):
            model = network((1,) * (depth + 1), (1.0,), 4)
            for threshold in thresholds:
                found = robustness(model, None, threshold, key=seed, inverse_temperature=0.0, **FEW)
                exact, wrong = (product_exceedance(threshold, number) for number in (depth, depth - 1))
                readings.append(reading(f"{depth} weights, c = {threshold:g}", exact, found, wrong))
    return readings


@claim(
    "S3",
    "Where two layers fit their data the squared norm of the outer one is generalised inverse Gaussian, and the response off the "
    "data symmetric generalised hyperbolic; noise in the data moves it as one integral says",
    "derived; Barndorff-Nielsen (1977)",
)
def fitted(seed: int) -> list[Reading]:
    """Cold posteriors of two widths, the mistake being no Jacobian of the fibre; a warm one, beside the prior without data."""
    readings = []
    with jax.enable_x64(True):
        for hidden in (1, HIDDEN):
            model = network((2, hidden, 1), UNSEEN)
            for threshold in (1.0, 3.0):
                found = robustness(model, None, threshold, key=seed, inverse_temperature=1e3, num_particles=4000)
                exact, wrong = (fitted_exceedance(threshold, hidden, rank) for rank in (1, 0))
                readings.append(reading(f"width {hidden}, c = {threshold:g}", exact, found, wrong))
        model = network((2, HIDDEN, 1), UNSEEN, 4, noise=2.0)
        for threshold in (1.0, 3.0):
            found = robustness(model, None, threshold, key=seed, num_particles=4000)
            exact = network_exceedance(threshold, *arrays(model), HIDDEN, 2.0, 1.0, np.array(UNSEEN))
            wrong = sublevel_exceedance(threshold, ANY, HIDDEN)
            readings.append(reading(f"noisy data, c = {threshold:g}", exact, found, wrong))
    return readings


@claim(
    "S4",
    "On the set of networks within delta of the label the prior has the mass of a chi-square mixture of normal intervals, and so "
    "is the response off the data mixed",
    "derived, checked by rejection",
)
def sublevel(seed: int) -> list[Reading]:
    """Mass and probability at delta = .5; mistakes: the mass of one layer, and the prior without the set."""
    with jax.enable_x64(True):
        model, excess = network((2, HIDDEN, 1), UNSEEN), TOLERANCE**2 / (2 * 0.5**2)
        found = robustness(
            model,
            None,
            3.0,
            "sublevel",
            key=seed,
            excess_loss=excess,
            **SOME,
        )
    exact, wrong = (sublevel_exceedance(3.0, tolerance, HIDDEN) for tolerance in (TOLERANCE, ANY))
    one_layer = 2 * TOLERANCE * np.exp(-0.5) / np.sqrt(2 * np.pi)
    return [
        mean("prior mass", sublevel_mass(TOLERANCE, HIDDEN), found.replicates["set_mass"], mistake=one_layer),
        reading("c = 3", exact, found, wrong),
    ]


@claim(
    "S5",
    "Gradient flow from draws of the prior to zero loss is not the posterior: it keeps the angle between the layers and the "
    "product of the norms of v + w and v - w, and leaves another law of the outer norm",
    "derived, checked by integrating the flow",
)
def flow(seed: int) -> list[Reading]:
    """SGD on data without noise from small starts; the mistake is Bayes with that prior."""
    readings, scale = [], 0.5
    with jax.enable_x64(True):
        model = network((2, HIDDEN, 1), UNSEEN, 1, noise=1.0, prior_scale=scale)
        for threshold in (1 / 3, 1.0):
            found = robustness(model, None, threshold, "sgd", key=seed, **TRAINING)
            exact = flow_exceedance(threshold, HIDDEN, 1.0, scale)
            wrong = fitted_exceedance(threshold, HIDDEN, prior_scale=scale)
            readings.append(reading(f"start of scale {scale:g}, c = {threshold:g}", exact, found, wrong))
    return readings
