"""The weak error of RMSprop and Adam beside their equations, where half the learning rate goes by the square-root rule."""

import re

import numpy as np
import optax
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.refined import describe, own_equation
from bayes_vs_sgd.assumptions.weak_error import halved, weak_error
from bayes_vs_sgd.comparison.plan import Walk
from bayes_vs_sgd.settings import Compare

ETA, BATCH, DECAY, SUBSTEPS = 0.7, 8, 0.99, 16
NUM_STEPS, TAKEN = 100, 96
"""Asked for, and a multiple of the draws: at half the learning rate 400, the whole multiple of 100 that is nearest to 4 x 96."""
START = 0.3
"""Standard deviation of the prior draws from which runs start: a hundredth of 30."""


def rmsprop_spread(eta, batch, decay, second_moment, num_steps, seed, number=150_000):
    """Log mean absolute deviation (a normal law: log sd) of one weight of curvature 1 whose examples' gradients are theta ± 1."""
    rng = np.random.default_rng(seed)
    theta, v = START * rng.normal(size=number), second_moment
    for _ in range(num_steps):
        g = theta + 2 * rng.binomial(batch, 0.5, size=number) / batch - 1
        v = decay * v + (1 - decay) * g**2
        theta = theta - eta * g / np.sqrt(v)
    sizes = np.abs(theta)
    return np.log(sizes.mean()) + np.log(np.pi / 2) / 2, sizes.std() / sizes.mean() / np.sqrt(number)


def equation_variance(eta, batch, substeps):
    """Of its equation, a normal law; V at rest: sub-steps of rate eta / (s m), noise of variance s^2."""
    rate = eta * np.sqrt(batch)
    return rate / (2 - rate / substeps) / batch


def log_spread_ratio(eta, batch, decay, num_steps, substeps, seed):
    """Of the optimiser over its equation, and its standard error."""
    exact, error = rmsprop_spread(eta, batch, decay, 1 / batch, num_steps, seed)
    return exact - np.log(equation_variance(eta, batch, substeps)) / 2, error


@pytest.mark.law
def test_rmsprops_weak_error_is_quartered(load):
    """Planted: half the learning rate alone, as of SGD, whose error is half."""
    dynamics = bvs.Optimizer(optax.rmsprop, BATCH, learning_rate=ETA, decay=DECAY, initial_scale=1 / BATCH)
    model = load("linear_regression", isotropic=True, covariance=(1.0,), num_examples=8, prior_scale=30.0)
    settings = Compare(
        dynamics=("own",), num_seeds=36_000, num_steps=NUM_STEPS, learning_rate=ETA, batch_size=BATCH,
        initial_scale=0.01, observables=("mode_1",),
    )  # fmt: skip
    study = bvs.Study(model, settings, progress=False, own={"own": Walk(dynamics)})
    study.trees["own"] = study.ensemble("own", dynamics, study.target(study.scale), 0.0), None
    made = describe(study, "RMSprop's equation", "own", own_equation(dynamics, SUBSTEPS, 8))
    found = weak_error(study, dynamics, "own", made)
    width = next(e for e in made.effects if e.kind == "log_deviation_ratio")
    expected, error = log_spread_ratio(ETA, BATCH, DECAY, TAKEN, SUBSTEPS, 0)
    assert_mean(width.value, width.standard_error, expected=expected, expected_error=error, detects=0.1)
    assert found.holds is False
    assert "log deviation ratio" in found.note
    assert found.note.endswith("times less (first order: 4)") or "times less" not in found.note
    assert study.trees["own at half the learning rate"][0].attrs["num_steps"] == 4 * NUM_STEPS
    half, spread = (float(x) for x in re.findall(r"rate ([+-][0-9.]+) ± ([0-9.]+)", found.note)[0])
    quartered = log_spread_ratio(ETA / 2, BATCH // 4, 1 - (1 - DECAY) / 4, 4 * NUM_STEPS, SUBSTEPS // 4, 1)
    alone = log_spread_ratio(ETA / 2, BATCH, DECAY, 2 * NUM_STEPS, SUBSTEPS // 2, 2)
    assert_mean(half, spread, expected=quartered[0], expected_error=quartered[1], detects=0.05)
    with planted_bug():
        assert_mean(half, spread, expected=alone[0], expected_error=alone[1], detects=0.05)


@pytest.mark.exact
def test_the_square_root_rule():
    """The equation of the half is the equation itself, in a quarter of the time a step."""
    adam = bvs.Adam(0.02, 8, b1=0.9, b2=0.99, eps=1e-6)
    half = halved(adam)
    whole, scaled = own_equation(adam, 4, 64).scaled(0.25).settings, own_equation(half, 4, 64).settings
    assert whole == pytest.approx(scaled)
    assert half.batch_size == 2
    shuffled = bvs.Optimizer(optax.rmsprop, 8, "shuffled", learning_rate=0.02, initial_scale=0.5)
    made = halved(shuffled)
    assert type(made.gradient) is type(shuffled.gradient)
    assert made.hyperparameters["decay"] == pytest.approx(0.975)
    assert made.hyperparameters["initial_scale"] == pytest.approx(2.0)
    assert made.hyperparameters["eps"] == pytest.approx(4e-8)  # within the root, in units of the square
    plain = halved(bvs.SGD(0.02, 8))
    assert (float(plain.step_time), plain.batch_size) == (pytest.approx(0.01), 8)
    with pytest.raises(bvs.InputError, match="6 is no multiple of 4"):
        halved(bvs.Adam(0.02, 6))
