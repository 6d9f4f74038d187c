r"""One mode of a deep linear network under SGD: the noise of its gradient, where that peaks, and where the mode ends up.

A balanced mode has L equal weights w and the singular value s = w^L; its loss is 1/2 (s - s*)^2.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad

from ..errors import InputError
from .collapse import DeepModeLaw, square_law

SPACES = ("weights", "product")


def learning_time(depth: int, target: float, start: float, end: float) -> float:
    r"""Time in which gradient flow takes a balanced mode from one singular value to another, by SciPy's quadrature.

    .. math:: \frac{ds}{dt} = L s^{2 - 2/L} (s^* - s).

    From s_0 to s*/2 it grows as log(1 / s_0) for two layers, as s_0^{-(1 - 2/L)} for more. After Saxe, McClelland and Ganguli
    (2013) and Arora, Cohen, Golowich and Hu (2019).

    Parameters
    ----------
    depth, target
        L >= 2 and s*.
    start, end
        Singular values > 0, with the end nearer the target and on the same side.

    Raises
    ------
    InputError
        If the flow does not lead from the start to the end.
    """
    power, _ = _power(depth, "weights")
    if not (0 < start <= end < target or target < end <= start):
        raise InputError(
            f"no flow from {start:g} to {end:g} with target {target:g}: give an end between start and target"
        )

    def slowness(u):  # in log s, where an escape from near 0 is smooth
        return 1 / (depth * np.exp((power - 1) * u) * (target - np.exp(u)))

    return float(quad(slowness, np.log(start), np.log(end), epsabs=0, epsrel=1e-11, limit=200)[0])


def gradient_covariance(
    error: Float[np.ndarray, "d_out d_in"], label_noise: float = 0.0
) -> Float[np.ndarray, "d_out d_in d_out d_in"]:
    r"""Covariance of one example's gradient of 1/2 \|W x - y\|^2 with standard normal inputs and y = M x + noise.

    With E = W - M the gradient is (E x - noise) x', and by Wick's theorem

    .. math:: \mathrm{Cov}(g_{ij}, g_{kl}) = (E E^\top)_{ik} \delta_{jl} + E_{il} E_{kj} + \sigma^2 \delta_{ik} \delta_{jl}.

    The variance along an aligned mode of error e is 2 e^2 + sigma^2.

    Parameters
    ----------
    error, label_noise
        E, and the standard deviation sigma of the labels' noise.
    """
    e = np.atleast_2d(np.asarray(error, float))
    outputs, inputs = (np.eye(n) for n in e.shape)
    own = e @ e.T + float(label_noise) ** 2 * outputs
    return np.einsum("ik,jl->ijkl", own, inputs) + np.einsum("il,kj->ijkl", e, e)


def mode_noise(
    singular_value: Float[np.ndarray, " k"] | float,
    depth: int,
    target: float,
    label_noise: float = 0.0,
    space: str = "weights",
) -> Float[np.ndarray, " k"] | float:
    r"""Variance of one example's gradient along a balanced mode: s^q (2 (s* - s)^2 + sigma^2).

    q = 2 - 2/L for each weight, and q = 4 - 4/L (times L^2) for what the step does to the product.

    Parameters
    ----------
    singular_value
        s >= 0.
    depth, target, label_noise
        L, s* and sigma; the input along the mode is standard normal.
    space
        ``"weights"`` or ``"product"``.
    """
    power, scale = _power(depth, space)
    variance = 2 * (target - singular_value) ** 2 + label_noise**2
    return scale * singular_value**power * variance


def noise_peak(depth: int, target: float, label_noise: float = 0.0, space: str = "weights") -> float | None:
    r"""Singular value below s* at which the gradient's noise is largest as the mode is learned; None without such a peak.

    .. math:: s = s^* - \frac{s^* + \sqrt{s^{*2} - q (q + 2) \sigma^2 / 2}}{q + 2},

    the local maximum of ``mode_noise``. Without label noise s / s* is (L - 1) / (2L - 1) for the weights and
    (2L - 2) / (3L - 2) for the product. Where the root is not real or 0 the noise only grows with s.

    Parameters
    ----------
    depth, target, label_noise, space
        As in ``mode_noise``.

    Raises
    ------
    InputError
        If the depth, the target or the space cannot be.
    """
    power, _ = _power(depth, space)
    if target <= 0:
        raise InputError(f"target is {target:g}: give a singular value > 0")
    inside = target**2 * (1 - (label_noise / largest_label_noise(depth, target, space)) ** 2)
    return None if inside <= 0 else float(target - (target + np.sqrt(inside)) / (power + 2))


def largest_label_noise(depth: int, target: float, space: str = "weights") -> float:
    """Label noise sigma above which the gradient's noise has no peak before s*: s* sqrt(2 / (q (q + 2)))."""
    power, _ = _power(depth, space)
    return float(target) * float(np.sqrt(2 / (power * (power + 2))))


class StationaryMode(NamedTuple):
    """Law of the singular value after a long time: its name, mean and variance."""

    law: str
    mean: float
    variance: float


def stationary_mode(depth: int, target: float, noise: float) -> StationaryMode:
    r"""Which law a balanced mode of two or more layers has under label noise in the end.

    Without noise a point at s*. Two layers: a Gamma, or collapse to 0 at c >= 2 s*. More: the law of ``DeepModeLaw``, which
    never collapses.

    Parameters
    ----------
    depth, target
        L >= 2 and s* > 0.
    noise
        c >= 0, the variance of the mode's gradient noise in the time eta x steps: eta zeta^2 / n with labels of noise zeta^2
        perturbed afresh on all n examples of mean square input 1.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """
    _power(depth, "weights")
    if not (target > 0 and noise >= 0):
        raise InputError(f"target {target:g} and noise {noise:g}: give a target > 0 and a noise >= 0")
    if noise == 0:
        return StationaryMode("point", float(target), 0.0)
    if depth == 2 and noise >= 2 * target:
        return StationaryMode("collapsed", 0.0, 0.0)
    if depth == 2:
        gamma = square_law(target, np.sqrt(noise))
        return StationaryMode("gamma", float(gamma.mean()), float(gamma.var()))
    law = DeepModeLaw(depth, target, noise)
    mean = law.moment(depth)
    return StationaryMode("deep", mean, law.moment(2 * depth) - mean**2)


def boltzmann_mode(depth: int, target: float, noise: float) -> StationaryMode:
    """Gaussian law that the noise frozen at s* would give: mean s*, variance c S / 2 with S = L s*^(2 - 2/L).

    Right only to first order in c / s*.
    """
    power, _ = _power(depth, "weights")
    return StationaryMode("gaussian", float(target), float(noise) * depth * float(target) ** power / 2)


def _power(depth: int, space: str) -> tuple[float, int]:
    """Exponent q of s in the noise, and its factor."""
    if depth < 2 or space not in SPACES:
        raise InputError(f"depth {depth} and space {space!r}: give 2 or more layers, and one of {', '.join(SPACES)}")
    q = 2 - 2 / depth
    return (q, 1) if space == "weights" else (2 * q, depth**2)
