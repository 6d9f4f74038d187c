"""The weak order of each scheme: how the error of its law at a fixed time falls as its steps are refined."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from moments import assert_order, of_equation, of_scheme, stepper
from scipy.linalg import expm
from scipy.special import erfc
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import quadratic, regression
from bayes_vs_sgd.dynamics.adaptive_sde import AdaptiveState
from bayes_vs_sgd.dynamics.sde import FlowState, MomentumState
from bayes_vs_sgd.dynamics.sgmcmc import SGLDState
from bayes_vs_sgd.dynamics.subordinated import SubordinatedLangevin
from bayes_vs_sgd.dynamics.underdamped import SGHMCState
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.fractional import mean_position, second_moment

LADDER = (4, 8, 16)
H, C, START = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.6], [-0.6, 2.0]]), np.array([1.0, -2.0])
ONE, NONE, REST, V = np.eye(2), np.zeros((2, 2)), np.zeros(2), np.array([3.0, 0.5])
ETA, B, MU, B1, B2, TAKEN, FRICTION = 0.4, 2.0, 0.6, 0.7, 0.8, 5.0, 3.0
PULL = 4 * H + ONE / 100  # of the loss of four examples and of the prior
HEAT, MASS = ETA / B * C, ETA * (1 + MU) / 2

pytestmark = pytest.mark.usefixtures("x64")


def inertia(mass, pull, friction, heat):
    """K and Q of dx = v dt, mass dv = -friction v dt - pull x dt + noise of covariance heat dt."""
    k = np.block([[NONE, -ONE], [pull / mass, friction / mass * ONE]])
    return k, np.block([[NONE, NONE], [NONE, heat / mass**2]])


def rmsprop(t):
    """The second moment relaxes to the noise's variance from elsewhere; t is in steps."""
    root = np.sqrt(np.diag(C) / B + (V - np.diag(C) / B) * np.exp(-(1 - B2) * t))
    return ETA / root[:, None] * H, ETA**2 * C / np.outer(root, root) / B


def adam(t):
    rate = rmsprop(t)[0] @ np.linalg.inv(H) / (1 - np.exp(-(1 - B1) * (TAKEN + t)))
    k = np.block([[NONE, rate], [-(1 - B1) * H, (1 - B1) * ONE]])
    return k, np.block([[NONE, NONE], [NONE, (1 - B1) ** 2 * C / B]])


def at(*vectors):
    return tuple({"theta": v} for v in vectors)


@dataclass(frozen=True)
class Case:
    """A scheme in m parts, K and Q of its equation, where it starts, for how long, and variances at the start."""

    make: Callable
    moving: Callable
    state: Any
    time: float
    spread: tuple = (0, 0)
    is_sampler: bool = False  # one step is one part


FLOW, MOVING, ADAPTIVE = FlowState(*at(START)), at(START, REST), AdaptiveState(*at(START, REST, V), TAKEN)
CASES = {
    "flow": Case(lambda m: bvs.StochasticGradientFlow(ETA, bvs.GaussianNoise(B), m), lambda _: (H, HEAT), FLOW, 2 * ETA),
    "flow of the modified loss": Case(
        lambda m: bvs.StochasticGradientFlow(ETA, bvs.GaussianNoise(B), m, order=2),
        lambda _: (H + ETA / 2 * H @ H, HEAT), FLOW, 2 * ETA,
    ),
    "momentum": Case(
        lambda m: bvs.MomentumFlow(ETA, MU, bvs.GaussianNoise(B), m),
        lambda _: inertia(MASS, H, 1 - MU, HEAT), MomentumState(*MOVING), 2 * ETA, (0, 0, 0, 0),
    ),
    "RMSprop": Case(lambda m: bvs.RMSpropFlow(ETA, B, B2, 0.0, m), rmsprop, ADAPTIVE, 2.0),
    "Adam": Case(lambda m: bvs.AdamFlow(ETA, B, B1, B2, 0.0, m), adam, ADAPTIVE, 2.0, (0, 0, 0, 0)),
    "SGLD": Case(lambda m: bvs.SGLD(0.1 / m), lambda _: (PULL, 2 * ONE), SGLDState(*at(START), ()), 0.1, is_sampler=True),
    "SGHMC": Case(
        lambda m: bvs.SGHMC(0.5 / m, FRICTION), lambda _: inertia(1.0, PULL, FRICTION, 2 * FRICTION * ONE),
        SGHMCState(*MOVING, ()), 0.5, (0, 0, 1, 1), True,
    ),
}  # fmt: skip


@pytest.mark.exact
@pytest.mark.parametrize("name", CASES)
def test_every_scheme_is_of_first_order(name, monkeypatch):
    case, target = CASES[name], bvs.Posterior(quadratic(H, C, 4))
    spread, start = np.diag(case.spread).astype(float), np.append(START, REST)[: len(case.spread)]
    begun = np.pad(spread, (0, len(ravel_pytree(case.state)[0]) - len(spread)))
    exact = of_equation(case.moving, case.time, start, spread)

    def ladder(power):
        for m in LADDER:
            step = stepper(monkeypatch, case.make(m), target, case.state)
            draws, steps = ((1, 2), m) if case.is_sampler else ((m, 4), 2)
            yield of_scheme(step, case.state, begun, draws, steps, m**power)

    assert_order(ladder(0.0), [exact] * 3, 1)
    with planted_bug():  # the root of the step twice
        assert_order(ladder(-0.5), [exact] * 3, 1)


@pytest.mark.exact
def test_the_modified_loss_makes_the_distance_to_sgd_of_second_order(monkeypatch):
    """SGD has mean (1 - eta H)^k and S' = (1 - eta H) S (1 - eta H) + eta^2 C / B; k sub-steps err by O(eta / k), k eta = 1."""
    target, exact = bvs.Posterior(quadratic(H, C, 4)), []
    for k in LADDER:
        mean, spread, a = START, NONE, ONE - H / k
        for _ in range(k):
            mean, spread = a @ mean, a @ spread @ a + C / B / k**2
        exact.append((mean, spread))

    def ladder(order):
        for k in LADDER:
            flow = bvs.StochasticGradientFlow(1 / k, bvs.GaussianNoise(B), k, order)
            yield of_scheme(stepper(monkeypatch, flow, target, FLOW), FLOW, NONE, (k, 4), k)

    assert_order(ladder(2), exact, 2)
    assert_order(ladder(1), exact, (1, 2))  # the covariance is of order eta itself
    with planted_bug():  # without the correction of the drift
        assert_order(ladder(1), exact, 2)


@pytest.mark.exact
def test_the_stable_flow_tends_to_its_equation(monkeypatch):
    """The scale to the power alpha, sum |G|^alpha: s^alpha eta^(alpha - 1) (1 - exp(-alpha h eta)) / (alpha h)."""
    alpha, h, s, state = 1.5, 1.5, 2.0, FlowState(*at(np.ones(1)))
    target = bvs.Posterior(quadratic([[h]], [[1.0]], 4))
    exact = (np.asarray(s**alpha * ETA ** (alpha - 1) * -np.expm1(-alpha * h * ETA) / (alpha * h)),)

    def ladder(power):
        for m in LADDER:
            flow = bvs.StochasticGradientFlow(ETA, bvs.StableNoise(alpha, s), m)
            step = stepper(monkeypatch, flow, target, state)
            g = of_scheme(step, state, np.zeros((1, 1)), (m, 1), 1, m**power)[2]
            yield (np.sum(np.abs(g) ** alpha),)

    assert_order(ladder(0.0), [exact] * 3, 1)
    with planted_bug():  # refined like Brownian motion
        assert_order(ladder(1 / alpha - 0.5), [exact] * 3, 1)


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["label noise", "isotropic noise", "white noise"])
def test_noise_of_each_kind_is_of_first_order_on_a_scalar(kind, monkeypatch):
    """Var = q (1 - exp(-2 h t)) / 2h, q = eta Var(noise of the gradient): (s/n)^2 x'x, C/B of one weight, or s^2."""
    x, y, s = np.array([1.0, 2.0, -1.0]), np.array([0.5, 1.0, 2.0]), 1.5
    curvature, begin, state = x @ x / 3, 1.0, FlowState({"w": jnp.ones(1)})
    target = bvs.Posterior(regression(x[:, None], y))
    if kind == "isotropic noise":  # constant where the loss is a quadratic with noise of one size
        target, state, curvature = bvs.Posterior(quadratic([[1.5]], [[2.0]], 4)), FlowState({"theta": jnp.ones(1)}), 1.5
    noise, strength, draws = {
        "label noise": (bvs.LabelNoise(s), (s / 3) ** 2 * x @ x, 3),
        "isotropic noise": (bvs.IsotropicNoise(B), 2.0 / B, 1),
        "white noise": (bvs.WhiteNoise(s), s**2, 1),
    }[kind]
    pull = 0.0 if kind == "isotropic noise" else x @ y / 3
    kept = np.exp(-curvature * 2 * ETA)
    rest = pull / curvature
    exact = rest + (begin - rest) * kept, ETA * strength * (1 - kept**2) / (2 * curvature)

    def ladder(power):
        for m in LADDER:
            flow = bvs.StochasticGradientFlow(ETA, noise, m)
            step = stepper(monkeypatch, flow, target, state)
            yield of_scheme(step, state, np.zeros((1, 1)), (m, draws), 2, m**power)[:2]

    known = [tuple(np.reshape(e, shape) for e, shape in zip(exact, ((1,), (1, 1)), strict=True))] * 3
    assert_order(ladder(0.0), known, 1)
    with planted_bug():  # the root of the step twice
        assert_order(ladder(-0.5), known, 1)


@pytest.mark.exact
def test_noise_that_depends_on_the_position_is_itos(monkeypatch):
    """Two examples of a regression: z = +-(1, -1) / sqrt 2 in all combinations gives both moments, of a linear system."""
    x, y, state = np.array([1.0, 2.0]), np.array([2.0, -1.0]), FlowState({"w": jnp.ones(1)})
    target = bvs.Posterior(regression(x[:, None], y))
    (h, pull), (p, r) = (x @ x / 2, x @ y / 2), (np.array([x**2, -x * y]) @ [0.5, -0.5])  # slope, and noise p w + r

    def exact(drift):
        """Of dw = (pull - h w + drift (p w + r)) dt + sqrt(eta / B) (p w + r) dW, from E (1, w, w^2)."""
        a, b, q = pull + drift * r, h - drift * p, ETA / B
        slope = np.array([[0, 0, 0], [a, -b, 0], [q * r**2, 2 * a + 2 * q * p * r, q * p**2 - 2 * b]])
        return [tuple((expm(slope * ETA) @ np.ones(3))[1:, None])] * 3

    def ladder():
        for m in (2, 4, 8):
            flow = bvs.StochasticGradientFlow(ETA, bvs.GaussianNoise(B), m)
            signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=m)))
            draws = signs[:, :, None] * jnp.asarray([1.0, -1.0]) / 2**0.5
            step = stepper(monkeypatch, flow, target, state)
            ends = np.asarray(jax.jit(jax.vmap(partial(step, jnp.ones(1))))(draws))
            yield ends.mean(axis=0), (ends**2).mean(axis=0)

    assert_order(ladder(), exact(0.0), 1)
    with planted_bug():  # in the sense of Stratonovich
        assert_order(ladder(), exact(ETA / B * p / 2), 1)


@pytest.mark.law
def test_the_clock_that_waits_is_of_first_order():
    r"""Of index 1/2, P(k steps or more by t) = erfc(k eps / (2 sqrt t)), so all moments of the scheme are sums."""
    rate, time, begin = 1.5, 1.0, 2.0

    def moments(length):
        k = np.arange(1, 200 / length)
        due, keep = erfc(k * length / (2 * time**0.5)), 1 - rate * length
        first, second = (1 - (1 - r) * np.sum(r ** (k - 1) * due) for r in (keep, keep**2))
        rest = 2 * length / (1 - keep**2)
        return np.asarray(begin * first), np.asarray(rest + (begin**2 - rest) * second)

    exact = mean_position(begin, rate, time, 0.5), second_moment(begin, rate, 1.0, time, 0.5)
    assert_order([moments(1 / m) for m in LADDER], [exact] * 3, 1)

    target = bvs.Posterior(quadratic([[1.0]], [[1.0]], 4), (rate - 0.01) / 4)
    tree = bvs.simulate(
        SubordinatedLangevin(0.5, step_size=0.5, time_step=time), target, key=0, num_chains=40_000, num_steps=1, num_draws=1,
        initial={"theta": np.full((40_000, 1), begin)}, observables=["loss"], progress=False,
    )  # fmt: skip
    theta = np.asarray(final_positions(tree)[0]["theta"], float)[:, 0]
    off = np.abs(np.subtract(moments(0.5), exact))
    for power, value, difference in zip((1, 2), moments(0.5), off, strict=True):
        assert_mean(theta**power, expected=value, detects=difference)
        with planted_bug():  # the equation's own
            assert_mean(theta**power, expected=value + difference, detects=difference)
