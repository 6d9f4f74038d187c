"""The learning coefficient of the audit, on models whose mean loss at finite n is known."""

import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.regularity import regularity
from bayes_vs_sgd.curvature import reference_point
from bayes_vs_sgd.reference import posterior_draws
from bayes_vs_sgd.settings import AuditSettings


def drawn(target, **more):
    settings = {"num_chains": 16, "num_draws": 1000, "key": 1, "observables": ["loss"], "judged": ["loss"]}
    return posterior_draws(target, progress=False, **settings | more)


@pytest.mark.law
@pytest.mark.parametrize(("name", "holds"), [("linear_regression", True), ("product", False)])
def test_it_is_that_of_this_n(name, holds, load, x64):
    """Planted: draws of a posterior of twice the temperature."""
    model = load(name)
    target, hotter = bvs.Posterior(model, 1.0), bvs.Posterior(model, 0.5)
    exact = target.expected_loss()
    assert exact is not None
    expected = float(target.scale) * (exact - reference_point(model, target.center).loss) / (model.num_parameters / 2)

    def assert_known(draws):
        found = regularity(draws, target)
        assert_mean(found.value, (found.interval[1] - found.value) / 1.96, expected=expected, detects=0.1)
        return found

    assert assert_known(drawn(target)).holds is holds
    with planted_bug():
        assert_known(drawn(hotter))


@pytest.mark.law
def test_what_is_not_trusted_does_not_decide(load):
    """Of one sampler alone, without the scale of the weights, or from too few draws: with the reason, and how it is mended."""
    target = bvs.Posterior(load("linear_regression"), 1.0)
    alone = bvs.simulate(
        bvs.NUTS(), target, key=0, num_chains=4, num_draws=500, num_warmup=200, record_positions=True, progress=False
    )
    found = regularity(alone, target)
    assert found.holds is None
    assert np.isfinite(found.value)
    assert found.note.endswith("one sampler alone: `llc` asks a second")
    bare = regularity(drawn(target, record_positions=False), target)
    assert bare.holds is None
    assert "squared_norm" in bare.note
    few = regularity(drawn(target, num_draws=4), target)
    assert few.holds is None
    assert np.isnan(few.value)
    assert few.note.startswith("too few draws")


@pytest.mark.smoke
def test_an_audit_has_it(load):
    settings = AuditSettings(num_seeds=400, num_steps=64, models=False, repairs=False, max_seconds=1.0)
    found = bvs.audit(load("product", target=1.0), settings=settings, progress=False)
    (entry,) = [a for a in found.assumptions if a.name == "regularity"]
    assert entry.holds is False
