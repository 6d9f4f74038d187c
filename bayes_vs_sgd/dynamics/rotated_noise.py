"""Noise turned to random directions: isotropic, and as large as it was."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..model import Model, Position
from ..posterior import Posterior
from .gradients import Gradient


class RotatedNoise(Gradient):
    r"""A gradient whose noise nu points anywhere: each draw is turned to a direction u that is uniform on the sphere.

    .. math:: g' = \nabla L + |\nu|\, u, \qquad \mathrm{Cov}\, g' = \frac{\mathrm{tr}\, \mathrm{Cov}\, g}{d}\, I

    at every position. Where ``IsotropicNoise`` keeps the trace of a minibatch's noise alone, this keeps all of the law of its
    size, of any gradient whose mean is the full batch's, and takes one more full batch, not a pass over single examples. Noises
    of an epoch, which cancel, no longer do: they are independent too.

    Parameters
    ----------
    gradient
        What is turned.
    """

    name: ClassVar = "noise turned to random directions"
    gradient: Gradient

    def check(self, model: Model) -> None:
        """Refuse what the gradient refuses."""
        self.gradient.check(model)

    def cost(self, model: Model) -> float:
        """That of the gradient and of the full batch."""
        return self.gradient.cost(model) + model.num_rows

    def init(self, num_examples: int, key: Array) -> Any:
        """That of the gradient."""
        return self.gradient.init(num_examples, key)

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """The full batch's gradient, and noise of a size that the gradient drew."""
        key, key_direction = jax.random.split(key)
        gradient, state = self.gradient.estimate(target, key, state, position)
        mean = target.flat(jax.grad(target.model.loss)(position))
        direction = jax.random.normal(key_direction, mean.shape)
        size = jnp.linalg.norm(target.flat(gradient) - mean) / jnp.linalg.norm(direction)
        return target.unflat(mean + size * direction), state

    @property
    def settings(self) -> dict[str, Any]:
        """What is turned."""
        return super().settings | {"turned": self.gradient.settings}
