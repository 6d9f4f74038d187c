"""Distances between laws beside their exact values."""

from itertools import product
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from scipy.special import logit
from statistical import assert_mean, planted_bug
from test_effects import autoregressive

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.compare import primary
from bayes_vs_sgd.comparison.differences import kinds_of_functions
from bayes_vs_sgd.comparison.distances import total_variation, wasserstein
from bayes_vs_sgd.comparison.effects import Sample
from bayes_vs_sgd.comparison.events import event_odds
from bayes_vs_sgd.comparison.patterns import LEVELS, patterns
from bayes_vs_sgd.margins import MARGINS

pytestmark = pytest.mark.law


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_wasserstein_of_a_shift_is_the_shift(shift):
    """In sd of the reference, which is 3 here; the bug is to forget that."""
    rng = np.random.default_rng(0)
    reference = Sample(3 * autoregressive(rng, 0.5, (16, 500)), False)
    sample = Sample(3 * (rng.normal(size=(2000, 1)) + shift), True)
    found = wasserstein("x", sample, reference)
    assert_mean(found.value, found.standard_error, expected=shift, detects=0.35)
    assert found.place == "outside"
    assert wasserstein("x", sample, reference, MARGINS | {"wasserstein": shift + 1}).place == "inside"
    assert wasserstein("x", sample, reference, MARGINS | {"wasserstein": found.value}).place == "open"
    with planted_bug():
        assert_mean(3 * found.value, found.standard_error, expected=shift, detects=0.35)


def test_total_variation_of_normal_laws_is_reached_by_the_classifier():
    """Of N(0, I) and a shift by delta along one axis: 2 Phi(delta / 2) - 1, where the fitted laws are the true ones."""
    rng, delta = np.random.default_rng(1), 1.0
    reference = np.stack([autoregressive(rng, 0.5, (16, 500)) for _ in range(3)], axis=-1)
    sample = rng.normal(size=(2000, 1, 3)) + delta * np.eye(3)[0]
    found = total_variation(sample, reference, True)
    exact = 2 * scipy.stats.norm.cdf(delta / 2) - 1
    assert_mean(found.value, found.standard_error, expected=exact, detects=0.12)
    assert found.lower_bound < exact
    assert found.place == "outside"
    assert (
        total_variation(sample, reference, True, MARGINS | {"total_variation": 1.0}).place == "open"
    )  # a bound shows no match
    with planted_bug():  # the accuracy in the place of twice it less one
        assert_mean((1 + found.value) / 2, found.standard_error, expected=exact, detects=0.12)


def test_identical_laws_have_a_lower_bound_of_zero_but_for_chance():
    """The bound of a total variation of 0 is above 0 in 5 % of the cases."""
    rng, above = np.random.default_rng(2), 0
    for _ in range(200):
        reference = autoregressive(rng, 0.5, (16, 50))[..., None]
        above += total_variation(rng.normal(size=(400, 1, 1)), reference, True).lower_bound > 0
    assert above <= scipy.stats.binom.isf(1e-6, 200, 0.05)


def test_kinds_of_functions_have_the_probabilities_of_the_law():
    """Two normals of correlation .6, both in their highest tenth: 95 % intervals cover 95 %, and another law is told apart."""
    rng, correlation, covered = np.random.default_rng(5), 0.6, []
    tenth = np.full(2, scipy.stats.norm.ppf(0.1))
    exact = scipy.stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf(tenth)
    far = normals(rng, correlation, 64 * 1000).reshape(2, 64, 1000)
    for _ in range(200):
        ours = normals(rng, correlation, 500)[:, :, None]
        found = patterns(["x", "y"], [Sample(x, True) for x in ours], [Sample(x, False) for x in far])
        (both,) = (p for p in found if set(p.levels.values()) == {"high"})
        assert sum(p.probability for p in found) == pytest.approx(1)
        covered.append(both.interval[0] < exact < both.interval[1])
    assert sum(covered) >= scipy.stats.binom.ppf(1e-6, 200, 0.95)
    assert abs(both.reference_probability - exact) < 5 * np.sqrt(exact / far[0].size)
    ours[0] += 1.0  # another law: in the highest tenth more often
    moved = patterns(["x", "y"], [Sample(x, True) for x in ours], [Sample(x, False) for x in far])
    (both,) = (p for p in moved if set(p.levels.values()) == {"high"})
    assert both.interval[0] > exact


def test_kinds_of_functions_are_patterns_of_predictions(x64):
    """Four predictions of a linear regression are jointly normal: 81 boxes. Draws at another temperature have others.

    Error rate 1e-6. The wider law's predictions are 1.4 times as wide.
    """
    model = bvs.load_model(Path(__file__).parents[1] / "models" / "linear_regression.py", num_examples=32)
    target = bvs.Posterior(model)
    wanted = {"observables": ["loss", "prediction_seen", "mode_1", "mode_5"], "progress": False}
    reference = bvs.simulate(model.exact_sampler, target, num_chains=16, num_draws=4000, key=1, **wanted)
    boxes = dict(zip(product(LEVELS, repeat=4), exact_boxes(model), strict=True))
    p_values = []
    for beta in (1.0, 0.5):
        law = bvs.Posterior(model, beta)
        tree = bvs.simulate(model.exact_sampler, law, num_chains=2000, num_draws=1, num_warmup=9, key=2, **wanted)
        found = kinds_of_functions(tree, reference, primary(target), np.arange(2000))
        assert {name for kind in found for name in kind.levels} == {f"prediction_seen[{i}]" for i in range(4)}
        counts = dict.fromkeys(boxes, 0.0) | {tuple(k.levels.values()): 2000 * k.probability for k in found}
        common = [kind for kind, probability in boxes.items() if 2000 * probability > 5]
        rest = [sum(side.values()) - sum(side[k] for k in common) for side in (counts, boxes)]
        expected = 2000 * np.array([*(boxes[k] for k in common), rest[1]])
        p_values.append(scipy.stats.chisquare([*(counts[k] for k in common), rest[0]], expected).pvalue)
    assert p_values[0] > 1e-6
    assert p_values[1] < 1e-12


@pytest.mark.parametrize("kind", ["factor", "categorical"])
def test_a_likelihood_that_predicts_no_number_has_no_kinds(kind):
    """A factor has no predictions, a category no mean; both were compared before kinds were of predictions."""
    x, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 3

    def program(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            logits = (x @ w)[:, None] * np.arange(3.0)
            law = dist.Categorical(logits=logits)
            numpyro.factor("y", law.log_prob(y)) if kind == "factor" else numpyro.sample("y", law, obs=y)

    target = bvs.Posterior(bvs.Model(program, data={"x": x, "y": y}))
    chosen, wanted = primary(target), {"num_draws": 8, "progress": False}
    tree, reference = (bvs.simulate(bvs.MALA(), target, num_chains=c, key=c, **wanted) for c in (200, 16))
    assert ("prediction_seen" in tree["posterior"]) == (kind == "categorical")
    assert kinds_of_functions(tree, reference, chosen, np.arange(200)) == []


def exact_boxes(model):
    """Probabilities of the patterns of the first four predictions, whose posterior is normal, by their covariance."""
    x, noise, prior = np.asarray(model.data["x"], float), 1.0, 1.0
    rows = x[:4]
    correlation = rows @ np.linalg.inv(x.T @ x / noise**2 + np.eye(x.shape[1]) / prior**2) @ rows.T
    correlation /= np.sqrt(np.outer(np.diag(correlation), np.diag(correlation)))
    edges = [-9.0, scipy.stats.norm.ppf(0.1), scipy.stats.norm.ppf(0.9), 9.0]
    law = scipy.stats.multivariate_normal(cov=correlation, seed=0)
    places = [np.array(place) for place in product(range(3), repeat=4)]
    found = np.array([law.cdf(np.take(edges, k + 1), lower_limit=np.take(edges, k)) for k in places])
    return found / found.sum()


def normals(rng, correlation, number):
    x, y = rng.normal(size=(2, number))
    return np.stack([x, correlation * x + np.sqrt(1 - correlation**2) * y])


def test_odds_of_a_property_are_those_of_the_laws():
    """Above the highest tenth of a standard normal law, shifted by one: odds 5.8 times those of one in nine."""
    rng, shift = np.random.default_rng(6), 1.0
    reference = Sample(autoregressive(rng, 0.5, (16, 4000)), False)
    (found,) = event_odds(["g"], [Sample(rng.normal(size=(8000, 1)) + shift, True)], [reference])
    beyond = scipy.stats.norm.sf(scipy.stats.norm.isf(0.1) - shift)
    exact, (low, high) = float(logit(beyond) - logit(0.1)), found.log_odds_interval
    error = (high - low) / (2 * scipy.stats.norm.isf(0.025))
    assert_mean(found.log_odds_ratio, error, expected=exact, detects=0.3)
    with planted_bug():  # the ratio of the probabilities in the place of that of their odds
        assert_mean(np.log(found.probability / found.reference_probability), error, expected=exact, detects=0.3)
    assert found.place == "outside"
    assert event_odds(["g"], [reference], [reference])[0].place == "inside"
    assert event_odds(["g"], [reference], [Sample(np.zeros((4, 10)), False)]) == []


def test_odds_of_one_law_are_one_as_often_as_the_interval_says():
    """The threshold is an estimate: at a level of 1e-6, 95 % intervals miss 0 no more often than in 5 % of 300 cases."""
    rng, missed = np.random.default_rng(7), 0
    for _ in range(300):
        reference = Sample(autoregressive(rng, 0.5, (16, 100)), False)
        (found,) = event_odds(["g"], [Sample(rng.normal(size=(400, 1)), True)], [reference])
        missed += not found.log_odds_interval[0] <= 0 <= found.log_odds_interval[1]
    assert missed <= scipy.stats.binom.isf(1e-6, 300, 0.05)
