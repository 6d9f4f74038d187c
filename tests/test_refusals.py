"""What cannot be compared is refused in one line that says how to mend it."""

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.verb import claims_verb
from bayes_vs_sgd.comparison import record
from bayes_vs_sgd.settings import LLC, AuditSettings, Compare, FreeEnergy, Robustness

pytestmark = pytest.mark.smoke


def model_of(labels):
    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w * x, 1), obs=y)

    odd = {"one": lambda model, values: jnp.ones(()), "log": lambda model, values: jnp.log(values["w"])}
    return bvs.Model(program, data={"x": np.ones(20), "y": np.full(20, labels)}, optimum={"w": labels}, observables=odd)


@pytest.fixture(scope="module")
def target():
    return bvs.Posterior(model_of(0.0))


def draws(target, dynamics=None, **settings):
    shared = {"key": 0, "num_draws": 20, "progress": False} | settings
    return bvs.simulate(bvs.Grid() if dynamics is None else dynamics, target, **shared)


@pytest.fixture(scope="module")
def reference(target):
    return draws(target, num_chains=4, num_draws=200)


@pytest.fixture(scope="module")
def ensemble(target):
    return draws(target, bvs.SGD(0.1, 4), num_chains=120)


@pytest.mark.parametrize("settings", [AuditSettings, Compare, FreeEnergy, LLC, Robustness])
def test_a_negative_time(settings):
    with pytest.raises(bvs.InputError, match=r"max_seconds is -5: it must be at least 0"):
        settings(max_seconds=-5.0)
    assert settings(max_seconds=0.0).max_seconds == 0


def test_a_negative_time_of_a_run(target):
    with pytest.raises(bvs.InputError, match=r"max_seconds is -5: it must be at least 0"):
        draws(target, max_seconds=-5.0)
    with pytest.raises(bvs.InputError, match=r"max_seconds is -5: it must be at least 0"):
        bvs.free_energy(target.model, max_seconds=-5.0)
    with pytest.raises(bvs.InputError, match=r"max_seconds is -5: it must be at least 0"):
        claims_verb(["--max-seconds", "-5"])


def test_one_chain(target, reference):
    with pytest.raises(bvs.InputError, match=r"a run of 1 chain: give 100 seeds"):
        bvs.compare(draws(target, bvs.SGD(0.1, 4), num_chains=1), reference, target)


def test_a_reference_of_one_chain(target, ensemble):
    with pytest.raises(bvs.InputError, match=r"a reference of 1 chain: give several"):
        bvs.compare(ensemble, draws(target, num_chains=1), target)


def test_few_short_chains_without_a_reference(target):
    with pytest.raises(bvs.InputError, match=r"8 chains of 20 draws and no reference"):
        bvs.compare(draws(target, bvs.SGD(0.1, 4), num_chains=8), None, target)


def test_neither_reference_nor_target(ensemble):
    with pytest.raises(bvs.InputError, match="neither a reference nor a target"):
        bvs.compare(ensemble, None)


def test_other_data(reference, target):
    other = draws(bvs.Posterior(model_of(1.0)), bvs.SGD(0.1, 4), num_chains=120)
    with pytest.raises(bvs.InputError, match=r"differ in their model's data"):
        bvs.compare(other, reference, target)


def test_other_models(ensemble, tiny):
    other = draws(bvs.Posterior(tiny), tiny.exact_sampler, num_chains=4)
    with pytest.raises(bvs.InputError, match=r"differ in their model's program"):
        bvs.compare(ensemble, other)


def test_posteriors_of_two_temperatures(target, reference):
    hot = draws(bvs.Posterior(target.model, 0.5), num_chains=120)
    with pytest.raises(bvs.InputError, match=r"the run has inverse_temperature 0\.5 and the reference 1:"):
        bvs.compare(hot, reference, target)


def test_a_reference_of_another_posterior_than_is_meant(target, ensemble, reference):
    with pytest.raises(bvs.InputError, match=r"the target has inverse_temperature 0\.5 and the reference 1:"):
        bvs.compare(ensemble, reference, bvs.Posterior(target.model, 0.5))
    local = draws(bvs.Posterior(target.model, 1.0, localization=50.0), num_chains=120)
    with pytest.raises(bvs.InputError, match=r"the run has localization 50 and the reference 0:"):
        bvs.compare(local, reference, target)


def test_an_observable_that_is_constant(ensemble, reference, target):
    with pytest.raises(bvs.InputError, match=r"one: constant under the posterior"):
        bvs.compare(ensemble, reference, target, primary_observables=["loss", "one"])


def test_values_that_are_not_finite(ensemble, reference, target):
    with pytest.raises(bvs.InputError, match=r"'log' is not finite in \d+ of \d+ draws"):
        bvs.compare(ensemble, reference, target, primary_observables=["log"])


def test_without_a_reference_a_match_is_not_claimed(target):
    """Langevin dynamics at a small step: no temperature is off, and that is all that is said."""
    run = draws(target, bvs.SGLD(0.005, batch_size=None), num_chains=2000, num_steps=400, num_draws=8)
    found = bvs.compare(run, None, target)
    assert found.verdict in ("inconclusive", "different-size-unresolved")
    assert found.verdicts == {"function": "inconclusive", "geometry": None, "off_data": None}
    assert [t.name for t in found.tests] == ["stein", "ksd"]
    assert "only draws of a reference can show a match" in found.reason
    hot = bvs.compare(run, None, bvs.Posterior(target.model, 3.0))
    assert hot.verdict == "mismatch"


def test_a_reference_whose_sampler_failed_on_simulated_data(target, reference, ensemble, monkeypatch):
    """What is on record is of the file as it was: of one that was edited since nothing is."""
    entry = {"p": 1e-5, "num_simulations": 256, "source": "as it was"}
    monkeypatch.setattr(record, "of_samplers", lambda: {"pairs": {"grid": entry}})
    assert bvs.compare(ensemble, reference, target).calibration is None
    monkeypatch.setitem(target.model.facts, "path", "elsewhere/pairs.py")
    monkeypatch.setitem(target.model.facts, "digest", "edited")
    assert bvs.compare(ensemble, reference, target).calibration is None
    monkeypatch.setitem(target.model.facts, "digest", "as it was")
    found = bvs.compare(ensemble, reference, target)
    assert found.verdict == "no-verdict"
    assert found.reason == "Grid failed simulation-based calibration on this model file (p = 1e-05)"


def test_a_reference_whose_mean_loss_is_not_the_exact_one(load):
    """Langevin dynamics as the reference, well mixed: at half the largest stable step its loss is not the posterior's."""
    regression = bvs.Posterior(load("linear_regression", covariance=(2.0, 0.5), num_examples=32))
    run = draws(regression, regression.model.exact_sampler, num_chains=200, num_draws=1)
    right = draws(regression, regression.model.exact_sampler, num_chains=8, num_draws=1000)
    assert bvs.compare(run, right, regression).verdict != "no-verdict"
    coarse = draws(regression, bvs.SGLD(0.02, batch_size=None), num_chains=64, num_steps=4000, num_draws=1000)
    found = bvs.compare(run, coarse, regression)
    assert found.reference.passed
    assert found.verdict == "no-verdict"
    assert re.match(
        r"the reference is wrong: its mean loss is [\d.]+ ± [\d.e-]+, and exactly it is [\d.]+", found.reason
    )


@pytest.mark.parametrize("setting", ["margin_scale", "margin_odds"])
def test_a_margin_that_nothing_can_be_inside_of(setting, target):
    with pytest.raises(bvs.InputError, match=r"the margin of \w+ is 0: give more than"):
        bvs.Study(target.model, Compare(**{setting: 0.0}))
