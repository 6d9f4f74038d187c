"""Optax's update rules on the library's gradients: two steps against the formulas, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import quadratic

H, START, ETA = np.diag([1.0, 3.0]), np.array([2.0, -1.0]), 0.1


def normalized(learning_rate):
    return optax.chain(optax.normalize_by_update_norm(), optax.sgd(learning_rate))


def heavy_ball(g, m):
    m = 0.9 * m + g
    return m, m


def nesterov(g, m):
    m = 0.9 * m + g
    return g + 0.9 * m, m


def rms(g, v):
    v = 0.9 * v + 0.1 * g**2
    return g / np.sqrt(v + 1e-8), v


def adam(g, memory, decay=0.0, x=0.0):
    m, v, t = memory if isinstance(memory, tuple) else (0.0, 0.0, 0)
    m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, t + 1
    return m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * x, (m, v, t)


RULES = {
    "gradient descent": (lambda: bvs.GradientDescent(ETA), lambda g, m, x: (g, m)),
    "heavy ball": (
        lambda: bvs.Optimizer(optax.sgd, None, learning_rate=ETA, momentum=0.9),
        lambda g, m, x: heavy_ball(g, m),
    ),
    "Nesterov": (
        lambda: bvs.Optimizer(optax.sgd, None, learning_rate=ETA, momentum=0.9, nesterov=True),
        lambda g, m, x: nesterov(g, m),
    ),
    "RMSprop": (lambda: bvs.Optimizer(optax.rmsprop, None, learning_rate=ETA), lambda g, m, x: rms(g, m)),
    "Adam": (lambda: bvs.Optimizer(optax.adam, None, learning_rate=ETA), lambda g, m, x: adam(g, m)),
    "AdamW": (
        lambda: bvs.Optimizer(optax.adamw, None, learning_rate=ETA, weight_decay=0.1),
        lambda g, m, x: adam(g, m, decay=0.1, x=x),
    ),
    "normalised descent": (
        lambda: bvs.Optimizer(normalized, None, learning_rate=ETA),
        lambda g, m, x: (g / (np.linalg.norm(g) + 1e-6), m),
    ),
    "sign descent": (lambda: bvs.Optimizer(optax.sign_sgd, None, learning_rate=ETA), lambda g, m, x: (np.sign(g), m)),
}


@pytest.mark.exact
@pytest.mark.parametrize("name", RULES)
def test_two_steps_are_those_of_the_formula(name, x64):
    make, rule = RULES[name]
    dynamics = make()
    target = bvs.Posterior(quadratic(H, np.eye(2), 8))
    state = dynamics.prepare(target).init(target, jax.random.key(0), {"theta": jnp.asarray(START)})
    x, memory = START, 0.0
    for _ in range(2):
        state, _ = dynamics.step(target, jax.random.key(1), state)
        direction, memory = rule(H @ x, memory, x)
        x = x - ETA * direction
        np.testing.assert_allclose(state.position["theta"], x, rtol=1e-9)
