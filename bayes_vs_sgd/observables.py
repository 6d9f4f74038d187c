"""What can be recorded: named functions of (model, values), in the program's own values.

Each has a group, which says what verdict it speaks to: ``function`` (what the network computes on the data), ``geometry``
(what flat directions do), ``off_data`` (inputs the data do not contain). The primary ones decide the verdict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .errors import InputError, nearest
from .factorisations import eigenvalues, singular_values
from .function import Function

if TYPE_CHECKING:
    from .model import Model

GROUPS = ("function", "geometry", "off_data")
NUM_PROBES = 4
COSTLY = {"hessian_coordinates", "held_out_loss"}
"""Recorded only where asked for by name: an eigendecomposition, or all held-out examples, a draw."""


@dataclass(frozen=True)
class Observable:
    """A function of (model, values) with the verdict it belongs to.

    Parameters
    ----------
    function
        Returns an array; ``values`` are the program's own (constrained) ones.
    group
        ``"function"``, ``"geometry"``, ``"off_data"``, or None: recorded, not judged.
    primary
        A scalar that decides the verdict of its group; at most four a group.
    mode
        A scalar phi of the weights along which a temperature is measured.
    squared
        Grows as the square of what it measures, as a loss or a squared norm: laws are compared by its root.
    """

    function: Function
    group: str | None = None
    primary: bool = False
    mode: bool = False
    squared: bool = False

    def __call__(self, model: "Model", values: Mapping[str, Array]) -> Array:
        return self.function(model, values)


class HashableDict(dict):
    """A dict of hashable values that can be a static part of a pytree."""

    def __hash__(self):
        return hash(tuple(self.items()))


def observable(
    group: str | None = None, primary: bool = False, mode: bool = False, squared: bool = False
) -> Callable[[Callable], Observable]:
    """Make an observable of a function of (model, values)."""
    return lambda function: Observable(Function(function), group, primary, mode, squared)


def as_observables(given: Mapping[str, Any]) -> HashableDict:
    """Wrap plain functions; they are recorded and not judged."""
    wrapped = {k: v if isinstance(v, Observable) else Observable(Function(v)) for k, v in given.items()}
    for name, item in wrapped.items():
        if item.group not in (None, *GROUPS):
            raise InputError(f"observable {name!r} has group {item.group!r}: {nearest(str(item.group), GROUPS)}")
    for group in GROUPS:
        primary = [name for name, item in wrapped.items() if item.primary and item.group == group]
        limit = 3 if group == "function" and "loss" not in wrapped else 4
        if len(primary) > limit:
            raise InputError(
                f"{len(primary)} primary observables in group {group!r} ({', '.join(primary)}): at most four decide, of which "
                "the loss is one in group 'function'"
            )
    return HashableDict(wrapped)


def available(model: "Model") -> dict[str, Observable]:
    """All that can be recorded of a model: its own observables and properties, and those every model has."""
    found = {"loss": _loss, "squared_norm": _squared_norm}
    predicts = bool(model.facts["observed"])  # a likelihood by numpyro.factor does not
    if predicts and model.holds_examples:
        found["prediction_seen"] = _prediction_seen
    if model.optimum is not None:
        found["distance"] = _distance
        found["hessian_coordinates"] = _hessian_coordinates
    if model.held_out is not None:
        found["held_out_loss"] = _held_out_loss
    if predicts and model.probes is not None:
        found["prediction_unseen"] = _prediction_unseen
        found["predictions_unseen"] = _predictions_unseen
    own_groups = {item.group for item in model.observables.values() if item.primary}
    for name, item in found.items():
        if name != "loss" and item.group in own_groups:
            found[name] = replace(item, primary=False, mode=False)
    properties = {name: Observable(item.function) for name, item in model.properties.items()}
    return found | properties | dict(model.observables)


def select(model: "Model", names: list[str] | tuple[str, ...] | None) -> HashableDict:
    """Return the named observables, all but the costly ones and the properties by default."""
    known = available(model)
    for name in names or ():
        if name not in known:
            raise InputError(f"unknown observable {name!r}: {nearest(name, known)}")
    return HashableDict(
        {name: known[name] for name in (names or sorted(known.keys() - COSTLY - model.properties.keys()))}
    )


@observable("function", primary=True, squared=True)
def _loss(model, values):
    return model.loss(model.unconstrain(values))


@observable("function")
def _held_out_loss(model, values):
    """Mean negative log likelihood of the held-out examples."""
    return jnp.mean(model.held_out_losses(model.unconstrain(values)))


@observable("geometry", primary=True, squared=True)
def _squared_norm(model, values):
    return sum(jnp.sum(v**2) for v in values.values())


@observable("geometry")
def _distance(model, values):
    return jnp.sqrt(sum(jnp.sum((v - model.optimum[k]) ** 2) for k, v in values.items()))


@observable("function")
def _prediction_seen(model, values):
    rows = {k: v[:NUM_PROBES] for k, v in model.data.items() if k not in model.facts["targets"]}
    return _stack(model.predictions(model.unconstrain(values), rows))


@observable("off_data", primary=True)
def _prediction_unseen(model, values):
    return _stack(model.predictions(model.unconstrain(values), model.probes)).ravel()[0]


@observable("off_data")
def _predictions_unseen(model, values):
    return _stack(model.predictions(model.unconstrain(values), model.probes))


@observable("function")
def _hessian_coordinates(model, values):
    """Displacement from the optimum along the eigenvectors of the Hessian of L there, sharpest first."""
    optimum, unflat = ravel_pytree(model.unconstrain(model.optimum))
    hessian = jax.jacfwd(jax.grad(lambda vector: model.loss(unflat(vector))))(optimum)
    _, vectors = jnp.linalg.eigh(hessian)
    return (ravel_pytree(model.unconstrain(values))[0] - optimum) @ vectors[:, ::-1]


def _stack(predictions: Mapping[str, Array]) -> Array:
    arrays = [jnp.reshape(p, (p.shape[0], -1)) for p in predictions.values()]
    return jnp.concatenate(arrays, axis=1)


def linear_network(layers: tuple[str, ...], teacher: Float[Array, "d_out d_in"]) -> dict[str, Observable]:
    """Observables of y = W_L ... W_1 x that rotations of the hidden layers leave alone.

    ``mode_i`` is u_i' W v_i in the teacher's singular basis; ``imbalance`` the eigenvalues of W_{l+1}'W_{l+1} - W_l W_l'
    between layers; ``effective_rank`` the nuclear over the spectral norm.
    """
    left, singular, right = np.linalg.svd(np.asarray(teacher, float), full_matrices=False)
    rank = max(int(np.sum(singular > 1e-6 * max(singular[0], 1e-12))), 1)

    def weights(values):
        return [jnp.atleast_2d(values[name]) for name in layers]

    def product(values):
        result = weights(values)[0]
        for matrix in weights(values)[1:]:
            result = matrix @ result
        return result

    def imbalances(values):
        pairs = zip(weights(values)[:-1], weights(values)[1:], strict=True)
        return [upper.T @ upper - lower @ lower.T for lower, upper in pairs]

    def mode(index):
        return lambda model, values: left[:, index] @ product(values) @ right[index]

    def effective_rank(model, values):
        found = singular_values(product(values))
        return jnp.sum(found) / found[0]

    judged = observable("function", primary=True, mode=True)
    found = {f"mode_{i + 1}": (judged if i in (0, rank - 1) else observable("function"))(mode(i)) for i in range(rank)}
    found["end_to_end"] = observable("function")(lambda model, values: product(values))
    found["singular_values"] = observable("function")(lambda model, values: singular_values(product(values)))
    found["effective_rank"] = observable("function")(effective_rank)
    found["layer_norms"] = observable("geometry")(
        lambda model, values: jnp.stack([jnp.sum(w**2) for w in weights(values)])
    )
    found["total_norm"] = observable("geometry", primary=True, squared=True)(
        lambda model, values: sum(jnp.sum(w**2) for w in weights(values))
    )
    if len(layers) > 1:
        found["imbalance_norm"] = observable("geometry", primary=True, squared=True)(
            lambda model, values: jnp.sqrt(sum(jnp.sum(d**2) for d in imbalances(values)))
        )
        found["imbalance"] = observable("geometry")(
            lambda model, values: jnp.concatenate([eigenvalues(d) for d in imbalances(values)])
        )
    return found
