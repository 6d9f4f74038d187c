"""The target: tempered and localised posterior of a model, with the gradients every dynamics needs."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .errors import InputError
from .model import Model, Position

OBJECTIVES = ("loss", "posterior")
"""What an optimiser descends: L, or L less log regulariser / (n beta)."""


class Posterior(eqx.Module):
    r"""Tempered posterior of a model, localised at a centre if asked.

    .. math:: p(\theta) \propto \pi(\theta)\, \exp(-n \beta L(\theta) - \tfrac{\gamma}{2} \|\theta - \theta^*\|^2)

    The temperature scales the likelihood alone; the localisation is part of the law. Positions are unconstrained.

    Parameters
    ----------
    model
        The model.
    inverse_temperature
        :math:`\beta \ge 0`; a scalar, or one value a chain.
    localization
        Strength :math:`\gamma \ge 0` of the pull to the centre, in units of 1/position squared.
    center
        Values of the program's sites at :math:`\theta^*`; the model's optimum by default.
    """

    model: Model
    inverse_temperature: Float[Array, "..."]
    localization: Float[Array, ""]
    center: Position | None

    def __init__(
        self,
        model: Model,
        inverse_temperature: Any = 1.0,
        localization: Any = 0.0,
        center: Mapping[str, Any] | None = None,
    ):
        self.model = model
        self.inverse_temperature = jnp.asarray(inverse_temperature, float)
        self.localization = jnp.asarray(localization, float)
        for name in ("inverse_temperature", "localization"):
            value = np.asarray(getattr(self, name))
            if not np.all((value >= 0) & np.isfinite(value)):
                raise InputError(f"{name} is {value}: it must be finite and >= 0")
        center = model.optimum if center is None else center
        self.center = None if center is None else model.unconstrain(center)
        if self.center is None and float(self.localization) > 0:
            raise InputError(
                "localization > 0 needs a center: the model names no optimum, so give center={site: value}"
            )
        if self.center is None:
            self.localization = jnp.zeros(())

    def of_one_chain(self) -> "Posterior":
        """Return the target of the first chain, where temperatures or centres have a chain axis."""
        center = self.center
        if center is not None:
            center = {k: center[k].reshape(-1, *shape)[0] for k, shape in self.model.latents}
        return eqx.tree_at(
            lambda t: (t.inverse_temperature, t.center),
            self,
            (jnp.ravel(self.inverse_temperature)[0], center),
            is_leaf=lambda x: x is None,
        )

    @property
    def scale(self) -> Float[Array, "..."]:
        """The factor n beta of the mean loss in the log density."""
        return self.model.num_examples * self.inverse_temperature

    def log_regularizer(self, position: Position) -> Float[Array, ""]:
        """Log prior and localisation: all of the log density that is not data."""
        log_density = self.model.log_prior(position)
        if self.center is None:
            return log_density
        displacement = jax.tree.map(jnp.subtract, position, self.center)
        return log_density - 0.5 * self.localization * sum(jnp.sum(x**2) for x in jax.tree.leaves(displacement))

    def log_density(self, position: Position) -> Float[Array, ""]:
        """Unnormalised log density at an unconstrained position."""
        return self.log_regularizer(position) - self.inverse_temperature * self.model.total_loss(position)

    def weighted_loss(self, position: Position, weights: Float[Array, " n"]) -> Float[Array, ""]:
        """Sum of w_i times the loss of example i; its gradient is one reverse pass for any weights."""
        return jnp.sum(weights * self.model.example_losses(position))

    def expected_loss(self) -> float | None:
        r"""E[L] under this law, exactly, where the model knows it; else None.

        The truth at finite n: an estimate of :math:`n \beta (E[L] - L(\theta^*))` is scored against it, not against the
        learning coefficient. Nothing is known of a localised law, or of several temperatures at once.
        """
        known = self.model.expected_loss
        if known is None or self.inverse_temperature.ndim > 0 or float(self.localization) > 0:
            return None
        value = known(self)
        return None if value is None else float(value)

    def flat(self, position: Position) -> Float[Array, " d"]:
        """Position as one vector, sites in alphabetical order."""
        return ravel_pytree(position)[0]

    def unflat(self, vector: Float[Array, " d"]) -> Position:
        """Position of a vector made by ``flat``."""
        zeros = {name: jnp.zeros(shape) for name, shape in self.model.latents}
        return ravel_pytree(zeros)[1](vector)
