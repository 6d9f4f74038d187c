r"""Gradients that are the full batch with noise of a known law: what SGD's noise is taken apart into.

``GaussianNoise`` keeps the covariance of SGD's noise and drops the rest of its law, ``IsotropicNoise`` keeps the trace alone,
``StableNoise`` has heavy tails, ``LabelNoise`` perturbs the labels. Each also says what a time step of 1/m of its length
takes (``refined``): so the same objects drive the stochastic differential equations of ``sde.py``.
"""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..curvature import example_gradient
from ..errors import InputError
from ..model import Model, Position
from ..posterior import Posterior
from ..stable import isotropic_stable, symmetric_stable
from .base import hyperparameter, plain
from .gradients import Fresh, Gradient, Minibatch, Shuffled
from .words import near_normals

CURVED = 1e-3
"""Second difference of the gradient over twice the first, by labels, from which on it is not linear in them."""
ROWS = 4
"""Examples whose gradients are made at once."""


class NoisyGradient(Gradient):
    """The gradient of L on all examples, with noise of mean zero."""

    def refined(self, substeps: int) -> "NoisyGradient":
        """Noise for a time step of 1/m of the length: of 1/sqrt(m) the effect, so sqrt(m) times the size.

        A Euler-Maruyama step of length h = eta/m adds sqrt(eta h) nu, Cov nu = Cov g_B; the step -h g adds h times the noise
        of g, which therefore is sqrt(m) nu.
        """
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, Any]:
        """The law of the noise, as plain values."""
        values = {k: plain(v) for k, v in vars(self).items() if eqx.is_array(v)}
        return super().settings | values


class MinibatchNoise(NoisyGradient):
    """Gaussian noise made of the covariance C/B of a minibatch's gradient, where the position is.

    Parameters
    ----------
    batch_size
        B, which need not be whole.
    """

    part: ClassVar[str]
    """What it keeps of the covariance."""
    batch_size: Array

    def check(self, model: Model) -> None:
        """Refuse models without single examples."""
        model.require_examples(f"noise of the minibatch's {self.part}")

    def refined(self, substeps: int) -> Self:
        """A batch of B/m has sqrt(m) times the noise."""
        return type(self)(self.batch_size / substeps)


class GaussianNoise(MinibatchNoise):
    r"""Gaussian noise with exactly the covariance of a minibatch's gradient, C/B, where the position is.

    .. math:: g = \sum_i \Big(\frac1n + w_i\Big) \nabla \ell_i, \qquad w = (z - \bar z) / \sqrt{n B}

    with z of mean 0 and covariance I_n: Cov w = (I - 11'/n)/(nB) makes Cov g = C/B, C = (1/n) sum_i grad l_i grad l_i' -
    grad L grad L'. One reverse pass on all examples, and no root of a matrix (design after Malladi et al. 2022 and Wu et al.
    2020). The z are counts of fair bits (``near_normals``): a sum over n examples is normal up to an excess kurtosis of order
    1/(16 n), and the covariance is exact.

    Parameters
    ----------
    batch_size
        B, which need not be whole.
    """

    name: ClassVar = "full batch + Gaussian noise of the minibatch's covariance"
    part: ClassVar = "covariance"

    def __init__(self, batch_size: Any = 8):
        self.batch_size = hyperparameter("batch_size", batch_size)

    def weights(self, key: Array, num_examples: int) -> Float[Array, " n"]:
        """Draw 1/n + w."""
        return 1 / num_examples + centred(near_normals(key, num_examples)) / jnp.sqrt(num_examples * self.batch_size)

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient of a weighted loss."""
        return jax.grad(target.weighted_loss)(position, self.weights(key, target.model.num_examples)), state


class IsotropicNoise(MinibatchNoise):
    r"""Gaussian noise of covariance (tr C / d B) I: that of a minibatch's gradient, shared equally by all directions.

    tr C is that at the position, exactly: a pass over the examples one by one.

    Parameters
    ----------
    batch_size
        B, which need not be whole.
    """

    name: ClassVar = "full batch + isotropic noise of the minibatch's trace"
    part: ClassVar = "trace"

    def __init__(self, batch_size: Any = 8):
        self.batch_size = hyperparameter("batch_size", batch_size)

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient on all examples, and noise of the spread of theirs."""
        model = target.model
        mean = target.flat(jax.grad(model.loss)(position))

        def spread(row: Array) -> Array:
            return jnp.mean((example_gradient(model, position, row) - mean) ** 2)

        # Few rows at a time: with many chains, the gradients of all would not fit the cache.
        variance = jnp.mean(jax.lax.map(spread, jnp.arange(model.num_examples), batch_size=ROWS)) / self.batch_size
        noise = jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
        return target.unflat(mean + noise), state


class StableNoise(NoisyGradient):
    r"""Symmetric alpha-stable noise, of infinite variance for alpha < 2.

    Of every coordinate the characteristic function is exp(-(s |k|)^alpha / 2^(alpha/2)): alpha = 2 is N(0, s^2). With
    ``of="parameters"`` the law is rotationally symmetric; with ``of="examples"`` it is

    .. math:: \sum_i w_i \nabla \ell_i, \qquad w = s\, (z - \bar z)\, n^{-1/\alpha} B^{-1/2},

    z independent and stable: heavy tails along the directions in which the examples differ, ``GaussianNoise`` at alpha = 2.

    Parameters
    ----------
    alpha
        Tail index in (0, 2].
    scale
        s, in units of the gradient (``"parameters"``) or a number (``"examples"``).
    of
        ``"parameters"`` or ``"examples"``.
    batch_size
        B of ``"examples"``.
    """

    name: ClassVar = "full batch + stable noise"
    alpha: Array
    scale: Array
    batch_size: Array | None
    of: str = eqx.field(static=True)

    def __init__(self, alpha: Any = 1.5, scale: Any = 1.0, of: str = "parameters", batch_size: Any = None):
        if of not in ("parameters", "examples"):
            raise InputError(f"of is {of!r}: it must be parameters or examples")
        self.alpha = hyperparameter("alpha", alpha)
        if not np.all(np.asarray(self.alpha) <= 2):
            raise InputError(f"alpha is {alpha}: a stable law has 0 < alpha <= 2")
        self.scale = hyperparameter("scale", scale)
        if (batch_size is None) != (of == "parameters"):
            raise InputError(f"batch_size is {batch_size}: it belongs to noise of the examples, and is needed there")
        self.batch_size = None if batch_size is None else hyperparameter("batch_size", batch_size)
        self.of = of

    def check(self, model: Model) -> None:
        """Refuse models without single examples where they make the noise."""
        if self.of == "examples":
            model.require_examples("stable noise of the examples")

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient of L and a stable vector, or gradient of a weighted loss."""
        model = target.model
        if self.batch_size is None:
            noise = self.scale * isotropic_stable(key, self.alpha, (model.num_parameters,))
            return jax.tree.map(jnp.add, jax.grad(model.loss)(position), target.unflat(noise)), state
        number = model.num_examples
        weights = centred(symmetric_stable(key, self.alpha, (number,))) * number ** (-1 / self.alpha)
        weights = 1 / number + self.scale * weights / jnp.sqrt(self.batch_size)
        return jax.grad(target.weighted_loss)(position, weights), state

    def refined(self, substeps: int) -> "StableNoise":
        """Increments of a Levy process over h have size h^(1/alpha): m^(1 - 1/alpha) times the noise."""
        return StableNoise(self.alpha, self.scale * substeps ** (1 - 1 / self.alpha), self.of, self.batch_size)


class LabelNoise(NoisyGradient):
    r"""The gradient on all examples, their labels perturbed afresh at each step by numbers eps of variance s^2.

    For squared loss L = (1/2n) sum_i |f_i - y_i|^2 its noise is -(1/n) sum_i eps_i grad f_i: covariance (s/n)^2 Phi'Phi, which
    moves along the tangent space of the network alone and does not vanish at zero loss. The eps are counts of fair bits, as
    those of ``GaussianNoise``.

    Parameters
    ----------
    standard_deviation
        s, in units of the labels.
    """

    name: ClassVar = "full batch + label noise"
    standard_deviation: Array

    def __init__(self, standard_deviation: Any = 1.0):
        self.standard_deviation = hyperparameter("standard_deviation", standard_deviation)

    def check(self, model: Model) -> None:
        """Refuse models whose labels are not numbers that can be perturbed."""
        model.require_examples("label noise")
        targets = model.facts["targets"]
        if not targets:
            raise InputError("label noise needs an argument that the program observes, such as y=None in program(x, y)")
        for name in targets:
            if not jnp.issubdtype(model.data[name].dtype, jnp.floating):
                raise InputError(f"label noise needs labels that are floats: {name!r} is {model.data[name].dtype}")

    def estimate(self, target: Posterior, key: Array, state: Any, position: Position) -> tuple[Position, Any]:
        """Gradient of the loss on perturbed labels."""
        return self.perturbed(target.model, position, key, 1.0), state

    def perturbed(self, model: Model, position: Position, key: Array, share: float) -> Position:
        """Gradient on labels that are perturbed by a share of the noise."""
        flat, unravel = ravel_pytree({name: model.data[name] for name in model.facts["targets"]})
        noisy = unravel(flat + share * self.standard_deviation * near_normals(key, flat.size))
        return jax.grad(lambda p: jnp.mean(model.losses_on(p, model.data | noisy)))(position)

    def is_linear(self, model: Model, position: Position) -> bool:
        """Whether the gradient is linear in the labels, as of squared loss, so that noise does not move its mean."""
        up, here, down = (
            ravel_pytree(self.perturbed(model, position, jax.random.key(0), share))[0] for share in (1.0, 0.0, -1.0)
        )
        return bool(jnp.linalg.norm(up + down - 2 * here) < CURVED * jnp.linalg.norm(up - down))

    def refined(self, substeps: int) -> "LabelNoise":
        """Sqrt(m) times the noise; of squared loss exactly so."""
        return LabelNoise(self.standard_deviation * np.sqrt(substeps))


def batch_size_of(gradient: Gradient, num_examples: int) -> float | None:
    """B of noise that has the covariance C/B, of batches without repetition B (n - 1)/(n - B); None where it has another."""
    if isinstance(gradient, Fresh) or not isinstance(gradient, (Minibatch, GaussianNoise)):
        return None
    batch = float(gradient.batch_size)
    if not isinstance(gradient, Shuffled):
        return batch
    return batch * (num_examples - 1) / (num_examples - batch) if batch < num_examples else np.inf


def noise_batch(gradient: Gradient, num_examples: int) -> float:
    """B of independent batches as noisy as these of n examples; of fresh ones, whose C is another, their number."""
    return batch_size_of(gradient, num_examples) or float(getattr(gradient, "batch_size", None) or 1)


def centred(values: Float[Array, " n"]) -> Float[Array, " n"]:
    """Less their mean."""
    return values - values.mean()
