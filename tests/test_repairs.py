"""What the repairs of a mismatch make of an optimiser, and what is said of them."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.refined import refined_models
from bayes_vs_sgd.comparison.repairs import Interventions, impossible, interventions, possible, repaired
from bayes_vs_sgd.dynamics.white_noise import WhiteNoise
from bayes_vs_sgd.settings import Compare

SIXTEEN = {"isotropic": True, "covariance": (1.0,), "num_examples": 16}


@pytest.fixture
def study(load):
    """Of sixteen examples, nothing of it run."""
    return bvs.Study(load("linear_regression", **SIXTEEN), Compare(dynamics=("sgd",)), progress=False)


@pytest.mark.exact
def test_what_stands_for_batches_without_repetition_has_their_noise(study):
    """C/B (n - B)/(n - 1) is that of B (n - 1)/(n - B) = 15 independent examples; planted: of eight."""
    shuffled = bvs.SGD(0.1, 8, sampling="shuffled")
    models = refined_models(study, shuffled, "own", [])
    for name in ("anisotropic Langevin", "second-order anisotropic"):
        assert float(models[name].noise.batch_size) == pytest.approx(15)
    adam = bvs.Adam(0.01, 8, sampling="shuffled")
    assert float(refined_models(study, adam, "own", [])["Adam's equation"].noise.batch_size) == pytest.approx(15)
    gaussian, again = (repaired(study, d, ["central limit"], None).dynamics for d in (shuffled, bvs.SGD(0.1, 8)))
    assert float(gaussian.gradient.batch_size) == pytest.approx(15)
    assert float(again.gradient.batch_size) == pytest.approx(8)
    both = repaired(study, shuffled, ["central limit", "independent batches"], None).dynamics
    assert float(both.gradient.batch_size) == pytest.approx(8)


@pytest.mark.exact
def test_a_smaller_step_keeps_the_temperature_of_batches_without_repetition(study):
    """Batches of four are as noisy as five independent examples, those of eight as fifteen: a third of the rate."""
    walk = repaired(study, bvs.SGD(0.12, 8, sampling="shuffled"), ["small learning rate"], None)
    assert (walk.dynamics.batch_size, walk.longer) == (4, 3)
    assert float(walk.dynamics.step_time) == pytest.approx(0.04)


@pytest.mark.exact
def test_an_epoch_of_one_batch_has_no_noise_to_stand_for(study):
    epochs = bvs.SGD(0.1, 16, sampling="shuffled")
    assert refined_models(study, epochs, "own", []) == {}
    added = bvs.SGD(0.1, sampling=WhiteNoise(1.0, bvs.Minibatch(8)))
    assert refined_models(study, added, "own", []) == {}  # white noise on that of batches is no equation's
    assert refined_models(study, bvs.SGD(0.1, 8, objective="posterior"), "own", []) == {}
    assert refined_models(study, bvs.Adam(0.1, sampling=bvs.LabelNoise(1.0)), "own", []) == {}
    assert not {"central limit", "small learning rate"} & set(possible(epochs, 16))
    assert {"central limit", "small learning rate"} < set(possible(bvs.SGD(0.1, 16), 16))


@pytest.mark.exact
@pytest.mark.parametrize(("family", "known"), [(dist.Normal, True), (partial(dist.StudentT, 3.0), False)])
def test_label_noise_has_an_equation_where_the_gradient_is_linear_in_the_labels(family, known):
    """Else sub-steps, whose labels move further, would descend another loss."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 10))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", family(w * x, 1.0), obs=y)

    x, noise = np.random.default_rng(0).normal(size=(2, 16))
    model = bvs.Model(program, {"x": x, "y": x + noise}, optimum={"w": 1.0})
    own = bvs.Study(model, Compare(dynamics=("sgd",)), progress=False)
    found = refined_models(own, bvs.SGD(0.1, sampling=bvs.LabelNoise(1.0)), "own", [])
    assert bool(found) == known


@pytest.mark.exact
@pytest.mark.parametrize(
    ("dynamics", "why"),
    [
        (bvs.SGD(0.1, 1), "a batch of one has no half"),
        (bvs.SGD(0.1, sampling=bvs.GaussianNoise(8)), "there is no batch to halve"),
        (bvs.SGD(0.1, 16, sampling="shuffled"), "an epoch of one batch has no temperature to keep"),
        (bvs.SGD(0.1, 2), None),
    ],
)
def test_a_repair_that_cannot_be_made_is_named_with_its_reason(dynamics, why):
    never = {} if why is None else {"small learning rate": why}
    assert impossible(dynamics, 16) == never
    assert ("small learning rate" in possible(dynamics, 16)) == (why is None)
    for smallest in (None, ("isotropy",)):
        said = Interventions([], smallest, ("prior",), never).in_words()
        assert said.endswith(f"small learning rate cannot be repaired: {why}" if why else "prior")


@pytest.mark.smoke
def test_the_reader_is_told_that_a_batch_of_one_has_no_half(study, monkeypatch):
    """Of all repairs no comparison is made, for want of time."""
    monkeypatch.setattr("bayes_vs_sgd.comparison.repairs.posterior_start", lambda study, plain: {})
    plain = SimpleNamespace(dynamics="sgd", inverse_temperature={"used": 1.0})
    found = interventions(study, bvs.SGD(0.1, 1), plain, 0.0)
    assert found.tried == []
    assert found.in_words().endswith("; small learning rate cannot be repaired: a batch of one has no half")
