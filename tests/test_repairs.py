"""What the repairs of a mismatch make of an optimiser, and what is said of them."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.refined import refined_models
from bayes_vs_sgd.comparison.interventions import Interventions, interventions
from bayes_vs_sgd.comparison.repairs import ONE_SIZE, impossible, isotropic_scale, possible, repaired
from bayes_vs_sgd.comparison.run import OutOfTime
from bayes_vs_sgd.dynamics.rotated_noise import RotatedNoise
from bayes_vs_sgd.dynamics.white_noise import WhiteNoise
from bayes_vs_sgd.settings import Compare

SIXTEEN = {"isotropic": True, "covariance": (1.0,), "num_examples": 16}
PLAIN = SimpleNamespace(dynamics="sgd", inverse_temperature={"used": 1.0})


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
    assert not {"central limit", "small learning rate"} & set(possible(epochs, study.model))
    assert {"central limit", "small learning rate"} < set(possible(bvs.SGD(0.1, 16), study.model))


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
def test_a_repair_that_cannot_be_made_is_named_with_its_reason(study, dynamics, why):
    never = {} if why is None else {"small learning rate": why}
    assert impossible(dynamics, 16) == never
    assert ("small learning rate" in possible(dynamics, study.model)) == (why is None)
    for smallest in (None, ("isotropy",)):
        said = Interventions([], smallest, ("prior",), never).in_words()
        assert said.endswith(f"small learning rate cannot be repaired: {why}" if why else "prior")


@pytest.mark.smoke
def test_the_reader_is_told_that_a_batch_of_one_has_no_half(study, monkeypatch):
    """Of all repairs no comparison is made, for want of time."""
    monkeypatch.setattr("bayes_vs_sgd.comparison.interventions.posterior_start", lambda study, reference: {})
    study.trees["sgd"] = (None, "reference")
    found = interventions(study, bvs.SGD(0.1, 1), PLAIN, 0.0)
    assert found.tried == []
    assert found.in_words().endswith("; small learning rate cannot be repaired: a batch of one has no half")


@pytest.fixture
def two(load):
    """Of two parameters whose curvatures differ, and sixteen examples."""
    model = load("linear_regression", covariance=(1.0, 0.1), num_examples=16, prior_scale=30.0)
    return bvs.Study(model, Compare(dynamics=("sgd",)), progress=False)


@pytest.mark.exact
def test_isotropy_alone_leaves_the_size_of_the_noise_to_the_batch(two):
    """Which is halved with the step; noise of one size leaves nothing of it."""
    shuffled = bvs.SGD(0.1, 8, sampling="shuffled")

    def noise(*names):
        return repaired(two, shuffled, names, None).dynamics.gradient

    assert isinstance(noise("isotropy"), RotatedNoise)
    assert (type(noise("isotropy").gradient), noise("isotropy").gradient.batch_size) == (bvs.Shuffled, 8)
    assert noise("isotropy", "small learning rate").gradient.batch_size == 4
    assert type(noise("isotropy", "independent batches").gradient) is bvs.Minibatch
    assert isinstance(noise(ONE_SIZE).gradient, bvs.FullBatch)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("dynamics", "factor"),
    [(bvs.SGD(0.1, 8), 1), (bvs.SGD(0.1, 8, momentum=0.9), 0.1), (bvs.SGD(0.1, 8, sampling="shuffled"), 15 / 8)],
)
def test_isotropic_noise_of_the_same_trace_has_its_own_temperature(two, dynamics, factor):
    """N beta = 2 d B (1 - mu) / (eta tr C), to the four digits that it has."""
    isotropic = repaired(two, dynamics, ["isotropy"], None).dynamics
    expected = 2 * 2 * 8 / (0.1 * two.noise.trace) * factor
    assert isotropic_scale(two, isotropic) == pytest.approx(expected, rel=5e-4)
    assert isotropic_scale(two, repaired(two, bvs.Adam(0.01, 8), ["isotropy"], None).dynamics) is None


@pytest.mark.exact
def test_noise_without_directions_needs_no_isotropy(study, two):
    """Nor has one parameter more than one; noise without a variance has no trace to keep."""
    assert "isotropy" in possible(bvs.SGD(0.1, sampling=bvs.LabelNoise(1.0)), two.model)
    assert "isotropy" not in possible(bvs.SGD(0.1, 8), study.model)
    for gradient in (bvs.FullBatch(), bvs.WhiteNoise(1.0), bvs.IsotropicNoise(8), bvs.StableNoise(1.5)):
        assert "isotropy" not in possible(bvs.SGD(0.1, sampling=gradient), two.model)
        assert ONE_SIZE in possible(bvs.SGD(0.1, sampling=gradient), two.model)
    stable = bvs.SGD(0.1, sampling=bvs.StableNoise(1.5, 1.0, "examples", 2))
    assert "isotropy" not in possible(stable, two.model)
    assert impossible(stable, 16)["isotropy"] == "noise without a variance has no trace"


@pytest.fixture
def search(two, monkeypatch):
    """Interventions where what is needed makes a match, noise of one size being isotropic too, and what is late is not made.

    Also the n beta of each repair, and that of the posterior which it starts from.
    """

    def searched(needed, late=None):
        seen = {}

        def decided(study, label, walk, deadline):
            label = label.removeprefix("sgd repaired: ")
            made = set(label.split(" + "))
            if late in made:
                raise OutOfTime
            seen[label] = (study.scale, walk.initial)
            made |= {"isotropy"} if ONE_SIZE in made else set()
            return SimpleNamespace(verdict="match" if needed <= made else "mismatch", reason="")

        module = "bayes_vs_sgd.comparison.interventions."
        monkeypatch.setattr(module + "decided", decided)
        monkeypatch.setattr(module + "posterior_start", lambda study, reference: reference)
        monkeypatch.setattr(bvs.Study, "reference", lambda study, scale, name: scale)
        two.trees["sgd"] = (None, 16.0)
        return interventions(two, bvs.SGD(0.1, 8), PLAIN, np.inf), seen

    return searched


@pytest.mark.exact
@pytest.mark.parametrize(
    ("needed", "late", "smallest"),
    [
        ({"isotropy"}, None, ("isotropy",)),
        ({ONE_SIZE}, None, (ONE_SIZE,)),
        ({"isotropy"}, "isotropy", (ONE_SIZE,)),
        ({"isotropy", "prior"}, None, ("isotropy", "prior")),
        ({ONE_SIZE, "prior"}, None, (ONE_SIZE, "prior")),
        ({"prior"}, None, ("prior",)),
    ],
)
def test_noise_of_one_size_is_blamed_only_where_isotropic_noise_does_not_suffice(search, needed, late, smallest):
    """A search that tries nothing weaker would blame it in all cases but the last."""
    found, _ = search(needed, late)
    assert found.smallest == smallest
    assert len(found.tried) <= 12
    assert found.missing == (("isotropy alone",) if late else ())
    assert ("within the time not tried: isotropy alone" in found.in_words()) == bool(late)


@pytest.mark.exact
@pytest.mark.parametrize("chosen", [None, 1.0])
def test_prior_and_start_are_at_the_temperature_of_the_isotropic_noise(search, two, chosen):
    """Not at that of the run as it is, n beta = 16, which a set temperature and noise of one size keep."""
    two.settings = Compare(dynamics=("sgd",), inverse_temperature=chosen)
    own = isotropic_scale(two, repaired(two, bvs.SGD(0.1, 8), ["isotropy"], None).dynamics)
    assert own > 100
    _, seen = search({"isotropy", "stationarity"})
    expected = own if chosen is None else 16.0
    assert seen["isotropy + stationarity"] == (expected, expected)
    assert seen[f"{ONE_SIZE} + stationarity"] == (16.0, 16.0)
    assert seen["prior"] == (16.0, None)


@pytest.mark.law
@pytest.mark.slow
def test_noise_that_is_isotropic_but_not_of_one_size_is_told_from_noise_that_is_not_isotropic(load):
    """Equal curvatures and batches of one: isotropic at the minimum, of size s^2 + |w - w*|^2 away from it, so of heavy tails."""
    model = load("linear_regression", isotropic=True, covariance=(1.0,) * 4, num_examples=64, prior_scale=30.0)
    settings = Compare(dynamics=("sgd",), learning_rate=0.35, batch_size=1, num_steps=64, num_seeds=2000, repairs=True)
    study = bvs.Study(model, settings, 0, progress=False)
    plain = study.compare("sgd", 0.0)
    assert plain.verdict == "mismatch"
    found = interventions(study, study.dynamics("sgd"), plain, np.inf)
    assert found.smallest == (ONE_SIZE,)
    assert {r.assumptions: r.comparison.verdict for r in found.tried}["isotropy",] == "mismatch"
