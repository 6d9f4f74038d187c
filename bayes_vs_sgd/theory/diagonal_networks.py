r"""Where descent on a diagonal linear network ends: exactly, for gradient flow and for any sequence of steps.

Two weights a coordinate make the map beta; with fewer examples than coordinates many maps fit. All limits here are

.. math:: \beta = \tfrac12 (a_+^2 e^{2s} - a_-^2 e^{-2s}), \quad s = X^\top \nu, \quad X \beta = y,

the solution of a convex problem in nu; the start and the noise enter by the scales a_+ and a_- of each coordinate alone.
"""

import numpy as np
from jaxtyping import Float

from ..errors import InputError

ITERATIONS, PRECISION = 500, 1e-13
LONGEST = 3.0
"""Of a Newton step, in units of the exponent s: a longer one overflows."""


def interpolator(
    inputs: Float[np.ndarray, "n d"],
    labels: Float[np.ndarray, " n"],
    plus: Float[np.ndarray, " d"] | float,
    minus: Float[np.ndarray, " d"] | float,
) -> Float[np.ndarray, " d"]:
    r"""The map above, by Newton's method with backtracking on 1/4 sum_j (a_+^2 e^{2s} + a_-^2 e^{-2s}) - y'nu, convex in nu.

    Parameters
    ----------
    inputs, labels
        X, of rank n, and y.
    plus, minus
        a_+ and a_-, positive.

    Raises
    ------
    InputError
        If a scale is not positive or X is not of rank n; RuntimeError if Newton's method does not converge.
    """
    x, y = np.asarray(inputs, float), np.asarray(labels, float)
    scales = np.stack([np.broadcast_to(np.asarray(a, float), x.shape[1:]) for a in (plus, minus)])
    if not np.all((scales > 0) & np.isfinite(scales)):
        raise InputError(f"scales {scales[0]} and {scales[1]}: all must be finite and > 0")
    if (rank := np.linalg.matrix_rank(x)) < len(y):
        raise InputError(
            f"inputs of rank {rank} for {len(y)} labels: give independent examples, no more than coordinates"
        )

    # In this form of the map nothing cancels: a_+ a_- sinh(2 s + log(a_+ / a_-)).
    size, shift = scales[0] * scales[1], np.log(scales[0] / scales[1])

    def dual(nu):
        return np.sum(size * np.cosh(2 * x.T @ nu + shift)) / 2 - y @ nu

    nu = np.zeros(len(x))
    for _ in range(ITERATIONS):
        angle = 2 * x.T @ nu + shift
        beta = size * np.sinh(angle)
        slope = x @ beta - y
        if np.linalg.norm(slope) <= PRECISION * (np.linalg.norm(y) + np.linalg.norm(np.abs(x) @ np.abs(beta))):
            return beta
        # The Hessian is R'R, and R is better conditioned than it.
        root = np.linalg.qr(np.sqrt(2 * size * np.cosh(angle))[:, None] * x.T).R
        step = -np.linalg.solve(root, np.linalg.solve(root.T, slope))
        step /= max(1.0, np.max(np.abs(x.T @ step)) / LONGEST)
        value = dual(nu)
        # Near the end a decrease is lost in rounding: there Newton's step is taken whole.
        while dual(nu + step) > value + 1e-4 * slope @ step + 1e-12 * abs(value):
            step /= 2
        nu = nu + step
    raise RuntimeError(f"Newton's method has not converged in {ITERATIONS} steps")


def flow_limit(
    inputs: Float[np.ndarray, "n d"], labels: Float[np.ndarray, " n"], scale: Float[np.ndarray, " d"] | float
) -> Float[np.ndarray, " d"]:
    r"""Limit of gradient flow on beta = u^2 - v^2 from u = v = alpha: beta = 2 alpha^2 sinh(X'nu) with X beta = y.

    It minimises the hyperentropy of scale 2 alpha^2 among all maps that fit: the smallest Euclidean norm for large alpha, the
    smallest l1 norm for small, but only at the rate 1 / log(1 / alpha). After Woodworth et al. (COLT 2020).

    Parameters
    ----------
    inputs, labels
        X, of rank n, and y.
    scale
        alpha.
    """
    scale = np.sqrt(2) * np.asarray(scale, float)
    return interpolator(inputs, labels, scale, scale)


def gains(
    gradients: Float[np.ndarray, "step d"], learning_rates: Float[np.ndarray, " step"] | float, scale: float
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    r"""Scales a_+ and a_- that descent on beta = u * v from u = sqrt(2) alpha, v = 0 leaves behind, exact at any step size.

    Steps u' = u - gamma g v, v' = v - gamma g u multiply u + v by 1 - gamma g and u - v by 1 + gamma g. The part of the
    product that is not exp(-+ sum gamma g) goes into the scales,

    .. math:: a_\pm^2 = \alpha^2 \exp(-\sum_k q_\pm(\gamma_k g_k)), \quad q_\pm(x) = \mp 2 x - \ln (1 \mp x)^2 \ge 0
        \text{ where } |x| < 1.

    If the gradients are combinations of the rows of X and the steps converge to a map that fits, it is
    ``interpolator(X, y, a_+, a_-)``. After Even, Pesme, Gunasekar and Flammarion (2023); derived again.

    Parameters
    ----------
    gradients
        g_k, the gradient with respect to beta that each step used (a minibatch's, for SGD).
    learning_rates
        gamma_k, or one number.
    scale
        alpha.
    """
    g = np.asarray(gradients, float)
    moves = g * np.broadcast_to(np.asarray(learning_rates, float), g.shape[:1])[:, None]
    with np.errstate(divide="ignore"):
        plus, minus = (np.exp(np.sum(sign * moves + np.log(np.abs(1 - sign * moves)), axis=0)) for sign in (1, -1))
    return scale * plus, scale * minus


def small_step_scale(
    inputs: Float[np.ndarray, "n d"], learning_rate: float, loss_integral: float, scale: float
) -> Float[np.ndarray, " d"]:
    r"""Scale of both signs that SGD's noise leaves behind on average: alpha exp(-gamma diag(X'X / n) int L dt).

    Batch size 1, L = \|X beta - y\|^2 / 2n, time gamma x steps, beta = u * v. It is the small-step form of ``gains`` that takes
    residuals and inputs for independent: the direction of the effect of noise, not its size. After Pesme, Pillaud-Vivien and
    Flammarion (NeurIPS 2021).
    """
    power = np.mean(np.square(np.asarray(inputs, float)), axis=0)
    return scale * np.exp(-float(learning_rate) * power * float(loss_integral))


def expected_shrinkage(
    inputs: Float[np.ndarray, "n d"], residuals: Float[np.ndarray, "... n"], learning_rate: float
) -> Float[np.ndarray, "... d"]:
    r"""Mean change of log \|u_j^2 - v_j^2\| in a step of SGD of batch 1 on beta = u * v, exact given the residuals.

    A step with g_j = r_i x_ij multiplies u_j + v_j by 1 - gamma g_j and u_j - v_j by 1 + gamma g_j, so that over the examples

    .. math:: \frac1n \sum_i \log |1 - \gamma^2 r_i^2 x_{ij}^2| \approx -2 \gamma^2 L \overline{x_j^2},

    the latter for residuals that do not depend on the inputs: on a plateau of the loss L all coordinates shrink exponentially but
    those that the labels need. Twice the drift of Ito's equation (``label_noise.log_drift``), once for each of u + v and u - v.
    Derived; the effect after Andriushchenko, Varre, Pillaud-Vivien and Flammarion (ICML 2023).

    Parameters
    ----------
    inputs, residuals
        X, and r = X beta - y at any number of positions.
    learning_rate
        gamma.
    """
    moves = (learning_rate * np.asarray(residuals, float)[..., None] * np.asarray(inputs, float)) ** 2
    return np.mean(np.log(np.abs(1 - moves)), axis=-2)
