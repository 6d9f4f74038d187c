r"""Label noise in linear networks: what it does to the determinant, to balancedness and to the norms of the layers.

The noise of SGD is label noise too: a batch of one is the full batch with labels that are corrupted in proportion to the
residuals. Stochastic differential equations are read in Ito's sense, of which SGD is the Euler scheme.
"""

import numpy as np
from jaxtyping import Float

from ..errors import InputError


def log_determinant_change(residuals: Float[np.ndarray, "step p k"], learning_rate: float) -> float:
    r"""Change of log det(Theta' Theta) along gradient descent on Y = X W_1 W_2, exact for every path.

    With Theta = [W_1' W_2] (l by p + k) a step on 1/2 \|Y - X W_1 W_2\|^2 is Theta (I + eta J), J having R and R' off its
    diagonal, whose determinant is the product of 1 - eta^2 sigma_i(R)^2. So

    .. math:: \Delta \log\det(\Theta^\top \Theta) = 2 \sum_t \sum_i \log |1 - \eta^2 \sigma_i(R_t)^2|.

    Gradient flow has none of it: it keeps the determinant. After Varre, Sagitova and Flammarion (NeurIPS 2024).

    Parameters
    ----------
    residuals
        R_t = X' (Y_t - X W_1 W_2) of each step, with the labels of that step.
    learning_rate
        eta.

    Raises
    ------
    InputError
        If a step makes the determinant 0: eta sigma = 1 exactly.
    """
    singular = np.linalg.svd(np.asarray(residuals, float), compute_uv=False)
    factors = np.abs(1 - (float(learning_rate) * singular) ** 2)
    if np.any(factors == 0):
        raise InputError(
            f"learning rate {learning_rate:g} is 1 over a singular value of a residual: the determinant becomes 0; give a "
            "smaller one"
        )
    return 2 * float(np.sum(np.log(factors)))


def log_determinant_rate(
    inputs: Float[np.ndarray, "n p"], num_outputs: int, learning_rate: float, label_variance: float
) -> float:
    r"""Rate of log det(Theta' Theta) in time eta x steps, to first order in eta: -2 eta delta k tr(X'X).

    Every entry of Y gets fresh noise of variance delta at each step; the mean of eta^2 \|X' noise\|^2 is what remains of the
    exact change when eta goes to 0 with eta delta fixed. The stochastic flow has this rate on every path.

    Parameters
    ----------
    inputs, num_outputs
        X, and the number k of columns of Y.
    learning_rate, label_variance
        eta and delta, for the loss 1/2 \|Y - X W_1 W_2\|^2.
    """
    return -2 * float(learning_rate) * float(label_variance) * num_outputs * float(np.sum(np.square(inputs)))


def log_minor_drift(
    theta: Float[np.ndarray, "l width"], num_inputs: int, size: int, error: Float[np.ndarray, "p k"], noise: float
) -> float:
    r"""Drift of the logarithm of a leading minor of Theta' Theta under label noise, given where Theta = [W_1' W_2] is.

    The flow d Theta = Theta dJ has R dt + sqrt(c) dN and its transpose off the diagonal of dJ, R = M - W_1 W_2 and N of
    independent Brownian motions. With S the first columns, G = Theta_S' Theta_S, D = Theta dJ_S, U = Theta_S^+ D and P the
    projection on the span of Theta_S, Ito's formula is

    .. math:: d \log\det G = 2\, \mathrm{tr}\, U + \mathrm{tr}\, G^{-1} D^\top (I - P) D - \mathrm{tr}\, U^2.

    Of all columns P D = D and U = dJ: no drift but -2 c p k and no martingale part, so the determinant falls alike on every path.
    A smaller minor has the middle term, what the other columns bring into it, the gradient's part and fluctuations: it need not
    fall. Derived.

    Parameters
    ----------
    theta, num_inputs
        [W_1' W_2], and the number p of its columns that are of W_1'.
    size
        Columns of the minor.
    error
        R, target less map.
    noise
        c: the variance of an entry of the gradient's noise, in the time eta x steps.
    """
    theta, error = np.asarray(theta, float), np.asarray(error, float)
    first = theta[:, :size]
    inverse = np.linalg.pinv(first)
    rest = np.eye(len(theta)) - first @ inverse
    width, outputs = theta.shape[1], theta.shape[1] - num_inputs

    def off_diagonal(block):
        j = np.zeros((width, width))
        j[:num_inputs, num_inputs:], j[num_inputs:, :num_inputs] = block, block.T
        return theta @ j[:, :size]

    total = 2 * np.trace(inverse @ off_diagonal(error))
    gram = np.linalg.inv(first.T @ first)
    for entry in np.eye(num_inputs * outputs):
        d = off_diagonal(entry.reshape(num_inputs, outputs))
        u = inverse @ d
        total += noise * (np.trace(gram @ d.T @ rest @ d) - np.trace(u @ u))
    return float(total)


def corrupted_label_covariance(residuals: Float[np.ndarray, " n"], batch_size: int = 1) -> Float[np.ndarray, "n n"]:
    r"""Covariance of the label noise that turns full-batch gradient descent into SGD: (n diag(r^2) - r r') / B.

    One step of SGD on the examples i_1, ..., i_B, drawn with replacement, is one step of gradient descent on the labels
    y + xi with xi_i = r_i (1 - (n / B) #{b : i_b = i}), r = h(x) - y. After Andriushchenko, Varre, Pillaud-Vivien and
    Flammarion (ICML 2023).
    """
    r = np.asarray(residuals, float)
    return (r.size * np.diag(r**2) - np.outer(r, r)) / batch_size


def corrupted_label_energy(loss: float, num_examples: int, mean_loss: bool = True) -> float:
    r"""Mean E\|xi\|^2 at batch size 1, the trace of that covariance, by the loss: (n - 1) \|r\|^2.

    It is 2 n (n - 1) L where L = \|r\|^2 / 2n (``mean_loss``), and 2 (n - 1) L where L = \|r\|^2 / 2.
    """
    return 2 * (num_examples if mean_loss else 1) * (num_examples - 1) * float(loss)


def plateau_covariance(
    features: Float[np.ndarray, "n d"], gradient: Float[np.ndarray, " d"], loss: float, batch_size: int = 1
) -> Float[np.ndarray, "d d"]:
    r"""Covariance of SGD's gradient where all residuals have one size: ((2 delta / n) Phi' Phi - g g') / B.

    Phi is the Jacobian of the predictions and delta = \|r\|^2 / 2n the mean loss. On a plateau, where g is small, SGD is
    d theta = -g dt + sqrt(2 eta delta / (n B)) Phi' dW.

    Parameters
    ----------
    features, gradient
        Phi, and the gradient g of the mean loss.
    loss, batch_size
        delta and B (with replacement).
    """
    phi, g = np.asarray(features, float), np.asarray(gradient, float)
    return (2 * float(loss) / len(phi) * phi.T @ phi - np.outer(g, g)) / batch_size


def log_drift(strength: float, convention: str = "ito") -> float:
    """Drift of log abs(u + v) and of log abs(u - v) under du = g v dB, dv = g u dB with one B: -g^2 / 2 in Ito's sense.

    u + v and u - v are geometric Brownian motions with noise g and -g. In Stratonovich's sense the drift is 0, and nothing
    shrinks.

    Raises
    ------
    InputError
        If the convention is neither "ito" nor "stratonovich".
    """
    if convention not in ("ito", "stratonovich"):
        raise InputError(f"convention is {convention!r}: it must be ito or stratonovich")
    return -(float(strength) ** 2) / 2 if convention == "ito" else 0.0


def balancedness_drift(
    lower: Float[np.ndarray, "h d_in"], upper: Float[np.ndarray, "d_out h"], noise: float
) -> Float[np.ndarray, "h h"]:
    r"""dD/dt of D = W_2' W_2 - W_1 W_1' under label noise: c (d_out W_1 W_1' - d_in W_2' W_2).

    The gradient of 1/2 \|W_2 W_1 - M\|^2 keeps D, and the martingale parts of the two terms cancel, so that D is smooth on
    every path: what is left is Ito's correction. Derived from dW_1 = W_2' (-dG), dW_2 = (-dG) W_1' with
    dG = (W_2 W_1 - M) dt + sqrt(c) dN and N a matrix of independent Brownian motions.

    Parameters
    ----------
    lower, upper
        W_1 and W_2.
    noise
        c. Fresh label noise of variance zeta^2 on n examples with whitened inputs (X'X = n I) and the mean loss
        1/(2n) sum \|W_2 W_1 x_i - y_i\|^2 has c = eta zeta^2 / n in the time eta x steps.
    """
    d_out, d_in = upper.shape[0], lower.shape[1]
    return float(noise) * (d_out * lower @ lower.T - d_in * upper.T @ upper)


def balancedness(start: Float[np.ndarray, "h h"], noise: float, width: int, time: float) -> Float[np.ndarray, "h h"]:
    """D(t) = D(0) exp(-c d t) with as many outputs as inputs, d: the solution of the equation above, whatever the loss."""
    return np.asarray(start, float) * np.exp(-float(noise) * width * float(time))


def stationary_norm_ratio(num_inputs: int, num_outputs: int) -> float:
    """Ratio of E norm(W_1)^2 to E norm(W_2)^2 in the stationary law of label noise: d_in / d_out, as tr E[dD/dt] = 0."""
    return num_inputs / num_outputs
