"""Gradients with noise of a known law have the mean and the covariance that they claim."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import regression
from bayes_vs_sgd.curvature import example_gradients
from bayes_vs_sgd.dynamics import noise as module
from bayes_vs_sgd.dynamics.rotated_noise import RotatedNoise

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = 40_000


def drawn(gradient, target, position, count=DRAWS):
    """Draws of a gradient at a position, as vectors."""
    gradient.check(target.model)

    @eqx.filter_jit
    def many(gradient, keys):
        return jax.lax.map(
            lambda key: target.flat(gradient.estimate(target, key, gradient.init(30, key), position)[0]),
            keys,
            batch_size=1000,
        )

    return np.asarray(many(gradient, jax.random.split(jax.random.key(3), count)))


@pytest.fixture(scope="module")
def away(network):
    """Target, position, gradient of L and covariance C of one example's gradient."""
    target, position = network
    with jax.enable_x64(True):
        each = np.asarray(example_gradients(target.model, position))
    return target, position, each.mean(axis=0), np.cov(each.T, bias=True)


def products(draws, mean):
    """Products of deviations along three fixed directions."""
    directions = np.random.default_rng(0).normal(size=(draws.shape[1], 3)) / np.sqrt(draws.shape[1])
    parts = (draws - mean) @ directions
    return np.einsum("ni,nj->nij", parts, parts).reshape(len(draws), -1), directions


@pytest.mark.law
@pytest.mark.parametrize(
    ("gradient", "batch"),
    [
        (bvs.GaussianNoise(4), 4),
        (bvs.GaussianNoise(4).refined(3), 4 / 3),
        (bvs.StableNoise(2.0, 1.0, "examples", 2), 2),
        (bvs.Minibatch(4), 4),
    ],
)
def test_covariance_is_that_of_a_minibatch(away, gradient, batch, monkeypatch):
    target, position, mean, covariance = away
    draws = drawn(gradient, target, position)
    size = np.sqrt(np.trace(covariance) / batch)
    assert_mean(draws, expected=mean, detects=0.06 * size)
    squares, directions = products(draws, mean)
    expected = (directions.T @ covariance @ directions).ravel() / batch
    detects = 0.3 * np.max(expected)
    assert_mean(squares, expected=expected, detects=detects)
    with planted_bug():  # the covariance of a batch of half the size
        assert_mean(squares, expected=2 * expected, detects=detects)
    if isinstance(gradient, bvs.GaussianNoise):
        monkeypatch.setattr(module, "centred", lambda values: values)
        off, _ = products(drawn(bvs.GaussianNoise(batch), target, position), mean)
        with planted_bug():  # weights that are not centred: C + grad L grad L'
            assert_mean(off, expected=expected, detects=detects)


@pytest.mark.law
def test_isotropic_noise_keeps_the_trace(away):
    target, position, mean, covariance = away
    draws = drawn(bvs.IsotropicNoise(4), target, position)
    variance = np.trace(covariance) / covariance.shape[0] / 4
    squares, directions = products(draws, mean)
    assert_mean(squares, expected=variance * (directions.T @ directions).ravel(), detects=0.1 * variance)
    with planted_bug():
        assert_mean(squares, expected=(directions.T @ covariance @ directions).ravel() / 4, detects=0.1 * variance)


@pytest.mark.law
@pytest.mark.parametrize(
    ("gradient", "share"), [(bvs.Minibatch(4), 1), (bvs.Shuffled(4), 26 / 29), (bvs.GaussianNoise(4), 1)]
)
def test_noise_that_is_turned_is_isotropic_and_keeps_its_trace(away, gradient, share):
    """Away from the minimum; of 30 examples without repetition C/4 (30 - 4)/(30 - 1)."""
    target, position, mean, covariance = away
    squares, directions = products(drawn(RotatedNoise(gradient), target, position), mean)
    variance = share * np.trace(covariance) / covariance.shape[0] / 4
    expected = variance * (directions.T @ directions).ravel()
    assert_mean(squares, expected=expected, detects=0.15 * variance)
    with planted_bug():  # the gradient is turned with its noise: tr C + |grad L|^2
        assert_mean(squares, expected=expected * (1 + mean @ mean / len(mean) / variance), detects=0.15 * variance)
    with planted_bug():  # as it was
        assert_mean(
            squares, expected=share * (directions.T @ covariance @ directions).ravel() / 4, detects=0.15 * variance
        )


@pytest.mark.exact
def test_noise_that_is_turned_has_the_size_that_was_drawn(away):
    """Draw by draw, whatever its law, and not the direction."""
    target, position, mean, _ = away
    for gradient in (bvs.Minibatch(1), bvs.Shuffled(8), bvs.StableNoise(1.2, 1.0, "examples", 2), bvs.LabelNoise(0.5)):
        key = jax.random.key(5)
        state = gradient.init(30, key)
        turned, _ = RotatedNoise(gradient).estimate(target, key, state, position)
        was, _ = gradient.estimate(target, jax.random.split(key)[0], state, position)
        after, before = np.asarray(target.flat(turned)) - mean, np.asarray(target.flat(was)) - mean
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before))
        assert abs(after @ before) < 0.99 * before @ before


@pytest.mark.law
def test_stable_noise_has_the_characteristic_function_it_claims(away):
    """E cos k.x = exp(-(s |k|)^alpha / 2^(alpha/2)) along any direction, and in fewer sub-steps m^(1 - 1/alpha) of it."""
    target, position, mean, _ = away
    for gradient, scale in ((bvs.StableNoise(1.5, 2.0), 2.0), (bvs.StableNoise(1.5, 2.0).refined(8), 4.0)):
        direction = np.ones(len(mean)) / np.sqrt(len(mean)) / 2
        cosines = np.cos((drawn(gradient, target, position) - mean) @ direction)
        assert_mean(cosines, expected=np.exp(-((scale / 2) ** 1.5) / 2**0.75), detects=0.03)
        with planted_bug():
            assert_mean(cosines, expected=np.exp(-((scale / 2) ** 1.5)), detects=0.03)


@pytest.mark.law
@pytest.mark.parametrize("alpha", [1.2, 1.7])
def test_stable_noise_of_the_examples_has_their_characteristic_function(away, alpha):
    """E cos k.g is a product over examples: exp(-sum_i |s k.(grad l_i - grad L) n^(-1/alpha) B^(-1/2)|^alpha / 2^(alpha/2)).

    With w of mean 0, k.g = sum_i w_i k.(grad l_i - grad L) = a sum_i z_i k.(grad l_i - grad L), the z independent.
    """
    target, position, mean, covariance = away
    with jax.enable_x64(True):
        each = np.asarray(example_gradients(target.model, position)) - mean
    scale, batch, n = 1.5, 3.0, len(each)
    deviations = drawn(bvs.StableNoise(alpha, scale, "examples", batch), target, position) - mean
    rng = np.random.default_rng(4)
    for _ in range(2):
        direction = rng.normal(size=len(mean))
        direction *= 1.5 / np.sqrt(direction @ covariance @ direction / batch) / scale
        sizes = np.abs(scale * (each @ direction) / np.sqrt(batch)) ** alpha / n

        def expected(total, alpha=alpha):
            return np.exp(-total / 2 ** (alpha / 2))

        right = expected(np.sum(sizes))
        assert_mean(np.cos(deviations @ direction), expected=right, detects=0.03)
        with (
            planted_bug()
        ):  # stable with the variance of a minibatch along the direction: one stable law for all examples
            assert_mean(
                np.cos(deviations @ direction), expected=expected((1.5) ** alpha * n ** (1 - alpha / 2)), detects=0.03
            )
        with planted_bug():  # the scale of most texts
            assert_mean(np.cos(deviations @ direction), expected=np.exp(-np.sum(sizes)), detects=0.03)


@pytest.mark.law
def test_label_noise_moves_along_the_tangent_space():
    """Of linear regression: mean grad L, covariance (s/n)^2 X'X."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    target = bvs.Posterior(regression(x, y))
    position = {"w": jnp.array([0.3, -1.0, 2.0])}
    draws = drawn(bvs.LabelNoise(1.5), target, position)
    mean = x.T @ (x @ position["w"] - y) / 20
    expected = (1.5 / 20) ** 2 * x.T @ x
    assert_mean(draws, expected=mean, detects=0.02)
    squares = np.einsum("ni,nj->nij", draws - mean, draws - mean)
    assert_mean(squares, expected=expected, detects=0.1 * expected.max())
    with planted_bug():  # noise on each label of the mean loss in the place of the sum
        assert_mean(squares, expected=20 * expected, detects=0.1 * expected.max())


@pytest.mark.exact
def test_sgd_of_batch_one_is_descent_on_corrupted_labels():
    """The gradient on example i is that on all of them with the labels y_j + r_j (1 - n [i = j]), r = x w - y."""
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=3)
    model = regression(x, y)
    residual = x @ w - y
    each = np.asarray(example_gradients(model, {"w": jnp.asarray(w)}))
    for row in range(7):
        labels = y + residual * (1 - 7 * (np.arange(7) == row))
        full = jax.grad(regression(x, labels).loss)({"w": jnp.asarray(w)})["w"]
        np.testing.assert_allclose(each[row], full, rtol=1e-12)


@pytest.mark.law
def test_fresh_examples_follow_the_teacher(load):
    """The mean gradient on fresh examples is that of the population loss: for w'x with covariance S, S (w - w*) / noise^2."""
    model = load("linear_regression", covariance=(2.0, 0.5), num_examples=8, noise=2.0)
    target, position = bvs.Posterior(model), {"w": jnp.array([3.0, -1.0])}
    sgd = bvs.SGD(0.1, batch_size=4, sampling="fresh")
    draws = drawn(sgd.gradient, target, position)
    expected = np.array([2.0, 0.5]) * (np.array([3.0, -1.0]) - 1) / 4
    assert_mean(draws, expected=expected, detects=0.05)
    with planted_bug():  # the noise of the labels forgotten in the likelihood
        assert_mean(draws, expected=4 * expected, detects=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: bvs.StableNoise(2.5), "alpha is 2.5: a stable law has 0 < alpha <= 2"),
        (lambda m: bvs.StableNoise(1.5, of="weights"), "of is 'weights'"),
        (lambda m: bvs.StableNoise(1.5, of="examples"), "batch_size is None"),
        (lambda m: bvs.GaussianNoise(0), "batch_size is 0: it must be finite and > 0"),
        (lambda m: bvs.SGD(sampling="fresh").prepare(bvs.Posterior(m)), "Model\\(fresh=function\\)"),
        (lambda m: bvs.SGD(sampling="bootstrap"), "sampling is 'bootstrap'"),
        (lambda m: bvs.StochasticGradientFlow(substeps=0), "substeps is 0"),
        (lambda m: bvs.StochasticGradientFlow(order=3), "order is 3"),
        (lambda m: bvs.MomentumFlow(momentum=1.0), "momentum is 1.0: it must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    model = regression(np.eye(3), np.ones(3))
    with pytest.raises(bvs.InputError, match=message):
        call(model)
