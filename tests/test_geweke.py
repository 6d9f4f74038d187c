r"""Geweke's joint test: a kernel of the tempered posterior and redrawn data together leave the prior as it is.

Parameters come from the prior, data from them with noise variance sigma^2 / beta; then in turn the kernel moves the
parameters and the data are drawn anew. The joint law stays, and with it the prior of the parameters, whose moments
are known (Geweke 2004). The chains are independent: Student's t on their means.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.sbc import observing, on_data, redraw, uncompressed

CHAINS, ROUNDS, BETA = 1000, 30, 0.4
NETWORK = {"widths": (2, 2, 2), "spectrum": (1.0,), "num_examples": 6, "unseen_inputs": 0, "noise": 1.0}
SIZE = 8
KERNELS = {"gibbs": None, "mala": bvs.MALA(step_size=0.05), "nuts": bvs.NUTS(step_size=0.2, max_num_doublings=3)}


@pytest.fixture
def network(load):
    """A function that builds the tempered posterior of a two-layer network with a prior scale."""
    return lambda prior_scale: bvs.Posterior(load("deep_linear", **NETWORK, prior_scale=prior_scale), BETA)


@eqx.filter_jit
def along(target, kernel, wrong):
    """Mean over the rounds of theta^2 / d and of its square, one a chain; the kernel moves on ``wrong``'s prior."""

    def chain(key):
        key_start, key_rounds = jax.random.split(key)
        start = target.model.sample_prior(key_start)

        def one_round(position, key):
            key_data, key_init, key_move = jax.random.split(key, 3)
            given = observing(wrong, redraw(target, key_data, position))
            ready = on_data(kernel, given)
            position = ready.step(given, key_move, ready.init(given, key_init, position))[0].position
            return position, jnp.mean(target.flat(position) ** 2)

        _, squares = jax.lax.scan(one_round, start, jax.random.split(key_rounds, ROUNDS))
        return jnp.stack([squares.mean(), jnp.mean(squares**2)])

    return jax.vmap(chain)(jax.random.split(jax.random.key(0), CHAINS))


@pytest.mark.law
@pytest.mark.parametrize("name", ["gibbs", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mala", "nuts"))])
def test_kernels_of_a_tempered_posterior_keep_the_prior(network, name):
    """E[theta^2 / d] = 1 and E[(theta^2 / d)^2] = 1 + 2 / d; the planted bug tempers the prior too, by tau^2 / beta."""
    right, wrong = (uncompressed(network(scale)) for scale in (1.0, BETA**-0.5))
    expected = np.array([1, 1 + 2 / SIZE])
    found = []
    for target in (right, wrong):
        kernel = target.model.exact_sampler if KERNELS[name] is None else KERNELS[name]
        found.append(np.asarray(along(right, kernel.prepare(target), target)))
    assert_mean(found[0], expected=expected, detects=[0.15, 0.4])
    with planted_bug():
        assert_mean(found[1], expected=expected, detects=[0.5, 3.0])
