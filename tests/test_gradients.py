"""Minibatches are drawn by the law they claim, and their gradient is unbiased."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_frequencies, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.dynamics import Minibatch, Shuffled, gradients


def draw_many(gradient, num_examples, num_draws, num_calls=1):
    """Rows of successive calls (in one epoch or more) for many keys."""

    @jax.jit
    def one(key):
        def body(state, call):
            return gradient.draw(num_examples, jax.random.fold_in(key, call), state)[::-1]

        return jax.lax.scan(body, gradient.init(num_examples, key), jnp.arange(num_calls))[1]

    return np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(4), num_draws)))


@pytest.mark.exact
@pytest.mark.parametrize(("num_examples", "batch_size"), [(12, 3), (12, 5), (7, 7), (5, 1)])
def test_an_epoch_visits_every_example_once(num_examples, batch_size):
    """In each of four epochs; where the batch does not divide n, the remainder of each order is left out."""
    per_epoch = num_examples // batch_size
    rows = draw_many(Shuffled(batch_size=batch_size), num_examples, 20, 4 * per_epoch)
    for epoch in rows.reshape(20, 4, per_epoch * batch_size).reshape(80, -1):
        assert len(set(epoch.tolist())) == per_epoch * batch_size
        assert set(epoch.tolist()) <= set(range(num_examples))


@pytest.mark.law
def test_the_order_of_an_epoch_is_uniform(monkeypatch):
    """All 24 orders of four examples are equally likely, in the first epoch and in the one after it."""

    def counts(gradient, num_calls):
        codes = draw_many(gradient, 4, 20_000, num_calls).reshape(20_000, -1, 4) @ (4 ** np.arange(4))
        orders = np.unique(codes)
        return [np.searchsorted(orders, epoch) for epoch in codes.T], len(orders)

    for gradient, calls in ((Shuffled(batch_size=1), 8), (Shuffled(batch_size=2), 4)):
        epochs, kinds = counts(gradient, calls)
        assert kinds == 24
        for epoch in epochs:
            assert_frequencies(np.bincount(epoch, minlength=24), detects=0.1)
    monkeypatch.setattr(gradients, "_hash", lambda x, key, number: key[0] >> 1)  # rounds that do not see the index
    epochs, kinds = counts(Shuffled(batch_size=4), 1)
    assert kinds < 24
    with planted_bug():
        assert_frequencies(np.bincount(epochs[0], minlength=24), detects=0.1)


@pytest.mark.law
def test_minibatch_rows_are_uniform():
    rows = draw_many(Minibatch(batch_size=4), 10, 10_000)
    assert_frequencies(np.bincount(rows.ravel(), minlength=10), detects=0.05)
    with planted_bug():  # the last example is never drawn
        assert_frequencies(np.bincount(np.minimum(rows, 8).ravel(), minlength=10), detects=0.05)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sampling", ["replacement", "shuffled"])
def test_minibatch_gradient_is_unbiased(network, sampling):
    """The mean over batches is the gradient of L, and the mean square deviation C/B, times (n-B)/(n-1) in an epoch."""
    target, position = network
    sgd = bvs.SGD(learning_rate=1.0, batch_size=4, sampling=sampling)

    @eqx.filter_jit
    def moves(keys):
        return jax.vmap(lambda key: target.flat(sgd.step(target, key, sgd.init(target, key, position))[0].position))(
            keys
        )

    @eqx.filter_jit
    def exact():
        losses = target.model.example_losses
        return jax.vmap(lambda i: target.flat(jax.grad(lambda p: losses(p, i[None])[0])(position)))(jnp.arange(30))

    of_examples = np.asarray(exact())
    full = of_examples.mean(axis=0)
    drawn = np.asarray(target.flat(position) - moves(jax.random.split(jax.random.key(5), 20_000)))
    spread = np.sqrt(np.mean(np.sum((of_examples - full) ** 2, axis=1)))
    assert_mean(drawn, expected=full, detects=0.06 * spread)
    with planted_bug():  # the sum over the batch in the place of its mean
        assert_mean(4 * drawn, expected=full, detects=0.2 * spread)
    factor = 26 / 29 if sampling == "shuffled" else 1.0
    squares = np.sum((drawn - full) ** 2, axis=1)
    assert_mean(squares, expected=factor * spread**2 / 4, detects=0.02 * spread**2)
    with planted_bug():  # the other way of drawing
        assert_mean(squares, expected=(26 / 29 / factor) * spread**2 / 4, detects=0.02 * spread**2)
