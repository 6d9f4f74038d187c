"""The learning coefficient without tuning: right within its printed interval, or not trusted, on models from users' files."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd import CORES, pilot, tempered
from bayes_vs_sgd.claims.programs import quadratic
from bayes_vs_sgd.curvature import (
    NUM_PRIOR_DRAWS,
    hessian,
    hessian_eigenvalues,
    loss_and_gradient,
    prior_curvatures,
    reference_point,
)
from bayes_vs_sgd.estimate import with_error
from bayes_vs_sgd.learning_coefficient import EXTRAPOLATED, LEFT_OUT, Chains, baselines, deeper, summarise
from bayes_vs_sgd.measure import APART, VAGUE, measure, posterior
from bayes_vs_sgd.sampler_choice import (
    choose,
    critical_friction,
    extrapolate,
    preconditioner,
    relaxation_time,
    softness,
    step_at,
)
from bayes_vs_sgd.second_sampler import by_tempering
from bayes_vs_sgd.settings import LLC
from bayes_vs_sgd.theory.normal_crossings import crossing_moments

Z = stats.norm.isf(1e-6 / 2)
QUICK = {"progress": False, "max_seconds": 90.0}


def slow(*powers):
    return pytest.param(powers, marks=pytest.mark.slow)


def error_in_units(found, exact):
    """Distance from the exact value over the Monte Carlo error, once what step size and burn-in may do is taken off."""
    left = sum(found.error_budget[name] or 0.0 for name in ("discretisation", "transient"))
    return max(abs(found.value - exact) - left, 0.0) / found.standard_error


@pytest.mark.law
@pytest.mark.parametrize("powers", [slow(1, 1), (1, 2), slow(2, 3)])
def test_crossings_of_two_weights_by_quadrature(load, x64, powers):
    found = bvs.learning_coefficient(load("normal_crossing", powers=powers), **QUICK)
    assert found.sampler["dynamics"] == "Grid"
    assert found.trusted, found.warnings
    assert error_in_units(found, found.finite_n_reference["value"]) < Z
    assert found.error_budget["finite_n"] == found.truth["value"] - found.finite_n_reference["value"]


CROSSING = """
from dataclasses import dataclass
import bayes_vs_sgd as bvs
import numpy as np, numpyro, numpyro.distributions as dist

@dataclass(frozen=True)
class Config:
    num_examples: int = 1000

def program(x, y=None):
    a, b, c = (numpyro.sample(name, dist.Normal(0, 1)) for name in "abc")
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(FORMULA * x, 1.0), obs=y)

def build(config, key):
    x = np.ones(config.num_examples)
    return bvs.Model(program, {"x": x, "y": 0 * x})
"""
"""A file of a user's own: no optimum, no truth, no exact sampler; c is there for all and used by some."""


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(
    ("formula", "powers"),
    [
        ("a * b", (1, 1)),
        ("a * b**2", (1, 2)),
        ("a * b * c", (1, 1, 1)),
        ("a**2 * b**3", (2, 3)),
        ("a*b*c**2", (1, 1, 2)),
    ],
)
def test_crossings_in_a_file_of_ones_own_are_right_or_not_trusted(formula, powers, tmp_path, x64, monkeypatch):
    """NUTS and tempered particles must agree; where trajectories diverge the number comes with the reason."""
    monkeypatch.setattr("bayes_vs_sgd.measure.FIRST_SHARE", 0.1)  # time for the second on any machine
    (tmp_path / "own.py").write_text(CROSSING.replace("FORMULA", formula))
    model = bvs.load_model(tmp_path / "own.py")
    found = bvs.learning_coefficient(model, precision=0.05, progress=False, max_seconds=600.0)
    assert found.sampler["dynamics"] == "NUTS"
    assert "the model names no optimum" in found.baseline["source"]
    exact = crossing_moments(powers, 1000 / np.log(1000)).energy
    assert not found.trusted or error_in_units(found, exact) < Z
    assert found.second is not None
    second = found.second["value"]
    assert abs(second["value"] - exact) < stats.t.isf(1e-6 / 2, 3) * second["standard_error"]
    assert abs(second["value"] - exact) < VAGUE * exact  # four replicates alone would allow 130 standard errors


@pytest.mark.law
@pytest.mark.slow
def test_particles_measure_a_crossing_and_trajectories_are_asked(tmp_path, x64, monkeypatch):
    """A file of a user's own again: the second sampler of particles is NUTS."""
    monkeypatch.setattr("bayes_vs_sgd.measure.FIRST_SHARE", 0.5)
    (tmp_path / "own.py").write_text(CROSSING.replace("FORMULA", "a * b * c"))
    model = bvs.load_model(tmp_path / "own.py")
    found, tree = measure(model, sampler="smc", precision=0.03, progress=False, max_seconds=300.0)
    exact = crossing_moments((1, 1, 1), 1000 / np.log(1000)).energy
    assert found.standard_error < 0.03 * exact
    assert error_in_units(found, exact) < Z
    assert found.settings["burn_in"] == 0.0
    assert tree["posterior"].sizes["chain"] == 8
    assert found.sampler["num_particles"] == tree["posterior"].sizes["draw"]
    assert found.second is not None
    assert found.second["sampler"] == "NUTS"
    error = np.hypot(found.second["value"]["standard_error"], found.standard_error)
    assert not found.trusted or abs(found.second["value"]["value"] - found.value) < APART * error


@pytest.mark.law
@pytest.mark.slow
def test_particles_that_have_no_time_to_be_doubled_are_kept(load, x64):
    """Of 80 parameters there are 320 from the start; what is made of them is not thrown away."""
    model = load("deep_linear", widths=(6, 8, 4), unseen_inputs=0, num_examples=100)
    found = bvs.learning_coefficient(model, sampler="smc", precision=1e-4, progress=False, max_seconds=60.0)
    assert found.settings["num_draws"] >= 4 * model.num_parameters > 300
    assert any("give --max-seconds" in warning for warning in found.warnings)
    assert found.second["sampler"] == "LinearNetworkGibbs"
    error = np.hypot(found.second["value"]["standard_error"], found.standard_error)
    assert abs(found.value - found.second["value"]["value"]) < Z * error


@pytest.mark.smoke
def test_particles_of_many_parameters_are_refused(load):
    """Their covariance would have as many rows; the line says what else to take."""
    with pytest.raises(bvs.InputError, match="for at most 300 parameters, not 420; give --sampler nuts"):
        bvs.learning_coefficient(load("deep_linear", widths=(10, 20, 10)), sampler="smc", **QUICK)


def two_units(n=300, noise=0.3):
    """A user's own network of two tanh units, the teacher of which has one: written here, known to nobody."""
    import numpyro
    import numpyro.distributions as dist
    from jax import numpy as jnp

    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    y = 1.5 * np.tanh(x) + noise * rng.normal(size=n)

    def program(x, y=None):
        a = numpyro.sample("a", dist.Normal(0, 1).expand((2,)).to_event(1))
        b = numpyro.sample("b", dist.Normal(0, 1).expand((2,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.tanh(x[:, None] * a) @ b, noise), obs=y)

    return bvs.Model(program, {"x": x, "y": y})


def by_quadrature(model, beta, baseline, noise=0.3):
    """n beta (E[L] - L*) on a grid of (a1, a2): the outer weights are Gaussian given the inner ones."""
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    line = np.linspace(-6, 6, 241)
    hidden = np.tanh(np.outer(line, x))  # (grid, n)
    gram, cross = hidden @ hidden.T, hidden @ y
    precision = beta / noise**2
    log_weight, energy = np.empty((2, len(line), len(line)))
    for i in range(len(line)):
        for j in range(len(line)):
            h = gram[np.ix_([i, j], [i, j])]
            lam = np.eye(2) + precision * h
            mean = np.linalg.solve(lam, precision * cross[[i, j]])
            log_weight[i, j] = 0.5 * mean @ lam @ mean - 0.5 * np.linalg.slogdet(lam)[1]
            log_weight[i, j] -= 0.5 * (line[i] ** 2 + line[j] ** 2)
            square = y @ y - 2 * mean @ cross[[i, j]] + mean @ h @ mean + np.trace(h @ np.linalg.inv(lam))
            energy[i, j] = 0.5 * precision * square
    weight = np.exp(log_weight - log_weight.max())
    total = len(x) * beta * (0.5 * np.log(2 * np.pi) + np.log(noise)) + (weight * energy).sum() / weight.sum()
    return total - len(x) * beta * baseline


@pytest.mark.law
@pytest.mark.slow
def test_a_network_that_the_library_has_never_seen(x64, monkeypatch):
    """Without an optimum: the baseline is found, and said to be; two samplers and quadrature agree."""
    monkeypatch.setattr("bayes_vs_sgd.measure.FIRST_SHARE", 0.1)  # time for the second on any machine
    model = two_units()
    found = bvs.learning_coefficient(model, precision=0.05, progress=False, max_seconds=600.0)
    assert "the model names no optimum" in found.baseline["source"]
    exact = by_quadrature(model, 1 / np.log(300), found.baseline["value"])
    assert not found.trusted or error_in_units(found, exact) < Z
    second = found.second["value"]
    assert abs(second["value"] - exact) < stats.t.isf(1e-6 / 2, 3) * second["standard_error"]
    assert abs(second["value"] - exact) < VAGUE * exact  # four replicates alone would allow 130 standard errors


@pytest.mark.exact
def test_a_pull_is_to_the_minimum_that_is_found_where_none_is_known(x64):
    model = two_units()
    target = posterior(model, LLC(localization=10.0))
    assert hessian_eigenvalues(model, target.center)[0] > -1e-6
    slopes = loss_and_gradient(model, target.center)[1]
    assert max(float(np.abs(slope).max()) for slope in slopes.values()) < 1e-4


@pytest.mark.law
@pytest.mark.slow
def test_chains_start_in_the_well_that_they_are_pulled_to(load, x64, monkeypatch):
    """Of a b = 1 there are two; from draws of the prior (planted) some never leave the wrong one."""
    target = bvs.Posterior(load("product", num_examples=1000, target=1.0), 1 / np.log(1000), localization=20.0)

    def worst():
        return measure(target, sampler="nuts", second=False, max_seconds=60.0, progress=False)[0].rhat

    assert worst() < 1.05
    monkeypatch.setattr("bayes_vs_sgd.sampler_choice.start_of", lambda *_: {})
    assert worst() > 1.2


@pytest.mark.exact
def test_draws_below_the_minimum_that_was_found_are_told():
    excess = np.array([[0.5, 1.0, 1.5, -0.2]])
    (doubt,) = deeper(Chains(excess, excess, 0), "minimum")
    assert doubt.startswith("n beta L of a draw is 0.2 below that of the minimum found")
    assert deeper(Chains(excess, excess, 0), "optimum") == []
    assert deeper(Chains(np.maximum(excess, -0.01), excess, 0), "minimum") == []


@pytest.mark.law
def test_samplers_that_part_are_not_trusted(load, x64, monkeypatch):
    """A second sampler that says twice the value, or the value with an error as large as itself (both planted)."""
    model = load("linear_regression", num_examples=200)
    exact = bvs.learning_coefficient(model, num_draws=40, **QUICK).finite_n_reference["value"]

    def planted(value, error):
        said = {"value": with_error(value, error), "log_squared_norm": with_error(0.0, 100.0)}
        monkeypatch.setattr("bayes_vs_sgd.measure.second_opinion", lambda *_, **__: ("LinearNetworkGibbs", said, []))
        return bvs.learning_coefficient(model, sampler="nuts", num_draws=400, **QUICK)

    assert not any("LinearNetworkGibbs gives" in doubt for doubt in planted(exact, 0.01 * exact).warnings)
    assert any("for n beta L, the chains" in doubt for doubt in planted(2 * exact, 0.01 * exact).warnings)
    assert any("too wide to confirm it" in doubt for doubt in planted(exact, exact).warnings)


@pytest.mark.law
def test_the_models_own_sampler_confirms_another_and_tells_the_value_at_finite_n(load, x64):
    """Of a network without closed form; a wrong one (planted: of twice the noise) is refused."""

    def measured(sampler):
        model = load("deep_linear", widths=(3, 3, 2), spectrum=(1.0,), noise=1.0, unseen_inputs=0)
        object.__setattr__(model, "exact_sampler", sampler)
        return bvs.learning_coefficient(model, sampler="nuts", precision=0.05, num_draws=400, **QUICK)

    found = measured(bvs.LinearNetworkGibbs(("W1", "W2"), 1.0, 1.0))
    other = found.finite_n_reference
    assert other["source"] == "a long independent run of LinearNetworkGibbs"
    assert abs(found.value - other["value"]) < Z * np.hypot(found.standard_error, other["standard_error"])
    assert other["standard_error"] < 0.02 * other["value"]
    assert found.error_budget["finite_n"] == found.truth["value"] - other["value"]
    assert not any("LinearNetworkGibbs" in doubt for doubt in found.warnings)
    with pytest.raises(bvs.InputError, match="exact_sampler is not exact"):
        measured(bvs.LinearNetworkGibbs(("W1", "W2"), 2.0, 1.0))


@pytest.mark.exact
def test_without_noise_in_the_labels_the_optimum_is_the_minimum(load, x64):
    """Also above the size from which no minimum is looked for: the baseline shifts nothing."""
    sizes = {"widths": (150, 150), "spectrum": (1.0,), "unseen_inputs": 0, "num_examples": 400}
    known, name = baselines(bvs.Posterior(load("deep_linear", noise_free=True, **sizes)))
    assert name == "optimum"
    assert known["minimum"]["value"] == known["optimum"]["value"]
    assert "minimum" not in baselines(bvs.Posterior(load("deep_linear", **sizes)))[0]


@pytest.mark.law
@pytest.mark.parametrize("sampler", ["sghmc", pytest.param("sgld", marks=pytest.mark.slow)])
def test_step_sizes_are_extrapolated_to_zero(load, x64, sampler):
    """On regression, whose finite-n value is a closed form; the error is within the printed budget."""
    model = load("linear_regression", num_examples=200)
    found = bvs.learning_coefficient(model, sampler=sampler, second=False, num_draws=1000, **QUICK)
    exact = found.finite_n_reference["value"]
    assert error_in_units(found, exact) < Z
    assert abs(found.value - exact) < 0.05 * exact
    assert found.error_budget["discretisation"] > 0
    least = {"sghmc": 8 + 11 + 16, "sgld": 8 + 16 + 32}[sampler]
    assert found.settings["num_chains"] == -(-least // CORES) * CORES


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["sghmc", "rmsprop-sgld"])
def test_a_deep_network_is_measured_from_a_saddle(load, x64, monkeypatch, sampler):
    """The Hessian vanishes at the optimum, and the law is thousands of times as sharp."""
    model = load("deep_linear", widths=(4, 4, 4, 2), spectrum=(), noise_free=True, noise=0.1, unseen_inputs=0)
    target = bvs.Posterior(model, 1.0)
    exact, _ = measure(target, num_draws=2000, progress=False, max_seconds=20.0)

    def distance(**settings):
        found, _ = measure(target, sampler=sampler, second=False, num_draws=400, progress=False, **settings)
        budget = [found.error_budget[name] or 0.0 for name in ("discretisation", "transient")]
        error = np.hypot(found.standard_error, exact.standard_error)
        return max(abs(found.value - exact.value) - sum(budget), 0.0) / error, found

    away, found = distance(max_seconds=40.0)
    assert away < Z
    assert found.value == pytest.approx(exact.value, rel=0.1)
    _, brief = distance(max_seconds=5.0, step_size=1e-6)
    most = model.num_parameters / 2
    assert brief.interval[0] < 0 < most < brief.interval[1]
    assert f"lambda is between 0 and d/2 = {most:g}" in " ".join(brief.warnings)
    assert any("relaxation times of the softest direction" in warning for warning in brief.warnings)
    monkeypatch.setattr(pilot, "MOST_HALVINGS", 3)
    with pytest.raises(bvs.InputError, match="chains are lost even at step size"):
        distance(max_seconds=40.0)


@pytest.mark.exact
def test_a_value_that_cannot_be_is_known_no_better_than_the_bound(load, x64):
    """Two chains that sit still far above d/2 = 1, as those of a sampler whose steps are all refused."""
    target = bvs.Posterior(load("product"), 0.1)
    known, name = baselines(target)

    def interval(level):
        still = level + np.outer([0.0, 1.0], np.ones(40)) + 1e-3 * np.random.default_rng(0).normal(size=(2, 40))
        return summarise(Chains(still, still, 0), target, known, name, [], None).interval

    assert interval(500.0)[0] < 0 < 1 < interval(500.0)[1]
    assert interval(0.2)[1] < 10.0


@pytest.mark.exact
@pytest.mark.parametrize("relaxations", [0.2, 0.5, 1.5, 2.9])
def test_what_a_short_run_lacks_is_told_by_how_it_moves(relaxations):
    """Chains on their way as exp(-t) from 9 to 4; how far the mean still moves (planted) is less than they lack."""
    times = relaxations * np.linspace(LEFT_OUT, 1, 3001)[None]
    chains = Chains(4 + 5 * np.exp(-times), np.ones_like(times) + times, 0, relaxations=relaxations)
    lacks = chains.estimate[0] - 4
    first, second = np.array_split(chains.excess[0], 2)
    moves = first.mean() - second.mean()
    if relaxations < EXTRAPOLATED:
        assert chains.transient is None
    else:
        assert chains.transient == pytest.approx(lacks, rel=0.01)
        assert moves < 0.95 * lacks


@pytest.mark.exact
@pytest.mark.parametrize(("friction", "curvature"), [(2.0, 1.0), (10.0, 1.0), (3.0, 400.0)])
def test_relaxation_time_is_that_of_the_damped_oscillator(friction, curvature):
    rates = np.linalg.eigvals([[0.0, -1.0], [curvature, friction]]).real
    found = relaxation_time({"friction": friction}, curvature)
    assert found == pytest.approx(1 / rates.min(), rel=1e-7)  # a double root is known to the square root of rounding
    assert relaxation_time({}, curvature) == 1 / curvature
    assert relaxation_time({}, curvature, 3.0) == 3 / curvature


@pytest.mark.exact
@pytest.mark.parametrize(("beta", "scale"), [(0.2, 1000.0), (3.0, 1.0), (0.2, 0.1)])
def test_a_preconditioner_divides_the_steepest_direction_by_the_spread_of_its_gradient(load, x64, beta, scale):
    """On regression: of k (theta - theta*) where theta has precision n beta k + 1/s^2.

    A narrow prior is steepest where the loss does not curve, and the preconditioner divides by its damping.
    """
    target = bvs.Posterior(load("linear_regression", num_examples=200, prior_scale=scale), beta)
    sharpness = float(hessian_eigenvalues(target.model, reference_point(target.model).position)[-1])
    precision = float(target.scale) * sharpness + scale**-2
    found = preconditioner(target, 0.01, precision)
    assert found == pytest.approx(0.01 + sharpness / np.sqrt(precision), rel=1e-6)
    fastest = max(precision / found, scale**-2 / 0.01)
    assert step_at("rmsprop-sgld", target, precision) * fastest == pytest.approx(0.1)
    assert step_at("sgld", target, precision) * precision == pytest.approx(0.1)
    assert step_at("sghmc", target, precision) ** 2 * precision == pytest.approx(0.5)


@pytest.mark.exact
def test_curvatures_of_priors(x64):
    """Of normal ones the eigenvalues of the precision; by signs its diagonal, exact where nothing lies beside it."""
    precision = np.array([[2.0, 1.0], [1.0, 3.0]])

    def program(x, y=None):
        pair = numpyro.sample("pair", dist.MultivariateNormal(0.0, precision_matrix=precision))
        wide = numpyro.sample("wide", dist.Normal(0.0, 10.0))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ pair + wide, 1.0), obs=y)

    model = bvs.Model(program, data={"x": jnp.ones((4, 2)), "y": jnp.ones(4)})
    assert prior_curvatures(model) == pytest.approx(np.sort([0.01, *np.linalg.eigvalsh(precision)]))
    beside = 4 / np.sqrt(NUM_PRIOR_DRAWS)  # of what does not lie on the diagonal, by signs
    assert prior_curvatures(model, dense=0) == pytest.approx([0.01, 2.0, 3.0], abs=beside)
    assert float(prior_curvatures(model, dense=0)[0]) == pytest.approx(0.01)


@pytest.mark.exact
@pytest.mark.parametrize("scale", [0.2, 10.0])
def test_the_softest_direction_is_the_priors_where_the_loss_is_flat(load, x64, scale):
    flat = bvs.Posterior(load("product", prior_scale=scale), 1.0)
    assert softness(flat) == pytest.approx(1 / scale**2)
    assert relaxation_time({"friction": critical_friction(flat)}, softness(flat)) == pytest.approx(scale, rel=1e-3)
    assert critical_friction(bvs.Posterior(flat.model, 1.0, localization=3.0)) == pytest.approx(
        2 * (1 / scale**2 + 3) ** 0.5
    )
    assert pilot.steepness(flat, 3.0) == pytest.approx(3.0 * float(flat.scale) + 1 / scale**2)
    curved = bvs.Posterior(load("linear_regression", prior_scale=scale), 1.0)
    values = np.linalg.eigvalsh(hessian(curved.model, curved.model.unconstrain(curved.model.optimum)))
    assert softness(curved) == pytest.approx(float(curved.scale) * values[0] + 1 / scale**2)


@pytest.mark.law
@pytest.mark.slow
def test_a_wide_prior_is_not_reached_by_a_short_run(load, x64, monkeypatch):
    """Flat directions of a prior of scale 100 forget in ten thousand units of time; planted: in one."""
    model = load("product", prior_scale=100.0, noise=1000.0, num_examples=20)

    def is_short():
        found, _ = measure(model, sampler="sgld", step_size=0.01, second=False, max_seconds=10.0, progress=False)
        return any("relaxation times of the softest direction" in warning for warning in found.warnings)

    assert is_short()
    monkeypatch.setattr("bayes_vs_sgd.measure.softness", lambda target: 1.0)
    assert not is_short()


@pytest.mark.smoke
def test_a_measurement_that_goes_on_has_the_pilot_it_began_with(load, x64, tmp_path, monkeypatch):
    """A pilot lasts as long as there is time: made again it would be another one."""
    target, settings = bvs.Posterior(load("linear_regression", num_examples=200), 0.2), LLC(sampler="sghmc")
    first, how = choose(target, settings, 0, 0.0, tmp_path)
    _, other = choose(target, settings, 1, 0.0, tmp_path)
    monkeypatch.setattr(pilot, "_travel", None)
    again, same = choose(target, settings, 0, 100.0, tmp_path)
    np.testing.assert_array_equal(first.step_size, again.step_size)
    np.testing.assert_array_equal(how["initial"]["w"], same["initial"]["w"])
    assert np.any(how["initial"]["w"] != other["initial"]["w"])


@pytest.mark.exact
def test_extrapolation_is_exact_on_lines_and_sees_a_parabola():
    steps, errors = np.array([0.25, 0.5, 1.0]), np.array([0.01, 0.01, 0.02])
    line, left = extrapolate(steps, 3 + 2 * steps, errors)
    assert line.value == pytest.approx(3, abs=1e-12)
    assert left == pytest.approx(0, abs=1e-9)
    _, left = extrapolate(steps, 3 + 2 * steps + 4 * steps**2, errors)
    assert left > 0.3
    _, left = extrapolate(steps[1:], 3 + 2 * steps[1:], errors[1:])
    assert left == pytest.approx(1.0)  # from 4 at the smaller step to 3
    assert extrapolate(steps[:1], steps[:1], errors[:1])[1] is None
    weights = np.linalg.inv((d := np.stack([np.ones(3), steps], 1) / errors[:, None]).T @ d)
    assert line.standard_error == pytest.approx(np.sqrt(weights[0, 0]))


@pytest.mark.law
def test_a_saddle_is_called_one(load, x64):
    """At zero weights a deep network is at a saddle, and draws find smaller losses."""
    tiny = load("deep_linear", widths=(2, 2, 2), spectrum=(1.0,), num_examples=20, noise=1.0)
    zero = tiny.at({name: np.zeros(shape) for name, shape in tiny.latents}, "zero weights")
    found = bvs.learning_coefficient(zero, inverse_temperature=1.0, num_draws=400, progress=False, max_seconds=3.0)
    assert found.value < 0
    assert not found.trusted
    assert any("no minimum but a saddle" in warning for warning in found.warnings)


@pytest.mark.exact
def test_a_run_has_the_doubts_that_a_measurement_has(load, x64):
    """One sampler alone, one chain alone, a bias that is not known, weights that are not looked at, no likelihood."""
    model = load("linear_regression", num_examples=50)
    target = bvs.Posterior(model, 0.3)
    shared = {"key": 0, "num_draws": 30, "progress": False}

    def measured(dynamics, num_chains=4, observables=("loss", "squared_norm"), target=target):
        run = bvs.simulate(dynamics, target, num_chains=num_chains, observables=list(observables), **shared)
        return bvs.learning_coefficient(run)

    assert not any("one sampler alone" in doubt for doubt in measured(model.exact_sampler).warnings)
    assert any("one sampler alone" in doubt for doubt in measured(bvs.MALA(1e-3)).warnings)
    local = bvs.Posterior(model, target.inverse_temperature, localization=5.0)
    assert any("the localization of 5 does" in doubt for doubt in measured(model.exact_sampler, target=local).warnings)
    biased = measured(bvs.SGLD(1e-3))
    assert biased.error_budget["discretisation"] is None
    assert any("biased at its step size" in doubt for doubt in biased.warnings)
    assert any("one chain alone" in doubt for doubt in measured(bvs.MALA(1e-3), num_chains=1).warnings)
    assert any("squared_norm" in doubt for doubt in measured(bvs.MALA(1e-3), observables=["loss"]).warnings)
    with pytest.raises(bvs.InputError, match="n beta is 0"):
        measured(bvs.MALA(1e-3), target=bvs.Posterior(model, 0.0))


@pytest.mark.law
def test_a_strong_localisation_is_called_so(load, x64):
    model = load("linear_regression", num_examples=200)
    target = bvs.Posterior(model, 0.2, localization=300.0)
    found = bvs.learning_coefficient(target, second=False, num_draws=1000, **QUICK)
    assert found.error_budget["localisation"] > 0.1
    assert any("too strong to be local" in warning for warning in found.warnings)


@pytest.mark.law
def test_lost_chains_are_counted_in_words(load, x64):
    """A step at which the largest rung diverges."""
    model = load("linear_regression", num_examples=200)
    found, _ = measure(
        model, sampler="sgld", step_size=0.1, second=False, num_draws=40, progress=False, max_seconds=8.0
    )
    assert any("lost" in warning for warning in found.warnings)
    assert not found.trusted


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chains": 1}, "at least two are needed"),
        ({"inverse_temperature": 0.0}, "n beta must be finite and > 0"),
        ({"inverse_temperature": -1.0}, "n beta must be finite and > 0"),
        ({"precision": 0.0}, "precision is 0"),
        ({"sampler": "nut"}, "unknown sampler 'nut'"),
        ({"sampler": "nuts", "batch_size": 8}, "batch_size is for the stochastic-gradient samplers"),
        ({"sampler": "nuts", "step_size": 0.1}, "step_size is for the stochastic-gradient samplers"),
        ({"sampler": "exact"}, "declares no exact sampler"),
        ({"num_draws": 3}, "num_draws is 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(load, settings, message):
    with pytest.raises(bvs.InputError, match=message):
        bvs.learning_coefficient(load("normal_crossing"), **settings)


@pytest.mark.exact
def test_the_prior_is_refused_however_it_is_given(load):
    with pytest.raises(bvs.InputError, match="n beta is 0"):
        bvs.learning_coefficient(bvs.Posterior(load("normal_crossing"), 0.0))


@pytest.mark.exact
def test_chains_that_are_lost_are_those_of_their_step_size():
    steps = np.repeat([1.0, 0.5], 2)
    chains = Chains(np.ones((4, 8)), np.ones((4, 8)), 3, step_sizes=steps, lost_step_sizes=np.array([1.0, 1.0, 0.5]))
    assert [chains.rung(step).num_lost for step in (1.0, 0.5)] == [2, 1]


@pytest.mark.law
def test_a_second_sampler_that_would_take_too_long_is_left_out(x64, monkeypatch):
    """And what it would confirm is not trusted."""
    monkeypatch.setattr(tempered, "REMEMBERED", -1.0)
    target = bvs.Posterior(quadratic(np.eye(2), np.eye(2), 16), 1.0)
    found, doubts = by_tempering(target, 0, 0.0, max_seconds=0.0)
    assert not found
    assert doubts == ["tempered particles, the second sampler, do not mix within 0 s: give --max-seconds"]
