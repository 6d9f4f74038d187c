"""Every dynamics makes the step that its equation says, and the law it claims."""

from pathlib import Path

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from statistical import assert_frequencies, assert_mean, chain_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.dynamics import Minibatch, Shuffled, gradients

DEEP_LINEAR = Path(__file__).parents[1] / "models" / "deep_linear.py"


@pytest.fixture(scope="module")
def network():
    """A 3-2-4-3 network in float64: its target and a position away from the optimum."""
    with jax.enable_x64(True):
        target = bvs.Posterior(
            bvs.load_model(
                DEEP_LINEAR, widths=(3, 2, 4, 3), spectrum=(1.5, 0.5), num_examples=30, unseen_inputs=0, noise=1.0
            )
        )
        position = target.unflat(jax.random.normal(jax.random.key(1), (target.model.num_parameters,)))
    return target, position


def one_step(dynamics, target, position, key=0):
    """Position after one compiled step of a fresh state."""
    dynamics = dynamics.prepare(target)

    @eqx.filter_jit
    def run(dynamics, target, position, key):
        return dynamics.step(target, key, dynamics.init(target, key, position))[0].position

    return run(dynamics, target, position, jax.random.key(key))


def largest_difference(first, second):
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))


# Balancedness


def imbalances(lower, upper):
    """W_{l+1}' W_{l+1} - W_l W_l' of each pair of layers."""
    return upper.T @ upper - lower @ lower.T


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_balancedness_of_one_step_on_any_batch(network, batch_size):
    """D' = D + eta^2 (G_{l+1}' G_{l+1} - G_l G_l'), exactly: the first order cancels (claims.md, A4)."""
    target, position = network
    rate = 0.05
    optimizer = bvs.Optimizer(optax.sgd, batch_size, learning_rate=rate)
    step = eqx.filter_jit(lambda p, key: optimizer.step(target, key, optimizer.init(target, key, p))[0].position)
    for seed in range(5):
        moved = step(position, jax.random.key(seed))
        gradients = {name: (position[name] - moved[name]) / rate for name in position}
        assert max(float(jnp.max(jnp.abs(g))) for g in gradients.values()) > 0.1
        for lower, upper in (("W1", "W2"), ("W2", "W3")):
            change = rate**2 * imbalances(gradients[lower], gradients[upper])
            expected = imbalances(position[lower], position[upper]) + change
            assert jnp.max(jnp.abs(imbalances(moved[lower], moved[upper]) - expected)) < 1e-12
            assert jnp.max(jnp.abs(change)) > 1e-6  # without the second order it would not hold


# Optimisers


TRANSFORMATIONS = {
    "sgd": (optax.sgd, {"learning_rate": 0.05}),
    "adamw": (optax.adamw, {"learning_rate": 0.01, "weight_decay": 0.1, "b1": 0.8}),
    "lion": (optax.lion, {"learning_rate": 0.01}),
    "nesterov": (optax.sgd, {"learning_rate": 0.02, "momentum": 0.9, "nesterov": True}),
    "chain": (
        lambda learning_rate, norm: optax.chain(optax.clip_by_global_norm(norm), optax.sgd(learning_rate)),
        {"learning_rate": 0.05, "norm": 0.5},
    ),
}


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_any_optax_transformation(network, name):
    """Three steps on all examples are those of Optax's own loop on the gradient of L."""
    target, position = network
    factory, hyperparameters = TRANSFORMATIONS[name]
    optimizer = bvs.Optimizer(factory, batch_size=None, **hyperparameters)

    @jax.jit
    def ours(position):
        state = optimizer.init(target, jax.random.key(0), position)
        for _ in range(3):
            state, _ = optimizer.step(target, jax.random.key(0), state)
        return state.position

    @jax.jit
    def theirs(position):
        transformation = factory(**hyperparameters)
        memory = transformation.init(position)
        for _ in range(3):
            gradient = jax.grad(lambda p: jnp.mean(target.model.example_losses(p)))(position)
            updates, memory = transformation.update(gradient, memory, position)
            position = optax.apply_updates(position, updates)
        return position

    assert largest_difference(ours(position), position) > 1e-3
    assert largest_difference(ours(position), theirs(position)) < 1e-12


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_heavy_ball_is_its_formula(network):
    """m' = mu m + g_B, theta' = theta - eta m', on the rows that the dynamics drew."""
    target, position = network
    sgd, rate, momentum = bvs.SGD(learning_rate=0.02, batch_size=4, momentum=0.9), 0.02, 0.9

    @jax.jit
    def ours(position):
        state = sgd.init(target, jax.random.key(0), position)
        for step in range(4):
            state, _ = sgd.step(target, jax.random.key(step), state)
        return state.position

    @jax.jit
    def formula(position):
        memory = jax.tree.map(jnp.zeros_like, position)
        for step in range(4):
            rows, _ = sgd.gradient.draw(30, jax.random.key(step), ())
            x, y = target.model.data["x"][rows], target.model.data["y"][rows]

            def loss(p, x=x, y=y):  # by hand: noise of scale 1
                return jnp.mean(jnp.sum((y - x @ p["W1"].T @ p["W2"].T @ p["W3"].T) ** 2, axis=1)) / 2

            memory = jax.tree.map(lambda m, g: momentum * m + g, memory, jax.grad(loss)(position))
            position = jax.tree.map(lambda p, m: p - rate * m, position, memory)
        return position

    assert largest_difference(ours(position), formula(position)) < 1e-12


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_objective_posterior_adds_the_prior(network):
    """L - log prior / (n beta): the step moves by eta theta / (n beta tau^2) more."""
    target, position = network
    tempered = eqx.tree_at(lambda t: t.inverse_temperature, target, jnp.asarray(0.2))
    plain, decayed = (
        one_step(bvs.GradientDescent(0.05, objective=kind), tempered, position) for kind in ("loss", "posterior")
    )
    expected = jax.tree.map(lambda moved, p: moved - 0.05 * p / (30 * 0.2), plain, position)
    assert largest_difference(decayed, expected) < 1e-12


@pytest.mark.exact
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bvs.SGD(learning_rate=0.0), "learning_rate is 0.0: it must be finite and > 0"),
        (lambda: bvs.SGD(learning_rate=np.nan), "learning_rate is nan"),
        (lambda: bvs.SGD(learning_rate=np.ones((2, 2))), r"learning_rate has shape \(2, 2\)"),
        (lambda: bvs.SGD(sampling="suffled"), "sampling is 'suffled'"),
        (lambda: bvs.SGD(objective="prior"), "objective is 'prior'"),
        (lambda: bvs.SGLD(step_size=-1.0), "step_size is -1.0"),
        (lambda: bvs.NUTS(target_acceptance_rate=1.5), "target_acceptance_rate is 1.5: it must be between 0 and 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(make, message):
    with pytest.raises(bvs.InputError, match=message):
        make()


@pytest.mark.exact
def test_batches_larger_than_the_data_are_refused(tiny):
    with pytest.raises(bvs.InputError, match="batch_size is 21: it must be between 1 and the 20 examples"):
        bvs.simulate(bvs.SGD(batch_size=21), bvs.Posterior(tiny), key=0, num_steps=10)


# Gradients


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


# Langevin


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_sgld_at_temperature_zero_is_gradient_descent(network):
    """At n beta = 1e34 and epsilon = eta / (n beta) noise and prior are below rounding: theta' = theta - eta grad L."""
    target, position = network
    cold = eqx.tree_at(lambda t: t.inverse_temperature, target, jnp.asarray(1e34 / 30))
    moved = one_step(bvs.SGLD(step_size=0.05 / 1e34), cold, position)
    descended = one_step(bvs.GradientDescent(0.05), target, position)
    assert largest_difference(descended, position) > 1e-2
    assert largest_difference(moved, descended) < 1e-12


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_noise_of_sgld(network):
    """theta' - theta - epsilon grad log p is normal with variance 2 epsilon, independent entry by entry."""
    target, position = network
    step_size = 1e-3
    sgld = bvs.SGLD(step_size=step_size)

    @eqx.filter_jit
    def noises(keys):
        drift = step_size * target.flat(jax.grad(target.log_density)(position))
        moved = jax.vmap(lambda key: target.flat(sgld.step(target, key, sgld.init(target, key, position))[0].position))
        return moved(keys) - target.flat(position) - drift

    noise = np.asarray(noises(jax.random.split(jax.random.key(6), 10_000)))
    scale = np.sqrt(2 * step_size)
    assert_mean(noise, expected=0.0, detects=0.12 * scale)
    assert_mean(noise**2, expected=scale**2, detects=0.18 * scale**2)
    assert_mean(noise[:, 1:] * noise[:, :-1], expected=0.0, detects=0.12 * scale**2)
    with planted_bug():  # sqrt(epsilon) in the place of sqrt(2 epsilon)
        assert_mean(noise**2 / 2, expected=scale**2, detects=0.18 * scale**2)


# Samplers of BlackJAX


@pytest.fixture(scope="module")
def gaussian():
    """Two observed means with prior N(0, 1): the posterior is normal with precision 1 + n / sigma^2."""

    def program(y):
        theta = numpyro.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("examples", y.shape[0]):
            numpyro.sample("y", dist.Normal(theta, jnp.array([1.0, 3.0])).to_event(1), obs=y)

    y = np.random.default_rng(7).normal(loc=(1.0, -2.0), size=(9, 2))
    precision = 1 + 9 / np.array([1.0, 9.0])
    mean = y.sum(axis=0) / np.array([1.0, 9.0]) / precision
    observables = {
        "theta": lambda model, values: values["theta"],
        "squares": lambda model, values: (values["theta"] - jnp.asarray(mean)) ** 2,
    }
    return bvs.Posterior(bvs.Model(program, {"y": y}, observables=observables)), mean, 1 / precision


@pytest.mark.law
def test_from_blackjax_samples_a_gaussian_posterior(gaussian):
    target, mean, variance = gaussian
    mala = bvs.from_blackjax(lambda logdensity: blackjax.mala(logdensity, step_size=0.15))
    settings = {"num_chains": 16, "num_draws": 3000, "num_warmup": 200, "observables": ["theta", "squares"]}
    tree = bvs.simulate(mala, target, key=8, progress=False, **settings)
    assert tree["sample_stats"]["acceptance_rate"].mean() > 0.5
    assert_mean(*chain_mean(tree, "theta"), expected=mean, detects=0.08)
    assert_mean(*chain_mean(tree, "squares"), expected=variance, detects=0.08)
    with planted_bug():  # the prior is left out
        assert_mean(*chain_mean(tree, "squares"), expected=1 / (1 / variance - 1), detects=0.08)


@pytest.mark.law
def test_nuts_samples_a_gaussian_posterior_and_tunes_each_chain(gaussian):
    target, mean, variance = gaussian
    settings = {"num_chains": 8, "num_draws": 1500, "num_warmup": 150, "observables": ["theta", "squares"]}
    tree = bvs.simulate(bvs.NUTS(), target, key=9, progress=False, **settings)
    assert_mean(*chain_mean(tree, "theta"), expected=mean, detects=0.08)
    assert_mean(*chain_mean(tree, "squares"), expected=variance, detects=0.08)
    with planted_bug():  # the posterior at inverse temperature 1/2
        hot = 1 / (1 + (1 / variance - 1) / 2)
        assert_mean(*chain_mean(tree, "squares"), expected=hot, detects=0.08)
    first = tree["posterior"]["theta"].isel(draw=0).values
    assert len(np.unique(first[:, 0])) == 8


@pytest.mark.exact
def test_nuts_keeps_what_the_warmup_tuned(gaussian):
    """After the warm-up each chain has its own step size and mass matrix, and the draws leave them alone."""
    target, _, _ = gaussian
    nuts = bvs.NUTS()
    schedule = nuts.warmup_schedule(150)

    @eqx.filter_jit
    def tune(key):
        def body(state, inputs):
            key, stage = inputs
            return nuts.warmup_step(target, key, state, stage)

        start = nuts.init(target, key, {"theta": jax.random.normal(key, (2,))})
        state, _ = jax.lax.scan(body, start, (jax.random.split(key, 150), schedule))
        return state, nuts.step(target, key, state)[0]

    tuned, drawn = jax.vmap(tune)(jax.random.split(jax.random.key(10), 6))
    assert len(np.unique(tuned.step_size)) == 6
    assert len(np.unique(tuned.inverse_mass_matrix[:, 0])) == 6
    np.testing.assert_array_equal(tuned.step_size, drawn.step_size)
    np.testing.assert_array_equal(tuned.inverse_mass_matrix, drawn.inverse_mass_matrix)
    assert not np.any(np.all(tuned.position["theta"] == drawn.position["theta"], axis=1))


# A grid of hyper-parameters is one run


@pytest.mark.exact
@pytest.mark.parametrize("make", [bvs.SGD, bvs.SGLD], ids=["SGD", "SGLD"])
def test_a_grid_of_rates_is_the_separate_runs_bit_for_bit(tiny, make):
    """Chain i of the grid is chain i of the run with its rate: 300 steps, measured equal to the last bit."""
    rates = np.array([0.003, 0.01, 0.03]) * (0.1 if make is bvs.SGLD else 1)
    settings = {"key": 11, "num_chains": 3, "num_steps": 300, "num_draws": 30, "observables": ["loss"]}
    settings |= {"record_positions": True, "progress": False}
    target = bvs.Posterior(tiny)
    grid = bvs.simulate(make(rates, batch_size=4), target, **settings)
    np.testing.assert_allclose(grid["posterior"]["time"], rates[:, None] * grid["posterior"]["step"].values[None])
    for chain, rate in enumerate(rates):
        alone = bvs.simulate(make(float(rate), batch_size=4), target, **settings)
        for name in ("loss", "W1", "W2"):
            ours = grid["posterior"][name].values[chain]
            np.testing.assert_array_equal(ours, alone["posterior"][name].values[chain])


@pytest.mark.exact
def test_a_grid_of_another_length_is_refused(tiny):
    with pytest.raises(bvs.InputError, match=r"has shape \(3,\) for 4 chains"):
        bvs.simulate(bvs.SGD(np.full(3, 0.1)), bvs.Posterior(tiny), key=0, num_chains=4, num_steps=10)
