"""Models that hold no examples: rows that stand for them have the law of the examples' own, and refuse what they cannot do."""

import resource
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import MODELS
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.curvature import gradient_noise
from bayes_vs_sgd.load import load_module

deep_linear = load_module(MODELS / "deep_linear.py")
SMALL = {"widths": (3, 2, 2), "spectrum": (1.0,), "unseen_inputs": 0, "noise": 2.0, "num_examples": 6}
NUM_DRAWS = 4000


@pytest.fixture
def sufficient(load):
    return load("deep_linear", sufficient=True, inputs="gaussian", **SMALL)


@pytest.mark.law
def test_the_triangular_factor_is_bartletts():
    """R'R of n normal inputs is Wishart: mean n I, variance n off the diagonal and 2 n on it."""
    n = SMALL["num_examples"]
    rng = np.random.default_rng(0)
    factors = np.array([deep_linear.draw_factor("gaussian", (n, 3), rng) for _ in range(NUM_DRAWS)])

    def moments(factors):
        wishart = np.einsum("sij,sik->sjk", factors, factors)[:, *np.triu_indices(3)]
        return np.hstack([wishart, (wishart - n * np.eye(3)[np.triu_indices(3)]) ** 2])

    one = np.eye(3)[np.triu_indices(3)]
    expected = np.hstack([n * one, n * (1 + one)])
    detects = np.hstack([np.full(6, 0.8), np.full(6, 8.0)])
    assert_mean(moments(factors), expected=expected, detects=detects)
    with planted_bug():
        index = np.arange(3)
        factors[:, index, index] = np.sqrt(rng.chisquare(n, (NUM_DRAWS, 3)))
        assert_mean(moments(factors), expected=expected, detects=detects)


@pytest.mark.law
def test_uniform_inputs_keep_their_second_moment():
    factors = [deep_linear.draw_factor("uniform", (20, 2), np.random.default_rng(seed)) for seed in range(NUM_DRAWS)]
    moment = np.einsum("sij,sik->sjk", factors, factors)[:, *np.triu_indices(2)] / 20
    assert_mean(moment, expected=[100 / 3, 0, 100 / 3], detects=1.0)


@pytest.mark.law
@pytest.mark.parametrize("inputs", ["gaussian", "whitened"])
def test_the_loss_has_the_law_of_the_examples_own(inputs):
    """N L less its constant: half a chi-square of 12 degrees at the teacher, and n / 8 more at 0, where the map is off by 1."""
    constant = np.log(2 * np.pi * 4.0) / 2

    def total_losses(sufficient, residual=1):
        config = deep_linear.Config(**SMALL, inputs=inputs, num_held_out=2, sufficient=sufficient)
        found = []
        for seed in range(1000):
            weights, given = deep_linear.draw(config, jax.random.key(seed))
            rows, rest = (given["compressed"], given["offset"] - 6 * constant) if sufficient else (given["data"], 0.0)
            maps = deep_linear.end_to_end(weights), np.zeros((2, 3))
            found.append([np.sum((rows["y"] - rows["x"] @ m.T) ** 2) / 8 + residual * rest for m in maps])
        at_teacher, at_zero = np.transpose(found)
        return np.stack([at_teacher, at_teacher**2, at_zero], axis=1)

    law = {"expected": [6, 6**2 + 6, 6 + 6 / 8], "detects": [0.9, 14.0, 1.0]}
    assert_mean(total_losses(True), **law)
    assert_mean(total_losses(False), **law)
    with planted_bug():
        assert_mean(total_losses(True, residual=0), **law)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_rows_that_stand_for_examples_give_their_loss(load):
    """The same model with its data and without: loss and E[L]."""
    model = load("deep_linear", widths=(3, 4, 1), spectrum=(1.0,), num_examples=30, unseen_inputs=0)
    alone = bvs.Model(
        model.program.function,
        compressed=model.compressed,
        num_examples=30,
        offset=float(model.offset),
        optimum=model.optimum,
        expected_loss=model.expected_loss.function,
    )
    position = model.sample_prior(jax.random.key(0))
    assert alone.loss(position) == pytest.approx(float(model.loss(position)), rel=1e-12)
    assert (alone.num_examples, alone.num_rows, alone.holds_examples) == (30, 3, False)
    assert bvs.Posterior(alone, 0.5).expected_loss() == bvs.Posterior(model, 0.5).expected_loss()


@pytest.mark.slow
@pytest.mark.exact
def test_the_full_batch_works(sufficient):
    target = bvs.Posterior(sufficient, 0.5)
    settings = {"key": 0, "num_chains": 2, "num_draws": 8, "progress": False}
    for dynamics in (bvs.SGLD(1e-4), sufficient.exact_sampler):
        run = bvs.simulate(dynamics, target, **settings)
        assert "prediction_seen" not in run["posterior"]
        assert np.all(np.isfinite(run["posterior"]["loss"]))
    moved = sufficient.at({"W1": np.ones((2, 3)), "W2": np.ones((2, 2))})
    assert (moved.num_examples, float(moved.offset)) == (sufficient.num_examples, float(sufficient.offset))
    assert target.scale == 3.0


@pytest.mark.exact
def test_what_needs_single_examples_is_refused_in_one_line(sufficient):
    target = bvs.Posterior(sufficient)
    position = sufficient.unconstrain(sufficient.optimum)
    refused = [
        lambda: bvs.simulate(bvs.SGD(learning_rate=0.1, batch_size=2), target, key=0, num_steps=2),
        lambda: bvs.simulate(bvs.SGLD(1e-3, batch_size=2), target, key=0, num_steps=2),
        lambda: gradient_noise(sufficient, position),
        lambda: sufficient.example_losses(position),
        lambda: target.weighted_loss(position, np.ones(6)),
    ]
    for attempt in refused:
        with pytest.raises(bvs.InputError, match="needs single examples, but this model holds only rows") as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_examples": 10}, "give all three"),
        ({"offset": 1.0}, "give all three"),
        ({"num_examples": 0, "offset": 1.0}, "whole number"),
        ({"num_examples": 2.5, "offset": 1.0}, "whole number"),
        ({"num_examples": 10, "offset": np.nan}, "finite"),
        ({"num_examples": 10, "offset": 1.0, "data": {"x": np.ones((2, 3)), "y": np.ones((2, 2))}}, "give all three"),
    ],
)
def test_half_of_what_stands_for_examples_is_refused(sufficient, given, message):
    with pytest.raises(bvs.InputError, match=message):
        bvs.Model(sufficient.program.function, compressed=sufficient.compressed, **given)


@pytest.mark.exact
def test_one_layer_stands_for_the_same_examples(sufficient):
    controls = deep_linear.controls(deep_linear.Config(**SMALL, sufficient=True, inputs="gaussian"), jax.random.key(0))
    assert controls["one layer"].num_examples == 6
    np.testing.assert_array_equal(controls["one layer"].data["y"], sufficient.data["y"])


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_a_million_weights_and_examples_are_built_in_seconds():
    """512 x 5: under 30 s of one processor and 2 GB."""
    code = (
        "import bayes_vs_sgd as bvs\n"
        f"bvs.load_model({str(MODELS / 'deep_linear.py')!r}, widths=(512,) * 5, spectrum=(1.0,) * 64, sufficient=True, "
        "inputs='gaussian', num_examples=1_000_000, noise_free=True)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # rusage would also count its parent
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    assert int(done.stdout) < 2e6
