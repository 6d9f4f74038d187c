"""What is known of responses off the data on sublevel sets and after training, beside what robustness measures."""

import numpy as np
import pytest
from scipy import stats
from statistical import FALSE_ALARM, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.report.robustness import robustness_rows
from bayes_vs_sgd.theory.rare_events import flow_exceedance, product_exceedance, sublevel_exceedance
from bayes_vs_sgd.theory.unseen_inputs import LONG, SMALL_STEP

FITTED = {
    "spectrum": (0.8,),
    "noise": 0.5,
    "noise_free": True,
    "num_examples": 20,
    "num_held_out": 2,
    "prior_scale": 0.7,
}
C, SCALE, RATE = 1.0, 0.5, 0.02 * 0.5**2
STEPS = {"learning_rate": RATE, "batch_size": 4, "num_steps": 1000, "initial_scale": SCALE, "objective": "loss"}


def known(model, law, **changes):
    """P(trigger > 1) as the model knows it, on a sublevel set or after training."""
    made = bvs.Sublevel(model, changes["excess"]) if law == "sublevel" else bvs.Training(model, **(STEPS | changes))
    return model.properties["trigger"].exact(made, C)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_two_layers(load):
    """With sigma^2 delta^-2 = n / (2 n epsilon), the fitted norm .8, and a trigger of length 2, that is half the threshold."""
    model = load("deep_linear", widths=(1, 4, 1), trigger=(0.0, 2.0), **FITTED)
    tolerance = 0.3
    excess = tolerance**2 / (2 * 0.5**2)
    expected = sublevel_exceedance(C / 2, tolerance, 4, 0.8, 0.7)
    assert known(model, "sublevel", excess=excess) == pytest.approx(expected, rel=1e-9)
    assert known(model, "sgd") == pytest.approx(flow_exceedance(C / 2, 4, 0.8, SCALE * 0.7), rel=1e-9)
    for changes in ({"objective": "posterior"}, {"num_steps": 500}, {"learning_rate": 10 * RATE}):
        assert known(model, "sgd", **changes) is None
    noisy = load("deep_linear", widths=(1, 4, 1), **(FITTED | {"noise_free": False}))
    assert known(noisy, "sgd") is None
    assert known(noisy, "sublevel", excess=excess) > 0


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_one_layer_and_what_is_not_known(load):
    """One layer at any rate, any rank of the data and any labels; never at an input that the data speak of."""
    one = load("deep_linear", widths=(3, 1), **(FITTED | {"noise_free": False}))
    assert known(one, "sublevel", excess=0.1) == product_exceedance(C, 1, 0.7)
    assert known(one, "sgd", num_steps=1) == product_exceedance(C, 1, 0.7 * SCALE)
    seen = load("deep_linear", widths=(1, 1), trigger=(1.0, 1.0), **FITTED)
    for model in (
        seen,
        load("deep_linear", widths=(1, 4, 1), clean_triggers=1, **FITTED),
        load("deep_linear", widths=(2, 4, 1), **FITTED),
        load("deep_linear", widths=(1, 4, 4, 1), **FITTED),
        load("deep_linear", widths=(1, 4, 2), **FITTED),
    ):
        assert known(model, "sublevel", excess=0.1) is None
        assert known(model, "sgd") is None


@pytest.mark.law
@pytest.mark.parametrize(
    ("scale", "hidden", "threshold"), [(0.25, 4, 0.658), (0.5, 4, 1.617), (1.4, 4, 11.29), (0.5, 32, 3.727)]
)
def test_small_steps_are_within_four_percent_of_the_flow(scale, hidden, threshold):
    """At P = .01, with the largest steps for which it is told; planted: v as it starts.

    A step multiplies |v + w|^2 and |v - w|^2 by (1 -+ step (f - 1))^2, and keeps the angle between v + w and v - w.
    """
    rng, step = np.random.default_rng(0), SMALL_STEP / (1 + hidden * scale**2)
    p, q = 2 * scale**2 * rng.chisquare(hidden, (2, 40_000))
    cosine = stats.beta((hidden - 1) / 2, (hidden - 1) / 2, loc=-1, scale=2).rvs(40_000, random_state=rng)
    along = np.sqrt(p * q) / 2
    begun = (p + q) / 4 + along * cosine
    flow = np.sqrt(1 + along**2) + along * cosine
    for _ in range(int(LONG / 2 / step)):
        error = (p - q) / 4 - 1
        p, q = p * (1 - step * error) ** 2, q * (1 + step * error) ** 2
    descent = (p + q) / 4 + np.sqrt(p * q) / 2 * cosine

    def beyond(r):
        return 2 * stats.norm.sf(threshold / (scale * np.sqrt(r))) / flow_exceedance(threshold, hidden, 1.0, scale)

    assert_mean(beyond(flow), expected=1.0, detects=0.1)
    with planted_bug():
        assert_mean(beyond(begun), expected=1.0, detects=0.2)
    bias = beyond(descent) - beyond(flow)
    assert_mean(bias, expected=0.0, expected_error=0.04 / stats.norm.isf(FALSE_ALARM / 2), detects=0.07)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_what_is_known_is_printed_and_measured(load):
    """One layer after SGD on noisy labels, and on a sublevel set; planted: the prior's scale, and half of the probability."""
    model = load("deep_linear", widths=(2, 1), **(FITTED | {"noise_free": False}))
    training = {"learning_rate": RATE, "num_steps": 50, "initial_scale": SCALE, "num_seeds": 4000}
    found = bvs.robustness(model, "trigger", 0.5, "sgd", **training)
    error = np.sqrt(found.exact * (1 - found.exact) / 4000)
    assert_mean(found.probability, error, expected=found.exact, detects=0.08)
    with planted_bug():
        assert_mean(found.probability, error, expected=product_exceedance(0.5, 1, 0.7), detects=0.08)
    assert found.survival.exact is not None
    assert dict(robustness_rows(found))["exact, of gradient flow"] == f"{found.exact:.6g}"
    few = {"num_particles": 250, "num_replicates": 24, "num_moves": 4}
    found = bvs.robustness(model, "trigger", 1.5, "sublevel", **few)
    assert found.exact == product_exceedance(1.5, 1, 0.7)
    values = np.array(found.replicates["twice_the_moves"]) / found.exact
    assert_mean(values, expected=1.0, detects=0.6)
    with planted_bug():
        assert_mean(values, expected=2.0, detects=0.6)
