"""How likely a property exceeds a threshold, against exact tail probabilities; wrong settings are seen; clear messages."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from blackjax.mcmc import hmc
from scipy.optimize import brentq
from statistical import FALSE_ALARM, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd import parallel, tempered
from bayes_vs_sgd.curvature import reference_point
from bayes_vs_sgd.diagnostics import quality
from bayes_vs_sgd.estimate import binomial_interval, differ
from bayes_vs_sgd.parallel import side_by_side
from bayes_vs_sgd.report.robustness import robustness_page, robustness_rows
from bayes_vs_sgd.robustness import draws, methods
from bayes_vs_sgd.robustness.particles import Tilted, log_interval, replicates, until_agreed
from bayes_vs_sgd.robustness.readout import survival
from bayes_vs_sgd.robustness.result import rounded
from bayes_vs_sgd.robustness.tilt import Pool
from bayes_vs_sgd.theory.rare_events import (
    fitted_exceedance,
    flow_exceedance,
    sublevel_exceedance,
    sublevel_mass,
)
from bayes_vs_sgd.verbs import describe_model

FITTED = {"spectrum": (1.0,), "noise": 0.5, "noise_free": True, "num_held_out": 2}
"""Data without noise of one input, the map at which is 1 or -1; a second input is never seen."""
MODELS = {
    "one layer": ("deep_linear", {"widths": (1, 1), "num_examples": 50} | FITTED, "trigger", 1.0),
    "between": (
        "deep_linear",
        {"widths": (1, 1), "num_examples": 50, "trigger": (0.5**0.5,) * 2} | FITTED,
        "trigger",
        1.0,
    ),
    "product of two": ("product", {}, "size", 0.0),
    "product of three": ("product", {"depth": 3}, "size", 0.0),
    "two layers": ("deep_linear", {"widths": (1, 4, 1), "num_examples": 100} | FITTED, "trigger", 1.0),
}

SIXTEEN = {"num_replicates": 16, "num_particles": 1000, "max_seconds": 600.0}
FOUR, MORE = {"num_moves": 4}, {"num_moves": 8, "num_particles": 4000}


def ratios(load, name, threshold, **settings):
    """Answer, and its replicates over the exact probability."""
    file, config, item, beta = MODELS[name]
    found = bvs.robustness(load(file, **config), item, threshold, inverse_temperature=beta, **settings)
    assert found.exact is not None
    return found, np.array(found.replicates.get("twice_the_moves", found.probability)) / found.exact


@pytest.mark.law
@pytest.mark.parametrize(
    ("name", "threshold", "settings"),
    [
        ("one layer", 3.0, FOUR),
        ("one layer", 4.891638, FOUR),
        ("between", 4.073119, FOUR),
        pytest.param("product of two", 12.289025, FOUR, marks=pytest.mark.slow),
        pytest.param("product of three", 24.3715, MORE, marks=pytest.mark.slow),
        pytest.param("two layers", 8.68, FOUR, marks=pytest.mark.slow),
        pytest.param("two layers", 15.28378, FOUR, marks=pytest.mark.slow),
    ],
)
def test_rare_events_are_as_likely_as_they_are(name, threshold, settings, load, x64):
    """At 1e-3 and 1e-6, by Student's test over sixteen replicates; the planted bug is 1.4 times the probability.

    k and 2k moves are told apart by chance once in a thousand cases: here as rarely as any other test fails. The product of three
    takes more of both: with four moves it remembers as much as is just refused, or just not.
    """
    found, values = ratios(load, name, threshold, **SIXTEEN | settings)
    assert found.method == "tilted SMC"
    assert not [warning for warning in found.warnings if "moves give" not in warning]
    assert not differ(found.replicates["moves"], found.replicates["twice_the_moves"], FALSE_ALARM)
    assert_mean(values, expected=1.0, detects=0.4)
    with planted_bug():
        assert_mean(values, expected=1.4, detects=0.4)


@pytest.mark.law
def test_more_particles_are_tried_where_the_error_is_wide(load, x64, monkeypatch):
    """Four times as many, from as many draws; not where their number is given, the time is over or the error is small.

    Where the time is over there are four replicates of the sixteen.
    """
    case = (load, "product of two", 12.289025)
    monkeypatch.setattr(methods, "MOST_PARTICLES", 2000)
    monkeypatch.setattr(methods, "PRECISE", 1e-3)
    found, values = ratios(*case, num_moves=8, num_replicates=16, max_seconds=600.0)
    assert (found.settings["num_particles"], found.settings["num_draws"]) == (4000, 1000)
    assert_mean(values, expected=1.0, detects=0.8)
    for settings, made in (({"num_particles": 1000, "max_seconds": 600.0}, 16), ({"max_seconds": 0.0}, 4)):
        fixed, values = ratios(*case, num_moves=8, num_replicates=16, **settings)
        assert (fixed.settings["num_particles"], len(values)) == (1000, made)
        assert fixed.num_gradients < found.num_gradients / 4
    monkeypatch.setattr(methods, "PRECISE", 1.0)
    assert ratios(*case, num_moves=8, max_seconds=600.0)[0].settings["num_particles"] == 1000


def test_no_more_than_the_fewest_are_made_after_the_deadline(monkeypatch):
    """Of eight; without a deadline all; those that would end after it are not begun."""
    assert side_by_side(str, 8, fewest=3, deadline=-np.inf) == ["0", "1", "2"]
    assert side_by_side(str, 8) == list("01234567")

    clock = [0.0]

    def a_second(index):
        clock[0] += 1
        return index

    monkeypatch.setattr(parallel, "CORES", 1)
    monkeypatch.setattr(parallel.time, "monotonic", lambda: clock[0])
    assert side_by_side(a_second, 8, fewest=3, deadline=4.5) == [0, 1, 2, 3]


@pytest.mark.parametrize(("deadline", "k", "made"), [(79.0, 2, 8), (81.0, 4, 4)])
def test_moves_are_doubled_while_the_fewest_replicates_end_in_time(deadline, k, made, monkeypatch):
    """A replicate takes a second a move, of whatever is remembered: eight take 16 and 32 s, four with 8 moves 32 more."""
    clock = [0.0]

    class Remembering:
        fewest_moves = 2

        def replicate(self, index, num_moves, key, folder):
            clock[0] += num_moves
            found = SimpleNamespace(probability=0.1 + 0.001 * index, variance=0.01, reached=1.0)
            ladder = SimpleNamespace(memory=np.ones(1), ess=np.ones(1))
            return SimpleNamespace(found=found, ladder=ladder, path=SimpleNamespace(threshold=1.0))

    monkeypatch.setattr(parallel, "CORES", 1)
    monkeypatch.setattr(parallel.time, "monotonic", lambda: clock[0])
    found, fewer, more = until_agreed(Remembering(), None, 8, 0, None, str, deadline)
    assert (found, len(fewer), len(more)) == (k, 8, made)


@pytest.mark.law
def test_common_events_are_counted(load, x64):
    found, _ = ratios(load, "two layers", 1.0, num_replicates=2)
    assert found.method == "plain draws"
    error = np.sqrt(found.exact * (1 - found.exact) / found.settings["independent_draws"])
    assert_mean(found.probability, error, expected=found.exact, detects=0.15)
    with planted_bug():  # the law of a network of one layer
        assert_mean(found.probability, error, expected=0.3173105, detects=0.15)


@pytest.mark.law
def test_the_last_weights_count(load, x64):
    """Of the particles that the last stage has moved, about half are beyond the threshold: their weights make it all."""
    problem, exact = tilted(load, 4.0)
    runs = replicates(problem, 8, 16, 0, None, lambda line: None)
    values = np.array([run.found.probability for run in runs]) / exact
    assert_mean(values, expected=1.0, detects=0.5)
    unweighted = [np.exp(r.ladder.log_evidence) * np.mean(r.ladder.seen[-1][:, 0] > 4.0) / exact for r in runs]
    with planted_bug():
        assert_mean(unweighted, expected=1.0, detects=0.5)
    curve = np.array([run.pool.beyond(np.array([1.0, 3.0]))[0] for run in runs])
    known = [problem.item.exact(problem.target, c) for c in (1.0, 3.0)]
    assert_mean(curve, expected=known, detects=[0.08, 0.002])


def tilted(load, threshold):
    """A problem of one layer, that starts at exact draws; and its answer."""
    file, config, item, _ = MODELS["one layer"]
    target = bvs.Posterior(load(file, **config))
    rng = np.random.default_rng(0)
    mean, precision = float(target.model.optimum["W1"][0, 0]) * 200 / 201, 201.0
    starts = rng.normal(size=(16, 1000, 2)) * [precision**-0.5, 1.0] + [mean, 0.0]
    item = target.model.properties[item]
    return Tilted(target, item, threshold, 1.0, starts, 1000), item.exact(target, threshold)


@pytest.mark.law
def test_a_coarse_setting_is_refused(load, x64):
    """One move a stage does not come along the thin fibre of two layers: two moves give another answer, or remember."""
    found, _ = ratios(load, "two layers", 15.28378, num_moves=1)
    assert not found.trusted
    assert any("give more moves" in warning for warning in found.warnings)


NOISY = {
    "widths": (2, 4, 1),
    "spectrum": (1.0,),
    "noise": 0.5,
    "num_examples": 50,
    "inputs": "gaussian",
    "num_held_out": 2,
}


def coarse(root, step_size, most):
    """Hamiltonian moves of twenty steps of one size, .05, whatever the particles are like: rejected where the fibre is thin."""

    def strategy(init, log_density, step, num_mcmc_steps, n_particles):
        def trajectory(own, state):
            tuned = (0.05, jnp.ones(state.position.shape), 20)
            return hmc.build_kernel()(own, state, log_density, *tuned)[0]

        def update(keys, particles, _):
            def body(index, states):
                return jax.vmap(trajectory)(jax.vmap(lambda k: jax.random.fold_in(k, index))(keys), states)

            states = jax.vmap(lambda position: hmc.init(position, log_density))(particles)
            moved = jax.lax.fori_loop(0, num_mcmc_steps, body, states).position
            return moved, (step_size, 20 * num_mcmc_steps, jnp.ones(()), particles, moved)

        return update, n_particles

    return strategy


@pytest.mark.law
@pytest.mark.slow
def test_a_fixed_coarse_step_is_refused(load, x64, monkeypatch):
    """Noisy data, one in a million: five and ten moves of a fixed coarse step spread and remember; ours are trusted."""
    model = load("deep_linear", **NOISY)
    exact = partial(model.properties["trigger"].exact, bvs.Posterior(model))
    threshold = float(brentq(lambda c: np.log(max(exact(c), 1e-300) / 1e-6), 1.0, 100.0))
    settings = {"num_replicates": 8, "num_particles": 1000, "max_seconds": 600.0}
    ours = bvs.robustness(model, "trigger", threshold, num_moves=16, **settings)
    assert ours.trusted, ours.warnings
    assert ours.probability == pytest.approx(1e-6, rel=0.5)
    monkeypatch.setattr(tempered, "_moves", coarse)
    jax.clear_caches()
    try:
        planted = bvs.robustness(model, "trigger", threshold, num_moves=5, **settings)
    finally:
        jax.clear_caches()
    assert not planted.trusted
    assert any("spread" in warning or "more moves" in warning for warning in planted.warnings)


@pytest.mark.law
@pytest.mark.slow
def test_a_sublevel_set(load, x64):
    """Prior mass and the probability of the event on it, by Student's test over replicates; every member is inside."""
    file, config, item, _ = MODELS["two layers"]
    model, tolerance = load(file, **config), 0.1
    excess = tolerance**2 / (2 * 0.5**2)
    settings = SIXTEEN | {"num_moves": 8, "excess_loss": excess}
    found = bvs.robustness(model, item, 9.0, law="sublevel", **settings)
    assert found.trusted, found.warnings
    assert found.exact == pytest.approx(sublevel_exceedance(9.0, tolerance, 4), rel=1e-9)
    masses = np.array(found.replicates["set_mass"]) / sublevel_mass(tolerance, 4)
    assert_mean(masses, expected=1.0, detects=0.3)
    values = np.array(found.replicates["twice_the_moves"]) / sublevel_exceedance(9.0, tolerance, 4)
    assert_mean(values, expected=1.0, detects=0.8)
    with planted_bug():  # of three times the probability
        assert_mean(values, expected=3.0, detects=0.8)
    assert all(member.loss <= found.least_loss + excess for member in found.members)
    assert all(member.value > 9.0 for member in found.members)


@pytest.mark.law
def test_training_is_not_the_posterior(load, x64):
    """Gradient flow from the prior to zero loss: its law off the data is known, and is not that of Bayes."""
    model = load("deep_linear", widths=(1, 4, 1), num_examples=16, **(FITTED | {"noise": 1.0}))
    settings = {"learning_rate": 0.02, "num_steps": 800, "initial_scale": 0.5, "num_seeds": 20_000}
    found = bvs.robustness(model, "trigger", 1.0, law="sgd", **settings)
    assert found.trusted, found.warnings
    assert found.exact == pytest.approx(flow_exceedance(1.0, 4, 1.0, 0.5), rel=1e-9)
    error = np.sqrt(found.probability * (1 - found.probability) / settings["num_seeds"])
    assert_mean(found.probability, error, expected=flow_exceedance(1.0, 4, 1.0, 0.5), detects=0.0175)
    with planted_bug():
        assert_mean(found.probability, error, expected=fitted_exceedance(1.0, 4, prior_scale=0.5), detects=0.0175)
    assert found.interval[0] < found.probability < found.interval[1]


@pytest.mark.exact
def test_supplied_properties(load, x64):
    model = load("deep_linear", widths=(3, 2, 2), spectrum=(1.0,), num_examples=20, unseen_inputs=2)
    rng = np.random.default_rng(0)
    values = {"W1": jnp.asarray(rng.normal(size=(2, 5))), "W2": jnp.asarray(rng.normal(size=(2, 2)))}
    product, teacher = values["W2"] @ values["W1"], model.optimum["W2"] @ model.optimum["W1"]
    gap = product[:, 3:] - teacher[:, 3:]
    known = {
        "trigger": np.linalg.norm(product[:, 3]),
        "disagreement": np.linalg.norm(product - teacher) / np.sqrt(5),
        "sensitivity": np.linalg.norm(product.sum(axis=1)) / np.sqrt(5),
        "rank": np.linalg.svd(product)[1][1],
        "group_loss": np.sum(gap**2) / 2 / (2 * 3.0**2) + np.log(2 * np.pi * 3.0**2),
    }
    assert set(model.properties) == set(known)
    for name, item in model.properties.items():
        value, gradient = jax.value_and_grad(lambda v, item=item: item(model, v))(values)
        assert float(value) == pytest.approx(float(known[name]), rel=1e-10), name
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), name
    for name in ("trigger", "disagreement", "sensitivity"):
        value, gradient = jax.value_and_grad(lambda v, name=name: model.properties[name](model, v))(model.optimum)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), name
        assert float(value) == 0 or name == "sensitivity"


def own(item, **more):
    """A model of one weight with a property."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w * x, 1), obs=y)

    data = {"x": np.ones(3), "y": np.zeros(3)}
    return bvs.Model(program, data, optimum={"w": 0.0}, properties={"swing": item}, **more)


def swing(model, values):
    """What a property may be."""
    return jnp.abs(values["w"])


FEW = {"num_particles": 64, "num_moves": 1, "num_replicates": 2}


@pytest.mark.exact
@pytest.mark.parametrize(
    ("item", "settings", "message"),
    [
        (swing, {"property": "swnig"}, "unknown property 'swnig': did you mean 'swing'"),
        (swing, {"threshold": None}, "threshold is None"),
        (swing, {"threshold": np.inf}, "threshold is inf"),
        (swing, {"law": "bayes"}, "law is 'bayes'"),
        (swing, {"num_moves": 0}, "num_moves is 0"),
        (swing, {"num_replicates": 1}, "num_replicates is 1"),
        (swing, {"max_seconds": -5.0}, "max_seconds is -5: it must be at least 0"),
        (swing, {"law": "sublevel", "excess_loss": 0.0}, "the set is empty, or the minimum alone"),
        (lambda model, values: values["w"] * jnp.ones(3), {}, r"returns float64 of shape \(3,\)"),
        (lambda model, values: None, {}, "returns no number"),
        (lambda model, values: 1, {}, r"returns int64 of shape \(\)"),
        (lambda model, values: jnp.log(values["w"]), {}, "is not finite at"),
        (lambda model, values: 2.0 + 0 * values["w"], {}, "is constant: 2 at all"),
    ],
)
def test_what_cannot_be_is_refused(item, settings, message, x64):
    with pytest.raises(bvs.InputError, match=message):
        bvs.robustness(own(item), **({"threshold": 1.0} | FEW | settings))


@pytest.mark.exact
def test_models_without_what_is_needed_are_refused(load):
    with pytest.raises(bvs.InputError, match="names no properties"):
        bvs.robustness(load("tanh_network"), threshold=1.0)
    with pytest.raises(bvs.InputError, match="has the name of an observable"):
        bvs.Model(own(swing).program.function, own(swing).data, properties={"loss": swing})
    without = bvs.disagreement({"x": np.ones(1)})
    model = bvs.Model(own(swing).program.function, own(swing).data, properties={"far": without})
    with pytest.raises(bvs.InputError, match="it names none"):
        bvs.robustness(model, threshold=1.0)


@pytest.mark.exact
def test_an_empty_set_is_called_so(x64):
    model = own(swing)
    least = reference_point(model).loss
    target = bvs.Posterior(model, 0.0)
    starts = np.random.default_rng(0).normal(size=(2, 64, 1))
    problem = Tilted(target, model.properties["swing"], 1.0, 1.0, starts, 64, least - 1.0, 0.1)
    with pytest.raises(bvs.InputError, match="the set may be empty"):
        replicates(problem, 1, 2, 0, None, lambda line: None)


@pytest.mark.exact
def test_a_threshold_that_is_never_reached_is_called_so(x64):
    found = bvs.robustness(own(lambda model, values: jnp.tanh(values["w"])), threshold=1.5, **FEW)
    assert not found.trusted
    assert (found.probability, found.log10_probability) == (0.0, None)
    assert "the threshold 1.5 is never reached: the largest value seen is" in found.warnings[0]
    assert found.interval[1] < 0.1  # by the draws
    assert json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.exact
def test_what_is_less_likely_than_any_number_is_left(x64):
    """A threshold of 100 standard deviations, e^-5000: the path ends a little below 1e-300."""
    target = bvs.Posterior(own(swing), 0.0)
    starts = np.random.default_rng(0).normal(size=(2, 64, 1))
    problem = Tilted(target, lambda model, values: values["w"], 100.0, 1.0, starts, 64)
    for run in replicates(problem, 1, 2, 0, None, lambda line: None):
        assert not run.ladder.finished
        assert -800 < run.ladder.log_evidence < -690
        assert run.found.probability == 0


@pytest.mark.exact
def test_intervals_and_words():
    low, high = binomial_interval(0.1, 100)
    assert (low, high) == (
        pytest.approx(0.0490047, abs=1e-6),
        pytest.approx(0.1762226, abs=1e-6),
    )  # Clopper and Pearson
    assert binomial_interval(0.0, 100) == (0.0, pytest.approx(1 - 0.025**0.01))
    assert [rounded(x) for x in (9.4, 370.4, 9600.1, 1_001_000.0)] == ["9", "370", "9,600", "1,000,000"]
    for unit in (1.0, 1e-100, 1e-250):  # whose squares are no numbers
        assert not differ([1.0 * unit, 2.0 * unit, 3.0 * unit], [2.0 * unit, 3.0 * unit, 4.0 * unit])
        assert differ([1.0 * unit, 1.01 * unit, 0.99 * unit], [2.0 * unit, 2.01 * unit, 1.99 * unit])
        bounds = np.array(log_interval([0.1 * unit, 0.12 * unit, 0.08 * unit])) / unit
        assert np.log(bounds / 0.1) == pytest.approx([-0.496827, 0.496827], rel=1e-5)  # 4.302653 * .2 / 3^.5
    assert not differ([0.0, 0.0], [0.0, 0.0])


@pytest.mark.smoke
def test_the_verb_writes_its_answer_and_its_page(tmp_path, monkeypatch, capsys):
    from bayes_vs_sgd.cli import run

    monkeypatch.chdir(tmp_path)
    model = str(Path(__file__).parents[1] / "models" / "product.py")
    flags = ["--threshold", "6", "--inverse-temperature", "0", "--num-moves", "4", "--num-particles", "200"]
    job = ["robustness", model, "--property", "size", *flags, "--num-replicates", "4"]
    precision = jax.config.read("jax_enable_x64")
    try:
        assert run([*job, "--out", "run", "--json", "answer.json"]) == 0
        answer = json.loads(Path("answer.json").read_text())
        assert run([*job, "--resume", "run", "--json", "again.json"]) == 0
        again = json.loads(Path("again.json").read_text())
        assert run(["robustness", model, "--property", "siez", *flags]) == 2
    finally:
        jax.config.update("jax_enable_x64", precision)
    names = ["probability", "interval", "log10_probability", "method", "replicates", "settings", "trusted", "warnings"]
    names += [
        "law",
        "property",
        "threshold",
        "num_gradients",
        "seconds",
        "survival",
        "members",
        "words",
        "note",
        "support",
    ]
    assert set(names) <= set(answer)
    assert again | {"seconds": 0} == answer | {"seconds": 0}
    assert answer["support"] > 100
    with np.load("run/members.npz") as kept:
        assert kept["w1"].tolist() == [member["values"]["w1"] for member in answer["members"]]
    assert "did you mean 'size'" in capsys.readouterr().err
    page = Path("run/robustness.html").read_text()
    assert answer["words"].replace(">", "&gt;") in page
    assert page.count('<svg role="img" aria-label="') == 1


@pytest.mark.exact
def test_unsafe_members_are_put_beside_the_checkpoint(x64):
    """Losses (w - y)^2 / 2 + log(2 pi) / 2 of members and of the checkpoint, in the answer and in the rows; without one none."""
    model = own(swing).at({"w": -0.25}, "mine.npz")
    found = bvs.robustness(model, threshold=0.5, inverse_temperature=0.0, **FEW)

    def loss(w):
        return w**2 / 2 + np.log(2 * np.pi) / 2

    assert (found.center.source, found.center.value) == ("mine.npz", 0.25)
    assert found.center.loss == pytest.approx(loss(0.25))
    assert found.to_json()["center"] == {"source": "mine.npz", "value": 0.25, "loss": found.center.loss}
    assert [member.loss for member in found.members] == pytest.approx([loss(m.value) for m in found.members])
    rows = dict(robustness_rows(found))
    assert rows["mine.npz"] == "swing 0.25, loss 0.950189"
    assert rows["unsafe member 1"].endswith(", at mine.npz 0.950189, at the minimum 0.918939")
    without = bvs.Model(own(swing).program.function, own(swing).data, properties={"swing": swing})
    assert bvs.robustness(without, threshold=0.5, inverse_temperature=0.0, **FEW).center is None


@pytest.mark.smoke
def test_the_page_says_when_it_is_not_to_be_trusted(x64):
    model = own(lambda model, values: jnp.tanh(values["w"]))
    found = bvs.robustness(model, threshold=1.5, **FEW)
    page = robustness_page(found, model, describe_model(model), "bayes-vs-sgd x")
    assert "Not to be trusted" in page
    assert found.in_words().endswith("by an estimate that is not to be trusted.")


@pytest.mark.exact
def test_the_law_that_is_counted_among_is_named(x64):
    found = bvs.robustness(own(swing), threshold=0.5, inverse_temperature=0.0, **FEW)
    assert found.in_words().endswith("of the parameter settings, weighted by the prior, have swing > 0.5.")


@pytest.mark.exact
def test_the_survival_curve_begins_in_the_middle_of_the_law():
    """Of particles of many stages the middle of their values is not that of the law."""
    pool = Pool(np.repeat([3.0, 1.0, 2.0, 8.0, 9.0], 20), np.repeat([0.2, 0.3, 0.3, 0.1, 0.1], 20) / 20)
    assert pool.median == 2.0
    assert survival([pool, pool], 8.0, None).thresholds[0] == 2.0


@pytest.mark.exact
def test_examples_that_sgd_was_not_trained_without_are_told(x64):
    found = bvs.robustness(own(swing), threshold=0.5, **FEW)
    late = replace(found, settings=found.settings | {"retrain": 3, "retrained": 1})
    assert (
        "without 1 examples, one at a time; the time was over before the other 2"
        in dict(robustness_rows(late))["SGD trained again"]
    )


@pytest.mark.exact
def test_replicates_are_of_chains_of_their_own(load, x64):
    with pytest.raises(bvs.InputError, match="num_replicates is 100: the draws are of 64 chains"):
        bvs.robustness(load("deep_linear", **MODELS["one layer"][1]), "trigger", 4.0, num_replicates=100)


@pytest.mark.exact
def test_a_loss_below_the_least_that_is_known_is_told(x64):
    """The optimum that is named is the higher of two minima, at w = 1; particles come to the lower one, at w = -1."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(((w**2 - 1) ** 2 + 0.3 * (w + 1)) * x, 1), obs=y)

    def told(optimum):
        model = bvs.Model(program, own(swing).data, optimum={"w": optimum}, properties={"swing": swing})
        found = bvs.robustness(model, threshold=1.0, law="sublevel", excess_loss=0.05, **FEW)
        return [warning for warning in found.warnings if "below the least known" in warning]

    assert told(1.0)
    assert not told(-1.0)


@pytest.mark.exact
def test_transitions_that_diverge_are_told(x64, monkeypatch):
    def judged(tree, names):
        return replace(quality(tree, names), num_divergences=100, bfmi_min=0.1)

    monkeypatch.setattr(draws, "quality", judged)
    doubts = bvs.robustness(own(swing), threshold=0.5, **FEW).warnings
    assert any("transitions of the sampler diverged" in doubt for doubt in doubts)
    assert any("E-BFMI is 0.10" in doubt for doubt in doubts)
