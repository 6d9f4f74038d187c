"""SGD on a quadratic has the covariance of the exact discrete formula, with and without momentum."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import scipy.linalg
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.quadratic import continuous_covariance, stationary_covariance

HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]])
NOISE = np.array([[1.0, -0.6], [-0.6, 2.0]])
NUM_CHAINS = 4000  # for each learning rate; by then a variance has relative standard error 2.2 %


@pytest.mark.exact
@pytest.mark.parametrize(
    ("formula", "learning_rate", "expected"),
    [
        (continuous_covariance, 0.1, (0.036667, -0.046667, 0.123333)),
        (stationary_covariance, 0.1, (0.039371, -0.048149, 0.128589)),
        (stationary_covariance, 0.5, (0.298721, -0.263939, 0.779540)),
    ],
)
def test_numbers_of_the_notes(formula, learning_rate, expected):
    covariance = formula(HESSIAN, NOISE, learning_rate)
    np.testing.assert_allclose(covariance[[0, 0, 1], [0, 1, 1]], expected, atol=6e-7)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("learning_rate", "momentum", "expected"), [(0.1, 0.9, 0.513514), (0.5, 0.9, 2.878788), (1.0, 0.5, 1.5)]
)
def test_numbers_with_momentum(learning_rate, momentum, expected):
    assert stationary_covariance(1, 1, learning_rate, momentum=momentum).item() == pytest.approx(expected, abs=6e-7)


@pytest.mark.exact
def test_one_dimension():
    rate, h, c = 0.3, 1.7, 0.4
    assert stationary_covariance(h, c, rate, 4).item() == pytest.approx(rate * c / 4 / (h * (2 - rate * h)), rel=1e-14)


@pytest.mark.exact
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_position_block_of_the_lyapunov_equation(momentum):
    """The pair (theta, m) is a linear recursion: its stationary covariance by SciPy has the formula as a block."""
    rng = np.random.default_rng(0)
    root, factor = rng.normal(size=(2, 4, 4))
    hessian, noise, rate = root @ root.T + np.eye(4), factor @ factor.T, 0.05
    one = np.eye(4)
    matrix = np.block([[one - rate * hessian, -rate * momentum * one], [hessian, momentum * one]])
    gain = np.vstack([-rate * one, one])
    joint = scipy.linalg.solve_discrete_lyapunov(matrix, gain @ (noise / 8) @ gain.T)
    found = stationary_covariance(hessian, noise, rate, 8, momentum)
    np.testing.assert_allclose(found, joint[:4, :4], rtol=1e-10, atol=1e-12)


@pytest.mark.exact
@pytest.mark.parametrize(("learning_rate", "momentum"), [(1.0, 0.0), (0.0, 0.0), (0.1, 1.0), (1.8, 0.9)])
def test_no_stationary_law_is_refused(learning_rate, momentum):
    with pytest.raises(bvs.InputError, match="not stable"):
        stationary_covariance(HESSIAN, NOISE, learning_rate, momentum=momentum)


@pytest.fixture(scope="module")
def quadratic():
    """Example losses 1/2 (theta - x_i)' H (theta - x_i): Hessian H, and C = H Cov(x) H exactly over the n examples."""

    def program(x):
        theta = numpyro.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.MultivariateNormal(theta, precision_matrix=jnp.asarray(HESSIAN)), obs=x)

    raw = np.random.default_rng(1).normal(size=(8, 2))
    raw = raw - raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / 8)).T
    x = white @ np.linalg.cholesky(NOISE).T @ np.linalg.inv(HESSIAN)
    gradients = x @ HESSIAN
    np.testing.assert_allclose(gradients.T @ gradients / 8, NOISE, atol=1e-12)
    return bvs.Posterior(bvs.Model(program, data={"x": x}, optimum={"theta": np.zeros(2)}))


def second_moments(target, dynamics, num_steps):
    """theta_0^2, theta_0 theta_1, theta_1^2 of each chain at the last step (the mean is 0)."""
    tree = bvs.simulate(
        dynamics, target, key=2, num_chains=2 * NUM_CHAINS, num_steps=num_steps, num_draws=1, observables=["loss"]
    )
    positions, kept = final_positions(tree)
    assert kept.all()
    theta = np.asarray(positions["theta"], float)
    return (theta[:, [0, 0, 1]] * theta[:, [0, 1, 1]]).reshape(2, NUM_CHAINS, 3)


def entries(covariance):
    return covariance[[0, 0, 1], [0, 1, 1]]


@pytest.mark.law
def test_sgd_has_the_exact_covariance(quadratic):
    """After 100 steps what the start leaves is below (1 - 0.079)^200 = 7e-8."""
    rates = np.repeat([0.1, 0.5], NUM_CHAINS)
    moments = second_moments(quadratic, bvs.SGD(learning_rate=rates, batch_size=1), 100)
    for values, rate in zip(moments, (0.1, 0.5), strict=True):
        exact = stationary_covariance(HESSIAN, NOISE, rate)
        assert_mean(values, expected=entries(exact), detects=0.22 * exact[1, 1])
        with planted_bug():  # the noise of a step is sqrt(2) too large
            assert_mean(values, expected=2 * entries(exact), detects=0.22 * exact[1, 1])
    with planted_bug():  # the continuous-time formula
        assert_mean(values, expected=entries(continuous_covariance(HESSIAN, NOISE, 0.5)), detects=0.2)


@pytest.mark.law
def test_batches_of_four_divide_the_covariance(quadratic):
    rates = np.repeat([0.1, 0.5], NUM_CHAINS)
    values = second_moments(quadratic, bvs.SGD(learning_rate=rates, batch_size=4), 100)[1]
    exact = stationary_covariance(HESSIAN, NOISE, 0.5, batch_size=4)
    assert_mean(values, expected=entries(exact), detects=0.22 * exact[1, 1])
    with planted_bug():  # Cov g_B of sampling without replacement, (n - B)/(n - 1) of it
        assert_mean(values, expected=entries(exact) * 4 / 7, detects=0.22 * exact[1, 1])


def heavy_ball(learning_rate, momentum):
    """m' = mu m + g, theta' = theta - eta m'."""
    return optax.chain(optax.trace(momentum), optax.scale(-learning_rate))


@pytest.mark.law
def test_momentum_has_the_exact_covariance(quadratic):
    """After 200 steps what the start leaves is below mu^200 = 7e-10 (the roots have modulus sqrt(mu))."""
    rates = np.repeat([0.1, 0.5], NUM_CHAINS)
    dynamics = bvs.Optimizer(heavy_ball, batch_size=1, learning_rate=rates, momentum=0.9)
    moments = second_moments(quadratic, dynamics, 200)
    for values, rate in zip(moments, (0.1, 0.5), strict=True):
        exact = stationary_covariance(HESSIAN, NOISE, rate, momentum=0.9)
        assert_mean(values, expected=entries(exact), detects=0.22 * exact[1, 1])
        with planted_bug():  # momentum as an average of gradients, m' = mu m + (1 - mu) g
            averaged = stationary_covariance(HESSIAN, NOISE, rate * 0.1, momentum=0.9)
            assert_mean(values, expected=entries(averaged), detects=0.22 * exact[1, 1])
