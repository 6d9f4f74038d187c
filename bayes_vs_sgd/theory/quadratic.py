"""Stationary covariance of SGD on a quadratic loss, with and without heavy-ball momentum."""

import numpy as np
from jaxtyping import Float

from ..errors import InputError


def stationary_covariance(
    hessian: Float[np.ndarray, "d d"] | float,
    gradient_covariance: Float[np.ndarray, "d d"] | float,
    learning_rate: float,
    batch_size: float = 1,
    momentum: float = 0.0,
) -> Float[np.ndarray, "d d"]:
    r"""Covariance of the iterates of SGD on 1/2 theta' H theta with gradient noise of constant covariance C/B.

    The update is m' = mu m + g, theta' = theta - eta m', and S solves, exactly in discrete time,

    .. math::
        (1 - \mu)(H S + S H) - \frac{1 + \mu^2}{1 - \mu^2} \eta H S H + \frac{\mu}{1 - \mu^2} \eta (H^2 S + S H^2)
        = \frac{\eta}{B} C.

    Without momentum it is H S + S H - eta H S H = (eta/B) C: Liu, Ziyin and Ueda, "Noise and fluctuation of finite
    learning rate stochastic gradient descent" (ICML 2021). With momentum it was derived from the Lyapunov equation of
    (theta, m), which the tests solve beside it.

    Parameters
    ----------
    hessian
        H, symmetric and positive definite.
    gradient_covariance
        C, the covariance of one example's gradient.
    learning_rate, batch_size, momentum
        eta, B (with replacement) and mu.

    Raises
    ------
    InputError
        If the iterates have no stationary law: 0 < eta lambda < 2 (1 + mu) must hold for every eigenvalue of H.
    """
    hessian, noise = _matrices(hessian, gradient_covariance)
    eta, mu = float(learning_rate), float(momentum)
    largest = np.linalg.eigvalsh(hessian)[-1]
    if not (0 <= mu < 1 and 0 < eta * largest < 2 * (1 + mu)):
        raise InputError(
            f"learning rate {eta:g} with momentum {mu:g} is not stable: give 0 <= momentum < 1 and a learning rate "
            f"between 0 and 2 (1 + momentum) / {largest:g}"
        )
    square = hessian @ hessian
    one = np.eye(len(hessian))
    operator = (1 - mu) * (np.kron(hessian, one) + np.kron(one, hessian))
    operator -= (1 + mu**2) / (1 - mu**2) * eta * np.kron(hessian, hessian)
    operator += mu / (1 - mu**2) * eta * (np.kron(square, one) + np.kron(one, square))
    return np.linalg.solve(operator, eta / batch_size * noise.ravel()).reshape(hessian.shape)


def continuous_covariance(
    hessian: Float[np.ndarray, "d d"] | float,
    gradient_covariance: Float[np.ndarray, "d d"] | float,
    learning_rate: float,
    batch_size: float = 1,
) -> Float[np.ndarray, "d d"]:
    r"""Stationary covariance of the SDE of SGD: H S + S H = (eta/B) C, the limit eta -> 0 of the exact law.

    The SDE is :math:`d\theta = -H \theta\, dt + \sqrt{\eta/B}\, C^{1/2} dW`, an Ornstein-Uhlenbeck process (Mandt,
    Hoffman and Blei, JMLR 18 (2017), section 3). At eta lambda near 1 it is half of the exact covariance.
    """
    hessian, noise = _matrices(hessian, gradient_covariance)
    one = np.eye(len(hessian))
    operator = np.kron(hessian, one) + np.kron(one, hessian)
    return np.linalg.solve(operator, float(learning_rate) / batch_size * noise.ravel()).reshape(hessian.shape)


def rmsprop_variance(curvature: float, noise: float, learning_rate: float, decay: float) -> float:
    r"""Stationary variance of RMSprop on h theta^2 / 2 with normal noise of standard deviation s, for small steps.

    It is eta s / (2h), that of SGD at the learning rate eta / s, to leading order. V fluctuates with the squares of the
    gradients that the steps take, and holds the mean gradient's square too. To first order in 1 - beta_2 and a = eta h / s, with
    y = h theta / s, g = y + z, V = s^2 (1 + delta) and w = E y^2 delta, a stationary E y^2 and a stationary w give

    .. math::
        \frac{2h}{\eta s} S = 1 - \tfrac38 (1 - \beta_2)
        + \frac{a\, ((1 - \beta_2) / 4 + a / 2)}{1 - \beta_2 + 2 a}.

    The first correction is of the gradient's own share in the V that divides it, the second w/a. Derived.

    Parameters
    ----------
    curvature, noise
        h and s.
    learning_rate, decay
        eta and beta_2.
    """
    a, forgotten = float(learning_rate) * curvature / noise, 1 - float(decay)
    share = a * (forgotten / 4 + a / 2) / (forgotten + 2 * a)
    return learning_rate * noise / (2 * curvature) * (1 - 3 / 8 * forgotten + share)


def production_rate(
    drift: Float[np.ndarray, "d d"], covariance: Float[np.ndarray, "d d"], diffusion: Float[np.ndarray, "d d"]
) -> float:
    """Entropy production tr(D^{-1} K S K') - tr K of dX = -K X dt + sqrt(2 D) dW, zero under detailed balance."""
    return float(np.trace(np.linalg.solve(diffusion, drift @ covariance @ drift.T)) - np.trace(drift))


def _matrices(hessian: np.ndarray | float, noise: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Both as square float64 matrices; numbers become 1 by 1."""
    hessian, noise = (np.atleast_2d(np.asarray(m, float)) for m in (hessian, noise))
    if hessian.shape != noise.shape or not np.allclose(hessian, hessian.T) or np.linalg.eigvalsh(hessian)[0] <= 0:
        raise InputError(
            f"hessian {hessian.shape} and gradient covariance {noise.shape}: give two matrices of one shape, the "
            "hessian symmetric and positive definite"
        )
    return hessian, noise
