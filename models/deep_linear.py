"""Deep linear network y = W_L ... W_1 x + noise: the simplest deep network, and one whose posterior is exactly known."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.evidence import regression_total_loss, two_layer_total_loss
from bayes_vs_sgd.theory.linear_networks import learning_coefficient, local_lower_bound, local_two_layers


@dataclass(frozen=True)
class Config:
    """Widths, teacher, inputs, noise and prior."""

    widths: tuple[int, ...] = (3, 3, 3)  # from input to output, without the unseen inputs
    spectrum: tuple[float, ...] = (2.0, 1.0, 0.4)  # singular values of the teacher's map; their number is its rank
    layer_ranks: tuple[int, ...] = ()  # rank of each teacher layer; minimal (that of the map) if empty
    inputs: str = "whitened"  # "whitened" (X'X = n I exactly), "gaussian" or "uniform" (on [-10, 10])
    unseen_inputs: int = 1  # further inputs that are zero in every example
    num_examples: int = 1000
    num_held_out: int = 1000  # further examples that nothing is fitted to, >= 2
    noise: float = 3.0  # standard deviation of the observations
    noise_free: bool = False  # labels without noise; the likelihood keeps it
    prior_scale: float = 1.0  # standard deviation of every weight's prior


def build(config: Config, key) -> bvs.Model:
    """Draw a teacher and data from it."""
    check(config)
    return network(config, *draw(config, key))


def controls(config: Config, key) -> dict[str, bvs.Model]:
    """What depth alone does: the same data with one layer; and a tanh network of the same widths."""
    weights, data, held_out = draw(config, key)
    seen = config.widths[0]
    shallow = replace(config, widths=(seen, config.widths[-1]), unseen_inputs=0, layer_ranks=())
    alone = [end_to_end(weights)[:, :seen]]
    found = {"one layer": network(shallow, alone, *({"x": d["x"][:, :seen], "y": d["y"]} for d in (data, held_out)))}
    if len(config.widths) > 2:
        tanh = Path(__file__).with_name("tanh_network.py")
        units = min(config.widths[1:-1])
        same = {"widths": config.widths, "data_seed": int(jax.random.key_data(key)[-1])}
        found["tanh"] = bvs.load_model(tanh, teacher_units=units, num_examples=256, noise=1.0, **same)
    return found


def network(config: Config, weights: list, data: dict, held_out: dict) -> bvs.Model:
    """Deep linear network around a teacher."""
    layers = tuple(f"W{i + 1}" for i in range(len(weights)))
    shapes, noise, prior_scale = tuple(w.shape for w in weights), config.noise, config.prior_scale

    def program(x, y=None):
        hidden = x
        for name, shape in zip(layers, shapes, strict=True):
            hidden = hidden @ numpyro.sample(name, dist.Normal(0, prior_scale).expand(shape).to_event(2)).T
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(hidden, noise).to_event(1), obs=y)

    q, r = np.linalg.qr(data["x"])  # x = q r, so |x A - y|^2 = |r A - q' y|^2 + constant
    return bvs.Model(
        program,
        data=data,
        optimum=dict(zip(layers, weights, strict=True)),
        truth=truths(config, weights),
        probes={"x": np.eye(weights[0].shape[1])[config.widths[0] :]} if config.unseen_inputs else None,
        observables=bvs.linear_network(layers, end_to_end(weights)),
        exact_sampler=bvs.LinearNetworkGibbs(layers, config.noise, config.prior_scale),
        compressed={"x": r, "y": q.T @ data["y"]},
        held_out=held_out,
        expected_loss=partial(expected_loss, config),
    )


def expected_loss(config: Config, target: bvs.Posterior) -> float | None:
    """E[L] of one layer in closed form, of two with one output up to one integral (``theory/evidence.py``)."""
    widths, model, beta = config.widths, target.model, float(target.inverse_temperature)
    x, y = (np.asarray(model.compressed[name], float) for name in "xy")
    if len(widths) == 2:
        total = regression_total_loss(x, y, config.noise, config.prior_scale, beta)
    elif len(widths) == 3 and widths[-1] == 1:
        total = two_layer_total_loss(x, y, widths[1], config.noise, config.prior_scale, beta)
    else:
        return None
    return (total + float(model.offset)) / model.num_examples


def draw(config: Config, key) -> tuple[list, dict, dict]:
    """Teacher, data, and examples held out (whose inputs are normal where the data's are whitened)."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    first, *rest = teacher(config, rng)
    weights = [np.pad(first, ((0, 0), (0, config.unseen_inputs))), *rest]

    def examples(inputs, count):
        x = np.pad(draw_inputs(inputs, (count, config.widths[0]), rng), ((0, 0), (0, config.unseen_inputs)))
        label_noise = 0.0 if config.noise_free else config.noise
        return {"x": x, "y": x @ end_to_end(weights).T + label_noise * rng.normal(size=(count, config.widths[-1]))}

    data = examples(config.inputs, config.num_examples)
    return weights, data, examples("gaussian" if config.inputs == "whitened" else config.inputs, config.num_held_out)


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
    if rank > smallest:
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


def draw_inputs(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Inputs that the examples do see."""
    if kind == "uniform":
        return rng.uniform(-10.0, 10.0, shape)
    x = rng.normal(size=shape)
    return x if kind == "gaussian" else np.linalg.qr(x)[0] * np.sqrt(shape[0])


def truths(config: Config, weights: list) -> dict:
    """Learning coefficient and multiplicity at this teacher."""
    rank = len(config.spectrum)
    aoyagi = "Aoyagi, Neural Networks 172 (2024) 106132"
    value = learning_coefficient(config.widths, rank)
    found = {
        "learning_coefficient": bvs.Truth(value.value, aoyagi),
        "multiplicity": bvs.Truth(value.multiplicity, aoyagi),
    }
    if config.layer_ranks and any(r != rank for r in config.layer_ranks):
        bound = local_lower_bound(weights)
        local = local_two_layers(config.widths, rank, config.layer_ranks).value if len(weights) == 2 else None
        warnings.warn(
            f"the teacher's layers have ranks {config.layer_ranks}, not the map's rank {rank}: its local learning coefficient "
            f"is {f'at least {bound:g}' if local is None else f'{local:g}'}, the global one {value.value:g}",
            stacklevel=2,
        )
        found["global_learning_coefficient"] = found.pop("learning_coefficient")
        found["lower_bound"] = bvs.Truth(bound, "half the rank of the product's differential")
        if local is not None:
            found["learning_coefficient"] = bvs.Truth(local, "two-layer local value, excess ranks split off")
    return found
