"""Preconditioned stochastic-gradient Langevin dynamics: a step size for each parameter, found in the warm-up."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .base import Info, hyperparameter
from .sgmcmc import StochasticGradientSampler, normal

ADAPT = ("warmup", "always")


class PreconditionedState(NamedTuple):
    """Position, averaged drift (Adam's alone), second moment V and the weight in it, place in the epoch."""

    position: Position
    drift: Any
    second_moment: Position
    weight: Array
    epoch: Any


class RMSpropSGLD(StochasticGradientSampler):
    r"""Preconditioned SGLD (Li, Chen, Carlson and Carin 2016), by default with a preconditioner at rest.

    .. math::
        \theta' = \theta + \epsilon G \widehat{\nabla \log p}(\theta) + \sqrt{2 \epsilon G}\, \xi, \qquad
        G = \operatorname{diag}\, (\lambda + \sqrt{V})^{-1}

    V is the running second moment of the gradient of the loss L on the batch (no prior, no factor n beta), free of its
    start as in Adam. It is found in the warm-up, each chain its own, and kept for the draws: G is then a constant, no
    drift correction is due, and the law is that of SGLD with step size epsilon G along each axis, the posterior up to
    O(step size). Without a warm-up V = 1.

    With ``adapt="always"`` V follows the draws too, as in devinterp. The correction div G is left out: such a run is
    **uncorrected**, and need not tend to the posterior as the step size tends to 0. On a Gaussian with the full batch and
    decay 0.5 its variances were 34 and 60 % too large where the step size explains 2 and 6 % (measured in the tests).

    Parameters
    ----------
    step_size
        epsilon; epsilon G has units of position squared.
    decay
        Of the running second moment, between 0 and 1.
    damping
        lambda, in units of the gradient of L: no direction moves faster than 1 / lambda.
    batch_size, sampling
        As in ``SGLD``.
    adapt
        ``"warmup"``: V rests after the warm-up; ``"always"``: never, uncorrected.
    """

    batched: ClassVar = ("step_size", "decay", "damping")
    adaptive: ClassVar = True
    decay: Array
    damping: Array
    adapt: str = eqx.field(static=True)

    def __init__(
        self,
        step_size: Any = 1e-5,
        decay: Any = 0.99,
        damping: Any = 0.01,
        batch_size: int | None = None,
        sampling: str = "replacement",
        adapt: str = "warmup",
    ):
        super().__init__(step_size, batch_size, sampling)
        self.decay = hyperparameter("decay", decay, strict=False, below=1.0)
        self.damping = hyperparameter("damping", damping)
        if adapt not in ADAPT:
            raise InputError(f"adapt is {adapt!r}: it must be one of {', '.join(ADAPT)}")
        self.adapt = adapt

    def init(self, target: Posterior, key: Array, position: Position) -> PreconditionedState:
        """Start with V = 1, of no weight."""
        ones = jax.tree.map(jnp.ones_like, position)
        return PreconditionedState(
            position, self._first_drift(position), ones, jnp.zeros(()), self.first_epoch(target, key)
        )

    def step(self, target: Posterior, key: Array, state: PreconditionedState) -> tuple[PreconditionedState, Info]:
        """One step with the preconditioner as it is (or, adapting always, as it becomes)."""
        return self._move(target, key, state, adapt=self.adapt == "always")

    def warmup_step(
        self, target: Posterior, key: Array, state: PreconditionedState, stage: Array
    ) -> tuple[PreconditionedState, Info]:
        """Adapt the preconditioner to the gradient, then step."""
        return self._move(target, key, state, adapt=True)

    def _move(
        self, target: Posterior, key: Array, state: PreconditionedState, adapt: bool
    ) -> tuple[PreconditionedState, Info]:
        key_rows, key_noise = jax.random.split(key)
        gradient, loss_gradient, epoch, info = self.force(target, key_rows, state.position, state.epoch)
        moment, weight = state.second_moment, state.weight
        if adapt:  # an exponential average whose weights sum to 1 from the first gradient on
            weight = 1 + self.decay * weight
            moment = jax.tree.map(lambda v, g: v + (g**2 - v) / weight, moment, loss_gradient)
        drift, force = self._average(state.drift, gradient)

        def moved(x, v, f, z):
            size = self.step_size / (self.damping + jnp.sqrt(v))
            return x + size * f + jnp.sqrt(2 * size) * z

        position = jax.tree.map(moved, state.position, moment, force, normal(target, key_noise))
        return PreconditionedState(position, drift, moment, weight, epoch), info

    def _first_drift(self, position: Position) -> Any:
        return ()

    def _average(self, drift: Any, gradient: Position) -> tuple[Any, Position]:
        """What is remembered of the gradients, and the drift made of it."""
        return drift, gradient

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        corrected = {"warmup": "at rest in the draws", "always": "uncorrected"}[self.adapt]
        return super().settings | {"adapt": self.adapt, "preconditioner": corrected}


class AdamSGLD(RMSpropSGLD):
    r"""RMSprop-SGLD whose drift is averaged as Adam's is.

    .. math:: m' = b m + (1 - b) \widehat{\nabla \log p}(\theta), \qquad
        \theta' = \theta + \epsilon G m' + \sqrt{2 \epsilon G}\, \xi

    The average lags by about 1/(1 - b) steps, so the law is the posterior up to O(step size / (1 - b)). On a quadratic
    of curvature h, with a = epsilon G, gradient variance S and G at rest, the variance is exactly

    .. math:: \frac1h \Big(1 + \frac{a D (1 + b)}{2 (1 - b)}\Big), \qquad
        D = \frac{h (1 + b) + S (1 - b)}{1 + b - a h (1 - b) / 2}

    (from the Lyapunov equation of (theta, m)): for small a (1 + b)/(1 - b) times the excess of SGLD, 19 times at b = 0.9.
    The average stands in the place of the gradient; Kim, Song and Liang (2020) add a multiple of it to the gradient,
    which biases the drift on purpose.

    Parameters
    ----------
    step_size, decay, damping, batch_size, sampling, adapt
        As in ``RMSpropSGLD``.
    drift_decay
        b, between 0 and 1.
    """

    batched: ClassVar = ("step_size", "drift_decay", "decay", "damping")
    drift_decay: Array

    def __init__(self, step_size: Any = 1e-5, drift_decay: Any = 0.9, decay: Any = 0.999, **settings: Any):
        super().__init__(step_size, decay, **settings)
        self.drift_decay = hyperparameter("drift_decay", drift_decay, strict=False, below=1.0)

    def _first_drift(self, position: Position) -> Any:
        return jax.tree.map(jnp.zeros_like, position)

    def _average(self, drift: Any, gradient: Position) -> tuple[Any, Position]:
        drift = jax.tree.map(lambda m, g: self.drift_decay * m + (1 - self.drift_decay) * g, drift, gradient)
        return drift, drift
