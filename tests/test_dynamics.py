"""Every optimiser makes the step that its equation says, and a grid of its hyper-parameters is one run."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from steps import largest_difference, one_step

import bayes_vs_sgd as bvs

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
        (lambda: bvs.RMSpropSGLD(decay=1.0), "decay is 1.0: it must be at least 0 and below 1"),
        (lambda: bvs.AdamSGLD(adapt="never"), "adapt is 'never': it must be one of warmup, always"),
        (lambda: bvs.SGHMC(friction=0.0), "friction is 0.0: it must be finite and > 0"),
        (lambda: bvs.NUTS(target_acceptance_rate=1.5), "target_acceptance_rate is 1.5: it must be between 0 and 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(make, message):
    with pytest.raises(bvs.InputError, match=message):
        make()


@pytest.mark.exact
@pytest.mark.parametrize("make", [bvs.MCLMC, bvs.AdjustedMCLMC])
def test_a_direction_needs_two_parameters(load, make):
    with pytest.raises(bvs.InputError, match="needs at least two parameters, the model has one"):
        bvs.simulate(make(), bvs.Posterior(load("polynomial")), key=0, num_steps=10)


@pytest.mark.exact
def test_batches_larger_than_the_data_are_refused(tiny):
    with pytest.raises(bvs.InputError, match="batch_size is 21: it must be between 1 and the 20 examples"):
        bvs.simulate(bvs.SGD(batch_size=21), bvs.Posterior(tiny), key=0, num_steps=10)


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
    with pytest.raises(bvs.InputError, match=r"learning_rate has shape \(3,\) for 4 chains"):
        bvs.simulate(bvs.SGD(np.full(3, 0.1)), bvs.Posterior(tiny), key=0, num_chains=4, num_steps=10)
