r"""Mean and covariance of a scheme's law and of its equation's, without Monte Carlo, and the order in which they meet.

On a quadratic loss with constant noise a step is affine in the state and in its random numbers z, of covariance I. The two
Jacobians of the code as it is carry mean and covariance from step to step:

.. math:: m' = f(m, 0), \qquad S' = A S A^T + G G^T, \qquad A = \partial f / \partial m, \quad G = \partial f / \partial z.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

from bayes_vs_sgd.dynamics import noise, sgmcmc, white_noise

MOST = 64


def stepper(monkeypatch, dynamics, target, state):
    """A function (vector, draws) -> vector: a step that takes its random numbers from the rows of draws, one a sub-step."""
    dynamics, key, (_, unravel) = dynamics.prepare(target), jax.random.key(0), ravel_pytree(state)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(MOST))
    known = jax.random.key_data(keys), jax.random.key_data(jax.vmap(jax.random.split)(keys)[:, 1])

    def step(vector, draws):
        assert len(draws) <= MOST

        def row(key, *_):
            same = [jnp.all(each == jax.random.key_data(key), axis=1) for each in known]  # or its second half
            return draws[jnp.argmax(same[0] | same[1])]

        for module, name in (
            *((module, "near_normals") for module in (noise, sgmcmc, white_noise)),
            (noise, "isotropic_stable"),
            (jax.random, "normal"),
        ):
            monkeypatch.setattr(module, name, row)
        return ravel_pytree(dynamics.step(target, key, unravel(vector))[0])[0]

    return step


def of_scheme(step, state, spread, draws, num_steps, size=1.0):
    """Mean and covariance after some steps, each of random numbers (sub-step, number) of a size; G of the last."""
    jacobians = eqx.filter_jit(lambda v, z: (step(v, z), *jax.jacfwd(step, (0, 1))(v, z)))
    vector, g = ravel_pytree(state)[0], np.zeros(0)
    for _ in range(num_steps):
        vector, a, g = jacobians(vector, jnp.zeros(draws))
        g = size * np.asarray(g).reshape(len(vector), -1)
        spread = a @ spread @ a.T + g @ g.T
    return np.asarray(vector), np.asarray(spread), g


def of_equation(moving, time, start, spread):
    """Mean and covariance of dz = -K z dt + noise of covariance Q dt after a time, K and Q functions of time."""
    size = len(start)

    def slope(t, values):
        (k, q), s = moving(t), values[size:].reshape(size, size)
        return np.concatenate([-k @ values[:size], (-k @ s - s @ k.T + q).ravel()])

    first = np.concatenate([start, spread.ravel()])
    found = solve_ivp(slope, (0, time), first, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    return found[:size], found[size:].reshape(size, size)


def assert_order(found, exact, order):
    """Slopes of log error over a ladder that doubles, of each moment its largest entry (those that are known).

    They tend to the order as the step itself does: twice the last less the one before is within .05 of it.
    """
    errors = []
    for moments, known in zip(found, exact, strict=True):
        pairs = zip(moments, known, strict=False)
        errors.append([np.abs(m[tuple(map(slice, np.shape(e)))] - e).max() for m, e in pairs])
    slopes = -np.diff(np.log2(errors), axis=0)
    if not np.all(np.abs(2 * slopes[-1] - slopes[-2] - order) < 0.05):
        raise AssertionError(f"order {slopes} differs from {order}")
