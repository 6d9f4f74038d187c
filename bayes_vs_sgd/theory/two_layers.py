r"""Two-layer linear networks at the zero map, exactly at finite n: the second layer integrated out, then Wishart eigenvalues.

.. math:: Z(t) = E\, e^{-\frac t2 \|W_2 W_1\|^2} = E \prod_i (1 + t \ell_i)^{-d/2},

over N(0, 1) weights, where l_i are the eigenvalues of the Gram matrix of W_1 and d the number of rows of W_2. With p of them, q
the other side of W_1, their ordered density is proportional to prod_i l_i^{(q - p - 1)/2} e^{-l_i / 2} prod_{i<j} (l_j - l_i)
(Muirhead, Aspects of Multivariate Statistical Theory, 1982, theorem 3.2.18).
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy.integrate import cumulative_simpson
from scipy.special import gammaln

from ..errors import InputError

MOST_EIGENVALUES = 4
"""The determinant has p! terms."""
STEP = 0.01
"""Of the logarithm of an eigenvalue, at ten degrees of freedom or less: Simpson's rule errs by its fourth power."""


class TwoLayerMoments(NamedTuple):
    """Log Z(t), and the energy t E_t[K] with K = |W_2 W_1|^2 / 2."""

    log_evidence: float
    energy: float


def two_layer_moments(widths: Sequence[int], precision: float) -> TwoLayerMoments:
    r"""Log Z(t) and t E_t[K] = -t d log Z / dt of W_2 W_1 at the zero map; the latter tends to lambda - (m - 1) / log t.

    The Vandermonde determinant is a sum over permutations of products of powers, each an iterated integral over ordered
    eigenvalues, done by cumulative sums (SciPy) over their logarithms. In the energy, -d/dt of one factor at a time is taken
    inside it. Of the layers, the one with the fewer eigenvalues is kept. Relative error: 1e-7.

    Parameters
    ----------
    widths
        H_0, H_1, H_2.
    precision
        t >= 0: n beta / sigma^2 with whitened inputs, noise-free labels and N(0, 1) priors.

    Raises
    ------
    InputError
        If there are not three positive widths, more than four eigenvalues, or t is negative.
    """
    first, hidden, last = _checked(widths, precision)
    # The transposed network has the same law: keep the layer whose Gram matrix is smaller.
    side, rows = min((min(hidden, first), first, last), (min(hidden, last), last, first))[1:]
    small, large = sorted((hidden, side))
    t, top = float(precision), 2 * (large + 60.0 + 6 * small)
    low = -80.0 / (large - small + 1) - np.log1p(t)
    step = STEP * min(1.0, np.sqrt(10 / large))  # the logarithm of an eigenvalue has standard deviation sqrt(2 / q)
    u = np.arange(low, np.log(top), step)
    values = np.exp(u)
    damping = np.log1p(t * values)
    log_weight = (large - small + 1) / 2 * u - values / 2 - rows / 2 * damping  # with the Jacobian of the logarithm
    peak = log_weight.max()
    weight = np.exp(log_weight - peak)
    slope = rows / 2 * t * values / (1 + t * values)
    total, energy = 0.0, 0.0
    for order in permutations(range(small)):
        mass, derivative = np.ones_like(u), np.zeros_like(u)
        for power in order:
            factor = weight * values**power
            mass, derivative = (
                cumulative_simpson(f * factor, dx=step, initial=0.0) for f in (mass, derivative + slope * mass)
            )
        sign = np.linalg.det(np.eye(small)[list(order)])
        total, energy = total + sign * mass[-1], energy + sign * derivative[-1]
    log_evidence = np.log(total) + small * peak - _log_normalizer(small, large)
    return TwoLayerMoments(float(log_evidence), float(energy / total))


def _log_normalizer(small: int, large: int) -> float:
    """Log of the integral of the ordered density: 2^{pq/2} pi^{-p/2} prod_{i<p} Gamma((q - i)/2) Gamma((p - i)/2)."""
    halves = np.arange(small) / 2
    gammas = np.sum(gammaln(large / 2 - halves) + gammaln(small / 2 - halves))
    return float(small * large / 2 * np.log(2) - small / 2 * np.log(np.pi) + gammas)


def _checked(widths: Sequence[int], precision: float) -> tuple[int, int, int]:
    if len(widths) != 3 or min(widths) < 1 or not (np.isfinite(precision) and precision >= 0):
        raise InputError(f"widths {tuple(widths)} and precision {precision:g}: three positive widths, and t >= 0")
    first, hidden, last = (int(w) for w in widths)
    if min(hidden, first, last) > MOST_EIGENVALUES:
        raise InputError(
            f"widths {tuple(widths)}: one of them must be at most {MOST_EIGENVALUES}, the number of eigenvalues"
        )
    return first, hidden, last
