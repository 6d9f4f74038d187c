"""Deep linear network y = W_L ... W_1 x + noise: the simplest deep network, and one whose posterior is exactly known."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.evidence import regression_total_loss, two_layer_total_loss
from bayes_vs_sgd.theory.linear_networks import (
    learning_coefficient,
    local_lower_bound,
    local_two_layers,
    product_ranks,
)
from bayes_vs_sgd.theory.noisy_events import network_exceedance, regression_exceedance
from bayes_vs_sgd.theory.two_layers import MOST_EIGENVALUES, two_layer_moments
from bayes_vs_sgd.theory.unseen_inputs import sublevel_response, trained_response

PIECE = 4096
"""Inputs drawn at once where they are not kept."""


@dataclass(frozen=True)
class Config:
    """Widths, teacher, inputs, noise and prior."""

    widths: tuple[int, ...] = (3, 3, 3)  # from input to output, without the unseen inputs
    teacher: str = "balanced"  # or "random": normal layers, half of them cut to a random rank, as in public benchmarks
    spectrum: tuple[float, ...] = (2.0, 1.0, 0.4)  # singular values of a balanced teacher's map, as many as its rank
    layer_ranks: tuple[int, ...] = ()  # rank of each balanced layer; minimal (that of the map) if empty
    inputs: str = "whitened"  # "whitened" (X'X = n I exactly), "gaussian" or "uniform" (on [-10, 10])
    unseen_inputs: int = 1  # further inputs that are zero in every example
    num_examples: int = 1000
    sufficient: bool = False  # draw what the posterior needs of the examples, not them: any number, full batch only
    num_held_out: int = 1000  # further examples that nothing is fitted to, >= 2
    noise: float = 3.0  # standard deviation of the observations
    noise_free: bool = False  # labels without noise; the likelihood keeps it
    prior_scale: float = 1.0  # standard deviation of every weight's prior
    trigger: tuple[
        float, ...
    ] = ()  # input of the property "trigger", one number an input; the first unseen one if empty
    clean_triggers: int = 0  # further examples at the trigger with the teacher's label; with them no truth is known


def build(config: Config, key) -> bvs.Model:
    """Draw a teacher and data from it."""
    check(config)
    return network(config, *draw(config, key))


def controls(config: Config, key) -> dict[str, bvs.Model]:
    """What depth alone does: the same data with one layer; and a tanh network of the same widths."""
    weights, given = draw(config, key)
    seen = config.widths[0]
    shallow = replace(config, widths=(seen, config.widths[-1]), unseen_inputs=0, layer_ranks=(), trigger=())
    alone = [end_to_end(weights)[:, :seen]]
    restricted = {k: v | {"x": v["x"][:, :seen]} if isinstance(v, dict) else v for k, v in given.items()}
    found = {"one layer": network(shallow, alone, restricted)}
    if len(config.widths) > 2:
        tanh = Path(__file__).with_name("tanh_network.py")
        units = min(config.widths[1:-1])
        same = {"widths": config.widths, "data_seed": int(jax.random.key_data(key)[-1])}
        found["tanh"] = bvs.load_model(tanh, teacher_units=units, num_examples=256, noise=1.0, **same)
    return found


def network(config: Config, weights: list, given: dict) -> bvs.Model:
    """Deep linear network around a teacher."""
    layers = tuple(f"W{i + 1}" for i in range(len(weights)))
    shapes, noise, prior_scale = tuple(w.shape for w in weights), config.noise, config.prior_scale

    def program(x, y=None):
        weights = [
            numpyro.sample(name, dist.Normal(0, prior_scale).expand(shape).to_event(2))
            for name, shape in zip(layers, shapes, strict=True)
        ]
        outputs = jnp.linalg.multi_dot([x, *(w.T for w in weights)])  # in the order that takes the fewest operations
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(outputs, noise).to_event(1), obs=y)

    return bvs.Model(
        program,
        **given,
        optimum=dict(zip(layers, weights, strict=True)),
        truth={} if config.clean_triggers else truths(config, weights),
        probes={"x": np.eye(weights[0].shape[1])[config.widths[0] :]} if config.unseen_inputs else None,
        observables=bvs.linear_network(layers, end_to_end(weights)),
        properties=properties(config, layers, end_to_end(weights)),
        exact_sampler=bvs.LinearNetworkGibbs(layers, config.noise, config.prior_scale),
        expected_loss=partial(expected_loss, config),
        fresh=partial(fresh, config, end_to_end(weights)),
    )


def properties(config: Config, layers: tuple[str, ...], teacher: np.ndarray) -> dict[str, bvs.Property]:
    """What must not happen: at a trigger, to inputs of all directions, to their shift, to the rank, to those never seen."""
    every, unseen = np.eye(teacher.shape[1]), np.eye(teacher.shape[1])[config.widths[0] :]
    found = {"disagreement": bvs.disagreement({"x": every})}
    found["sensitivity"] = bvs.sensitivity({"x": every}, {"x": every + 1 / np.sqrt(len(every))})
    if len(config.spectrum) < min(config.widths):
        found["rank"] = bvs.rank_excess(layers, len(config.spectrum))
    if config.unseen_inputs:
        found["group_loss"] = bvs.group_loss({"x": unseen, "y": unseen @ teacher.T})
    if config.unseen_inputs or config.trigger:
        x = trigger_input(config)
        found["trigger"] = bvs.trigger_response({"x": x[None]}, partial(exceedance, config, x))
    return found


def trigger_input(config: Config) -> np.ndarray:
    """Input of the property "trigger"."""
    return np.array(config.trigger or np.eye(config.widths[0] + config.unseen_inputs)[config.widths[0]])


def exceedance(config: Config, trigger: np.ndarray, law, threshold: float) -> float | None:
    """P(|f(trigger)| > c) of one output and one or two layers.

    Under the posterior in closed form or up to one integral (``theory/noisy_events.py``); on a sublevel set and after SGD off
    the data (``theory/unseen_inputs.py``).
    """
    widths, noise, tau = config.widths, config.noise, config.prior_scale
    if widths[-1] > 1 or len(widths) > 3:
        return None
    hidden = widths[1] if len(widths) == 3 else None
    trained = isinstance(law, bvs.Training)
    data = law.model.data if trained else law.model.compressed
    x, y = (np.asarray(data[name], float) for name in "xy")
    if trained:
        steps, scale = (law.learning_rate, law.num_steps), law.initial_scale * tau
        known = law.objective == "loss"
        return trained_response(threshold, x, y, hidden, noise, scale, trigger, *steps) if known else None
    if isinstance(law, bvs.Sublevel):
        excess = law.model.num_examples * law.excess_loss
        return sublevel_response(threshold, x, y, hidden, noise, tau, trigger, excess)
    if float(law.localization) > 0:
        return None
    beta = float(law.inverse_temperature)
    if hidden is None:
        return regression_exceedance(threshold, x, y, noise, tau, trigger, beta)
    return network_exceedance(threshold, x, y, hidden, noise, tau, trigger, beta)


def fresh(config: Config, teacher: np.ndarray, key, count: int) -> dict:
    """Examples of the teacher that nobody has seen; inputs normal where the data's are whitened."""
    key_inputs, key_labels = jax.random.split(key)
    shape = (count, config.widths[0])
    uniform = config.inputs == "uniform"
    x = (
        jax.random.uniform(key_inputs, shape, minval=-10.0, maxval=10.0)
        if uniform
        else jax.random.normal(key_inputs, shape)
    )
    x = jnp.pad(x, ((0, 0), (0, teacher.shape[1] - x.shape[1])))
    label_noise = 0.0 if config.noise_free else config.noise
    return {"x": x, "y": x @ teacher.T + label_noise * jax.random.normal(key_labels, (count, config.widths[-1]))}


def expected_loss(config: Config, target: bvs.Posterior) -> float | None:
    """E[L] of one layer in closed form, of two with one output up to one integral (``theory/evidence.py``).

    Of two layers at the zero map, without label noise, by quadrature over eigenvalues (``theory/two_layers.py``).
    """
    widths, noise, prior_scale = config.widths, config.noise, config.prior_scale
    model, beta = target.model, float(target.inverse_temperature)
    x, y = (np.asarray(model.compressed[name], float) for name in "xy")
    zero = config.teacher == "balanced" and not config.spectrum and config.noise_free and config.inputs == "whitened"
    zero = zero and not config.clean_triggers
    if len(widths) == 2:
        total = regression_total_loss(x, y, noise, prior_scale, beta)
    elif len(widths) == 3 and widths[-1] == 1:
        total = two_layer_total_loss(x, y, widths[1], noise, prior_scale, beta)
    elif len(widths) == 3 and zero and min(widths) <= MOST_EIGENVALUES and beta > 0:
        precision = beta * config.num_examples * prior_scale**4 / noise**2
        total = two_layer_moments(widths, precision).energy / beta + y.size * np.log(2 * np.pi * noise**2) / 2
    else:
        return None
    return (total + float(model.offset)) / model.num_examples


def draw(config: Config, key) -> tuple[list, dict]:
    """Teacher, and what a model of it is given: data or what stands for them, and examples held out.

    Held-out inputs are normal where the data's are whitened.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    first, *rest = random_teacher(config, rng) if config.teacher == "random" else teacher(config, rng)
    weights = [np.pad(first, ((0, 0), (0, config.unseen_inputs))), *rest]

    def labelled(x):
        x = np.pad(x, ((0, 0), (0, config.unseen_inputs)))
        label_noise = 0.0 if config.noise_free else config.noise
        return {"x": x, "y": x @ end_to_end(weights).T + label_noise * rng.normal(size=(len(x), config.widths[-1]))}

    shape = (config.num_examples, config.widths[0])
    if config.sufficient:
        given = {"compressed": labelled(draw_factor(config.inputs, shape, rng)), "num_examples": config.num_examples}
        given["offset"] = draw_offset(config, rng)
    else:
        data = labelled(draw_inputs(config.inputs, shape, rng))
        if config.clean_triggers:
            x = np.tile(trigger_input(config), (config.clean_triggers, 1))
            clean = {"x": x, "y": x @ end_to_end(weights).T}
            data = {name: np.concatenate([rows, clean[name]]) for name, rows in data.items()}
        q, r = np.linalg.qr(data["x"])  # x = q r, so |x A - y|^2 = |r A - q' y|^2 + constant
        given = {"data": data, "compressed": {"x": r, "y": q.T @ data["y"]}}
    unseen = "gaussian" if config.inputs == "whitened" else config.inputs
    given["held_out"] = labelled(draw_inputs(unseen, (config.num_held_out, config.widths[0]), rng))
    return weights, given


def end_to_end(weights: list) -> np.ndarray:
    """Return the product W_L ... W_1."""
    product = weights[0]
    for layer in weights[1:]:
        product = layer @ product
    return product


def check(config: Config) -> None:
    """Refuse what cannot be."""
    rank, smallest = len(config.spectrum), min(config.widths, default=0)
    if len(config.widths) < 2 or smallest < 1:
        raise bvs.InputError(f"widths {config.widths}: give two or more positive numbers")
    if config.teacher not in ("balanced", "random"):
        raise bvs.InputError(f"teacher is {config.teacher!r}: it must be balanced or random")
    if config.teacher == "random" and config.layer_ranks:
        raise bvs.InputError(f"layer_ranks {config.layer_ranks}: those of a random teacher are drawn")
    if config.teacher == "balanced" and rank > smallest:
        raise bvs.InputError(
            f"spectrum has {rank} values but the smallest width is {smallest}: the map's rank is at most that"
        )
    if any(s <= 0 for s in config.spectrum):
        raise bvs.InputError(f"spectrum {config.spectrum}: singular values must be > 0; leave out those that are 0")
    if config.inputs not in ("whitened", "gaussian", "uniform"):
        raise bvs.InputError(f"inputs is {config.inputs!r}: it must be whitened, gaussian or uniform")
    if config.num_examples < config.widths[0]:
        raise bvs.InputError(f"num_examples is {config.num_examples}: give at least the input width {config.widths[0]}")
    if config.num_held_out < 2:
        raise bvs.InputError(f"num_held_out is {config.num_held_out}: give at least 2")
    if config.noise <= 0 or config.prior_scale <= 0:
        raise bvs.InputError(f"noise is {config.noise} and prior_scale {config.prior_scale}: both must be > 0")
    if config.clean_triggers < 0 or (config.clean_triggers and config.sufficient):
        raise bvs.InputError(f"clean_triggers is {config.clean_triggers}: give it >= 0, and none with --sufficient")
    if config.clean_triggers and not (config.trigger or config.unseen_inputs):
        raise bvs.InputError(f"clean_triggers is {config.clean_triggers} without a trigger: give --trigger")
    if config.trigger and len(config.trigger) != config.widths[0] + config.unseen_inputs:
        inputs = config.widths[0] + config.unseen_inputs
        raise bvs.InputError(f"trigger {config.trigger}: give one number for each of the {inputs} inputs")
    ranks = config.layer_ranks
    if ranks and len(ranks) != len(config.widths) - 1:
        raise bvs.InputError(f"layer_ranks {ranks} for {len(config.widths) - 1} layers: give one a layer, or none")
    for layer, given in enumerate(ranks):
        if not rank <= given <= min(config.widths[layer : layer + 2]):
            limit = min(config.widths[layer : layer + 2])
            raise bvs.InputError(
                f"layer_ranks {ranks}: layer {layer + 1} must be between the map's rank {rank} and {limit}"
            )


def teacher(config: Config, rng: np.random.Generator) -> list:
    """Balanced layers of the wanted ranks: orthogonal x diagonal x orthogonal, with the excess ranks cancelling.

    A layer's excess directions are mapped to, and taken from, hidden directions that its neighbours do not use.
    """
    depth, rank = len(config.widths) - 1, len(config.spectrum)
    bases = [np.linalg.qr(rng.normal(size=(width, width)))[0] for width in config.widths]
    ranks = config.layer_ranks or (rank,) * depth
    layers, used_below = [], rank
    for layer in range(depth):
        width_in, width_out = config.widths[layer : layer + 2]
        core = np.zeros((width_out, width_in))
        np.fill_diagonal(core[:rank, :rank], np.asarray(config.spectrum) ** (1 / depth))
        excess = ranks[layer] - rank
        if used_below + excess > width_in:
            raise bvs.InputError(
                f"layer_ranks {config.layer_ranks}: layers {layer} and {layer + 1} need {used_below + excess} directions of "
                f"width {width_in}, or their excess would add to the map's rank {rank}"
            )
        core[rank + np.arange(excess), used_below + np.arange(excess)] = 1.0
        layers.append(bases[layer + 1] @ core @ bases[layer].T)
        used_below = rank + excess
    return layers


def random_teacher(config: Config, rng: np.random.Generator) -> list:
    """Xavier-normal layers, each cut with probability 1/2 to a uniform random rank (arXiv:2308.12108, arXiv:2507.21449)."""
    layers = []
    for width_in, width_out in pairwise(config.widths):
        layer = rng.normal(scale=np.sqrt(2 / (width_in + width_out)), size=(width_out, width_in))
        if rng.random() < 0.5:
            left, singular, right = np.linalg.svd(layer, full_matrices=False)
            rank = rng.integers(len(singular) + 1)
            layer = left[:, :rank] * singular[:rank] @ right[:rank]
        layers.append(layer)
    return layers


def draw_inputs(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Inputs that the examples do see."""
    if kind == "uniform":
        return rng.uniform(-10.0, 10.0, shape)
    x = rng.normal(size=shape)
    return x if kind == "gaussian" else np.linalg.qr(x)[0] * np.sqrt(shape[0])


def draw_factor(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Triangular factor R of inputs X = Q R that are not kept.

    Of normal ones it has normals above the diagonal, and chi of n, n - 1, ... degrees of freedom on it (Bartlett, Proc. R.
    Soc. Edinburgh 53 (1933) 260). Uniform ones are drawn in pieces, in single precision.
    """
    count, width = shape
    if kind == "whitened":
        return np.sqrt(count) * np.eye(width)
    if kind == "gaussian":
        return np.triu(rng.normal(size=(width, width)), 1) + np.diag(np.sqrt(rng.chisquare(count - np.arange(width))))
    moment = np.zeros((width, width))
    for start in range(0, count, PIECE):
        x = 20 * rng.random((min(PIECE, count - start), width), np.float32) - 10
        moment += x.T @ x
    return np.linalg.cholesky(moment).T


def draw_offset(config: Config, rng: np.random.Generator) -> float:
    """N L less the sum over the rows R: Q'noise is normal given X, and what Q does not see is noise^2 chi-square."""
    degrees = (config.num_examples - config.widths[0]) * config.widths[-1]
    residual = 0.0 if config.noise_free or degrees == 0 else rng.chisquare(degrees)
    return degrees * np.log(2 * np.pi * config.noise**2) / 2 + residual / 2


def truths(config: Config, weights: list) -> dict:
    """Learning coefficient and multiplicity at this teacher, with the source of each.

    The closed form is that of the best teacher with this map. A layer of more than its rank has a larger local value:
    known for two layers, bounded from below for more.
    """
    seen = [weights[0][:, : config.widths[0]], *weights[1:]]
    rank, ranks = product_ranks(seen)[-1], tuple(product_ranks([layer])[-1] for layer in seen)
    aoyagi = "Aoyagi, Neural Networks 172 (2024) 106132"
    best = learning_coefficient(config.widths, rank)
    found = {
        "learning_coefficient": bvs.Truth(best.value, aoyagi),
        "multiplicity": bvs.Truth(best.multiplicity, aoyagi),
    }
    if set(ranks) == {rank}:
        return found
    found = {"global_learning_coefficient": found["learning_coefficient"]}
    bound, source = (
        local_lower_bound(seen),
        "proven lower bound of the local value: half the rank of the product's differential",
    )
    if best.value > bound:
        bound, source = best.value, f"proven lower bound of the local value: the global one, {aoyagi}"
    found["lower_bound"] = bvs.Truth(bound, source)
    known = f"at least {bound:g}"
    if len(seen) == 2:
        local = local_two_layers(config.widths, rank, ranks)
        split = f"local value of two layers of ranks {ranks}: excess ranks split off, then {aoyagi}"
        found["learning_coefficient"] = bvs.Truth(local.value, split)
        found["multiplicity"] = bvs.Truth(local.multiplicity, split)
        known = f"{local.value:g}"
    warnings.warn(
        f"the teacher's layers have ranks {ranks}, not the map's rank {rank}: its local learning coefficient is {known}, the "
        f"global one {best.value:g}",
        stacklevel=2,
    )
    return found
