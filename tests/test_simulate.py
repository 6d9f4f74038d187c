"""A run is the same bits however it is cut, killed or stored, and compiles once."""

import importlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import arviz_stats
import numpy as np
import pytest
import xarray as xr

import bayes_vs_sgd as bvs

simulate_module = sys.modules[bvs.simulate.__module__]
MODEL = Path(__file__).parents[1] / "models" / "deep_linear.py"
SMALL = {"widths": (2, 2, 2), "spectrum": (1.0,), "num_examples": 20, "noise": 1.0}
WANTED = {"num_chains": 3, "observables": ["loss", "layer_norms"], "record_positions": True, "progress": False}
DYNAMICS = {
    "sgd": (bvs.SGD(0.02, batch_size=4), {"num_draws": 20, "num_steps": 140}),
    "shuffled": (bvs.SGD(0.02, batch_size=3, sampling="shuffled", momentum=0.9), {"num_draws": 20, "num_steps": 140}),
    "sgld": (bvs.SGLD(1e-3), {"num_draws": 20, "num_steps": 140, "num_warmup": 15}),
    "adam": (bvs.Adam(0.01, batch_size=4), {"num_draws": 20, "num_steps": 140}),
    "nuts": (bvs.NUTS(max_num_doublings=4), {"num_draws": 20, "num_steps": 60, "num_warmup": 120}),
}


@pytest.fixture(scope="module")
def target(tiny):
    return bvs.Posterior(tiny)


@pytest.fixture
def cut(monkeypatch):
    """Return a function that cuts what runs next into segments of the given lengths, over and over."""

    def into(*lengths):
        turn = itertools.cycle(lengths)
        monkeypatch.setattr(simulate_module, "_length", lambda *args, **kwargs: next(turn))

    return into


def assert_same(first, second):
    """Draws, statistics, coordinates and final positions are equal to the last bit."""
    for group in ("posterior", "sample_stats", "final_position"):
        one, two = first[group].to_dataset(), second[group].to_dataset()
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=f"{group}/{name}", strict=True)


def run(name, target, **changes):
    dynamics, settings = DYNAMICS[name]
    return bvs.simulate(dynamics, target, **({"key": 1} | WANTED | settings | changes))


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
    monkeypatch.setattr(simulate_module, "BUFFER_DRAWS", 4)
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


# Killed


def contents(folder):
    """All draws of a run folder."""
    names = sorted(p.name for p in folder.glob("draws-*.nc"))
    trees = [xr.load_datatree(folder / name, engine="h5netcdf") for name in names]
    return {
        (group, name): np.concatenate([np.asarray(tree[group][name]) for tree in trees], axis=1)
        for group in ("posterior", "sample_stats")
        for name in trees[0][group].data_vars
    }


def killed_until_done(name, folder, seed, num_kills):
    """Start the run again and again; kill it at random moments while it writes."""
    moments = random.Random(seed)
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py")), name, str(folder)]
    for kill in range(num_kills + 1):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        seen, changes = _names(folder), moments.randrange(1, 30)
        while kill < num_kills and process.poll() is None:
            if _names(folder) != seen:
                seen, changes = _names(folder), changes - 1
            if changes == 0:
                time.sleep(moments.uniform(0, 0.02))
                process.kill()
                break
            time.sleep(0.001)
        errors = process.communicate(timeout=240)[1]
        assert process.returncode == (-signal.SIGKILL if kill < num_kills else 0), errors


def _names(folder):
    return set(os.listdir(folder)) if folder.exists() else set()


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_kills"), [("nuts", 3), ("sgd", 2)])
def test_a_run_killed_at_any_moment_is_a_run_never_killed(name, num_kills, tmp_path):
    """SIGKILL at random moments, among them the warm-up of NUTS."""
    killed_until_done(name, tmp_path / "whole", seed=0, num_kills=0)
    killed_until_done(name, tmp_path / "killed", seed=1, num_kills=num_kills)
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert set(whole) == set(killed)
    for key in whole:
        np.testing.assert_array_equal(whole[key], killed[key], err_msg=str(key), strict=True)
    states = [next((tmp_path / folder).glob("state-*.npz")) for folder in ("whole", "killed")]
    assert states[0].name == states[1].name  # the name carries the digest of all that the next step needs


@pytest.mark.exact
def test_a_kill_within_the_first_write_is_harmless(target, tmp_path):
    """What it leaves is a temporary file and nothing else: the next run starts."""
    (tmp_path / ".manifest.json.partial").write_text('{"mod')
    run("sgd", target, folder=tmp_path)


# Damaged folders


@pytest.fixture
def stored(target, cut, tmp_path):
    """A folder with half of a run in segments of three draws."""
    cut(21)
    run("sgd", target, folder=tmp_path / "run", num_draws=9, num_steps=63)
    return tmp_path / "run"


def only(folder, pattern):
    return sorted(folder.glob(pattern))[0]


DAMAGES = {
    "flipped draws": ("draws-*.nc", lambda content: content[:900] + bytes([content[900] ^ 1]) + content[901:]),
    "truncated draws": ("draws-*.nc", lambda content: content[: len(content) // 2]),
    "empty draws": ("draws-*.nc", lambda content: b""),
    "flipped state": ("state-*.npz", lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:]),
    "truncated state": ("state-*.npz", lambda content: content[:-100]),
    "truncated manifest": ("manifest.json", lambda content: content[:-30]),
}


@pytest.mark.exact
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said(damage, target, stored):
    pattern, change = DAMAGES[damage]
    path = only(stored, pattern)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(bvs.InputError, match=rf"{path.name}.*damaged"):
        run("sgd", target, folder=stored)


@pytest.mark.exact
def test_a_missing_segment_is_said(target, stored):
    only(stored, "draws-*.nc").unlink()
    with pytest.raises(bvs.InputError, match="lacks draws 0 to 3"):
        run("sgd", target, folder=stored)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": 2}, "its settings is"),
        ({"num_chains": 4}, "its settings is"),
        ({"num_warmup": 7}, "its settings is"),
        ({"initial_scale": 0.5}, "its settings is"),
        ({"initial": {"W1": np.zeros((3, 2, 3)), "W2": np.zeros((3, 2, 2))}}, "its settings is"),
        ({"dynamics": bvs.SGD(0.03, batch_size=4)}, "its dynamics is"),
        ({"inverse_temperature": 0.5}, "its target is"),
        ({"data_seed": 1}, "its model is"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_folder_of_another_run_is_refused(changes, message, target, stored):
    dynamics, settings = DYNAMICS["sgd"]
    changes = dict(changes)
    dynamics = changes.pop("dynamics", dynamics)
    if "data_seed" in changes:
        target = bvs.Posterior(bvs.load_model(MODEL, data_seed=changes.pop("data_seed"), **SMALL))
    target = bvs.Posterior(target.model, changes.pop("inverse_temperature", 1.0))
    with pytest.raises(bvs.InputError, match=rf"run folder .* holds another run: {message}"):
        bvs.simulate(dynamics, target, folder=stored, **({"key": 1} | WANTED | settings | changes))


@pytest.mark.exact
def test_other_initial_positions_are_another_run(target, tmp_path):
    """The manifest holds all that the bits depend on."""
    first = {"W1": np.zeros((3, 2, 3)), "W2": np.zeros((3, 2, 2))}
    run("sgd", target, folder=tmp_path, initial=first)
    with pytest.raises(bvs.InputError, match="holds another run"):
        run("sgd", target, folder=tmp_path, initial=first | {"W2": np.ones((3, 2, 2))})


@pytest.mark.exact
def test_a_folder_of_something_else_is_refused(target, tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(bvs.InputError, match="is not empty and holds no run: give a fresh folder"):
        run("sgd", target, folder=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"


# Where nothing can be written


@pytest.mark.exact
def test_a_full_disk_leaves_what_is_there(target, stored, monkeypatch):
    before = {p.name: p.read_bytes() for p in stored.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(bvs.InputError, match=r"cannot write .*: No space left on device; what was stored before"):
            run("sgd", target, folder=stored)
    assert {p.name: p.read_bytes() for p in stored.iterdir()} == before
    assert_same(run("sgd", target), run("sgd", target, folder=stored))


@pytest.mark.exact
def test_a_file_size_limit_leaves_what_is_there(target, stored):
    """The system itself cuts the write short (EFBIG), after the state is written and within the draws."""
    run("sgd", target)  # compile all before the limit
    state = max(p.stat().st_size for p in stored.glob("state-*.npz"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (state + 100, hard))
    try:
        with pytest.raises(bvs.InputError, match=r"cannot write .*draws-.*: File too large"):
            run("sgd", target, folder=stored)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(stored.glob(".*"))
    assert_same(run("sgd", target), run("sgd", target, folder=stored))


@pytest.mark.exact
def test_a_folder_that_cannot_be_made_is_said(target, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(bvs.InputError, match="cannot make the run folder"):
        run("sgd", target, folder=tmp_path / "file" / "run")


@pytest.mark.exact
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_said(target, stored):
    stored.chmod(0o555)
    try:
        with pytest.raises(bvs.InputError, match="cannot write"):
            run("sgd", target, folder=stored)
    finally:
        stored.chmod(0o755)


# The tree


@pytest.mark.exact
def test_a_stored_segment_opens_with_xarray_alone(stored):
    program = (
        "import sys, xarray as xr\n"
        "tree = xr.open_datatree(sys.argv[1], engine='h5netcdf')\n"
        "assert not any(name.split('.')[0] in ('bayes_vs_sgd', 'jax', 'arviz_base') for name in sys.modules)\n"
        "assert tree['posterior']['loss'].dims == ('chain', 'draw'), tree\n"
        "print(dict(tree['posterior'].sizes)['draw'], tree['posterior']['step'].values.tolist())\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(only(stored, "draws-*.nc"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3 [7, 14, 21]"


@pytest.mark.exact
def test_arviz_reads_the_tree(target, stored):
    for tree in (run("sgd", target), run("sgd", target, folder=stored)):
        table = arviz_stats.summary(tree, var_names=["loss", "layer_norms"], round_to="none")
        assert list(table.index) == ["loss", "layer_norms[0]", "layer_norms[1]"]
        np.testing.assert_allclose(table["mean"].iloc[0], tree["posterior"]["loss"].mean(), rtol=1e-5)
        assert np.isfinite(arviz_stats.rhat(tree, var_names=["loss"])["loss"])
        assert json.loads(tree.attrs["manifest"])["dynamics"]["learning_rate"] == pytest.approx(0.02)


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
        ({"initial": {"W1": np.zeros((2, 2, 3)), "W2": np.zeros((2, 2, 2))}}, "chains, not 3"),
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
