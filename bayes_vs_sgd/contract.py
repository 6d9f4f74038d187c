"""What a NumPyro program must satisfy to be a model, checked by one trace before anything compiles."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions import biject_to

from .errors import InputError, nearest

if TYPE_CHECKING:
    from .model import Model


def check_data(data: Mapping[str, Any] | None) -> dict[str, Array]:
    """Return the data as arrays, floats in the current precision; refuse unequal lengths and non-finite values."""
    if not data:
        raise InputError("the model has no data: give a dict of arrays whose leading axis is the examples")
    arrays = {}
    for name, value in data.items():
        array = np.asarray(value)
        if array.ndim == 0 or array.shape[0] == 0:
            raise InputError(f"data {name!r} has shape {array.shape}: the leading axis must be the examples")
        if np.issubdtype(array.dtype, np.inexact) and not np.all(np.isfinite(array)):
            bad = int(np.argwhere(~np.isfinite(array.reshape(array.shape[0], -1)).all(axis=1))[0, 0])
            raise InputError(f"data {name!r} is not finite at example {bad}: remove or fill NaN and infinite values")
        arrays[name] = jnp.asarray(array, float) if np.issubdtype(array.dtype, np.inexact) else jnp.asarray(array)
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"arrays of unequal length {lengths}: the leading axis of every array is the examples")
    return arrays


def check_stands_for(data: Any, compressed: Any, num_examples: int | None, offset: Any) -> int | None:
    """Return how many examples the compressed rows stand for; None where the data are the examples."""
    if num_examples is None and offset is None and (data is not None or compressed is None):
        return None
    if data is not None or compressed is None or num_examples is None or offset is None:
        raise InputError("num_examples and offset belong to compressed rows without data: give all three, or the data")
    if int(num_examples) != num_examples or num_examples < 1 or not np.isfinite(float(offset)):
        raise InputError(
            f"num_examples is {num_examples} and offset {offset}: give a whole number >= 1 and a finite one"
        )
    return int(num_examples)


def check_held_out(held_out: Mapping[str, Any], data: Mapping[str, Array]) -> dict[str, Array]:
    """Return the held-out examples as arrays; refuse other names or shapes than those of the data."""
    arrays = check_alike(held_out, data, "held-out examples")
    if len(next(iter(arrays.values()))) < 2:
        raise InputError("one held-out example: give at least two, so that there is an error to print")
    return arrays


def check_alike(examples: Mapping[str, Any], data: Mapping[str, Array], what: str) -> dict[str, Array]:
    """Return further examples as arrays; refuse other names or shapes than those of the data."""
    arrays = check_data(examples)
    shapes = {name: array.shape[1:] for name, array in data.items()}
    if (found := {name: array.shape[1:] for name, array in arrays.items()}) != shapes:
        raise InputError(f"{what} have shapes {found}, the data's have {shapes}: give arrays of the same kind")
    return arrays


def check_fresh(model: "Model") -> None:
    """Refuse fresh examples of other names, shapes or kinds than the data's."""
    if (fresh := model.fresh) is None:
        return
    drawn = jax.eval_shape(lambda key: fresh(key, 3), jax.random.key(0))
    found = {name: (array.shape, jnp.result_type(array)) for name, array in drawn.items()}
    wanted = {name: ((3, *array.shape[1:]), array.dtype) for name, array in model.data.items()}
    if found != wanted:
        raise InputError(
            f"three fresh examples are {found}, the data's would be {wanted}: give arrays of the same kind"
        )


def check_program(model: "Model") -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Trace the program once and return the latent sites with their unconstrained shapes."""
    from .model import EXAMPLES, examples_plate, is_factor

    trace = _seeded_trace(model, model.data)
    num_rows = len(next(iter(model.data.values())))
    latents, observed = {}, []
    for name, site in trace.items():
        if site["type"] == "param":
            raise InputError(f"numpyro.param {name!r}: give it a prior with numpyro.sample, or fix its value")
        if site["type"] == "plate" and name == EXAMPLES and site["args"][0] != num_rows:
            raise InputError(
                f"plate 'examples' has size {site['args'][0]} but the data have {num_rows} rows: take its "
                "size from the arguments, as in numpyro.plate('examples', x.shape[0]), without subsample_size"
            )
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise InputError(f"plate {name!r} has a subsample_size: leave it out, the dynamics draw the minibatches")
        if site["type"] != "sample":
            continue
        if not site["is_observed"]:
            if examples_plate(site):
                raise InputError(f"latent site {name!r} is inside the plate 'examples': only observed sites may be")
            if site["fn"].is_discrete:
                raise InputError(f"latent site {name!r} is discrete: dynamics need continuous parameters; sum it out")
            latents[name] = site["unconstrained_shape"]
        elif examples_plate(site):
            observed += [] if is_factor(site) else [name]
        elif not is_factor(site):
            raise InputError(f"observed site {name!r} is outside a plate called 'examples': put it inside")
    if not latents:
        raise InputError("the program has no latent site: give its parameters priors with numpyro.sample")
    if not any(site["type"] == "sample" and site["is_observed"] and examples_plate(site) for site in trace.values()):
        raise InputError(
            "the program has no observed site in a plate called 'examples': write "
            "`with numpyro.plate('examples', x.shape[0]): numpyro.sample('y', ..., obs=y)`"
        )
    _check_subset(model)
    model.facts["observed"] = observed
    model.facts["targets"] = _arguments_observed(model, trace, observed)
    unknown = set(model.optimum or {}) ^ set(latents) if model.optimum is not None else set()
    if unknown:
        name = sorted(unknown)[0]
        raise InputError(f"optimum and program differ in site {name!r}: {nearest(name, latents)}")
    for name, shape in latents.items():
        if model.optimum is not None and not np.all(np.isfinite(np.asarray(model.optimum[name]))):
            raise InputError(f"optimum {name!r} is not finite")
        if model.optimum is not None and np.shape(model.optimum[name]) != np.shape(trace[name]["value"]):
            given, wanted = np.shape(model.optimum[name]), np.shape(trace[name]["value"])
            raise InputError(f"optimum {name!r} has shape {given}, the program's site has {wanted}")
        latents[name] = tuple(int(s) for s in shape)
    return tuple(latents.items())


def check_compressed(model: "Model") -> Array:
    """Return the constant between n L and the compressed sum; refuse data that are not equivalent."""
    rng = np.random.default_rng(0)
    positions = {name: jnp.asarray(rng.normal(size=(3, *shape)), float) for name, shape in model.latents}
    results = jax.tree.map(np.asarray, _full_and_compressed(model, positions))
    (values, gradients), (small_values, small_gradients) = results
    for name in gradients:
        for seed in range(len(values)):
            size = max(float(np.max(np.abs(leaf[seed]))) for leaf in gradients.values())
            tolerance = 1e4 * float(np.finfo(values.dtype).eps) * (size + 1.0)
            error = float(np.max(np.abs(gradients[name][seed] - small_gradients[name][seed])))
            if not error <= tolerance:
                raise InputError(
                    f"compressed data give another gradient for {name!r} (off by {error:.2g} of {size:.2g}): they must "
                    "keep the sum of the examples' log likelihoods up to a constant"
                )
    return jnp.asarray((values - small_values)[0])


@eqx.filter_jit
def _full_and_compressed(model: "Model", positions: dict[str, Array]) -> tuple:
    """Value and gradient of n L at some positions, on all data and on the compressed ones."""
    assert model.compressed is not None
    compressed = model.compressed
    full = jax.value_and_grad(lambda p: jnp.sum(model.example_losses(p)))
    small = jax.value_and_grad(lambda p: -jnp.sum(model._evaluate(p, compressed)[1]))
    return jax.vmap(full)(positions), jax.vmap(small)(positions)


def _seeded_trace(model: "Model", data: Mapping[str, Array | np.ndarray]) -> dict:
    """Trace the program abstractly: nothing is computed, so nothing compiles."""
    kept = {}

    def run():
        kept.update(handlers.trace(handlers.seed(model.program, jax.random.key(0))).get_trace(**data))
        for site in kept.values():  # here, since a support may hold values that exist within this trace alone
            if site["type"] == "sample" and not site["is_observed"] and not site["fn"].is_discrete:
                site["unconstrained_shape"] = jnp.shape(biject_to(site["fn"].support).inv(site["value"]))

    try:
        inspect.signature(model.program.function).bind(**data)
    except TypeError as error:
        raise InputError(f"program and data do not fit: {error}; data are {sorted(data)}") from error
    jax.eval_shape(run)
    return kept


def _check_subset(model: "Model") -> None:
    """Run the program on other numbers of rows than the data's."""
    for num_rows in {1, len(next(iter(model.data.values()))) + 1}:
        rows = {k: np.resize(v, (num_rows, *v.shape[1:])) for k, v in model.data.items()}
        try:
            _seeded_trace(model, rows)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the program does not run on {num_rows} rows of its data ({str(error).splitlines()[0]}): take every "
                "size from the arguments, such as x.shape[0]"
            ) from error


def _arguments_observed(model: "Model", trace: dict, observed: list[str]) -> tuple[str, ...]:
    """Names of the arguments that hold observations and may be left out: the observed sites are then drawn."""
    values = [trace[name]["value"] for name in observed]
    parameters = inspect.signature(model.program.function).parameters
    optional = [name for name in model.data if name not in parameters or parameters[name].default is None]
    return tuple(name for name in optional if any(value is model.data[name] for value in values))
