"""What decides is judged where it is nearly normal: squares by their root, modes by a field that moves them at one rate."""

from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom
from statistical import FALSE_ALARM, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.effects import Sample, location_and_scale
from bayes_vs_sgd.comparison.roots import judged, with_roots
from bayes_vs_sgd.comparison.temperature import SOFT, SteinTerms, stein_terms
from bayes_vs_sgd.observables import available

SCALE = 20.0
PRODUCT = Path(__file__).parents[1] / "models" / "product.py"


@pytest.fixture(scope="module")
def product():
    """Posterior of y = w_1 w_2 x at n beta = 20, and independent draws of it by rejection from the prior."""
    with jax.enable_x64(True):
        model = bvs.load_model(PRODUCT, target=0.5, num_examples=50)
        target = bvs.Posterior(model, SCALE / 50)
        rng = np.random.default_rng(0)
        w = rng.normal(size=(1_600_000, 2))
        excess = (w.prod(axis=1) - 0.5) ** 2 / 2
        w = w[rng.uniform(size=len(w)) < np.exp(-SCALE * excess)]
        return target, w


def by_hand(w, pull=1.0):
    """Terms of the field along phi = w_1 w_2, whose gradient is (w_2, w_1) and whose Hessian is ((0, 1), (1, 0))."""
    phi, q = w.prod(axis=1), np.sum(w**2, axis=1)
    gap, size = phi - np.median(phi), q + SOFT * q.mean()
    divergence = q - gap * 4 * phi / size
    return SteinTerms((divergence - pull * 2 * gap * phi) / size, gap * (phi - 0.5) * q / size)


@pytest.mark.exact
def test_the_field_along_a_mode(product):
    target, w = product
    modes = {"mode_1": available(target.model)["mode_1"]}
    with jax.enable_x64(True):
        found = stein_terms(target, {"w1": w[:100, 0], "w2": w[:100, 1]}, modes)["mode_1"]
    np.testing.assert_allclose(found.prior, by_hand(w[:100]).prior, rtol=1e-9)
    np.testing.assert_allclose(found.loss, by_hand(w[:100]).loss, rtol=1e-9)


@pytest.mark.law
def test_a_mode_of_the_posterior_has_its_temperature(product):
    """The planted bug leaves out the prior's pull along the mode; the denominator makes the error a quarter smaller or more."""
    _, w = product
    assert_mean(*by_hand(w).scale(), expected=SCALE, detects=0.05 * SCALE)
    with planted_bug():
        assert_mean(*by_hand(w, pull=0.0).scale(), expected=SCALE, detects=0.05 * SCALE)
    phi, q = w.prod(axis=1), np.sum(w**2, axis=1)
    gap = phi - np.median(phi)
    plain, error = SteinTerms(q - 2 * gap * phi, gap * (phi - 0.5) * q).scale()
    assert_mean(plain, error, expected=SCALE, detects=0.05 * SCALE)
    assert by_hand(w).scale()[1] < 0.75 * error


@pytest.mark.exact
def test_roots_are_above_the_least_loss_and_monotone():
    draws = {"loss": np.array([[1.0, 3.0, 10.0, 0.0]]), "total_norm": np.array([[0.0, 1.0, 4.0, 9.0]])}
    posterior = xr.Dataset({name: (("chain", "draw"), x) for name, x in draws.items()})
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": xr.Dataset()})
    tree.attrs["manifest"] = "kept"
    chosen = {name: item for name, item in available(bvs.load_model(PRODUCT)).items() if name in draws}
    (found,) = with_roots(chosen, -9.0, tree)
    assert list(judged(chosen)) == ["root_excess_loss", "root_total_norm"]
    np.testing.assert_allclose(found["posterior"]["root_excess_loss"], [[10**0.5, 12**0.5, 19**0.5, 3.0]])
    np.testing.assert_allclose(found["posterior"]["root_total_norm"], [[0.0, 1.0, 2.0, 3.0]])
    np.testing.assert_allclose(found["posterior"]["loss"], draws["loss"])
    assert found.attrs["manifest"] == "kept"
    assert "root_total_norm" not in tree["posterior"]
    saddle, other = with_roots(chosen, 1.0, tree, found)
    for run in (saddle, other):  # the draws know better
        np.testing.assert_allclose(run["posterior"]["root_excess_loss"], np.sqrt(draws["loss"]))


@pytest.mark.law
def test_a_chi_square_of_one_degree_of_freedom_is_told_to_a_tenth_by_its_root_alone():
    """2,000 seeds beside 6,400 draws of one law: 90 % matches or more by the root, as it is next to none."""
    rng, matches = np.random.default_rng(1), np.zeros(2)
    repetitions = 200
    for _ in range(repetitions):
        seeds, draws = rng.normal(size=(2000, 1)) ** 2, rng.normal(size=(16, 400)) ** 2
        for index, judge in enumerate((np.sqrt, lambda x: x)):
            pair = location_and_scale("x", "function", Sample(judge(seeds), True), Sample(judge(draws), False))
            matches[index] += all(effect.inside for effect in pair)
    assert matches[0] >= binom.ppf(FALSE_ALARM, repetitions, 0.9)
    assert matches[1] < binom.ppf(FALSE_ALARM, repetitions, 0.9)
