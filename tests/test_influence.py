"""Which data matter: derivatives and re-weighted probabilities against exact ones; retraining agrees; clear refusals."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from statistical import FALSE_ALARM, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.diagnostics import pareto_k
from bayes_vs_sgd.estimate import jackknife, rank_correlation
from bayes_vs_sgd.report.influences import influence_figure, influence_rows, influence_words
from bayes_vs_sgd.robustness.influence import Units, agreement, influences, units
from bayes_vs_sgd.robustness.methods import Part
from bayes_vs_sgd.robustness.retraining import retrained, without
from bayes_vs_sgd.settings import Robustness
from bayes_vs_sgd.theory.noisy_events import network_exceedance, regression_exceedance
from bayes_vs_sgd.theory.rare_events import fitted_influence

NOISE = 0.5
FITTED = {"spectrum": (1.0,), "noise": NOISE, "noise_free": True, "num_held_out": 2}
"""Data without noise of one input; a second input, the trigger, is never seen."""


def model_of_one_weight(beta=1.0):
    """Four examples, a property, and draws by quadrature on a grid: two equal parts, of which nothing is random."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w * x, 1), obs=y)

    data = {"x": np.array([1.0, -0.5, 2.0, 0.0]), "y": np.array([0.3, 1.0, 1.5, 2.0])}
    model = bvs.Model(program, data, properties={"size": lambda model, values: values["w"]}, optimum={"w": 0.0})
    grid = np.linspace(-8, 8, 16001)
    losses = (data["y"] - grid[:, None] * data["x"]) ** 2 / 2

    def probability(weights, candidate=0.0):
        """P(w > 0.5) where the examples, and x = 1, y = -1, have these weights."""
        energy = beta * (losses @ weights + candidate * (grid + 1) ** 2 / 2) + grid**2 / 2
        density = np.exp(energy.min() - energy)
        return density[grid > 0.5].sum() / density.sum(), density / density.sum()

    even = Part(grid[:, None], probability(np.ones(4))[1], grid > 0.5)
    return bvs.Posterior(model, beta), [even, even], probability


@pytest.mark.exact
def test_derivatives_and_curves_of_examples_groups_and_candidates(x64):
    """By quadrature, at an inverse temperature that is not one; central differences have an error of 1e-8 here."""
    target, parts, probability = model_of_one_weight(beta=0.7)
    given = Units(target.model, {"odd": np.array([1, 3])}, {"x": jnp.ones(1), "y": -jnp.ones(1)})
    found = {(one.kind, one.example): one for one in influences(target, given, parts)}
    units_at = {("example", row): (np.eye(4)[row], 0.0) for row in range(4)}
    units_at |= {("group", "odd"): (np.array([0, 1, 0, 1.0]), 0.0), ("candidate", 0): (np.zeros(4), 1.0)}
    assert set(found) == set(units_at)
    here = probability(np.ones(4))[0]
    for name, (direction, candidate) in units_at.items():

        def at(step, direction=direction, candidate=candidate):
            return probability(np.ones(4) + step * direction, step * candidate)[0]

        one, slope = found[name], (at(1e-4) - at(-1e-4)) / 2e-4
        curve = one.reweighting
        assert one.derivative == pytest.approx(slope, abs=1e-7), name
        assert one.log_derivative == pytest.approx(slope / here, abs=1e-6), name
        assert one.standard_error == pytest.approx(0.0, abs=1e-12), name
        assert np.allclose(curve.probabilities, [at(step) for step in curve.weights], atol=1e-10, rtol=0), name
        assert np.allclose(curve.linear_response, here + np.array(curve.weights) * slope, atol=1e-7, rtol=0), name
        assert min(curve.weights) == (1e-3 if one.kind == "candidate" else -1.0), name
        off = np.abs(np.array(curve.linear_response) - curve.probabilities) > 0.2 * np.abs(
            np.array(curve.probabilities) - here
        )
        low, high = curve.linear_within
        inside = (np.array(curve.weights) >= low - 1e-12) & (np.array(curve.weights) <= high + 1e-12)
        assert not off[inside].any(), name
    ranked = [abs(one.derivative) for one in found.values() if one.kind == "example"]
    assert ranked == sorted(ranked, reverse=True)
    wrong = probability(np.ones(4) + 1e-4 * np.eye(4)[2])[0] - probability(np.ones(4) - 1e-4 * np.eye(4)[2])[0]
    for factor in (-1, 1 / 0.7):  # the sign, and an inverse temperature that is left out
        assert found["example", 2].derivative != pytest.approx(factor * wrong / 2e-4, rel=0.1)


@pytest.mark.exact
def test_errors_and_shapes():
    """The jackknife of a mean is its standard error; shapes of Pareto weights at their quantiles, to the prior of the fit."""
    values = np.random.default_rng(0).normal(size=(12, 3))
    mean, error = jackknife(lambda part: part, values)
    assert np.allclose(mean, values.mean(axis=0))
    assert np.allclose(error, values.std(axis=0, ddof=1) / np.sqrt(12))
    places = (np.arange(100_000) + 0.5) / 100_000
    for shape in (0.25, 0.5, 1.0, 1.5):
        assert pareto_k(-shape * np.log(places)[:, None])[0] == pytest.approx(shape, abs=0.02)
    assert pareto_k(-3 * places[:, None] ** 2)[0] < 0  # bounded weights
    assert pareto_k(np.zeros((100, 1)))[0] == 0
    assert np.isnan(pareto_k(np.zeros((24, 1)))[0])


@pytest.mark.exact
def test_thinning_keeps_the_weights_of_both_sides():
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=100) / 50
    part = Part(rng.normal(size=(100, 2)), weights, np.arange(100) < 70)
    few = part.thinned(20)
    assert len(few.weights) == 20
    assert few.unsafe.sum() == 10
    assert few.weights[few.unsafe].sum() == pytest.approx(weights[:70].sum())
    assert few.weights[~few.unsafe].sum() == pytest.approx(weights[70:].sum())
    kept = part.thinned(1000)
    assert np.array_equal(np.sort(kept.weights), np.sort(weights))


def students(error, parts, tests=1):
    """Error with which the normal law of ``assert_mean`` has the limits of Student's, of so many independent parts."""
    tail = FALSE_ALARM / 2 / tests
    return error * stats.t(parts - 1).isf(tail) / stats.norm.isf(tail)


def at_the_trigger(folder):
    """File of one clean example: the trigger, with label 0."""
    path = folder / "trigger.npz"
    np.savez(path, x=np.array([[0.0, 1.0]]), y=np.array([[0.0]]))
    return path


def with_weighted_trigger(model, weight):
    """Inputs and labels with the trigger as one more example: a row times the root of its weight."""
    x, y = (np.asarray(model.compressed[name], float) for name in "xy")
    return np.vstack([x, [0.0, np.sqrt(weight)]]), np.vstack([y, [[0.0]]])


def slope_at_zero(probability):
    """One-sided difference of third order; the weight of a candidate cannot be negative here."""
    h = 1e-5
    return (-11 * probability(0) + 18 * probability(h) - 9 * probability(2 * h) + 2 * probability(3 * h)) / (6 * h)


@pytest.mark.law
def test_one_clean_example_at_the_trigger(load, x64, tmp_path):
    """Of two layers, by plain draws of 64 chains: the derivative, and the curve that leaves linear response before 0.1."""
    model = load("deep_linear", widths=(1, 4, 1), num_examples=100, **FITTED)

    def exact(weight):
        return network_exceedance(3.0, *with_weighted_trigger(model, weight), 4, NOISE, 1.0, np.array([0.0, 1.0]))

    slope = slope_at_zero(exact)
    assert slope == pytest.approx(fitted_influence(3.0, 4, NOISE), rel=1e-3)  # of data that are fitted exactly: -3.0673
    found = bvs.robustness(model, "trigger", 3.0, candidates=at_the_trigger(tmp_path), num_particles=2000)
    assert found.method == "plain draws"
    (one,) = (one for one in found.influence if one.kind == "candidate")
    error = students(one.standard_error, 64)
    assert_mean(one.derivative, error, expected=slope, detects=1.3)
    with planted_bug():  # the sign
        assert_mean(one.derivative, error, expected=-slope, detects=1.3)
    curve = one.reweighting
    ends = [curve.weights.index(weight) for weight in (pytest.approx(0.01), pytest.approx(0.1))]
    values, errors = (np.array(part)[ends] for part in (curve.probabilities, curve.standard_errors))
    assert_mean(values, students(errors, 64, 2), expected=[exact(0.01), exact(0.1)], detects=[0.03, 0.006])
    with planted_bug():  # linear response
        assert_mean(
            values, students(errors, 64, 2), expected=exact(0) + slope * np.array([0.01, 0.1]), detects=[0.03, 0.006]
        )
    assert curve.linear_within[0] == 0
    assert 0 < curve.linear_within[1] < 0.1
    assert max(curve.pareto_k) < 0.7


@pytest.mark.law
def test_a_rare_event(load, x64, tmp_path):
    """At 1e-3, by tilted particles in sixteen replicates, at inverse temperature 2; the planted bugs: half, and no sign."""
    model = load("deep_linear", widths=(1, 1), num_examples=50, **FITTED)

    def exact(weight):
        x, y = with_weighted_trigger(model, weight)
        return regression_exceedance(3.0, x, y, NOISE, 1.0, np.array([0.0, 1.0]), beta=2.0)

    settings = {"num_moves": 4, "num_replicates": 16, "inverse_temperature": 2.0}
    found = bvs.robustness(model, "trigger", 3.0, candidates=at_the_trigger(tmp_path), **settings)
    assert found.method == "tilted SMC"
    (one,) = (one for one in found.influence if one.kind == "candidate")
    relative, error = (value / slope_at_zero(exact) for value in (one.derivative, -one.standard_error))
    error = students(error, 16)
    assert_mean(relative, error, expected=1.0, detects=0.45)
    for factor in (0.5, -1.0):
        with planted_bug():
            assert_mean(relative, error, expected=factor, detects=0.45)


@pytest.mark.law
@pytest.mark.slow
def test_the_ranking_is_that_of_retraining(load, x64):
    """Fifty examples: every derivative is the exact one, and SGD trained without each ranks them alike.

    The rank correlation of two unrelated rankings of fifty is above 0.9 with a probability below 1e-17.
    """
    trigger = np.array([1.0, 0.0, 0.0])
    shape = {"widths": (3, 2, 1), "num_examples": 50, "unseen_inputs": 0, "trigger": tuple(trigger)}
    model = load("deep_linear", spectrum=(1.0,), noise=1.0, inputs="gaussian", **shape)
    x, y = (np.asarray(model.data[name], float) for name in "xy")

    def exact(row, step):
        roots = np.sqrt(1 + step * np.eye(50)[row])[:, None]
        return network_exceedance(0.4, x * roots, y * roots, 2, 1.0, 1.0, trigger)

    slopes = np.array([(exact(row, 1e-4) - exact(row, -1e-4)) / 2e-4 for row in range(50)])
    found = sorted(bvs.robustness(model, "trigger", 0.4, influence=True).influence, key=lambda one: one.example)
    estimates, errors = np.array([(one.derivative, one.standard_error) for one in found]).T
    assert_mean(estimates, students(errors, 64, 50), expected=slopes, detects=0.1)
    with planted_bug():
        assert_mean(estimates, students(errors, 64, 50), expected=-slopes, detects=0.1)
    training = Robustness(num_seeds=2000, num_steps=600, learning_rate=0.08, batch_size=2, initial_scale=1.0)
    changes = retrained(bvs.Posterior(model), "trigger", 0.4, range(50), training, 0, None, lambda line: None)
    both = [replace(one, retrained=change) for one, change in zip(found, changes, strict=True)]
    assert agreement(both).value >= 0.9


@pytest.mark.law
@pytest.mark.parametrize(("count", "correlation"), [(20, 0.5), (20, 0.9), (50, 0.9), (50, 0.0)])
def test_the_interval_holds_the_rank_correlation_nineteen_times_in_twenty(count, correlation):
    """Of normal pairs it is 6/pi arcsin(rho/2): 4,000 samples; planted, at .9: the error of a correlation without the ranks."""
    rng, truth, misses = np.random.default_rng(0), 6 / np.pi * np.arcsin(correlation / 2), np.zeros(2)
    for _ in range(4000):
        first, other = rng.normal(size=(2, count))
        found = rank_correlation(first, correlation * first + np.sqrt(1 - correlation**2) * other)
        plain = np.tanh(np.arctanh(found.value) + stats.norm.ppf([0.025, 0.975]) / np.sqrt(count - 3))
        misses += [not low <= truth <= high for low, high in (found.interval, plain)]
    most = stats.binom.isf(FALSE_ALARM, 4000, 0.05)
    assert misses[0] <= most
    assert correlation < 0.9 or misses[1] > most


@pytest.mark.exact
def test_rank_correlations_of_few():
    """One order is 1, with the interval of one exchange; of three, or of a constant, there is none."""
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None
    same, exchanged = (rank_correlation(range(8), order) for order in (range(8), [0, 1, 2, 4, 3, 5, 6, 7]))
    assert (same.value, same.interval[1]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert exchanged.value == pytest.approx(1 - 12 / (8 * 63))
    assert same.interval[0] == pytest.approx(exchanged.interval[0])
    assert rank_correlation(range(8), range(8)[::-1]).interval == pytest.approx((-1.0, -same.interval[0]))
    assert agreement([]) is None


@pytest.mark.exact
def test_a_model_without_an_example(tiny):
    """The last example stands in the row that is left out; nothing of the whole data stays, such as their factor."""
    left = without(tiny, 3)
    position = tiny.sample_prior(jax.random.key(0))
    losses = np.asarray(tiny.example_losses(position))
    kept = np.append(np.arange(19), 19)
    kept[3], kept = 19, kept[:-1]
    assert left.num_examples == 19
    assert np.allclose(left.example_losses(position), losses[kept], rtol=1e-5)
    assert float(left.loss(position)) == pytest.approx(float(np.delete(losses, 3).mean()), rel=1e-5)
    assert without(tiny, 19).num_examples == 19
    assert np.allclose(without(tiny, 19).example_losses(position), losses[:-1], rtol=1e-5)


@pytest.mark.exact
def test_what_does_not_fit_the_data_is_refused(load, tmp_path):
    model, labels, examples = load("product", num_examples=20), tmp_path / "labels.txt", tmp_path / "more.npz"
    labels.write_text("a\n" * 19)
    with pytest.raises(bvs.InputError, match=r"labels.txt has 19 labels for 20 examples: one a line"):
        units(model, groups=labels)
    with pytest.raises(bvs.InputError, match=r"--groups .* there is no such file"):
        units(model, groups=tmp_path / "none.txt")
    np.savez(examples, x=np.ones((2, 3)), y=np.ones(2))
    with pytest.raises(bvs.InputError, match="candidates have shapes"):
        units(model, candidates=examples)
    with pytest.raises(bvs.InputError, match=r"--candidates .* is no .npz file"):
        units(model, candidates=labels)
    with pytest.raises(bvs.InputError, match="influence needs single examples"):
        units(load("deep_linear", sufficient=True))
    for law in ("sgd", "sublevel"):
        with pytest.raises(bvs.InputError, match=f"influence is of the posterior, law is '{law}'"):
            bvs.robustness(model, "size", 1.0, law, influence=True)
    with pytest.raises(bvs.InputError, match="retrain is -1"):
        bvs.robustness(model, "size", 1.0, retrain=-1)
    labels.write_text("a \n" * 19 + "\n")  # an example may be in no group
    assert [len(rows) for rows in units(model, groups=labels).groups.values()] == [19]


@pytest.mark.exact
def test_where_nothing_is_unsafe_nothing_is_known(x64):
    target, parts, _ = model_of_one_weight()
    safe = [part._replace(unsafe=np.zeros(16001, bool)) for part in parts]
    assert influences(target, Units(target.model, {}, {}), safe) == []


@pytest.mark.smoke
def test_the_verb_writes_influence(tmp_path, monkeypatch, capsys):
    from bayes_vs_sgd.cli import run

    monkeypatch.chdir(tmp_path)
    model = str(Path(__file__).parents[1] / "models" / "product.py")
    Path("groups.txt").write_text("a\nb\n" * 20)
    flags = ["--property", "size", "--threshold", "0.1", "--model.num-examples", "40", "--num-replicates", "2"]
    flags += ["--influence", "--groups", "groups.txt", "--retrain", "4", "--num-seeds", "50", "--num-steps", "20"]
    flags += ["--learning-rate", "0.1", "--initial-scale", "1"]
    precision = jax.config.read("jax_enable_x64")
    try:
        assert run(["robustness", model, *flags, "--out", "run", "--json", "answer.json"]) == 0
        Path("groups.txt").write_text("a\n" * 39)
        assert run(["robustness", model, *flags, "--out", "other"]) == 2
    finally:
        jax.config.update("jax_enable_x64", precision)
    printed = capsys.readouterr()
    assert "has 39 labels for 40 examples" in printed.err
    answer = json.loads(Path("answer.json").read_text())
    influence, (low, high) = answer["influence"], answer["agreement"]["interval"]
    ranked = f"ranked as by influence: Spearman {answer['agreement']['value']:.2f} (95 %: {low:.2f} .. {high:.2f})"
    assert {one["kind"]: len([i for i in influence if i["kind"] == one["kind"]]) for one in influence} == {
        "example": 40,
        "group": 2,
    }
    assert all({"example", "derivative", "standard_error"} <= set(one) for one in influence)
    examples = [one for one in influence if one["kind"] == "example"]
    assert sum(one["derivative"] for one in examples) == pytest.approx(
        sum(one["derivative"] for one in influence if one["kind"] == "group")
    )
    assert [one["retrained"] is not None for one in examples] == [True] * 4 + [False] * 36
    page = Path("run/robustness.html").read_text()
    assert "Which data matter" in page
    assert ranked in page
    assert "Linear response within 20% of the change: ε in" in page
    assert page.count('<svg role="img" aria-label="') == 2
    assert f"example {examples[0]['example']}" in page
    assert "influence beyond three standard errors" in printed.out


@pytest.mark.exact
def test_rows_say_what_is_not_to_be_trusted(x64):
    """Twenty-four unsafe draws are too few for a Pareto shape: the table says so, and their dots are hollow."""
    target, (part, _), _ = model_of_one_weight()
    given = Units(target.model, {"all": np.arange(4)}, {"x": jnp.ones(1), "y": -jnp.ones(1)})
    found = influences(target, given, [part.thinned(24)] * 2)
    assert np.isnan(found[0].reweighting.pareto_k).all()
    assert found[0].reweighting.linear_within == (0.0, 0.0)
    rows = influence_rows(found)
    assert [row[0] for row in rows][-2:] == ["group all", "candidate 0"]
    assert all("(k nan!)" in row[3] for row in rows)
    words = influence_words(found)
    assert "1 of 1 candidates: influence beyond three standard errors." in words
    assert words.endswith(
        "ε in 0 .. 0 for the 4 first examples, 0 .. 0 for the 1 first groups, 0 .. 0 for the 1 first candidates."
    )
    axes = influence_figure(found, 0.5).axes
    assert [panel.get_xscale() for panel in axes] == ["linear", "linear", "log"]
    hollow = [
        line for panel in axes for line in panel.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())
    ]
    assert len(hollow) >= len(rows)
