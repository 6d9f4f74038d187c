"""The gauge moves of the Gibbs sampler leave the likelihood and the prior as they are, and find the law of the scales."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.dynamics import gibbs as module
from bayes_vs_sgd.dynamics.gibbs import PROPOSALS, LinearNetworkGibbs, log_scales

COEFFICIENTS = {  # a, b, c, d, excess
    "square": (3.0, 0.5, 0.0, 0.0, 0),
    "wide below": (2.0, 1.0, 0.0, 0.0, 3),
    "wide above": (1.0, 0.2, 0.0, 0.0, -4),
    "localised": (9.0, 8.0, 12.0, 3.0, 1),
}


@pytest.mark.law
@pytest.mark.parametrize("case", COEFFICIENTS)
def test_law_of_the_scales(case):
    """Mean and second moment of s after 20 moves of 20,000 directions, against quadrature."""
    coefficients = COEFFICIENTS[case]
    grid = np.linspace(-6, 6, 4001)
    a, b, c, d, excess = coefficients
    log_density = -(a * np.exp(2 * grid) + b * np.exp(-2 * grid)) / 2 + c * np.exp(grid) + d * np.exp(-grid)
    weights = np.exp(log_density + excess * grid - np.max(log_density + excess * grid))
    mean = float(weights @ grid / weights.sum())
    variance = float(weights @ (grid - mean) ** 2 / weights.sum())

    def moved(excess):
        def again(key, s):
            scales = (a * jnp.exp(2 * s), b * jnp.exp(-2 * s), c * jnp.exp(s), d * jnp.exp(-s))
            shape = (PROPOSALS, len(s))
            draws = jax.random.normal(key, shape), jax.random.uniform(jax.random.fold_in(key, 1), shape)
            return s + log_scales(*draws, *scales, excess)[0]

        steps = jax.jit(lambda s: jax.lax.fori_loop(0, 20, lambda i, s: again(jax.random.key(i), s), s))
        return np.asarray(steps(jnp.zeros(20_000)))

    s = moved(excess)
    assert_mean(s, expected=mean, detects=0.07 * np.sqrt(variance))
    assert_mean((s - mean) ** 2, expected=variance, detects=0.12 * variance)
    with planted_bug():  # the Jacobian of one hidden direction too many
        assert_mean(moved(excess + 1), expected=mean, detects=0.07 * np.sqrt(variance))


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_gauge_moves_keep_the_map(network_target):
    """W_2 G^{-1} G W_1 = W_2 W_1, while the layers move."""
    gibbs, target = network_target
    before = prior_draws(target, 1)
    after = moved(gibbs, target, before)
    products = [np.linalg.multi_dot([np.asarray(w[0]) for w in reversed(x)]) for x in (before, after)]
    assert np.allclose(*products, rtol=0, atol=1e-12 * np.abs(products[0]).max())
    assert all(np.abs(x - y).max() > 0.01 for x, y in zip(before, after, strict=True))


@pytest.mark.law
def test_gauge_moves_keep_the_prior(network_target, monkeypatch):
    """Draws of the prior times the localisation are draws of it afterwards: mean displacement, and squared norm."""
    gibbs, target = network_target
    gamma, centers = float(target.localization), gibbs.matrices(target.center)
    before = prior_draws(target, 20_000)

    def check(after):
        for weights, center in zip(after, centers, strict=True):
            displacement = np.asarray(weights - gamma * center / (1 + gamma)).reshape(len(weights), -1)
            assert_mean(np.sum(displacement**2, axis=1), expected=center.size / (1 + gamma), detects=0.1 * center.size)
            assert_mean(displacement @ np.ravel(center), expected=0.0, detects=0.1 * np.linalg.norm(center))

    check(moved(gibbs, target, before))
    with planted_bug():  # no Jacobian
        monkeypatch.setattr(module, "log_scales", lambda *x: log_scales(*x[:-1], 0))
        check(moved(gibbs, target, before))


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_large_products_keep_their_kernels(load, monkeypatch):
    """Conditional mean of W_1 under W_2 = U diag(s) V', s from 1e-3 to 1e8: V (b s U'Y'X) / (b s^2 n + 1), as X'X = n I.

    W_2 itself is rounded by the machine's precision of its largest s, the smallest by max(s)/min(s) times that: no
    algorithm is better. An eigendecomposition of W_2'W_2 (the bug) has the square of this ratio, more than 1.
    """
    model = load("deep_linear", widths=(3, 3, 3), spectrum=(2.0, 1.0, 0.4), unseen_inputs=0, noise=1.0)
    rng, s = np.random.default_rng(0), np.array([1e-3, 1.0, 1e8])
    u, v = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    gibbs = model.exact_sampler.prepare(bvs.Posterior(model))
    cross = np.asarray(model.data["y"]).T @ np.asarray(model.data["x"])
    exact = v @ (s[:, None] * (u.T @ cross) / (s[:, None] ** 2 * model.num_examples + 1))
    weights = [jnp.zeros((3, 3)), jnp.asarray(u * s @ v.T)]
    rounding = s.max() / s.min() * np.finfo(float).eps

    def error():
        mean, _, left, right = gibbs.conditional(bvs.Posterior(model), weights, 0)
        return np.abs(left @ mean @ right.T - exact).max() / np.abs(exact).max()

    assert error() < 10 * rounding
    monkeypatch.setattr(module, "right_vectors", lambda above: jnp.linalg.eigh(above.T @ above)[1])
    assert error() > 1000 * rounding


@pytest.mark.parametrize("precise", [False, True])
def test_networks_too_large_for_single_precision_are_refused(load, precise):
    """Eight layers of 96, on which sweeps in float32 reach 10,000 times the loss that those in float64 do."""
    with jax.enable_x64(precise):
        size = {
            "widths": (96,) * 9,
            "spectrum": (1.0,),
            "num_examples": 10**6,
            "sufficient": True,
            "inputs": "gaussian",
        }
        model = load("deep_linear", **size, unseen_inputs=0, noise=0.7)
        if precise:
            model.exact_sampler.prepare(bvs.Posterior(model, 0.07))
        else:
            with pytest.raises(bvs.InputError, match="float64"):
                model.exact_sampler.prepare(bvs.Posterior(model, 0.07))


@pytest.fixture
def network_target(load):
    """Sampler and target of a network of unequal widths, localised."""
    model = load("deep_linear", widths=(6, 3, 2, 1), spectrum=(1.0,), unseen_inputs=0)
    return LinearNetworkGibbs(("W1", "W2", "W3"), 3.0, 1.0), bvs.Posterior(model, 0.1, 0.5)


def prior_draws(target, count):
    """Draws (count, ...) of every layer from the prior times the localisation."""
    gamma = target.localization
    keys = jax.random.split(jax.random.key(1), len(target.center))
    return [
        gamma * c / (1 + gamma) + jax.random.normal(key, (count, *c.shape)) / jnp.sqrt(1 + gamma)
        for key, c in zip(keys, target.center.values(), strict=True)
    ]


def moved(gibbs, target, weights):
    """Layers after three rounds of gauge moves."""

    def rounds(key, *weights):
        for i in range(3):
            weights = gibbs._gauge(target, jax.random.fold_in(key, i), list(weights))[0]
        return tuple(weights)

    keys = jax.random.split(jax.random.key(2), len(weights[0]))
    return eqx.filter_jit(jax.vmap(rounds))(keys, *weights)


@pytest.mark.exact
def test_factorisations_are_of_one_chain_at_a_time(load):
    """Batched ones wait for each other in XLA's pool of threads: with 40 chains of five layers for ever."""
    model = load("deep_linear", widths=(5, 4, 3, 4), spectrum=(1.0,))
    target = bvs.Posterior(model)
    sampler = model.exact_sampler.prepare(target)

    def sweep(key, position):
        values = model.constrain(sampler.step(target, key, sampler.init(target, key, position))[0].position)
        return {name: item(model, values) for name, item in model.observables.items()}

    keys = jax.random.split(jax.random.key(0), 6)
    positions = jax.vmap(model.sample_prior)(keys)
    found = set(factorisations(jax.make_jaxpr(jax.vmap(sweep))(keys, positions).jaxpr))
    assert found == {("svd", 2), ("eigh", 2)}
    batched = jax.make_jaxpr(jax.vmap(lambda x: jnp.linalg.svd(x)[0]))(np.ones((6, 3, 3)))
    assert set(factorisations(batched.jaxpr)) == {("svd", 3)}


def factorisations(program):
    """Names of the factorisations in a program and the dimensions of what they are given."""
    for line in program.eqns:
        if line.primitive.name in ("svd", "eigh", "qr", "householder_product", "cholesky"):
            yield line.primitive.name, line.invars[0].aval.ndim
        for part in jaxprs_in_params(line.params):
            yield from factorisations(part)
