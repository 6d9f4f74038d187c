"""Properties: scalar functions g of (model, values) whose exceedance g > c is the unsafe event.

Those of this file are what networks are commonly asked about. A model names its own, and may say how likely the event is
where that is known.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from ..factorisations import left_vectors, right_vectors
from ..function import Function
from ..observables import HashableDict

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Property:
    """A scalar of (model, values), with what is known of it.

    Parameters
    ----------
    function
        g: returns one finite number; ``values`` are the program's own (constrained) ones. Differentiable almost everywhere.
    exact
        P(g > c) under a law: a function of (law, threshold) that returns a float, or None for what it does not cover. The
        law is a ``Posterior``, a ``Sublevel`` or a ``Training`` (``laws.py``).
    """

    function: Function
    exact: Function | None = None

    def __post_init__(self):
        for name in ("function", "exact"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Function):
                object.__setattr__(self, name, Function(given))

    def __call__(self, model: "Model", values: Mapping[str, Array]) -> Array:
        return self.function(model, values)


def as_properties(given: Mapping[str, Any], taken: Iterable[str]) -> HashableDict:
    """Wrap plain functions; refuse names that an observable has."""
    for name in set(given) & set(taken):
        raise InputError(f"property {name!r} has the name of an observable: give it another")
    return HashableDict({k: v if isinstance(v, Property) else Property(Function(v)) for k, v in given.items()})


def trigger_response(inputs: Mapping[str, Any], exact: Callable | None = None) -> Property:
    """Largest norm of the predictions at some inputs (arguments of the program): a backdoor, where the data do not reach."""

    def response(model, values):
        return jnp.max(_norms(model.predictions(model.unconstrain(values), inputs)))

    return Property(Function(response), None if exact is None else Function(exact))


def disagreement(inputs: Mapping[str, Any]) -> Property:
    """Root mean square distance between the predictions and those of the optimum (the teacher), at some inputs."""

    def distance(model, values):
        if model.optimum is None:
            raise InputError("disagreement is with the model's optimum, but it names none: give optimum= or --center")
        here, there = (model.predictions(model.unconstrain(v), inputs) for v in (values, model.optimum))
        return _root(jnp.mean(_norms({name: here[name] - there[name] for name in here}) ** 2))

    return Property(Function(distance))


def sensitivity(inputs: Mapping[str, Any], moved: Mapping[str, Any]) -> Property:
    """Largest norm of the change of a prediction when each of some inputs is moved to another."""

    def change(model, values):
        here, there = (model.predictions(model.unconstrain(values), at) for at in (inputs, moved))
        return jnp.max(_norms({name: there[name] - here[name] for name in here}))

    return Property(Function(change))


def rank_excess(layers: tuple[str, ...], rank: int) -> Property:
    """Singular value number k + 1 of W_L ... W_1: above c the map's rank, to that precision, is more than k."""

    def next_value(model, values):
        product = jnp.atleast_2d(values[layers[0]])
        for name in layers[1:]:
            product = jnp.atleast_2d(values[name]) @ product
        fixed = jax.lax.stop_gradient(product)  # the derivative of a singular value is u' dA v
        return jnp.abs(left_vectors(fixed)[:, rank] @ product @ right_vectors(fixed)[:, rank])

    return Property(Function(next_value))


def group_loss(examples: Mapping[str, Any]) -> Property:
    """Mean negative log likelihood of examples of a hidden group, with the names of the model's data."""
    arrays = {name: jnp.asarray(array) for name, array in examples.items()}

    def loss(model, values):
        return jnp.mean(model.losses_on(model.unconstrain(values), arrays))

    return Property(Function(loss))


def _norms(predictions: Mapping[str, Array]) -> Array:
    """Norm of the predictions of each row, over all sites."""
    return _root(sum(jnp.sum(p.reshape(p.shape[0], -1) ** 2, axis=1) for p in predictions.values()))


def _root(square: Any) -> Array:
    """Square root that is zero at zero, as is its gradient there."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
