"""An ensemble that has not forgotten its start is not called stationary, however little it changes."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom

from bayes_vs_sgd.comparison.effects import drift
from bayes_vs_sgd.comparison.stationarity import confined, eighths, has_settled, hopeless
from bayes_vs_sgd.margins import MARGINS

REPETITIONS, SEEDS = 300, 2000
pytestmark = pytest.mark.law


def ensemble(rng, rate, share, gap, num_draws=4):
    """Draws (seed, draw) up to time 1: a slow part with this share of the variance 1 and this gap to its limit, a fast part."""
    times, slow, draws = np.arange(1, num_draws + 1) / num_draws, np.sqrt(share) * rng.normal(size=SEEDS), []
    kept = np.exp(-rate / num_draws)
    for time in times:
        slow = kept * slow + np.sqrt(share * (1 - kept**2)) * rng.normal(size=SEEDS)
        draws.append(slow + gap * np.exp(rate * (1 - time)) + np.sqrt(1 - share) * rng.normal(size=SEEDS))
    return np.stack(draws, axis=1)


@pytest.mark.parametrize("share", [0.15, 0.4, 1.0])
@pytest.mark.parametrize(("rate", "num_draws"), [(0.01, 4), (0.3, 4), (1.0, 4), (3.0, 4), (0.3, 16), (3.0, 16)])
def test_a_gap_at_the_margin_is_rarely_overlooked(rate, share, num_draws):
    """Called stationary in at most 5 % of the cases by design, 7 % granted (false alarm 1e-6)."""
    rng = np.random.default_rng(1)
    overlooked = sum(
        has_settled("x", ensemble(rng, rate, share, MARGINS["mean"], num_draws)) for _ in range(REPETITIONS)
    )
    assert overlooked <= binom.isf(1e-6, REPETITIONS, 0.07), overlooked


def test_the_change_alone_overlooks_it():
    """Planted bug: a direction that has hardly begun to move, a whole standard deviation from where it goes."""
    rng = np.random.default_rng(2)
    runs = [ensemble(rng, 0.1, 0.3, 1.0) for _ in range(20)]
    assert all(effect.inside for draws in runs for effect in drift("x", *eighths(draws)))
    assert not any(has_settled("x", draws) for draws in runs)


def test_a_settled_ensemble_is_called_stationary():
    """In 95 % of the cases and more: 1 % find memory where there is none."""
    rng = np.random.default_rng(3)
    found = sum(has_settled("x", ensemble(rng, 30.0, 0.5, 0.0)) for _ in range(REPETITIONS))
    assert found >= binom.ppf(1e-6, REPETITIONS, 0.95), found


def test_a_frozen_direction_depends_on_the_start_for_ever():
    rng = np.random.default_rng(4)
    frozen = rng.normal(size=(SEEDS, 1))
    assert not has_settled("x", np.repeat(frozen, 4, axis=1))
    assert not has_settled("x", frozen + 0.1 * rng.normal(size=(SEEDS, 4)))


def test_an_ensemble_that_collapses_is_not_stationary():
    draws = np.random.default_rng(7).normal(size=(SEEDS, 16))
    assert not has_settled("x", draws * (np.arange(16) < 14))
    assert not has_settled("x", np.ones((SEEDS, 16)) * (np.arange(16) < 14))
    assert has_settled("x", np.ones((SEEDS, 16)))


def test_more_draws_know_the_change_better():
    """Of heavy tails too: four draws a window halve the error of independent ones."""
    draws = np.random.default_rng(6).standard_t(3, size=(SEEDS, 32))
    few, many = (drift("x", *eighths(d)) for d in (draws[:, :4], draws))
    assert few[1].kind == many[1].kind == "log_mad_ratio"
    assert all(
        b.standard_error == pytest.approx(0.5 * a.standard_error, rel=0.2) for a, b in zip(few, many, strict=True)
    )


def tree_of(values):
    posterior = xr.Dataset({"x": (("chain", "draw"), values)})
    final = xr.Dataset({"lost_at_step": ("chain", np.full(SEEDS, -1))})
    return xr.DataTree.from_dict({"posterior": posterior, "final_position": final})


def test_hopeless_is_what_a_longer_run_would_still_remember():
    """A part that relaxes by exp(-1/2) over the second half: twice as long leaves exp(-1), 1.2 times .55 of it."""
    rng = np.random.default_rng(5)
    values = ensemble(rng, 1.0, 0.5, 0.0)
    assert hopeless(tree_of(values), ["x"], 1.1)
    assert not hopeless(tree_of(values), ["x"], 2.0)
    assert hopeless(tree_of(np.repeat(values[:, :1], 4, axis=1)), ["x"], 1e6)


def test_runs_in_wells_that_they_do_not_leave_are_confined():
    """Wells at 1 and -1 of width w: a run shows w / sqrt(1 + w^2) of the spread; where it crosses, all of it."""
    rng, width = np.random.default_rng(8), 0.3
    wells, within = rng.choice([-1.0, 1.0], size=(2, SEEDS, 16)), width * rng.normal(size=(SEEDS, 16))
    found = confined(tree_of(wells[0, :, :1] + within), ["x"])
    assert found["x"] == pytest.approx(width / np.hypot(1, width), abs=4 * width / np.sqrt(2 * 8 * SEEDS))
    assert confined(tree_of(wells[0] + within), ["x"]) == {}
    assert confined(tree_of(wells[0, :, :1] + 0 * within), ["x"]) == {"x": 0.0}
