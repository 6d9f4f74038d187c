"""The Langevin audit on models where the answer is known."""

import dataclasses
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import scipy.linalg
from scipy.stats import norm
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions import path, step_size
from bayes_vs_sgd.assumptions.along import AuditAlong, Place
from bayes_vs_sgd.assumptions.assumption import from_interval
from bayes_vs_sgd.assumptions.audit import described_by, plain_rate
from bayes_vs_sgd.assumptions.central_limit import central_limit
from bayes_vs_sgd.assumptions.degeneracy import non_degeneracy
from bayes_vs_sgd.assumptions.entries import TAKES, assumptions, constancy, preconditioner, tails
from bayes_vs_sgd.assumptions.isotropy import COMMUTATION, ISOTROPY, commutation, isotropy
from bayes_vs_sgd.assumptions.local import hessian_product, local, noise_product
from bayes_vs_sgd.assumptions.noise import NO_VARIANCE, noise_covariance, noise_samples, noise_traces
from bayes_vs_sgd.assumptions.refined import Description, describe, refined_models, substeps
from bayes_vs_sgd.assumptions.tails import stable_scale
from bayes_vs_sgd.assumptions.temperatures import one_temperature
from bayes_vs_sgd.assumptions.weak_error import as_assumption, weak_error
from bayes_vs_sgd.claims.programs import quadratic, regression
from bayes_vs_sgd.comparison.effects import Effect
from bayes_vs_sgd.comparison.plan import Walk
from bayes_vs_sgd.comparison.repairs import repaired
from bayes_vs_sgd.comparison.run import OutOfTime
from bayes_vs_sgd.comparison.verdict import MATCHES
from bayes_vs_sgd.curvature import reference_point
from bayes_vs_sgd.mean_square import mean_square_limit
from bayes_vs_sgd.report.audits import audit_figure, audit_page, audit_table, interval
from bayes_vs_sgd.report.audits_along import audit_along_table
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.settings import AuditSettings, Compare
from bayes_vs_sgd.stable import isotropic_stable
from bayes_vs_sgd.theory.fractional import free_displacement
from bayes_vs_sgd.theory.quadratic import stationary_covariance

HADAMARD = {"isotropic": True, "covariance": (1.0,) * 4, "num_examples": 256, "prior_scale": 30.0}
ONE = HADAMARD | {"covariance": (1.0,), "num_examples": 64}
"""One weight: h = 1, and noise of the same size everywhere."""


def held(model, dynamics, **settings):
    """Every assumption by name, on a run."""
    return {a.name: a for a in studied(model, dynamics, **settings)[1]}


def studied(model, dynamics, **settings):
    """A study with a run of a dynamics, called own, and every assumption."""
    study = ran(model, dynamics, **settings)
    return study, assumptions(study, "own", dynamics)


def ran(model, dynamics, **settings):
    """A study with a run of a dynamics, called own."""
    settings = {"num_seeds": 2000, "num_steps": 1000} | settings
    study = bvs.Study(model, Compare(dynamics=("own",), **settings), progress=False, own={"own": Walk(dynamics)})
    study.trees["own"] = study.ensemble("own", dynamics, study.target(study.scale), 0.0), None
    return study


def at(model, dynamics, position=None):
    """Target, minimum, Hessian and noise there."""
    target = bvs.Posterior(model)
    position = model.unconstrain(model.optimum) if position is None else position
    return target, position, local(target, dynamics.gradient, position)


@pytest.mark.law
def test_on_an_exactly_isotropic_regression_all_holds(load):
    found = held(load("linear_regression", **HADAMARD), bvs.SGD(0.1, 8))
    assert [a.name for a in found.values() if a.holds is False] == []
    assert [a.name for a in found.values() if a.holds is None] == []
    assert len(found) == 17


@pytest.mark.law
def test_rotated_noise_makes_currents(x64):
    """Area rate S12 (h1 - h2) over (h1 + h2) sqrt(S11 S22), S the discrete chain's; detailed balance would make it 0."""
    h, noise, eta = np.array([1.0, 3.0]), np.array([[1.0, 0.5], [0.5, 1.0]]), 0.05
    model = quadratic(np.diag(h), noise, 64)
    found = held(model, bvs.SGD(eta, 1), learning_rate=eta, initial_scale=0.01)
    failing = {name for name, a in found.items() if a.holds is False}
    assert failing == {"isotropy", "detailed balance", "no currents", "entropy production"}
    assert found["detailed balance"].value == pytest.approx(1 / 5)  # |[H, C]|^2 = 2, |HC|^2 + |CH|^2 = 25
    area = found["no currents"]
    s = stationary_covariance(np.diag(h), noise, eta)
    expected = abs(s[0, 1] * (h[0] - h[1])) / (h.sum() * np.sqrt(s[0, 0] * s[1, 1]))
    error = (area.interval[1] - area.value) / 1.96
    assert_mean(abs(area.value), error, expected=expected, detects=0.75 * expected)
    assert "entropy production 0.0833 of tr H" in area.note


@pytest.mark.law
def test_multiplicative_noise_is_heavy_tailed(load):
    """Tail index 1.55 at eta = .8 (claim D1): variance, mean-square stability and size of the noise fail, isotropy does not."""
    model = load("linear_regression", covariance=(1.0,), inputs="gaussian", prior_scale=30.0)
    found = held(model, bvs.SGD(0.8, 1), learning_rate=0.8, num_seeds=4000)
    for name in (
        "finite variance of the noise",
        "finite variance of the law",
        "mean-square stability",
        "noise of one size",
    ):
        assert found[name].holds is False, name
    assert found["isotropy"].holds
    assert found["small learning rate"].holds is False
    assert found["independent batches"].holds


@pytest.mark.exact
def test_a_deep_network_is_degenerate(load):
    model = load("deep_linear")
    target, _, place = at(model, bvs.SGD(0.01, 8), reference_point(model).position)
    found = non_degeneracy(place, target)
    assert found.holds is False
    assert "of the Hessian 9, of 21" in found.note
    assert "learning coefficient 4.5 for d/2 = 10.5" in found.note
    assert isotropy(place).holds is False


@pytest.mark.exact
def test_noise_in_flat_directions(x64):
    """H = diag(1, 1, 0): of noise of covariance diag(1, 2, 3) half is where nothing holds it back."""
    curved = np.array([1.0, 1.0, 0.0])

    def program(x):
        theta = numpyro.sample("theta", dist.Normal(0, 10).expand((3,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("x", dist.Normal(theta * curved, 1.0).to_event(1), obs=x)

    model = bvs.Model(program, {"x": np.zeros((8, 3))})
    _, _, place = at(model, bvs.SGD(0.1, 1), {"theta": jnp.zeros(3)})
    found = non_degeneracy(dataclasses.replace(place, noise=np.diag([1.0, 2.0, 3.0])), bvs.Posterior(model))
    assert found.value == pytest.approx(1 / 3)
    assert found.holds is False
    assert "in the flat directions 0.5 of tr C" in found.note


@pytest.mark.exact
def test_the_nearest_multiple_of_the_hessian(x64):
    """H = diag(1, 2), C = diag(2, 1): c = tr HC / tr H^2 = 4/5, the cosine 4/5, and 3/5 of |C| is left."""
    model = quadratic(np.diag([1.0, 2.0]), np.diag([2.0, 1.0]))
    note = isotropy(at(model, bvs.SGD(0.1, 1))[2]).note
    assert "2 eigenvalues of C are not zero, 1 to 2 (condition number 2)" in note
    assert "C is 0.8 H but for 0.60 of its norm; cosine of C with the Hessian 0.80" in note


@pytest.mark.exact
def test_stable_noise_has_no_covariance(load):
    """A sample has one, which says nothing: of alpha = 2 the entries are decided, below they are not."""
    model = load("linear_regression", **HADAMARD)

    def found(alpha):
        noise = bvs.StableNoise(alpha, 1.0)
        target, position, place = at(model, bvs.SGD(0.1, sampling=noise))
        entries = [isotropy(place), commutation(place), non_degeneracy(place, target)]
        entries.append(central_limit(target, noise, position))
        return entries

    assert [a.holds for a in found(2.0)] == [True] * 4
    *matrices, degeneracy, limit = found(1.5)
    for entry in matrices:
        assert entry.holds is None
        assert np.isnan(entry.interval).all()
        assert entry.note == NO_VARIANCE
    assert degeneracy.holds  # of the Hessian alone
    assert limit.holds is False
    study = ran(model, bvs.SGD(0.1, sampling=bvs.StableNoise(1.5, 0.1)), num_seeds=400, num_steps=64, learning_rate=0.1)
    by = {a.name: a for a in assumptions(study, "own", study.dynamics("own"))}
    assert by["noise of one size"].holds is None
    assert not {"no currents", "diffusion", "fluctuation and dissipation"} & set(by)
    assert json.dumps([a.to_json() for a in by.values()], allow_nan=False)


@pytest.mark.exact
def test_one_sharp_mode_among_thousands_is_seen():
    """H = diag(1, 0.01, 0.01, ...): random vectors (the bug) see its root mean square."""
    size, eta = 2500, 0.5
    scales = np.append(1.0, np.full(size - 1, 10.0))

    def program(x):
        theta = numpyro.sample("theta", dist.Normal(0, 10).expand((size,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("x", dist.Normal(theta, scales).to_event(1), obs=x)

    model = bvs.Model(
        program, {"x": np.random.default_rng(0).normal(size=(4, size))}, optimum={"theta": np.zeros(size)}
    )
    target, position = bvs.Posterior(model), {"theta": jnp.zeros(size)}

    def sharpness(preconditioner=None):
        place = local(target, bvs.Minibatch(batch_size=2), position, preconditioner)
        return step_size.small_steps(place, bvs.SGD(eta, 2)), place

    found, place = sharpness()
    seen = np.linalg.norm(place.hessian_probes) / np.linalg.norm(place.probes)
    assert found.value == pytest.approx(eta, rel=1e-3)
    assert found.value <= found.interval[1] <= 1.1 * eta
    assert found.holds is False
    assert eta * seen < step_size.SMALL
    flattened, _ = sharpness(scales**2)
    assert flattened.value == pytest.approx(eta, rel=1e-3)  # of P^(1/2) H P^(1/2) = I
    damped, _ = sharpness(np.append(0.1, np.ones(size - 1)))
    assert damped.holds


@pytest.mark.exact
def test_the_limit_of_stability_in_the_mean_square(load, x64):
    """Of Hadamard inputs, x_i^2 = 1: the trace grows by 1 - 2 eta + eta^2 (1 + (d - 1)/B)."""
    model = load("linear_regression", **HADAMARD)
    for batch in (1, 8):
        target, position, _ = at(model, bvs.SGD(0.1, batch))
        limit = mean_square_limit(target, position, batch)
        assert limit == pytest.approx(2 / (1 + 3 / batch), rel=1e-5)


@pytest.mark.law
def test_batch_sharpness_is_a_mean_of_ratios(x64):
    """With batches of one it is the mean of |x|^2; a ratio of means (the bug) is E r^2|x|^4 / E r^2|x|^2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 5)) * rng.exponential(size=(512, 1))
    model = regression(x, rng.normal(size=512))
    value, error = step_size.batch_sharpness(bvs.Posterior(model), 1, model.unconstrain(model.optimum))
    squares, residuals = np.sum(x**2, axis=1), np.asarray(model.data["y"]) - x @ np.asarray(model.optimum["w"])
    mistaken = np.mean(residuals**2 * squares**2) / np.mean(residuals**2 * squares)
    assert_mean(value, error, expected=squares.mean(), detects=abs(mistaken - squares.mean()))


@pytest.mark.law
def test_products_with_random_signs_estimate_the_same(monkeypatch, x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)) @ rng.normal(size=(8, 8))
    model = regression(x, rng.normal(size=64))
    position = {"w": jnp.asarray(rng.normal(size=8))}
    dynamics = bvs.SGD(0.1, 4)
    _, _, exact = at(model, dynamics, position)
    monkeypatch.setattr("bayes_vs_sgd.assumptions.local.DENSE", 0)
    monkeypatch.setattr("bayes_vs_sgd.assumptions.local.NUM_PROBES", 4000)
    monkeypatch.setattr("bayes_vs_sgd.assumptions.local.hessian_product", lambda t, p, v: v @ exact.hessian)
    _, _, estimated = at(model, dynamics, position)
    for entry in (isotropy, commutation):
        truth, found = entry(exact), entry(estimated)
        assert truth.interval[0] == truth.interval[1]
        error = (found.interval[1] - found.value) / 1.96
        assert_mean(found.value, error, expected=truth.value, detects=0.25 * truth.value)


@pytest.mark.exact
def test_beyond_matrices_the_ends_of_the_noises_spectrum_are_lanczos_own(monkeypatch, x64):
    """In eight products all of eight; of as few examples as parameters one direction at least has no noise."""
    rng = np.random.default_rng(0)
    for number, ratio in ((64, None), (8, "infinite")):
        model = regression(rng.normal(size=(number, 8)), rng.normal(size=number))
        target, position, root = bvs.Posterior(model), {"w": jnp.ones(8)}, np.linspace(1, 2, 8)
        exact = local(target, bvs.Minibatch(batch_size=2), position, root**2)
        monkeypatch.setattr("bayes_vs_sgd.assumptions.local.DENSE", 0)
        found = local(target, bvs.Minibatch(batch_size=2), position, root**2)
        monkeypatch.undo()
        values = np.linalg.eigvalsh(exact.noise)
        assert found.noise_ends[1] == pytest.approx(values[-1], rel=1e-6)
        assert found.noise_ends[0] == pytest.approx(values[0] if ratio is None else 0.0, rel=1e-4, abs=1e-9)
        said = ratio or f"at least {values[-1] / values[0]:.3g}"
        assert f"condition number {said})" in isotropy(found).note


@pytest.mark.exact
def test_products_are_those_of_the_matrices(x64):
    rng = np.random.default_rng(0)
    model = regression(rng.normal(size=(16, 3)), rng.normal(size=16))
    target, position, v = bvs.Posterior(model), {"w": jnp.ones(3)}, jnp.asarray([1.0, -2.0, 0.5])
    place = local(target, bvs.Minibatch(batch_size=2), position)
    np.testing.assert_allclose(hessian_product(target, position, v), place.hessian @ v, rtol=1e-10)
    np.testing.assert_allclose(noise_product(target, position, v) / 2, place.noise @ v, rtol=1e-10)


@pytest.mark.law
def test_an_epoch_uses_up_its_noise(load):
    target, position, _ = at(load("linear_regression", **HADAMARD), bvs.SGD(0.1, 8))
    shuffled = bvs.Shuffled(batch_size=8)
    assert path.repetition(target, shuffled, position, 32).value == pytest.approx(0, abs=1e-6)
    assert path.repetition(target, bvs.Minibatch(batch_size=8), position, 32).holds


@pytest.mark.exact
def test_a_preconditioner_is_judged_in_its_own_coordinates(load):
    """Adam divides by the noise's standard deviations s: of P^(1/2) C P^(1/2) = diag(s) the relative spread is that of s."""
    model = load("linear_regression", num_examples=4096)
    dynamics = bvs.Adam(0.01, 8)
    target, position, plain = at(model, dynamics)
    place = local(target, dynamics.gradient, position, preconditioner(target, dynamics, position))
    s = np.sqrt(np.diag(plain.noise))
    assert isotropy(place).value == pytest.approx(s.std() / s.mean(), rel=0.05)
    assert isotropy(plain).value > 1.5 * isotropy(place).value


@pytest.mark.smoke
def test_few_chains_have_no_tail_index(load):
    model = load("linear_regression", **HADAMARD)
    target, dynamics = bvs.Posterior(model), bvs.SGD(0.1, 8)
    tree = bvs.simulate(dynamics, target, key=0, num_chains=8, num_draws=4, progress=False)
    assert tails(target, dynamics, tree, 0) == []
    assert constancy(target, dynamics, tree).value > 0


@pytest.mark.smoke
def test_it_ends_in_one_sentence_and_a_page(load, tmp_path):
    model = load("linear_regression", covariance=(1.0, 0.1), prior_scale=30.0, num_examples=64)
    settings = AuditSettings(num_seeds=400, num_steps=64, models=False, max_seconds=0.1)
    found = bvs.audit(model, settings=settings, folder=tmp_path, progress=False)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"assumptions", "repairs", "models", "reason"} <= set(content)
    assert {a.name for a in found.assumptions} | set(found.left_out) == set(TAKES)
    assert found.left_out == {"weak error": TAKES["weak error"]}
    assert set(content["assumptions"][0]) == {
        "name",
        "statistic",
        "value",
        "interval",
        "null",
        "margin",
        "holds",
        "note",
    }
    assert found.reason.startswith("sgd")
    assert audit_figure(found).axes
    page = audit_page(found, model, {"path": "m.py", "num_parameters": 2, "num_examples": 64, "config": {}}, "command")
    assert all(a.name in page for a in found.assumptions)
    assert audit_table(found).renderables


@pytest.mark.exact
@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((1.0, 2.0), "1 to 2"),
        ((1.0, 1.0), "exact"),
        ((1.0, np.inf), "above 1"),
        ((np.nan, np.nan), "-"),
        ((np.inf, np.inf), "-"),
    ],
)
def test_an_interval_in_words(bounds, said):
    assert interval(from_interval("a", "b", 1.0, bounds, 0.0, 1.0)) == said


@pytest.mark.exact
def test_a_run_that_would_end_too_late_is_not_begun(load, tmp_path):
    """Nor does looking at its first steps change one that is."""
    model, dynamics = load("linear_regression", **HADAMARD), bvs.SGD(0.1, 8)

    def run(folder, num_steps, seconds):
        study = bvs.Study(model, Compare(num_seeds=100, num_steps=num_steps), folder=folder, progress=False)
        study.until = time.monotonic() + seconds
        return final_positions(study.ensemble("sgd", dynamics, study.target(study.scale), 0.0))[0]["w"]

    np.testing.assert_array_equal(run(None, 64, np.inf), run(tmp_path / "looked at", 64, 600.0))
    with pytest.raises(OutOfTime):
        run(tmp_path / "too long", 10**9, 60.0)


@pytest.mark.smoke
def test_what_cannot_be_audited_is_refused(load):
    with pytest.raises(bvs.InputError, match="give an optimiser with noise"):
        bvs.audit(load("product"), bvs.GradientDescent(0.1), progress=False)
    with pytest.raises(bvs.InputError, match="no noise at the minimum"):
        bvs.audit(load("product"), bvs.SGD(0.01, 8), progress=False)


@pytest.mark.law
@pytest.mark.slow
def test_of_an_exactly_isotropic_regression_nothing_needs_repair(load):
    settings = AuditSettings(num_seeds=4000, learning_rate=0.1, batch_size=8, max_seconds=600)
    found = bvs.audit(load("linear_regression", **HADAMARD), settings=settings, progress=False)
    assert found.reason == (
        "sgd samples the tempered posterior within the margins: nothing needs repair; its run is described by isotropic Langevin"
    )
    assert all(a.holds for a in found.assumptions)
    assert found.repairs == []
    assert found.left_out == {}


@pytest.mark.law
@pytest.mark.slow
def test_the_reason_is_the_smallest_repair(load):
    """Anisotropic regression: with isotropic noise SGD samples the posterior, and no other repair does it alone."""
    model = load("linear_regression", covariance=(1.0, 0.3), prior_scale=30.0, num_examples=64)
    found = bvs.audit(model, settings=AuditSettings(num_seeds=4000, max_seconds=600), progress=False)
    assert found.comparison.verdict == "mismatch"
    assert "it would be with isotropy (" in found.reason
    assert " and " not in found.reason
    assert {r.assumptions: r.comparison.verdict for r in found.repairs}[("isotropy",)] in MATCHES
    assert found.reason.endswith("; its run is described by anisotropic Langevin")
    assert next(a for a in found.assumptions if a.name == "weak error").holds is not False
    assert {m.dynamics: m.verdict for m in found.models}["isotropic Langevin"] == "mismatch"
    assert {m.dynamics: m.verdict for m in found.models}["second-order anisotropic"] == "match"


@pytest.mark.law
def test_at_large_steps_its_own_equation_does_not_describe_sgd(load):
    """h = 1, eta = 1/2: SGD's variance is 1/(1 - eta h / 2) times the equation's. One sub-step (the bug) is SGD itself."""
    eta = 0.5
    settings = {
        "learning_rate": eta,
        "batch_size": 32,
        "num_steps": 32,
        "num_seeds": 20_000,
        "observables": ("mode_1",),
    }
    model, dynamics = load("linear_regression", **ONE), bvs.SGD(eta, 32)
    study, found = ran(model, dynamics, **settings), [step_size.small_steps(at(model, dynamics)[2], dynamics)]
    equation = refined_models(study, dynamics, "own", found)["anisotropic Langevin"]
    assert equation.substeps == substeps(eta, 0.1) == 13
    exact = np.log((1 - eta / 2 / 13) / (1 - eta / 2)) / 2

    def assert_mismatch(substeps):
        made = describe(
            study, f"in {substeps}", "own", bvs.StochasticGradientFlow(eta, bvs.GaussianNoise(32), substeps)
        )
        width = next(e for e in made.effects if e.kind == "log_deviation_ratio")
        assert_mean(width.value, width.standard_error, expected=exact, detects=0.1)
        assert made.verdict == "mismatch"

    assert_mismatch(13)
    with planted_bug():
        assert_mismatch(1)


@pytest.mark.law
@pytest.mark.parametrize(("eta", "holds"), [(0.1, True), (0.5, False)])
def test_the_weak_error_halves_with_the_learning_rate(load, eta, holds):
    """That of log sd is -log(1 - eta h / 2) / 2, h = 1, but for what the sub-steps leave."""
    settings = {
        "learning_rate": eta,
        "batch_size": 32,
        "num_steps": 128,
        "num_seeds": 20_000,
        "observables": ("mode_1",),
    }
    model, dynamics = load("linear_regression", **ONE), bvs.SGD(eta, 32)
    study, found = ran(model, dynamics, **settings), [step_size.small_steps(at(model, dynamics)[2], dynamics)]
    equation = refined_models(study, dynamics, "own", found)["anisotropic Langevin"]
    made = describe(study, "anisotropic Langevin", "own", equation)
    found = weak_error(study, dynamics, "own", made)
    half = study.trees["own at half the learning rate"][0]
    assert half.attrs["num_steps"] == 256
    assert found.holds is holds
    error = next(e.standard_error for e in made.effects if e.kind == "log_deviation_ratio")
    exact, kept = -np.log(1 - eta / 2) / 2, np.log(1 - eta / 2 / equation.substeps) / 2
    assert_mean(found.value, error, expected=exact + kept, detects=0.07)
    assert "log deviation ratio" in found.note
    if not holds:
        half, spread = (float(x) for x in re.findall(r"rate ([+-][0-9.]+) ± ([0-9.]+)", found.note)[0])
        halved = (-np.log(1 - eta / 4) + np.log(1 - eta / 4 / (equation.substeps // 2))) / 2
        assert_mean(half, spread, expected=halved, detects=0.07)
        with planted_bug():  # as large as at the whole learning rate
            assert_mean(half, spread, expected=exact + kept, detects=0.07)


@pytest.mark.exact
def test_a_weak_error_is_judged_with_all_others():
    """The lower bound is for all effects at once, so that one of many is not beyond its margin by chance."""
    effect = Effect("loss", "function", "mean", -0.5, 0.125, 0.2)
    alone, one_of_many = as_assumption(effect, 1), as_assumption(effect, 20)
    assert alone.holds is False
    assert one_of_many.holds is None
    assert alone.interval == pytest.approx((0.5 - 1.96 * 0.125, 0.5 + 1.96 * 0.125), abs=1e-4)
    assert one_of_many.interval[1] == alone.interval[1]


@pytest.mark.law
def test_one_temperature_of_the_posterior_and_two_of_sgd(load):
    """At covariances 1 and 0.3 of the inputs SGD has temperatures in that ratio, and the posterior one."""
    model = load("linear_regression", covariance=(1.0, 0.3), prior_scale=30.0, num_examples=64)
    eta, target = 0.05, bvs.Posterior(model, 1.0)
    study = ran(model, bvs.SGD(eta, 8), num_seeds=4000, learning_rate=eta)
    of_sgd = one_temperature(target, study.minimum.position, path.ended(study.trees["own"][0]))
    assert of_sgd.holds is False
    noise = np.asarray(at(model, bvs.SGD(eta, 8), study.minimum.position)[2].noise)
    h = np.array([1.0, 0.3])
    expected = np.log(noise[0, 0] / noise[1, 1] * (1 - eta * h[1] / 2) / (1 - eta * h[0] / 2))
    error = (of_sgd.interval[1] - of_sgd.value) / 1.96
    assert_mean(of_sgd.value, error, expected=expected, detects=0.3)
    rng = np.random.default_rng(0)
    data = {k: np.asarray(v, float) for k, v in model.data.items()}
    precision = data["x"].T @ data["x"] + np.eye(2) / 30**2
    draws = rng.multivariate_normal(np.linalg.solve(precision, data["x"].T @ data["y"]), np.linalg.inv(precision), 4000)
    exact = one_temperature(target, study.minimum.position, {"w": jnp.asarray(draws, float)})
    assert exact.holds
    assert "n beta from" in exact.note
    assert exact.interval[0] == 0.0
    with planted_bug():  # SGD is not called of one temperature
        assert_mean(of_sgd.value, error, expected=0.0, detects=0.3)


@pytest.mark.law
def test_layers_of_two_temperatures():
    """Two sites, each with its own Gaussian law: of precision n in one, and n / 2 in the other (an exactly known ratio)."""

    def program(x):
        first = numpyro.sample("first", dist.Normal(0, 10).expand((3,)).to_event(1))
        second = numpyro.sample("second", dist.Normal(0, 10).expand((3,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("x", dist.Normal(jnp.append(first, second), 1.0).to_event(1), obs=x)

    model = bvs.Model(program, {"x": np.zeros((16, 6))}, optimum={"first": np.zeros(3), "second": np.zeros(3)})
    rng = np.random.default_rng(0)
    variance = 1 / (16 + 1 / 100)
    draws = {name: rng.normal(size=(4000, 3)) * np.sqrt(s * variance) for name, s in (("first", 1), ("second", 2))}
    found = one_temperature(bvs.Posterior(model), {k: jnp.zeros(3) for k in draws}, draws)
    assert found.holds is False
    assert "(site first)" in found.note or "direction" in found.note
    sites = re.findall(r"([0-9.]+) \(", found.note)
    assert float(sites[0]) < 10 < 14 < float(sites[1])


@pytest.mark.exact
@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ((), ""),
        (("mismatch", "match", "match"), "; its run is described by B"),
        (("mismatch", "inconclusive", "mismatch"), "; whether its run is described by B is open"),
        (("mismatch", "mismatch", "mismatch"), "; its run is described by none of A, B, C"),
    ],
)
def test_which_equation_describes_the_run(verdicts, said):
    models = [Description(name, {}, [], verdict) for name, verdict in zip("ABC", verdicts, strict=False)]
    assert described_by(models) == said


@pytest.mark.law
def test_momentum_is_described_by_its_own_equation(load):
    """Heavy ball at eta h / (1 + mu) = .05 by the underdamped one, and not by SGD's at the same rate (the bug)."""
    assert_described(load, bvs.SGD(0.05, 8, momentum=0.5), "underdamped, anisotropic", bvs.StochasticGradientFlow(0.05))


@pytest.mark.law
@pytest.mark.parametrize(
    ("noise", "name", "mistaken"),
    [
        (bvs.LabelNoise(1.0), "Langevin, full batch + label noise", bvs.LabelNoise(1.3)),
        (bvs.GaussianNoise(8), "anisotropic Langevin", bvs.GaussianNoise(4)),
    ],
    ids=["labels", "Gaussian"],
)
def test_noise_of_ones_own_is_that_of_the_equation(load, noise, name, mistaken):
    assert_described(load, bvs.SGD(0.1, sampling=noise), name, bvs.StochasticGradientFlow(0.1, mistaken))


@pytest.mark.law
def test_nesterov_is_no_heavy_ball(load):
    """Its friction grows with the curvature: at eta h = .1, mu = .9 its variance is .644 of what a heavy ball's equation has."""
    eta, mu, model = 0.1, 0.9, load("linear_regression", **ONE)
    dynamics = bvs.SGD(eta, 32, momentum=mu, nesterov=True)
    settings = {"learning_rate": eta, "num_steps": 128, "num_seeds": 10_000, "observables": ("mode_1",)}
    study = ran(model, dynamics, **settings)
    held = [step_size.small_steps(at(model, dynamics)[2], dynamics)]
    assert held[0].value == pytest.approx(eta * (1 + 2 * mu) / (1 + mu))
    models = refined_models(study, dynamics, "own", held)
    assert list(models) == ["isotropic Langevin", "anisotropic Langevin"]
    assert float(models["anisotropic Langevin"].step_time) == pytest.approx(1.0)
    moved = np.array(
        [[1 - eta * (1 + mu), -eta * mu**2], [1, mu]]
    )  # of position and memory, the noise of one gradient below
    kick = np.array([[-eta * (1 + mu)], [1]])
    exact = np.log(scipy.linalg.solve_discrete_lyapunov(moved, kick @ kick.T)[0, 0] / (eta / 2 / (1 - mu))) / 2

    def assert_as_wide(dynamics):
        found = describe(study, repr(dynamics), "own", dynamics)
        width = next(e for e in found.effects if e.kind == "log_deviation_ratio")
        assert_mean(width.value, width.standard_error, expected=exact, detects=0.1)
        assert found.verdict == "mismatch"

    assert_as_wide(bvs.MomentumFlow(eta, mu, bvs.GaussianNoise(32), 8))
    with planted_bug():  # what does describe it
        assert_as_wide(dynamics)


def assert_described(load, dynamics, name, mistaken):
    """An optimiser is described by its equation, and not by another."""
    model, rate = load("linear_regression", **ONE | {"num_examples": 16}), float(dynamics.step_time)
    settings = {"num_seeds": 6000, "num_steps": 500, "learning_rate": rate, "observables": ("mode_1",)}
    study = ran(model, dynamics, initial_scale=0.01, **settings)
    place = local(study.target(1.0), dynamics.gradient, study.minimum.position)
    models = refined_models(study, dynamics, "own", [step_size.small_steps(place, dynamics)])
    assert describe(study, name, "own", models[name]).verdict == "match"
    assert describe(study, "mistaken", "own", mistaken).verdict == "mismatch"


@pytest.mark.law
def test_rmsprop_is_described_by_its_own_equation(load):
    """And not by that of batches half as large."""
    rmsprop = bvs.Optimizer(optax.rmsprop, 8, learning_rate=0.01, decay=0.9)
    assert_described(load, rmsprop, "RMSprop's equation", bvs.RMSpropFlow(0.01, 4, 0.9))


@pytest.mark.law
def test_adam_is_described_by_its_own_equation(load):
    """And not by that of a learning rate half as large."""
    adam = bvs.Adam(0.01, 8, b2=0.99)
    assert_described(load, adam, "Adam's equation", bvs.AdamFlow(0.005, 8, b2=0.99))


@pytest.mark.law
def test_heavy_tails_are_described_by_a_stable_process():
    """Examples at the quantiles of a power law: their sums tend to a stable law, which a Gaussian of their variance is not."""
    size = (np.arange(1, 1025) / 1024) ** (-1 / 1.3)

    def program(x):
        theta = numpyro.sample("theta", dist.Normal(0, 100))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("x", dist.Normal(theta, 1.0), obs=x)

    model, eta = bvs.Model(program, {"x": np.append(size, -size)}, optimum={"theta": 0.0}), 0.05
    settings = {"learning_rate": eta, "batch_size": 1, "initial_scale": 0.01, "num_steps": 200}
    study, found = studied(model, bvs.SGD(eta, 1), **settings)
    models = refined_models(study, bvs.SGD(eta, 1), "own", found)
    stable = models["stable Levy-driven"]
    assert "time-fractional Langevin" not in models

    def spread(name, equation):
        """Log ratio of the median absolute deviations, the run's over the equation's."""
        effects = describe(study, name, "own", equation).effects
        return next(e for e in effects if e.kind == "log_mad_ratio")

    def assert_nearer(other):
        first, second = spread("stable", stable), spread(repr(other), other)
        error = norm.isf(1e-6) * np.hypot(first.standard_error, second.standard_error)
        if not abs(second.value) - abs(first.value) > error:
            raise AssertionError(f"{first.value} differs from 0 by no less than {second.value}, chance allows {error}")

    assert_nearer(models["anisotropic Langevin"])
    with planted_bug():  # a better one is not called worse
        assert_nearer(bvs.SGD(eta, 1))


@pytest.mark.law
def test_stable_noise_of_a_known_scale():
    """Sums of m stable vectors are stable, m^(1/alpha) times as large. The unit is known to 1 %."""
    alpha, scale, size = 1.4, 3.0, 10
    samples = scale * np.asarray(isotropic_stable(jax.random.key(5), alpha, (40, 2000, 3)), float)
    found = [stable_scale(draws, alpha, size) for draws in samples]
    assert_mean(found, expected=scale, expected_error=0.01 * scale, detects=0.2 * scale)
    with planted_bug():  # sums that grow like normal ones
        assert_mean(found, expected=scale * size ** (1 / alpha - 0.5), detects=0.2 * scale)


@pytest.mark.exact
def test_the_clock_that_waits_goes_as_far_as_the_run(load):
    """Mean operational time of 32 steps, half the free displacement of K = 1, and that of SGD: 32 eta / (n beta)."""
    study = bvs.Study(load("linear_regression", **HADAMARD), Compare(learning_rate=0.1), progress=False)
    slow = from_interval("diffusion", "exponent", -0.3, (-0.32, -0.28), 0.0, 0.1)
    models = refined_models(study, bvs.SGD(0.1, 8), "own", [slow])
    clock = models["time-fractional Langevin"]
    assert float(clock.alpha) == pytest.approx(0.7)
    reading = free_displacement(0.5, 32 * float(clock.time_step), 0.7)
    assert reading == pytest.approx(32 * 0.1 / study.scale, rel=1e-5)
    fast = from_interval("diffusion", "exponent", 0.3, (0.28, 0.32), 0.0, 0.1)
    assert "time-fractional Langevin" not in refined_models(study, bvs.SGD(0.1, 8), "own", [fast])


@pytest.mark.exact
def test_the_product_with_the_noise_is_centred(x64):
    """A gradient that all examples share is no noise."""
    model = regression(np.ones((8, 1)), np.zeros(8))
    target, position = bvs.Posterior(model), {"w": jnp.asarray([3.0])}
    assert float(jnp.abs(noise_product(target, position, jnp.ones(1)))[0]) < 1e-12
    assert noise_traces(target, bvs.Minibatch(batch_size=1), jax.tree.map(lambda x: x[None], position)) < 1e-12
    assert jax.tree.leaves(position)


@pytest.mark.exact
@pytest.mark.parametrize("name", ["sgd", "sgd-momentum", "adam"])
def test_an_optimiser_of_ones_own_is_held_at_its_own_temperature(load, name):
    """That of plain SGD at a learning rate by which ``compare`` scales those of other rules; planted: the optimiser's own."""
    study = bvs.Study(load("linear_regression"), Compare(dynamics=(name,)), progress=False)
    dynamics = study.dynamics(name)
    plain = plain_rate(study.model, dynamics, dynamics.batch_size)
    assert plain == pytest.approx(study.learning_rate, rel=5e-3)  # a rate is rounded to three digits
    assert name == "sgd" or float(dynamics.step_time) != pytest.approx(study.learning_rate, rel=0.05)
    with pytest.raises(bvs.InputError, match="one learning rate, not one a chain"):
        plain_rate(study.model, bvs.SGD(np.array([0.1, 0.2])), 8)


@pytest.mark.exact
@pytest.mark.parametrize(
    "dynamics", [bvs.SGD(0.1), bvs.SGD(0.1, momentum=0.7), bvs.SGD(0.1, momentum=0.7, nesterov=True), bvs.Adam(0.1)]
)
def test_the_edge_of_stability_is_where_the_mean_of_a_mode_grows(dynamics):
    """Spectral radius of (theta, m) -> one step at a curvature a little below and above; that of plain SGD is another."""
    averages = dynamics.rule == "adam"
    mu, ahead = (0.9 if averages else dynamics.momentum), dynamics.nesterov
    gain = 1 - mu if averages else 1.0

    def radius(steepness):
        """Of steps in units of the learning rate: m' = mu m + gain h theta, theta' = theta - m' (or - mu m' - gain h theta)."""
        memory = np.array([gain * steepness, mu])
        step = mu * memory + [gain * steepness, 0.0] if ahead else memory
        return np.abs(np.linalg.eigvals([[1.0, 0.0] - step, memory])).max()

    edge = 2 * step_size.half_edge(dynamics)
    assert radius(0.99 * edge) <= 1 < radius(1.01 * edge)
    assert (radius(1.01 * 2) > 1) == (edge <= 2)


@pytest.mark.exact
def test_noise_that_is_known_from_draws_is_not_taken_to_be_exact(x64, monkeypatch):
    """Of a thousand draws in a hundred directions isotropic noise seems to spread by a third (planted) and not to commute."""
    size = 100
    model, dynamics = quadratic(np.diag(np.linspace(1, 3, size)), np.eye(size), 128), bvs.WhiteNoise(1.0)
    monkeypatch.setattr("bayes_vs_sgd.assumptions.noise.NUM_DRAWS", 1000)
    place = local(bvs.Posterior(model), dynamics, model.unconstrain(model.optimum))
    for held_against, margin in ((isotropy, ISOTROPY), (commutation, COMMUTATION)):
        found = held_against(place)
        assert found.holds, found
        assert found.value < margin / 2
        assert held_against(dataclasses.replace(place, num_draws=None)).value > 2 * found.value
    assert isotropy(dataclasses.replace(place, num_draws=None)).holds is False


@pytest.mark.exact
def test_noise_that_is_not_isotropic_is_seen_in_draws(x64, monkeypatch):
    """Eigenvalues 1 and 3: a relative spread of 1/2."""
    noise = np.diag(np.repeat([1.0, 3.0], 10))
    model = quadratic(np.eye(20), noise, 64)
    for module in ("noise", "local"):
        monkeypatch.setattr(f"bayes_vs_sgd.assumptions.{module}.batch_size_of", lambda gradient, num_examples: None)
    monkeypatch.setattr("bayes_vs_sgd.assumptions.noise.NUM_DRAWS", 4000)
    place = local(bvs.Posterior(model), bvs.GaussianNoise(1), model.unconstrain(model.optimum))
    assert isotropy(place).value == pytest.approx(0.5, abs=0.03)


@pytest.mark.exact
def test_batches_without_repetition_have_less_noise(x64):
    """Cov = C/B (n - B)/(n - 1), that of gradients drawn; planted: C/B."""
    model = quadratic(np.diag([1.0, 2.0]), np.array([[1.0, 0.3], [0.3, 2.0]]), 16)
    target, position = bvs.Posterior(model), model.unconstrain(model.optimum)
    gradient = bvs.SGD(0.1, 8, sampling="shuffled").gradient
    covariance = noise_covariance(target, gradient, position)
    drawn = np.cov(noise_samples(target, gradient, position, 0, 20_000), rowvar=False)
    assert covariance == pytest.approx(drawn, rel=0.1)
    assert noise_covariance(target, bvs.SGD(0.1, 8).gradient, position) == pytest.approx(covariance * 15 / 8)
    assert np.all(noise_covariance(target, bvs.SGD(0.1, 16, sampling="shuffled").gradient, position) == 0)


@pytest.mark.exact
@pytest.mark.parametrize(("batch_size", "smaller", "longer"), [(8, 4, 2), (3, 1, 3), (5, 2, 3)])
def test_a_smaller_step_keeps_the_temperature(load, batch_size, smaller, longer):
    study = bvs.Study(load("linear_regression"), Compare(dynamics=("sgd",)), progress=False)
    walk = repaired(study, bvs.SGD(0.12, batch_size), ["small learning rate"], None)
    assert (walk.dynamics.batch_size, walk.longer) == (smaller, longer)
    assert float(walk.dynamics.step_time) / smaller == pytest.approx(0.12 / batch_size)


@pytest.mark.exact
def test_a_regular_model_that_is_badly_conditioned_is_not_called_degenerate(x64):
    """Curvatures 1 and 1e-4: a normal law, and half of its directions nearly flat; planted: one of none."""
    model = quadratic(np.diag([1.0, 1e-4]), np.eye(2), 16)
    target, _, place = at(model, bvs.SGD(0.1, 1))
    found = non_degeneracy(place, target)
    assert found.holds is None
    assert "50% curve, but less than 0.001 of the steepest" in found.note
    flat = dataclasses.replace(place, hessian=np.diag([1.0, 0.0]))
    assert non_degeneracy(flat, target).holds is False


@pytest.mark.exact
def test_what_not_every_checkpoint_has_is_left_out_along_a_run():
    held = [from_interval(name, "", 0.1, (0.1, 0.1), 0.0, 0.2) for name in ("isotropy", "mean-square stability")]
    places = [Place(0, 1.0, held), Place(10, 0.5, held[:1])]
    found = AuditAlong({}, places)
    assert audit_along_table(found).columns[-1].header == "isotropy"
    assert audit_along_table(AuditAlong({}, places[::-1])).row_count == 2
