"""Stochastic-gradient Langevin dynamics."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info, hyperparameter, plain
from .gradients import Gradient, make_gradient


class SGLDState(NamedTuple):
    """Position, place in the epoch."""

    position: Position
    epoch: Any


class SGLD(Dynamics):
    r"""Stochastic-gradient Langevin dynamics (Welling and Teh 2011).

    .. math:: \theta' = \theta + \epsilon \widehat{\nabla \log p}(\theta) + \sqrt{2 \epsilon}\, \xi

    It targets the posterior up to O(step size), plus the minibatch's own noise: on a quadratic of curvature h (of
    -log p) the variance is 1/(h (1 - epsilon h / 2)) with the full batch. BlackJAX's convention; Lau et al. and
    devinterp write drift epsilon/2 and noise sqrt(epsilon), so their epsilon is twice ours.

    Parameters
    ----------
    step_size
        epsilon, in units of position squared.
    batch_size
        Examples a step; None for all of them (on the model's compressed data where it has them).
    """

    law: ClassVar = "approximate"
    batched: ClassVar = ("step_size",)
    step_size: Array
    gradient: Gradient

    def __init__(self, step_size: Any = 1e-4, batch_size: int | None = None, sampling: str = "replacement"):
        self.step_size = hyperparameter("step_size", step_size)
        self.gradient = make_gradient(batch_size, sampling)

    def prepare(self, target: Posterior) -> "SGLD":
        """Check the batch size against the data."""
        self.gradient.check(target.model)
        return self

    def init(self, target: Posterior, key: Array, position: Position) -> SGLDState:
        """Start at a position."""
        return SGLDState(position, self.gradient.init(target.model.num_examples, key))

    def step(self, target: Posterior, key: Array, state: SGLDState) -> tuple[SGLDState, Info]:
        """One Euler-Maruyama step."""
        key_rows, key_noise = jax.random.split(key)
        num_examples = target.model.num_examples
        rows, epoch = self.gradient.draw(num_examples, key_rows, state.epoch)

        def log_density(position):
            return target.log_regularizer(position) - target.scale * target.objective(position, rows, "loss")

        noise = target.unflat(jax.random.normal(key_noise, (target.model.num_parameters,)))
        position = jax.tree.map(
            lambda x, g, z: x + self.step_size * g + jnp.sqrt(2 * self.step_size) * z,
            state.position,
            jax.grad(log_density)(state.position),
            noise,
        )
        return SGLDState(position, epoch), {"num_gradients": jnp.asarray(float(self.gradient.rows(num_examples)))}

    @property
    def step_time(self) -> Array:
        """The SDE's own time."""
        return self.step_size

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        batch = getattr(self.gradient, "batch_size", None)
        return {"step_size": plain(self.step_size), "batch_size": batch, "sampling": self.gradient.name}
