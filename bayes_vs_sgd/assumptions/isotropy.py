"""Whether the noise at a position is isotropic, and whether it commutes with the Hessian: no currents need no more."""

import jax.numpy as jnp
import numpy as np

from ..curvature import LANCZOS
from .assumption import Assumption, measured, undefined
from .local import ROUNDING, Local
from .noise import NO_VARIANCE

ISOTROPY, COMMUTATION = 0.2, 0.1
"""Margins: relative spread of the temperatures; share of HC that does not commute."""


def isotropy(place: Local) -> Assumption:
    """Relative standard deviation of the eigenvalues of C: of the temperatures of all directions."""
    size, statistic = place.probes.shape[1], "relative spread of the noise's eigenvalues"
    if not place.has_variance:
        return undefined("isotropy", statistic, 0.0, ISOTROPY, NO_VARIANCE)
    value, error = place.statistic(lambda t: np.sqrt(max(size * t[1] / t[0] ** 2 - 1, 0.0)) if t[0] else np.nan)
    if place.num_draws is not None:
        value, error = without_chance(value, (size + 1) / place.num_draws, 2 / place.num_draws)
    effective, _ = place.statistic(lambda t: t[0] ** 2 / t[1] if t[1] else 0.0)
    note = f"effective rank {effective:.1f} of {size}{spread_in_words(place)}; {fit_in_words(place)}"
    return measured("isotropy", statistic, value, error, 0.0, ISOTROPY, note)


def commutation(place: Local) -> Assumption:
    """Norm of HC - CH over that of HC and CH together: 0 if they commute, at most 1."""
    statistic = "|HC - CH| / 2 |HC|"
    if not place.has_variance:
        return undefined("detailed balance", statistic, 0.0, COMMUTATION, NO_VARIANCE)
    value, error = place.statistic(lambda t: np.sqrt(max(t[4], 0.0) / t[5] / 2) if t[5] else 0.0)
    if place.num_draws is not None:
        chance = commutator_by_chance(place) / place.num_draws / 2 / place.traces().mean(axis=0)[5]
        value, error = without_chance(value, chance, 2 * chance / place.probes.shape[1])
    return measured("detailed balance", statistic, value, error, 0.0, COMMUTATION)


def without_chance(value: float, square: float, error: float) -> tuple[float, float]:
    r"""A root less the part of its square that chance adds, with its error there; and its own, by the delta method.

    Of N normal draws of an isotropic law in d dimensions the squared relative spread of the eigenvalues has mean (d + 1)/N and
    standard deviation 2/N (John 1972).
    """
    rest = np.sqrt(max(value**2 - square, 0.0))
    return float(rest), float(error / (2 * max(rest, np.sqrt(error))))


def commutator_by_chance(place: Local) -> float:
    """N times the mean of |HC - CH|^2 of the covariance of N normal draws, where it is 0: Var C_ij = (C_ii C_jj + C_ij^2) / N."""
    assert place.hessian is not None  # of few parameters
    assert place.noise is not None
    values, vectors = np.linalg.eigh(place.hessian)
    noise = vectors.T @ place.noise @ vectors
    sizes = np.diag(noise)
    return float(np.sum((values[:, None] - values) ** 2 * (np.outer(sizes, sizes) + noise**2)))


def spread_in_words(place: Local) -> str:
    """Extreme eigenvalues of C that are not zero, and their ratio; beyond 2,000 parameters what Lanczos sees of them."""
    if place.noise_ends is not None:
        low, high = place.noise_ends
        seen = max(ROUNDING, place.probes.shape[1] * float(jnp.finfo(jnp.zeros(()).dtype).eps)) * high
        condition = "infinite" if low == 0 else f"at least {high / max(low, seen):.3g}"
        said = f"; eigenvalues of C by {LANCZOS} Lanczos products from {max(low, 0.0):.3g} to {high:.3g}"
        return said + f" (condition number {condition})" if high > 0 else ""
    values = place.noise_values()
    if not len(values):
        return ""
    low, high = values[0], values[-1]
    return f"; {len(values)} eigenvalues of C are not zero, {low:.3g} to {high:.3g} (condition number {high / low:.3g})"


def fit_in_words(place: Local) -> str:
    """The c = tr HC / tr H^2 for which c H is nearest to C, what it leaves of C, and the cosine between them."""
    cosine, _ = place.statistic(lambda t: t[3] / np.sqrt(t[1] * t[2]) if t[1] * t[2] > 0 else np.nan)
    factor, _ = place.statistic(lambda t: t[3] / t[2] if t[2] else np.nan)
    left = np.sqrt(max(1 - cosine**2, 0.0))
    return f"C is {factor:.3g} H but for {left:.2f} of its norm; cosine of C with the Hessian {cosine:.2f}"
