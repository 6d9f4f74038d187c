"""The exact E[L] that a model declares: minus the slope of log Z, and what exact samplers find at finite n."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from statistical import assert_mean, chain_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory import evidence

CASES = {
    "regression, two outputs": ("deep_linear", {"widths": (3, 2), "spectrum": (1.0, 0.5), "num_examples": 40}, 0.3),
    "two layers, one output": ("deep_linear", {"widths": (3, 4, 1), "spectrum": (1.0,), "num_examples": 50}, 0.3),
    "product, truth 0": ("product", {"num_examples": 100, "exact": False}, 0.3),
    "product, truth 1": ("product", {"num_examples": 100, "target": 1.0, "prior_scale": 0.7}, 1.0),
}
DETECTS = 0.15
"""Error of n beta E[L] that is surely seen; its exact values are between 0.3 and 3."""


@pytest.fixture
def rows():
    """Return a function that draws inputs and labels."""

    def draw(num_examples, dimension, *outputs):
        rng = np.random.default_rng(0)
        return rng.normal(size=(num_examples, dimension)), 1 + rng.normal(size=(num_examples, *outputs))

    return draw


@pytest.mark.exact
@pytest.mark.parametrize("beta", [0.01, 0.5, 3.0])
@pytest.mark.parametrize(("num_examples", "dimension"), [(10, 3), (6, 10)])
@pytest.mark.parametrize("kind", ["regression", "two_layer"])
def test_it_is_minus_the_slope_of_the_log_evidence(rows, kind, num_examples, dimension, beta):
    """By central differences of relative step 1e-4, whose error is 1e-8 of the second derivatives."""
    settings = (4, 0.7, 1.5) if kind == "two_layer" else (0.7, 1.5)
    x, y = rows(num_examples, dimension, *(() if kind == "two_layer" else (2,)))
    log_evidence, total_loss = (getattr(evidence, f"{kind}_{name}") for name in ("log_evidence", "total_loss"))
    up, down = (log_evidence(x, y, *settings, beta * factor) for factor in (1 + 1e-4, 1 - 1e-4))
    assert total_loss(x, y, *settings, beta) == pytest.approx((down - up) / (2e-4 * beta), rel=2e-7)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_without_data_it_is_the_prior_mean(load):
    model = load("linear_regression", num_examples=40, prior_scale=0.5)
    x, y = (np.asarray(model.data[name]) for name in "xy")
    mean = (np.sum(y**2) + 0.25 * np.sum(x**2)) / 80 + np.log(2 * np.pi) / 2
    assert bvs.Posterior(model, 0.0).expected_loss() == pytest.approx(mean, rel=1e-12)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", ["product, truth 0", "product, truth 1"])
def test_the_product_by_the_plane(case, load):
    """The trapezoid rule over both weights converges exponentially on what vanishes at the ends."""
    name, config, beta = CASES[case]
    model = load(name, **config)
    scale = config.get("prior_scale", 1.0)
    x, y = (np.asarray(model.data[name]) for name in "xy")
    line = np.linspace(-7, 7, 2801)
    z = scale**2 * line[:, None] * line
    loss = (y @ y - 2 * z * (x @ y) + z**2 * (x @ x)) / 200 + np.log(2 * np.pi) / 2
    log_weights = norm.logpdf(line)[:, None] + norm.logpdf(line) - 100 * beta * loss
    mean = np.sum(np.exp(log_weights - logsumexp(log_weights)) * loss)
    assert bvs.Posterior(model, beta).expected_loss() == pytest.approx(mean, rel=1e-9)


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [case for case in CASES if case != "product, truth 0"])
def test_the_exact_sampler_finds_it(case, load):
    """n beta (E[L] - L*) by Gibbs; a prior tempered with the likelihood, or beta forgotten, is seen."""
    name, config, beta = CASES[case]
    model = load(name, **config)
    target = bvs.Posterior(model, beta)
    run = bvs.simulate(model.exact_sampler, target, key=1, observables=["loss"], num_chains=32, num_draws=1000)
    mean, error = (float(target.scale) * value for value in chain_mean(run, "loss"))
    assert_mean(mean, error, expected=float(target.scale) * target.expected_loss(), detects=DETECTS)
    with planted_bug():
        wrong = bvs.Posterior(load(name, **config | {"prior_scale": 3 * config.get("prior_scale", 1.0)}), beta)
        assert_mean(mean, error, expected=float(wrong.scale) * wrong.expected_loss(), detects=DETECTS)


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_the_grid_finds_it(load):
    model = load("product", num_examples=20, exact=False)
    target = bvs.Posterior(model)
    run = bvs.simulate(bvs.Grid(2**18), target, key=1, observables=["loss"], num_chains=16, num_draws=1000)
    losses = 20 * run["posterior"]["loss"].to_numpy().ravel()
    assert_mean(losses, expected=20 * target.expected_loss(), detects=DETECTS)


@pytest.mark.exact
def test_what_is_not_known_is_not_said(load):
    model = load("linear_regression", num_examples=20)
    assert bvs.Posterior(model, 0.5).expected_loss() > 0
    assert bvs.Posterior(model, 0.5, localization=1.0).expected_loss() is None
    assert bvs.Posterior(model, [0.5, 1.0]).expected_loss() is None
    assert bvs.Posterior(load("tanh_network")).expected_loss() is None
    assert bvs.Posterior(load("deep_linear"), 0.5).expected_loss() is None
    assert bvs.Posterior(load("product", target=1.0), 0.0).expected_loss() is None


@pytest.mark.exact
def test_a_checkpoint_in_the_place_of_the_optimum_keeps_it(load):
    model = load("linear_regression", num_examples=20)
    moved = model.at({"w": np.zeros(5)})
    assert bvs.Posterior(moved).expected_loss() == bvs.Posterior(model).expected_loss()
    assert moved.expected_loss == load("linear_regression", num_examples=20).expected_loss


@pytest.mark.exact
def test_more_outputs_have_no_scale_mixture(rows):
    with pytest.raises(bvs.InputError, match="2 outputs"):
        evidence.two_layer_total_loss(*rows(6, 3, 2), 2, 1.0, 1.0)
