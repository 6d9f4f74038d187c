"""Learning coefficients of deep linear networks, in closed form.

Global value: M. Aoyagi, Neural Networks 172 (2024) 106132, Theorem 1 (see also arXiv:2501.12747). Local value at a
teacher whose layers are not of minimal rank: Aoyagi and Watanabe's two-layer case, applied after splitting off the
directions in which a layer has excess rank.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError


class LearningCoefficient(NamedTuple):
    """lambda and its multiplicity m: F_n = n L_n + lambda log n - (m - 1) log log n + O(1)."""

    value: float
    multiplicity: int


def learning_coefficient(widths: Sequence[int], rank: int) -> LearningCoefficient:
    r"""Global learning coefficient of y = W_L ... W_1 x at a true map of the given rank.

    With excess widths M_s = H_s - r sorted, the active set starts with the two smallest (l = 1, S their sum) and takes
    the next one while l M_next <= S; S is split as evenly as integers allow into k_1, ..., k_l, with a = S mod l:

    .. math::
        \lambda = \tfrac12 (r (H_0 + H_L) - r^2) + \tfrac14 \Big(\sum_j k_j^2 - \sum_{active} M_s^2\Big), \quad
        m = a (l - a) + 1.

    Parameters
    ----------
    widths
        H_0, ..., H_L, from the input to the output.
    rank
        Rank r of the true map.

    Raises
    ------
    InputError
        If a width is not positive or the rank exceeds the smallest.
    """
    widths = [int(w) for w in widths]
    if len(widths) < 2 or min(widths) < 1 or not 0 <= rank <= min(widths):
        raise InputError(
            f"widths {widths} and rank {rank}: needs two or more positive widths, 0 <= rank <= the smallest"
        )
    excess = sorted(width - rank for width in widths)
    active, count = 2, 1
    total = excess[0] + excess[1]
    while active < len(excess) and count * excess[active] <= total:
        total += excess[active]
        active, count = active + 1, count + 1
    larger = total % count
    parts = [total // count + 1] * larger + [total // count] * (count - larger)
    regular = (rank * (widths[0] + widths[-1]) - rank**2) / 2
    singular = (sum(k**2 for k in parts) - sum(m**2 for m in excess[:active])) / 4
    return LearningCoefficient(regular + singular, larger * (count - larger) + 1)


def local_two_layers(widths: Sequence[int], rank: int, layer_ranks: Sequence[int]) -> LearningCoefficient:
    """Local learning coefficient of W_2 W_1 at a teacher with the given ranks of W_1 and W_2.

    lambda = [r(H_0 + H_2) - r^2]/2 + [M_2 e_1 + M_0 e_2 - e_1 e_2]/2 + lambda_0(M_0 - e_1, M_1 - e_1 - e_2, M_2 - e_2),
    with M_s = H_s - r and e_l = rank W_l - r; the last term is the global value at rank 0.
    """
    first, middle, last = (w - rank for w in widths)
    lower, upper = (layer_rank - rank for layer_rank in layer_ranks)
    if min(lower, upper, first - lower, middle - lower - upper, last - upper) < 0:
        raise InputError(f"layer ranks {tuple(layer_ranks)} cannot be, at widths {tuple(widths)} and rank {rank}")
    rest_widths = (first - lower, middle - lower - upper, last - upper)
    rest = LearningCoefficient(0.0, 1) if min(rest_widths) == 0 else learning_coefficient(rest_widths, 0)
    regular = (rank * (widths[0] + widths[2]) - rank**2) / 2
    excess = (last * lower + first * upper - lower * upper) / 2
    return LearningCoefficient(regular + excess + rest.value, rest.multiplicity)


def local_lower_bound(weights: Sequence[np.ndarray]) -> float:
    """Half the rank of the differential of the product at the given weights: a proven lower bound of the local lambda.

    rank = sum_i (u_i - u_{i-1}) v_i with u_i = rank(W_L ... W_{i+1}), v_i = rank(W_{i-1} ... W_1) and u_0 = 0.
    """
    below = product_ranks(weights)[:-1]
    above = [0, *reversed(product_ranks([w.T for w in reversed(weights)])[:-1])]
    return sum((above[i + 1] - above[i]) * below[i] for i in range(len(weights))) / 2


def product_ranks(weights: Sequence[np.ndarray]) -> list[int]:
    """Ranks of 1, W_1, W_2 W_1, ..., W_L ... W_1.

    The image is followed layer by layer in an orthonormal basis, each rank against the size of its layer alone: a deep
    product, or one that vanishes up to rounding, has singular values that say nothing.
    """
    image = np.eye(weights[0].shape[1])
    ranks = [image.shape[1]]
    for matrix in weights:
        left, singular, _ = np.linalg.svd(matrix @ image, full_matrices=False)
        floor = 10 * max(matrix.shape) * np.finfo(float).eps * np.linalg.norm(matrix)
        image = left[:, singular > floor]
        ranks.append(image.shape[1])
    return ranks


def hessian_eigenvalues(singular_values: Sequence[float], depth: int) -> np.ndarray:
    """Nonzero Hessian eigenvalues of 1/2 ||W_L ... W_1 - M||^2 at a balanced global minimum with square layers.

    lambda_ij = sum_l s_i^(2 (L-1-l)/L) s_j^(2 l/L), for all i, j (Ghosh et al., arXiv:2502.20531).
    """
    s = np.asarray(singular_values, float)
    powers = [np.outer(s ** (2 * (depth - 1 - i) / depth), s ** (2 * i / depth)) for i in range(depth)]
    return np.sort(sum(powers, np.zeros((s.size, s.size))).ravel())[::-1]
