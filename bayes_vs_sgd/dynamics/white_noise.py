"""White noise added to a gradient: the noise that Langevin dynamics would have."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..model import Model, Position
from ..posterior import Posterior
from .base import hyperparameter
from .gradients import FullBatch, Gradient
from .noise import NoisyGradient
from .words import near_normals


class WhiteNoise(NoisyGradient):
    r"""A gradient plus noise of covariance s^2 I, s the same everywhere, normal up to its fourth moment (``near_normals``).

    On the full batch SGD with it is Langevin dynamics at the temperature :math:`\eta s^2 / 2`, to first order in eta. On
    another gradient it adds :math:`\delta I` to the noise that is there, so that no direction is without.

    Parameters
    ----------
    standard_deviation
        s, in units of the gradient.
    gradient
        What the noise is added to; the full batch by default.
    """

    name: ClassVar = "white noise"
    standard_deviation: Array
    gradient: Gradient

    def __init__(self, standard_deviation: Any = 1.0, gradient: Gradient | None = None):
        self.standard_deviation = hyperparameter("standard_deviation", standard_deviation)
        self.gradient = FullBatch() if gradient is None else gradient

    @classmethod
    def heating(
        cls, scale: float, learning_rate: float, momentum: float = 0.0, gradient: Gradient | None = None
    ) -> "WhiteNoise":
        """The noise at which SGD has the temperature 1/scale: s^2 = 2 (1 - mu) / (eta scale)."""
        return cls(np.sqrt(2 * (1 - momentum) / (learning_rate * scale)), gradient)

    def check(self, model: Model) -> None:
        """Refuse what the gradient refuses."""
        self.gradient.check(model)

    def cost(self, model: Model) -> float:
        """That of the gradient."""
        return self.gradient.cost(model)

    def init(self, num_examples: int, key: Array) -> Any:
        """That of the gradient."""
        return self.gradient.init(num_examples, key)

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """The gradient and a random vector."""
        key, key_noise = jax.random.split(key)
        gradient, state = self.gradient.estimate(target, key, state, position)
        noise = self.standard_deviation * near_normals(key_noise, target.model.num_parameters)
        return jax.tree.map(jnp.add, gradient, target.unflat(noise)), state

    def refined(self, substeps: int) -> "WhiteNoise":
        """Sqrt(m) times the noise."""
        if not isinstance(self.gradient, FullBatch):
            raise InputError(f"white noise on {self.gradient.name} is no equation: give it the full batch")
        return WhiteNoise(self.standard_deviation * np.sqrt(substeps))

    @property
    def settings(self) -> dict[str, Any]:
        """The law of the noise, and of what it is added to."""
        return super().settings | {"added_to": self.gradient.settings}
