"""A run folder: whole after any kill, honest about damage, never written over, one file at the end."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import arviz_plots
import arviz_stats
import numpy as np
import pytest
import xarray as xr
from runs import DYNAMICS, MODEL, SMALL, WANTED, assert_same, run

import bayes_vs_sgd as bvs
from bayes_vs_sgd.store import Store

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
    """What it leaves is a temporary file and nothing else: the next run is the run."""
    (tmp_path / ".manifest.json.partial").write_text('{"mod')
    run("sgd", target, folder=tmp_path)
    assert_same(run("sgd", target), bvs.open_run(tmp_path))


@pytest.fixture
def unmerged(target, cut, tmp_path):
    """A folder as a kill right before the end leaves it: three segments of three draws."""
    cut(21)

    def killed(*arguments):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, "merge", killed)
        with pytest.raises(KeyboardInterrupt):
            run("sgd", target, folder=tmp_path / "run", num_draws=9, num_steps=63)
    assert len(list((tmp_path / "run").glob("draws-*.nc"))) == 3
    return tmp_path / "run"


@pytest.mark.exact
def test_a_kill_while_segments_are_merged_is_harmless(target, unmerged):
    """Between writing the whole and dropping the parts, draws are there twice and counted once."""
    parts = {path.name: path.read_bytes() for path in unmerged.glob("draws-*.nc")}
    np.testing.assert_array_equal(bvs.open_run(unmerged)["posterior"]["draw"], np.arange(9))
    whole = run("sgd", target, folder=unmerged, num_draws=9, num_steps=63)
    assert len(list(unmerged.glob("draws-*.nc"))) == 1
    for name, content in parts.items():
        (unmerged / name).write_bytes(content)
    assert_same(whole, bvs.open_run(unmerged))
    assert_same(run("sgd", target), run("sgd", target, folder=unmerged))


# Damaged folders


@pytest.fixture
def stored(target, cut, tmp_path):
    """A folder with half of a run."""
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
def test_a_missing_segment_is_said(target, unmerged):
    only(unmerged, "draws-*.nc").unlink()
    with pytest.raises(bvs.InputError, match="lacks draws 0 to 3"):
        run("sgd", target, folder=unmerged)


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
def test_a_read_only_folder_is_said():
    """Root writes anywhere, so the folder is opened as nobody."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(bvs.InputError, match=r"cannot write .*manifest\.json: Permission denied"):
                Store(folder).open({"model": "any"})
        finally:
            os.seteuid(user)
        assert os.listdir(folder) == []


# The tree


@pytest.mark.exact
def test_a_run_is_one_file_that_opens_with_xarray_alone(stored):
    program = (
        "import sys, xarray as xr\n"
        "tree = xr.open_datatree(sys.argv[1], engine='h5netcdf')\n"
        "assert not any(name.split('.')[0] in ('bayes_vs_sgd', 'jax', 'arviz_base') for name in sys.modules)\n"
        "assert tree['posterior']['loss'].dims == ('chain', 'draw'), tree\n"
        "print(dict(tree['posterior'].sizes)['draw'], tree['posterior']['step'].values.tolist()[:3])\n"
        "print(tree.attrs['stopped'], tree['final_position']['W1'].shape)\n"
    )
    (path,) = stored.glob("draws-*.nc")
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["9 [7, 14, 21]", "finished (3, 2, 3)"]


@pytest.mark.exact
def test_arviz_reads_the_tree(target, stored):
    for tree in (run("sgd", target), run("sgd", target, folder=stored)):
        table = arviz_stats.summary(tree, var_names=["loss", "layer_norms"], round_to="none")
        assert list(table.index) == ["loss", "layer_norms[0]", "layer_norms[1]"]
        np.testing.assert_allclose(table["mean"].iloc[0], tree["posterior"]["loss"].mean(), rtol=1e-5)
        assert np.isfinite(arviz_stats.rhat(tree, var_names=["loss"])["loss"])
        assert json.loads(tree.attrs["manifest"])["dynamics"]["learning_rate"] == pytest.approx(0.02)
        drawn = arviz_plots.plot_forest(tree, var_names=["loss", "layer_norms"], backend="none")
        assert set(drawn.viz.children) & {"forest", "point_estimate", "trunk"}


@pytest.mark.exact
def test_memory_does_not_grow_with_the_draws(tmp_path):
    """Sixty segments of two megabytes are made one file, and a variable of it is read, in the memory of a few."""
    store = Store(tmp_path)
    store.open({})
    for index in range(60):
        drawn = np.full((1, 2, 2**18), index, np.float32)
        groups = {"posterior": {"w": drawn}, "sample_stats": {"loss": drawn[:, :, 0]}}
        dims = {"w": ("chain", "draw", "parameter"), "loss": ("chain", "draw")}
        datasets = {g: xr.Dataset({k: (dims[k], v) for k, v in arrays.items()}) for g, arrays in groups.items()}
        tree = xr.DataTree.from_dict(datasets)
        tree.attrs["manifest"] = "{}"
        store.save(index, [], 2 * index, 2 * index + 2, tree)
    import dask.array  # noqa: F401  (its own memory is not what is measured)

    tracemalloc.start()
    try:
        tree = store.merge(store.read())
        loss = tree["sample_stats"]["loss"].values
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(loss[0], np.repeat(np.arange(60.0), 2))
    assert peak < 12 * 2**21, f"{peak / 2**20:.0f} MiB for 60 segments of 2 MiB"
    assert len(list(tmp_path.glob("draws-*.nc"))) == 1
