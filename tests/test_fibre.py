"""The fibre of minimisers: every draw is one, with the law that a colder and colder posterior comes to."""

import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.curvature import reference_point
from bayes_vs_sgd.dynamics import fibre
from bayes_vs_sgd.theory.rare_events import fitted_exceedance

FITTED = {"noise": 0.5, "noise_free": True, "spectrum": (1.0,), "num_examples": 20}
COLD = 1e6
LAW = fibre.log_density


INVARIANTS = ("loss", "trigger", "layer_norms", "imbalance_norm")


def draws(target, dynamics=None, num_warmup=0):
    """Of the fibre by default: 64 chains of 500, there all independent."""
    settings = {"num_chains": 64, "num_draws": 500, "num_warmup": num_warmup, "observables": list(INVARIANTS)}
    return bvs.simulate(dynamics or bvs.LinearNetworkFibre(), target, key=1, progress=False, **settings)


def without_jacobian(log_r, hidden, rank, norm, tau_1, tau_2):
    """The prior's density where the data are fitted."""
    return LAW(log_r, hidden, 0, norm, tau_1, tau_2)


def assert_exceedances(tree, hidden, rank):
    trigger = np.asarray(tree["posterior"]["trigger"])
    beyond = np.stack([trigger > c for c in (1.0, 3.0)], axis=2).mean(axis=1)
    exact = [fitted_exceedance(c, hidden, rank) for c in (1.0, 3.0)]
    assert_mean(beyond, expected=exact, detects=0.03)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("hidden", "rank"), [(4, 1), (4, 3), (1, 1), (2, 3)])
def test_every_draw_fits_and_the_trigger_responds_as_it_should(load, monkeypatch, hidden, rank):
    """P(|v' W u| > c) at c = 1 and 3 (S3); the planted bug is the prior's density on the fibre, without its Jacobian r^(-k/2)."""
    target = bvs.Posterior(load("deep_linear", widths=(rank, hidden, 1), **FITTED))
    tree = draws(target)
    least = reference_point(target.model).loss
    assert np.abs(np.asarray(tree["posterior"]["loss"]) - least).max() < 1e-10 * (1 + abs(least))
    assert_exceedances(tree, hidden, rank)
    monkeypatch.setattr(fibre, "log_density", without_jacobian)
    with planted_bug():
        assert_exceedances(draws(target), hidden, rank)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_a_cold_posterior_has_its_invariants(load, monkeypatch):
    """Noisy labels, two inputs of three and a prior of scale .7: block Gibbs at n beta = 2e7, over independent chains."""
    settings = {"widths": (2, 3, 1), "prior_scale": 0.7, "inputs": "gaussian"} | FITTED | {"noise_free": False}
    target = bvs.Posterior(load("deep_linear", **settings), COLD)
    cold = draws(target, target.model.exact_sampler, num_warmup=200)

    def check(tree):
        for name in INVARIANTS[1:]:
            means = [np.asarray(t["posterior"][name]).mean(axis=1) for t in (tree, cold)]
            (value, error), (other, its_error) = (
                (m.mean(axis=0), m.std(axis=0, ddof=1) / np.sqrt(len(m))) for m in means
            )
            assert_mean(value, error, expected=other, expected_error=its_error, detects=0.1 * other)

    check(draws(target))
    monkeypatch.setattr(fibre, "log_density", without_jacobian)
    with planted_bug():
        check(draws(target))


@pytest.mark.exact
def test_what_has_no_fibre_is_refused(load):
    def refused(message, model, **settings):
        with pytest.raises(bvs.InputError, match=message):
            bvs.LinearNetworkFibre().prepare(bvs.Posterior(model, **settings))

    refused("two-layer linear networks", load("tanh_network"))
    refused("two-layer linear networks", load("deep_linear", widths=(2, 2, 2, 1), spectrum=(1.0,)))
    refused("one output, the model has 2", load("deep_linear", widths=(2, 2, 2), spectrum=(1.0,)))
    network = load("deep_linear", widths=(1, 2, 1), **FITTED)
    refused("no localisation", network, localization=1.0)
    refused("closes in on v = 0", load("deep_linear", widths=(2, 2, 1), **(FITTED | {"spectrum": ()})))


@pytest.mark.law
def test_training_is_compared_with_the_fibre(load):
    """Gradient descent to zero loss from a small start has small layers, which the fibre has not."""
    target = bvs.Posterior(load("deep_linear", widths=(1, 4, 1), **FITTED))
    judged = ["trigger", "total_norm"]
    settings = {"observables": ["loss", *judged], "progress": False}
    tree = bvs.simulate(bvs.LinearNetworkFibre(), target, key=0, num_chains=16, num_draws=500, **settings)
    small = {"num_chains": 500, "num_steps": 500, "initial_scale": 0.5}
    run = bvs.simulate(bvs.GradientDescent(0.01), target, key=1, **small, **settings)
    found = bvs.compare(run, tree, primary_observables=judged)
    assert found.verdict == "mismatch", found
