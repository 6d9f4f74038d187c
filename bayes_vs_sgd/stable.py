r"""Draws of stable laws: symmetric, one-sided and rotationally symmetric.

The symmetric ones are scaled so that alpha = 2 is the standard normal: their characteristic function is
:math:`\exp(-|k|^\alpha / 2^{\alpha/2})`. Multiplied by sqrt(2) they have :math:`\exp(-|k|^\alpha)`, the scale 1 of most
texts and of ``scipy.stats.levy_stable``.

The index may be traced and is not checked. Angles are half a random word, so that they resolve 2^-32 at the end where the
tail comes from; a draw beyond the largest float is that float.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Float


def symmetric_stable(key: Array, alpha: Float[Array, "..."] | float, shape: tuple[int, ...] = ()) -> Array:
    r"""Symmetric alpha-stable draws with characteristic function :math:`\exp(-|k|^\alpha / 2^{\alpha/2})`.

    .. math::
        X = \frac1{\sqrt2} \frac{\sin \alpha V}{(\cos V)^{1/\alpha}}
            \Big(\frac{\cos (1 - \alpha) V}{W}\Big)^{(1 - \alpha)/\alpha}

    with V uniform on (-pi/2, pi/2) and W exponential (after Chambers, Mallows and Stuck 1976).

    Parameters
    ----------
    key
        Random key.
    alpha
        Index in (0, 2], of a shape that broadcasts to that of the draws; 2 is the standard normal, 1 Cauchy's law.
    shape
        Shape of the draws.
    """
    key_angle, key_exponential = jax.random.split(key)
    half, negative = _half_uniform(key_angle, shape)
    # |V| = pi/2 - pi * half. Angles are counted from the end where the function is small, so that none is a difference.
    cosine = jnp.sin(jnp.pi * half)
    distance = jnp.abs(1 - alpha)
    skewed = jnp.sin(jnp.pi * ((1 - distance) / 2 + distance * half))  # cos (1 - alpha) V
    angle = jnp.where(alpha > 1, (2 - alpha) / 2 + alpha * half, alpha * (0.5 - half))
    sine = jnp.abs(jnp.sin(jnp.pi * angle))  # |sin alpha V|
    uniform = _uniform(key_exponential, shape)
    # The tail comes from large W above 1 and from small W below it.
    exponential = -jnp.where(alpha > 1, jnp.log(uniform), jnp.log1p(-uniform))
    log_size = jnp.log(sine) - jnp.log(cosine) / alpha + xlogy(1 - alpha, skewed / exponential) / alpha
    return _exp(log_size - jnp.log(2) / 2) * jnp.where(negative, -1, 1)


def one_sided_stable(key: Array, alpha: Float[Array, "..."] | float, shape: tuple[int, ...] = ()) -> Array:
    r"""Positive alpha-stable draws with Laplace transform :math:`E\, e^{-s X} = \exp(-s^\alpha)`.

    .. math::
        X = \frac{\sin \alpha U}{(\sin U)^{1/\alpha}} \Big(\frac{\sin (1 - \alpha) U}{W}\Big)^{(1 - \alpha)/\alpha}

    with U uniform on (0, pi) and W exponential (after Kanter 1975).

    Parameters
    ----------
    key
        Random key.
    alpha
        Index in (0, 1], of a shape that broadcasts to that of the draws; at 1 every draw is exactly 1.
    shape
        Shape of the draws.
    """
    key_angle, key_exponential = jax.random.split(key)
    half, upper = _half_uniform(key_angle, shape)  # U is pi * half or pi - pi * half: the sine is that of both
    sine = jnp.sin(jnp.pi * jnp.where(upper, (1 - alpha) + alpha * half, alpha * half))
    other = jnp.sin(jnp.pi * (1 - alpha) * jnp.where(upper, 1 - half, half))
    exponential = -jnp.log1p(-_uniform(key_exponential, shape))
    log_size = jnp.log(sine) - jnp.log(jnp.sin(jnp.pi * half)) / alpha + xlogy(1 - alpha, other / exponential) / alpha
    return _exp(log_size)


def isotropic_stable(key: Array, alpha: Float[Array, "..."] | float, shape: tuple[int, ...]) -> Array:
    r"""Rotationally symmetric alpha-stable vectors along the last axis.

    A normal vector times the root of a one-sided alpha/2-stable draw, which all of its entries share: the characteristic
    function is :math:`\exp(-\|k\|^\alpha / 2^{\alpha/2})`, and each entry has the law of ``symmetric_stable``. Below
    alpha = 2 the entries are not independent: they are large together.

    Parameters
    ----------
    key
        Random key.
    alpha
        Index in (0, 2], of a shape that broadcasts to that of the draws without its last axis.
    shape
        Shape of the draws; vectors lie along the last axis.
    """
    key_scale, key_direction = jax.random.split(key)
    scale = jnp.sqrt(one_sided_stable(key_scale, alpha / 2, shape[:-1]))
    return scale[..., None] * jax.random.normal(key_direction, shape)


def _half_uniform(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Uniform on (0, 1/2], fine near 0, and a fair coin, from one random word."""
    word = jax.random.bits(key, shape, jnp.uint32)
    return ((word >> 1).astype(float) + 0.5) * 2.0**-32, (word & 1) == 1


def _uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform on (0, 1), fine near 0."""
    word = jax.random.bits(key, shape, jnp.uint32)
    uniform = (word.astype(float) + 0.5) * 2.0**-32
    return jnp.minimum(uniform, 1 - jnp.finfo(uniform.dtype).epsneg)


def _exp(log_size: Array) -> Array:
    """Exponential that saturates at the largest float."""
    return jnp.minimum(jnp.exp(log_size), jnp.finfo(log_size.dtype).max)
