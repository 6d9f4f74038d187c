"""A run is the same bits however it is cut, and compiles once."""

import importlib
import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from runs import DYNAMICS, MODEL, SMALL, WANTED, assert_same, run

import bayes_vs_sgd as bvs
from bayes_vs_sgd import segment

simulate_module = sys.modules[bvs.simulate.__module__]

# Cut, stopped, continued


@pytest.mark.exact
@pytest.mark.parametrize("name", DYNAMICS)
def test_segments_do_not_change_a_bit(name, target, cut, tmp_path):
    """One segment; draws cut in the middle, in memory; the same on disk."""
    cut(1000)
    whole = run(name, target)
    assert whole["posterior"].sizes["draw"] == 20
    assert whole["posterior"]["loss"].std("draw").min() > 0
    cut(16, 3, 45)
    assert_same(whole, run(name, target))
    cut(37, 9)
    assert_same(whole, run(name, target, folder=tmp_path / "run"))


@pytest.mark.exact
@pytest.mark.parametrize("seconds", [1e-9, 0.01])
def test_segments_of_measured_length_do_not_change_a_bit(target, monkeypatch, seconds):
    """The real rule for the length, with wanted wall times so short that every cut is somewhere else."""
    whole = run("sgd", target)
    monkeypatch.setattr(simulate_module, "FIRST_SEGMENT", 3)
    monkeypatch.setattr(simulate_module, "SEGMENT_SECONDS", seconds)
    monkeypatch.setattr(segment, "BUFFER_DRAWS", 4)
    assert_same(whole, run("sgd", target))


@pytest.mark.exact
def test_interrupt_keeps_what_is_done_and_continues(target, cut, tmp_path, monkeypatch):
    cut(20)
    whole = run("nuts", target)
    reports = itertools.count()

    def interrupt(*args, **kwargs):
        if next(reports) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(simulate_module.Progress, "update", interrupt)
    with pytest.warns(UserWarning, match="interrupted after step 160 of 180: what is done is kept"):
        part = run("nuts", target, folder=tmp_path)
    assert part.attrs["stopped"] == "interrupted"
    assert part["posterior"].sizes["draw"] == 13
    assert_same(whole, run("nuts", target, folder=tmp_path))


@pytest.mark.exact
def test_max_seconds_stops_between_segments(target, cut, tmp_path):
    cut(20)
    whole = run("sgd", target)
    part = run("sgd", target, folder=tmp_path, max_seconds=0.0)
    assert (part.attrs["stopped"], part.attrs["num_steps"]) == ("max_seconds", 20)
    finished = run("sgd", target, folder=tmp_path)
    assert finished.attrs["stopped"] == "finished"
    assert_same(whole, finished)


@pytest.mark.exact
def test_a_finished_run_is_returned_and_extended(target, cut, tmp_path):
    cut(25)
    run("sgd", target, folder=tmp_path, num_draws=10, num_steps=70)
    files = sorted(tmp_path.iterdir())
    assert run("sgd", target, folder=tmp_path, num_draws=10, num_steps=70)["posterior"].sizes["draw"] == 10
    assert sorted(tmp_path.iterdir()) == files
    assert_same(run("sgd", target), run("sgd", target, folder=tmp_path))


# What is recorded


@pytest.mark.exact
def test_coordinates_and_sums(target):
    tree = run("sgd", target)
    np.testing.assert_array_equal(tree["posterior"]["step"], 7 * np.arange(1, 21))
    np.testing.assert_allclose(tree["posterior"]["time"], 0.02 * 7 * np.arange(1, 21))
    np.testing.assert_array_equal(tree["sample_stats"]["num_gradients"], np.full((3, 20), 7 * 4))
    assert set(tree["posterior"].data_vars) == {"loss", "layer_norms", "W1", "W2"}
    np.testing.assert_array_equal(tree["posterior"]["W1"].values[:, -1], tree["final_position"]["W1"].values)


# Nothing compiles twice


@pytest.mark.exact
def test_a_second_segment_compiles_nothing(target, cut, compiled, tmp_path):
    """Nor one of another length, in memory or on disk."""
    cut(21)
    run("sgd", target, num_draws=3, num_steps=21)
    compiled()
    cut(21, 4, 50)
    run("sgd", target)
    assert compiled() == []
    run("sgd", target, folder=tmp_path)
    assert compiled() == []


@pytest.mark.exact
def test_nothing_compiles_twice(tiny, target, cut, compiled):
    """Another seed, rate, temperature, number of steps or draws; the same file loaded again."""
    cut(40, 33)
    run("sgd", target)
    compiled()
    run("sgd", target, key=7)
    assert compiled() == [], "another seed"
    bvs.simulate(bvs.SGD(0.05, batch_size=4), target, key=1, num_draws=20, num_steps=140, **WANTED)
    assert compiled() == [], "another learning rate"
    run("sgd", bvs.Posterior(tiny, 0.3))
    assert compiled() == [], "another temperature"
    again = bvs.load_model(MODEL, **SMALL)
    compiled()
    run("sgd", bvs.Posterior(again))
    assert compiled() == [], "the same file loaded again"


@pytest.mark.exact
def test_nuts_compiles_its_warmup_and_its_draws_once(tiny, target, cut, compiled):
    cut(40, 33)
    run("nuts", target)
    compiled()
    run("nuts", target, key=7)
    assert compiled() == [], "another seed"
    nuts = bvs.NUTS(max_num_doublings=4, target_acceptance_rate=0.9, step_size=0.2)
    bvs.simulate(nuts, bvs.Posterior(tiny, 0.3), key=1, **(WANTED | DYNAMICS["nuts"][1]))
    assert compiled() == [], "other settings of the tuning, another temperature"


@pytest.mark.exact
def test_loading_a_file_again_compiles_nothing(tiny, compiled):
    bvs.load_model(MODEL, **SMALL)
    compiled()
    bvs.load_model(MODEL, **SMALL)
    assert compiled() == []


# Lost chains


@pytest.mark.exact
def test_lost_chains_are_counted(target, cut, capfd):
    """One rate is far too large: its chain is lost, the others go on, and nothing is raised or warned of."""
    rates = np.array([0.01, 50.0, 0.01])
    tree = bvs.simulate(bvs.SGD(rates, batch_size=4), target, key=1, num_draws=20, num_steps=140, **WANTED)
    lost = tree["final_position"]["lost_at_step"].values
    assert lost[0] == lost[2] == -1
    assert lost[1] > 0
    assert np.isfinite(tree["posterior"]["loss"].values[[0, 2]]).all()
    assert not np.isfinite(tree["posterior"]["loss"].values[1, -1])
    assert capfd.readouterr().err == ""


@pytest.mark.exact
def test_all_chains_lost(target):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = run("sgd", target, initial_scale=1e8)
    assert (tree["final_position"]["lost_at_step"].values > 0).all()
    assert tree.attrs["stopped"] == "finished"


@pytest.mark.exact
def test_the_step_of_a_loss_does_not_depend_on_the_cuts(target, cut):
    """Like all else: first seen at a multiple of the thinning."""
    cut(1000)
    whole = run("sgd", target, initial_scale=1e3)
    cut(2, 3)
    assert_same(whole, run("sgd", target, initial_scale=1e3))


# The names


@pytest.mark.exact
@pytest.mark.parametrize("first", ["bayes_vs_sgd.simulate", "bayes_vs_sgd.learning_coefficient"])
def test_a_name_is_the_function_whichever_module_is_imported_first(first):
    """A submodule of the same name must not take its place."""
    program = f"import importlib, bayes_vs_sgd as b; importlib.import_module({first!r}); "
    program += "assert callable(b.simulate) and callable(b.learning_coefficient)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# Settings that cannot be


@pytest.mark.exact
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_draws": None, "num_steps": None}, "give num_draws or num_steps"),
        ({"num_draws": 0}, "num_draws is 0"),
        ({"num_draws": 200}, "num_draws is 200 and num_steps 140: both must be >= 1, draws at most steps"),
        ({"num_chains": 0}, "num_chains is 0"),
        ({"observables": ["los"]}, "unknown observable 'los': did you mean 'loss'"),
        ({"initial": "middle"}, "initial is 'middle': it must be 'prior', 'optimum' or positions"),
        ({"initial": {"W1": np.zeros((3, 2, 3))}}, r"initial positions name \['W1'\], the program \['W1', 'W2'\]"),
        ({"initial": {"W1": np.zeros((2, 2, 3)), "W2": np.zeros((2, 2, 2))}}, r"\(2, 2, 3\), not"),
        ({"initial": {"W1": np.zeros((3, 3, 2)), "W2": np.zeros((3, 2, 2))}}, r"'W1' have shape \(3, 3, 2\), not"),
    ],
)
def test_impossible_settings_are_refused(target, changes, message):
    with pytest.raises(bvs.InputError, match=message):
        run("sgd", target, **changes)


@pytest.mark.exact
def test_starts(tiny, target):
    """Positions as given, the optimum with noise of the scale asked for, the prior times its scale."""
    still = {"num_draws": 1, "num_steps": 1, "num_chains": 3, "record_positions": True, "progress": False}
    frozen = bvs.SGD(1e-30, batch_size=4)
    given = {"W1": np.arange(18.0).reshape(3, 2, 3), "W2": np.ones((3, 2, 2))}
    tree = bvs.simulate(frozen, target, key=0, initial=given, **still)
    np.testing.assert_allclose(tree["posterior"]["W1"].values[:, 0], given["W1"], rtol=1e-6, atol=1e-6)
    tree = bvs.simulate(frozen, target, key=0, initial="optimum", initial_scale=0.0, **still)
    np.testing.assert_allclose(tree["posterior"]["W2"].values[:, 0], np.stack([tiny.optimum["W2"]] * 3), rtol=1e-6)
    one, two = (bvs.simulate(frozen, target, key=0, initial_scale=s, **still)["posterior"]["W1"] for s in (1.0, 0.5))
    np.testing.assert_allclose(two, one / 2, rtol=1e-6)
    assert len(np.unique(one)) == one.size


@pytest.mark.exact
def test_progress_is_on_standard_error(target, capfd, monkeypatch):
    monkeypatch.setattr(importlib.import_module("bayes_vs_sgd.progress"), "PLAIN_SECONDS", 0.0)
    run("sgd", target, progress=True, title="two layers")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "two layers: step" in captured.err
