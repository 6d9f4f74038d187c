"""The laws of the stochastic differential equations on a quadratic, where every step is linear and everything is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import quadratic
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.quadratic import continuous_covariance, stationary_covariance

HESSIAN, NOISE = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.6], [-0.6, 2.0]])
SEEDS = 4000

pytestmark = pytest.mark.law


def ends(dynamics, hessian=HESSIAN, noise=NOISE, num_steps=60, start=0.0, seeds=SEEDS):
    """Positions (seed, d) of independent runs from one point."""
    model = quadratic(hessian, noise, 8)
    tree = bvs.simulate(
        dynamics, bvs.Posterior(model), key=1, num_chains=seeds, num_steps=num_steps, num_draws=1, progress=False,
        initial={"theta": np.full((seeds, len(hessian)), float(start))}, observables=["loss"],
    )  # fmt: skip
    return np.asarray(final_positions(tree)[0]["theta"], float)


def assert_covariance(draws, expected, detects=0.25):
    """Second moments of draws of mean zero; what is seen is relative to the largest of them."""
    squares = np.einsum("ni,nj->nij", draws, draws)
    assert_mean(squares, expected=expected, detects=detects * np.max(squares.mean(axis=0)))


@pytest.mark.parametrize(("substeps", "order"), [(1, 1), (4, 1), (4, 2)])
def test_stationary_covariance_of_the_flow(substeps, order):
    """That of the Euler-Maruyama chain: K S + S K - h K S K = (eta/B) C, K = H (of order 2, H + eta H^2 / 2)."""
    eta, batch = 0.4, 2
    drift = HESSIAN + (order - 1) * eta / 2 * HESSIAN @ HESSIAN
    expected = stationary_covariance(drift, NOISE, eta / substeps, batch / substeps)
    draws = ends(bvs.StochasticGradientFlow(eta, bvs.GaussianNoise(batch), substeps, order))
    assert_covariance(draws, expected)
    with planted_bug():  # sqrt(2 eta) in the place of sqrt(eta)
        assert_covariance(draws, 2 * expected)
    if substeps > 1:
        with planted_bug():  # noise that is not refined
            assert_covariance(draws, expected / substeps)


def test_the_flow_tends_to_the_equation_with_its_substeps():
    """Variance of d theta = -theta dt + sqrt(eta) dW at eta = 0.5: the error of m sub-steps is the Euler scheme's, 1/m."""
    one = np.eye(1)
    errors = [
        stationary_covariance(one, one, 0.5 / m, 1 / m)[0, 0] / continuous_covariance(one, one, 0.5)[0, 0] - 1
        for m in (1, 2, 4, 8, 16)
    ]
    slopes = -np.diff(np.log(errors)) / np.log(2)
    np.testing.assert_allclose(slopes[-1], 1.0, atol=0.05)
    draws = ends(bvs.StochasticGradientFlow(0.5, bvs.GaussianNoise(1), 8), one, one)
    assert_covariance(draws, np.array([[0.25 * (1 + errors[3])]]))


def test_stationary_covariance_of_momentum():
    """Lyapunov equation of kick, half drift, friction, half drift; without bias as the sub-steps go to infinity."""
    eta, mu, batch = 0.2, 0.8, 2

    def covariance(substeps, hessian, noise):
        size, time, mass = len(hessian), eta / substeps, eta * (1 + mu) / 2
        keep = np.exp(-(1 - mu) * time / mass)
        one = np.eye(size)
        kick = np.block([[one, 0 * one], [-time / mass * hessian, one]])
        rest = np.block([[one, time / 2 * (1 + keep) * one], [0 * one, keep * one]])
        push = rest @ np.vstack([0 * one, time / mass * np.linalg.cholesky(noise * substeps / batch)])
        found = scipy.linalg.solve_discrete_lyapunov(rest @ kick, push @ push.T)
        return found[:size, :size]

    limit = eta / (2 * batch * (1 - mu))
    np.testing.assert_allclose(covariance(1000, np.diag([2.0, 1.0]), np.eye(2)), limit * np.diag([0.5, 1.0]), rtol=2e-3)
    draws = ends(bvs.MomentumFlow(eta, mu, bvs.GaussianNoise(batch), 2), num_steps=150)
    expected = covariance(2, HESSIAN, NOISE)
    assert_covariance(draws, expected)
    with planted_bug():  # no momentum
        assert_covariance(draws, (1 - mu) * expected)


@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_stationary_variance_of_rmsprop(spread):
    """V rests at s^2, so the equation is that of SGD with learning rate eta / s: variance eta s / (2 h) for small eta."""
    eta, curvature = 0.1, 2.0
    draws = ends(bvs.RMSpropFlow(eta, 1, substeps=2), np.array([[curvature]]), np.array([[spread**2]]))
    expected = stationary_covariance(curvature, spread**2, eta / spread / 2, 0.5)
    assert_covariance(draws, expected)
    with planted_bug():  # that of SGD
        assert_covariance(draws, stationary_covariance(curvature, spread**2, eta / 2, 0.5))


def test_the_second_moment_starts_at_rest_or_where_it_is_given():
    """Batches of four times the size have a fourth of it, as of their noise."""
    target, place = bvs.Posterior(quadratic(np.eye(2), 4 * np.eye(2), 8)), {"theta": jnp.ones(2)}
    given = bvs.RMSpropFlow(0.1, 1, 0.9, second_moment=9.0)
    for flow, expected in ((bvs.RMSpropFlow(0.1, 1), 4.0), (given, 9.0), (given.scaled(4.0), 9 / 4)):
        moment = flow.prepare(target).init(target, jax.random.key(0), place).second_moment["theta"]
        np.testing.assert_allclose(moment, expected, rtol=1e-5)


def test_stationary_variance_of_adam():
    """Lyapunov equation of (m, theta) where V rests."""
    eta, spread, curvature, b1, substeps = 0.1, 2.0, 1.0, 0.7, 3
    draws = ends(bvs.AdamFlow(eta, 1, b1=b1, substeps=substeps), np.array([[curvature]]), np.array([[spread**2]]), 150)
    rate, length = (1 - b1) / substeps, eta / spread / substeps
    step = np.array([[1 - rate, rate * curvature], [-length * (1 - rate), 1 - length * rate * curvature]])
    push = np.array([[rate], [-length * rate]]) * spread * np.sqrt(substeps)
    expected = scipy.linalg.solve_discrete_lyapunov(step, push @ push.T)[1:, 1:]
    assert_covariance(draws, expected)
    with planted_bug():
        assert_covariance(draws, 1.5 * expected)


def test_batches_of_four_times_the_size_take_a_fourth_of_the_steps():
    """The square-root rule: the same law at fixed steps x batch, on the way down; the linear rule gives another."""
    flow = bvs.AdamFlow(0.02, 1, b1=0.9, b2=0.99, substeps=1)
    one, four = np.eye(1), 4 * np.eye(1)
    slow = ends(flow, one, four, num_steps=80, start=3.0)
    fast = ends(eqx_substeps(flow.scaled(4.0), 4), one, four, num_steps=20, start=3.0)
    error = 4 * np.hypot(*(x.std() / np.sqrt(SEEDS) for x in (slow, fast)))
    assert abs(slow.mean() - fast.mean()) < error
    assert abs(np.log(slow.std() / fast.std())) < 4 / np.sqrt(SEEDS)
    linear = bvs.AdamFlow(0.08, 4, b1=0.6, b2=0.96, substeps=4)
    off = ends(linear, one, four, num_steps=20, start=3.0)
    assert abs(slow.mean() - off.mean()) > error


def eqx_substeps(flow, substeps):
    """The same flow in another number of sub-steps."""
    values = {name: getattr(flow, name) for name in flow.batched}
    return type(flow)(**values, batch_size=flow.noise.batch_size, substeps=substeps)
