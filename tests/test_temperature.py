"""Temperatures of a law: that of equal mean loss, along a ladder of posteriors, and those along directions and sites."""

import time
from pathlib import Path

import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.effects import Sample, sampled
from bayes_vs_sgd.comparison.matching import LONGEST_RUNG, matched_along, matched_scale
from bayes_vs_sgd.comparison.run import Study
from bayes_vs_sgd.comparison.temperature import stein_terms

pytestmark = pytest.mark.law


def test_the_temperature_at_which_mean_losses_agree():
    """L of d quadratic directions is gamma with shape d/2 and rate n beta; the bug is to take n beta in proportion to 1/E[L]."""
    rng, shape = np.random.default_rng(0), 2.5
    reference = Sample(rng.gamma(shape, 1 / 100, size=(16, 1000)) + 3, True)
    found = {
        rate: matched_scale(Sample(rng.gamma(shape, 1 / rate, size=(2000, 1)) + 3, True), reference, 100.0)
        for rate in (70, 140)
    }
    for rate, (value, error) in found.items():
        assert_mean(value, error, expected=rate, detects=0.25 * rate)
    with planted_bug():
        value = 100 * reference.values.mean() / (shape / 70 + 3)
        assert_mean(value, found[70][1], expected=70, detects=18)
    assert matched_scale(Sample(np.full((100, 1), 10.0), True), reference, 100.0) == (None, None)


def test_a_ladder_goes_where_draws_at_one_temperature_do_not_reach():
    """The same laws, a hundred times colder and fifty times hotter; one rung finds neither, one loss has no temperature."""
    shape, least = 2.5, 3.0
    seen = []

    def posterior_losses(scale):
        seen.append(scale)
        return Sample(np.random.default_rng(len(seen)).gamma(shape, 1 / scale, size=(16, 1000)) + least, True)

    for rate in (1e4, 2.0):
        seen.clear()
        loss = Sample(np.random.default_rng(0).gamma(shape, 1 / rate, size=(6000, 1)) + least, True)
        assert matched_scale(loss, posterior_losses(100.0), 100.0) == (None, None)
        seen.clear()
        value, error = matched_along(loss, posterior_losses, 100.0, least)
        assert_mean(value, error, expected=rate, detects=0.1 * rate)
        ratios = np.abs(np.diff(np.log(seen)))
        assert np.all(ratios <= np.log(LONGEST_RUNG) + 1e-3)
    frozen = Sample(np.full((100, 1), least), True)
    assert matched_along(frozen, posterior_losses, 100.0, least) == (None, None)
    assert matched_along(loss, lambda scale: None, 100.0, least) == (None, None)


@pytest.mark.parametrize("mixes", [True, False])
def test_a_ladder_ends_at_a_posterior_that_was_not_reached(mixes, monkeypatch, x64):
    """A linear regression's mean loss at 20 times its n beta is found, but not from chains that have hardly left their starts."""
    model = bvs.load_model(Path(__file__).parents[1] / "models" / "linear_regression.py")
    study = Study(model, progress=False)
    reference = study.reference(100.0, "cold")
    loss = sampled(study.reference(2000.0, "wanted"), "loss")

    def unmixed(scale, name):
        wanted = {"num_chains": 16, "num_draws": 1000, "observables": ["loss", *study.chosen], "progress": False}
        return bvs.simulate(bvs.MALA(1e-9), study.target(scale), key=0, **wanted)

    if not mixes:
        monkeypatch.setattr(study, "reference", unmixed)
    value, error = study.matched(loss, reference, 100.0, "cold", np.inf)
    if mixes:
        in_no_time, _ = study.matched(loss, reference, 100.0, "cold", time.monotonic())
        assert in_no_time is None
        assert_mean(value, error, expected=2000.0, detects=300.0)
    else:
        assert value is None


def test_each_direction_of_a_law_has_the_temperature_that_it_was_drawn_at(load, x64):
    """A normal law of temperatures 2, 1 and 1/2 about the minimum of a quadratic, under a prior that does not matter."""
    curvature, heat = np.array([4.0, 1.0, 0.25]), np.array([2.0, 1.0, 0.5])
    model = load("linear_regression", covariance=tuple(curvature), prior_scale=1e4, rotated=True)
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    _, axes = np.linalg.eigh(x.T @ x / len(x))
    draws = np.random.default_rng(0).normal(size=(8000, 3)) * np.sqrt(heat / (curvature * len(x)))
    positions = {"w": (np.linalg.lstsq(x, y)[0] + draws @ axes[:, ::-1].T)[:, None]}
    target = bvs.Posterior(model)
    compared = bvs.compare(bvs.from_positions(positions, target, "drawn"), None, target)
    found = {e.observable: e for e in compared.temperatures + compared.effects if e.kind == "log_temperature"}
    of_axes = [found[f"direction {i}"] for i in (1, 2, 3)]
    measured = [e.value for e in of_axes], [e.standard_error for e in of_axes]
    assert_mean(*measured, expected=np.log(heat), detects=0.2)
    with planted_bug():  # one temperature of all, as the gradient has it
        assert_mean(*measured, expected=found["loss"].value, detects=0.2)
    pooled = np.sum(curvature**2 * heat / curvature) / np.sum(curvature)
    assert_mean(found["loss"].value, found["loss"].standard_error, expected=np.log(pooled), detects=0.2)


def test_a_lost_chain_changes_nothing_for_the_others(load):
    """One of 400 chains is not a number: terms, temperatures and tests are of the others, which the modes' own scale is too."""
    model = load("product", num_examples=20)
    target = bvs.Posterior(model)
    positions = {name: np.random.default_rng(i).normal(1, 0.2, size=400) for i, (name, _) in enumerate(model.latents)}
    lost = positions | {"w1": np.where(np.arange(400) == 7, np.nan, positions["w1"])}
    modes = {name: item for name, item in model.observables.items() if item.mode}
    whole, others = (
        stein_terms(target, {k: v[chosen] for k, v in lost.items()}, modes)
        for chosen in (slice(None), np.arange(400) != 7)
    )
    assert modes
    for name, terms in others.items():
        np.testing.assert_allclose(whole[name].subset(np.arange(400) != 7).prior, terms.prior, rtol=1e-5)
    found = bvs.compare(bvs.from_positions({k: v[:, None] for k, v in lost.items()}, target), None, target)
    assert (found.chains_lost, found.num_seeds) == (1, 399)
    assert all(np.isfinite(effect.standard_error) for effect in [*found.effects, *found.temperatures])
    assert [test.name for test in found.tests] == ["stein", "ksd"]
