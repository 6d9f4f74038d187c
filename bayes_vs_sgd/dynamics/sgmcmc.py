"""Stochastic-gradient Langevin dynamics, and what all stochastic-gradient samplers share."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info, hyperparameter, plain
from .gradients import Gradient, make_gradient, regularizer_gradient
from .words import near_normals


class StochasticGradientSampler(Dynamics):
    """A step size, and the gradient of the log density on a batch: unbiased, with covariance S = (n beta)^2 C/B.

    Parameters
    ----------
    step_size
        In units that each sampler states.
    batch_size
        Examples a step; None for all of them (on the model's compressed data where it has them).
    sampling
        ``"replacement"`` or ``"shuffled"`` (epochs).
    """

    law: ClassVar = "approximate"
    batched: ClassVar = ("step_size",)
    step_size: Array
    gradient: Gradient

    def __init__(self, step_size: Any, batch_size: int | None = None, sampling: str | Gradient = "replacement"):
        self.step_size = hyperparameter("step_size", step_size)
        self.gradient = make_gradient(batch_size, sampling)

    def prepare(self, target: Posterior) -> "StochasticGradientSampler":
        """Check the batch size against the data."""
        self.gradient.check(target.model)
        return self

    def first_epoch(self, target: Posterior, key: Array) -> Any:
        """Place in the epoch before the first step."""
        return self.gradient.init(target.model.num_examples, key)

    def force(
        self, target: Posterior, key: Array, position: Position, epoch: Any
    ) -> tuple[Position, Position, Any, Info]:
        """Gradients of the log density and of the loss on the next batch, place in the epoch, info."""
        loss, epoch = self.gradient.estimate(target, key, epoch, position)
        density = jax.tree.map(lambda r, g: r - target.scale * g, regularizer_gradient(target, position), loss)
        info = {"num_gradients": jnp.asarray(self.gradient.cost(target.model))}
        return density, loss, epoch, info

    @property
    def step_time(self) -> Array:
        """The SDE's own time."""
        return self.step_size

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        return {name: plain(getattr(self, name)) for name in self.batched} | self.gradient.settings


def normal(target: Posterior, key: Array) -> Position:
    """Independent increments in the shape of a position, normal up to their fourth moment.

    The bias of these samplers is of first or second order in the step as it is; increments of the right first three moments
    keep that order (Kloeden and Platen 1992, section 14.1), and cost a fifth.
    """
    return target.unflat(near_normals(key, target.model.num_parameters))


class SGLDState(NamedTuple):
    """Position, place in the epoch."""

    position: Position
    epoch: Any


class SGLD(StochasticGradientSampler):
    r"""Stochastic-gradient Langevin dynamics (Welling and Teh 2011).

    .. math:: \theta' = \theta + \epsilon \widehat{\nabla \log p}(\theta) + \sqrt{2 \epsilon}\, \xi

    It targets the posterior up to O(step size), at a fixed time too (weak order 1), plus the minibatch's own noise: on a
    quadratic of curvature h (of -log p) the variance is exactly (1 + epsilon S / 2) / (h (1 - epsilon h / 2)), S being the
    variance of the gradient (0 with the full batch). BlackJAX's convention; Lau et al. and devinterp write drift epsilon/2
    and noise sqrt(epsilon), so their epsilon is twice ours.

    Parameters
    ----------
    step_size
        epsilon, in units of position squared.
    batch_size
        Examples a step; None for all of them (on the model's compressed data where it has them).
    sampling
        ``"replacement"`` or ``"shuffled"`` (epochs).
    """

    def __init__(self, step_size: Any = 1e-4, batch_size: int | None = None, sampling: str = "replacement"):
        super().__init__(step_size, batch_size, sampling)

    def init(self, target: Posterior, key: Array, position: Position) -> SGLDState:
        """Start at a position."""
        return SGLDState(position, self.first_epoch(target, key))

    def step(self, target: Posterior, key: Array, state: SGLDState) -> tuple[SGLDState, Info]:
        """One Euler-Maruyama step."""
        key_rows, key_noise = jax.random.split(key)
        gradient, _, epoch, info = self.force(target, key_rows, state.position, state.epoch)
        position = jax.tree.map(
            lambda x, g, z: x + self.step_size * g + jnp.sqrt(2 * self.step_size) * z,
            state.position,
            gradient,
            normal(target, key_noise),
        )
        return SGLDState(position, epoch), info
