"""The command line: answers, and one clear line with exit status 2 for bad input."""

import json
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from bayes_vs_sgd.cli import run

pytestmark = pytest.mark.smoke
MODELS = Path(__file__).parents[1] / "models"
DLN = str(MODELS / "deep_linear.py")
TOY = ["--num-seeds", "200", "--num-steps", "40", "--max-seconds", "0", "--no-controls"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """A verb sets the precision of its process; put it back."""
    monkeypatch.chdir(tmp_path)
    precision = jax.config.read("jax_enable_x64")
    yield
    jax.config.update("jax_enable_x64", precision)


def fails(capsys, *arguments):
    """Run, expect exit status 2 and one line; return it."""
    capsys.readouterr()
    assert run(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


def test_compare_writes_its_answer(capsys):
    assert run(["compare", DLN, "--dynamics", "sgd", *TOY, "--json", "answer.json", "--out", "run"]) == 0
    answer = json.loads(Path("answer.json").read_text())
    assert set(answer) == {"model", "reference", "comparisons", "controls"}
    (found,) = answer["comparisons"]
    assert found["dynamics"] == "sgd"
    assert {"function", "geometry", "off_data"} == set(found["verdicts"])
    kinds = {"theory", "fitted", "fitted_standard_error", "used", "matched", "matched_standard_error"}
    assert set(found["inverse_temperature"]) == kinds
    assert [t["name"] for t in found["tests"]] == ["mmd", "stein", "ksd"]
    assert all(0 < t["p"] <= t["p_holm"] <= 1 and 0 < t["power_at_margin"] < 1 for t in found["tests"])
    assert found["reason"]
    assert found["seeds_needed"] is None  # it is decided
    assert answer["reference"]["passed"] is True
    assert found["calibration"]["num_simulations"] >= 256
    before = sorted(p.name for p in Path("run").rglob("*"))
    assert run(["compare", DLN, "--dynamics", "sgd", *TOY, "--json", "again.json", "--resume", "run"]) == 0
    assert json.loads(Path("again.json").read_text()) == answer
    assert sorted(p.name for p in Path("run").rglob("*")) == before
    line = fails(capsys, "compare", DLN, "--dynamics", "sgd", *TOY[2:], "--num-seeds", "300", "--resume", "run")
    assert "num_seeds" in line
    assert "not an empty folder" in fails(capsys, "compare", DLN, "--out", "run")


def test_what_is_refused_leaves_no_folder(capsys):
    assert "give --property" in fails(capsys, "robustness", DLN, "--threshold", "1", "--out", "refused")
    assert not Path("refused").exists()


def test_audit_writes_its_answer(capsys):
    model = str(MODELS / "linear_regression.py")
    toy = [
        "--num-seeds",
        "400",
        "--num-steps",
        "64",
        "--max-seconds",
        "0.1",
        "--no-models",
        "--model.num-examples",
        "64",
    ]
    assert run(["audit", model, *toy, "--json", "answer.json", "--out", "run"]) == 0
    answer = json.loads(Path("answer.json").read_text())
    assert {"assumptions", "repairs", "models", "reason", "comparison", "model"} <= set(answer)
    assert {a["name"]: a["holds"] for a in answer["assumptions"]}["isotropy"] is False
    assert Path("run/audit.html").stat().st_size < 2**21
    assert run(["audit", model, *toy, "--json", "again.json", "--resume", "run"]) == 0
    assert json.loads(Path("again.json").read_text())["assumptions"] == answer["assumptions"]
    assert "noise" in fails(capsys, "audit", str(MODELS / "product.py"), *toy[:-2])


@pytest.mark.slow
def test_compare_names_the_smallest_repair_as_its_reason(capsys):
    """Anisotropic noise: all repairs together come first, and noise of one size is one of them."""
    model = [str(MODELS / "linear_regression.py"), "--model.covariance", "1", "0.1", "--model.num-examples", "64"]
    toy = [
        "--dynamics",
        "sgd",
        "--num-seeds",
        "1000",
        "--num-steps",
        "400",
        "--model.prior-scale",
        "30",
        "--no-controls",
    ]
    assert (
        run(["compare", *model, *toy, "--repairs", "--max-seconds", "600", "--json", "answer.json", "--out", "run"])
        == 0
    )
    (found,) = json.loads(Path("answer.json").read_text())["comparisons"]
    assert found["verdict"] == "mismatch"
    assert found["repairs"]
    assert set(found["repairs"][0]) == {"assumption", "verdict", "verdicts", "reason"}
    assert "noise of one size" in found["repairs"][0]["assumption"]
    assert "as it is: anisotropy" in found["reason"]
    assert "What would make SGD Bayesian?" in Path("run/compare.html").read_text()
    refused = fails(capsys, "compare", *model, *toy, "--repairs", "--reference", "none")
    assert "repairs start from draws of a reference" in refused


def test_an_unstable_learning_rate_is_called_so(capsys):
    """Of the isotropic regression the variance grows beyond eta = 1.45: chains are lost, and that is the reason."""
    model = [str(MODELS / "linear_regression.py"), "--model.isotropic", "--model.covariance", "1", "1", "1", "1"]
    toy = ["--num-seeds", "400", "--num-steps", "2000", "--max-seconds", "0.1", "--no-models", "--no-repairs"]
    toy += ["--learning-rate", "2.5", "--initial-scale", "1", "--model.num-examples", "64"]
    assert run(["audit", *model, *toy, "--json", "answer.json"]) == 0
    answer = json.loads(Path("answer.json").read_text())
    assert answer["comparison"]["verdict"] == "no-verdict"
    assert "400 of 400 chains were lost" in answer["reason"]
    assert {a["name"]: a["holds"] for a in answer["assumptions"]}["mean-square stability"] is False


def test_trajectories_made_elsewhere_are_one_side(capsys):
    """Here: exact draws, one a chain, written by another program as plain NetCDF."""
    from bayes_vs_sgd import Posterior, load_model, simulate

    model = load_model(DLN)
    settings = {"num_chains": 300, "num_draws": 1, "num_warmup": 60, "progress": False, "record_positions": True}
    tree = simulate(model.exact_sampler, Posterior(model, 0.3), key=0, **settings)
    tree["posterior"].to_dataset()[["W1", "W2"]].to_netcdf("elsewhere.nc", engine="h5netcdf")
    alone = ["compare", DLN, "--dynamics", "--trajectories", "elsewhere.nc", "--no-controls", "--out", "run"]
    assert run([*alone, "--json", "answer.json"]) == 0
    (found,) = json.loads(Path("answer.json").read_text())["comparisons"]
    assert found["dynamics"] == "elsewhere"
    beta, error = (found["inverse_temperature"][k] for k in ("fitted", "fitted_standard_error"))
    assert abs(beta - 0.3) < 4.9 * error
    assert found["verdict"] != "mismatch"
    assert found["spectrum"]["slope"] is None  # far from the minimum a mode's temperature needs far more draws than 300
    page = Path("run/compare.html").read_text()
    assert "elsewhere" in page
    assert '<td class="n">unresolved</td>' in page
    assert "there is no such file" in fails(capsys, *alone[:4], "missing.nc")
    Path("text.nc").write_text("weights")
    assert "holds no trajectories" in fails(capsys, *alone[:4], "text.nc")
    assert "nothing to compare" in fails(capsys, "compare", DLN, "--dynamics")
    assert not list(Path("runs").rglob("*.html"))


def test_where_nothing_can_be_written_it_is_said(capsys, monkeypatch):
    """A folder that cannot be made, and one that turns read-only under way."""
    assert "cannot make the run folder" in fails(capsys, "compare", DLN, "--out", "/proc/nowhere/run")

    def refuse(self, content):
        raise PermissionError(13, "Permission denied")

    write = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda p, c: refuse(p, c) if "compare.html" in p.name else write(p, c))
    arguments = ["compare", DLN, "--dynamics", "sgd", *TOY, "--out", "run"]
    assert "cannot write run/compare.html: Permission denied" in fails(capsys, *arguments)


def test_no_display_and_no_terminal_are_needed(monkeypatch):
    """In a process of its own, where matplotlib has not chosen how to draw."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "bayes_vs_sgd.cli", "compare", DLN, "--dynamics", "sgd", *TOY, "--out", "run"]
    settings = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "TERM")}
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=settings)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Path("run/compare.html").stat().st_size > 10_000


def test_llc_prints_only_json_on_standard_output(capsys):
    arguments = [
        "--num-chains",
        "4",
        "--num-draws",
        "200",
        "--json",
        "-",
        "--dtype",
        "float32",
    ]
    assert run(["llc", DLN, *arguments]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"value", "standard_error", "interval", "rhat", "ess", "baseline", "trusted", "warnings", "truth"} <= set(
        answer
    )
    assert answer["truth"]["value"] == 4.5


def test_free_energy_gives_every_number_its_interval_and_goes_on_where_it_was(capsys):
    toy = ["free-energy", DLN, "--num-particles", "50", "--num-moves", "1", "--num-replicates", "2"]
    assert run([*toy, "--json", "answer.json", "--out", "run"]) == 0
    found = json.loads(Path("answer.json").read_text())
    named = (
        "log_evidence",
        "thermodynamic_integration",
        "learning_coefficient",
        "multiplicity",
        "singular_fluctuation",
    )
    for name in (*named, "waic", "wbic"):
        assert {"value", "interval"} <= set(found[name]), name
    assert {"standard_error", "replicates"} <= set(found)
    kept = sorted((p.name, p.stat().st_mtime_ns) for p in Path("run/ladders").iterdir())
    assert run([*toy, "--json", "again.json", "--resume", "run"]) == 0
    assert sorted((p.name, p.stat().st_mtime_ns) for p in Path("run/ladders").iterdir()) == kept
    again = json.loads(Path("again.json").read_text())
    assert again | {"seconds": 0} == found | {"seconds": 0}
    assert "num_replicates is 1" in fails(capsys, *toy[:-1], "1")


def test_llc_along_a_run(capsys):
    """Of a comparison's folder; a law that is not local, and a folder that is not there, are refused."""
    assert run(["compare", DLN, "--dynamics", "sgd", *TOY, "--out", "run"]) == 0
    along = ["llc", DLN, "--along", "run/sgd", "--num-checkpoints", "2", "--num-draws", "20"]
    assert run([*along, "--localization", "100", "--json", "answer.json"]) == 0
    found = json.loads(Path("answer.json").read_text())["along"]
    assert [point["step"] for point in found] == [2, 40]
    assert {"loss", "effective_rank", "learning_coefficient", "free_energy", "rhat", "ess"} <= set(found[0])
    assert any("effective sample size" in warning for warning in found[0]["warnings"])
    unused = fails(capsys, *along, "--localization", "100", "--sampler", "sgld", "--baseline", "minimum")
    assert unused.startswith("bayes-vs-sgd: sampler, baseline: no part of a measurement along a run")
    assert "give --localization" in fails(capsys, *along)
    assert "nowhere" in fails(capsys, "llc", DLN, "--along", "nowhere", "--localization", "100")


def test_models_lists_the_files(capsys):
    assert run(["models", str(MODELS)]) == 0
    assert "deep_linear.py" in capsys.readouterr().out


def test_help_answers_at_once():
    import subprocess
    import sys

    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "bayes_vs_sgd.cli", "--help"], check=True, capture_output=True)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compar", DLN], "did you mean 'compare'"),
        (["compare"], "needs a model file"),
        (["compare", "nothing.py"], "no model file at"),
        (["compare", DLN, "--learnin-rate", "1"], "--learning-rate"),
        (["compare", DLN, "--learning-rate", "-1"], "learning_rate"),
        (["compare", DLN, "--learning-rate", "fast"], "--learning-rate fast: it takes FLOAT"),
        (["compare", DLN, "--model.widths", "3", "a"], "--model.widths 3 a: it takes [INT [INT ...]]"),
        (["llc", DLN, "--sampler"], "bayes-vs-sgd: Missing value for argument '--sampler'"),
        (["compare", DLN, "--batch-size", "5000"], "between 1 and the 1000 examples"),
        (["compare", DLN, "--dynamics", "sdg"], "did you mean 'sgd'"),
        (["compare", DLN, "--observables", "los"], "did you mean 'loss'"),
        (["compare", DLN, "--observables", "singular_values"], "only scalars can decide"),
        (["compare", DLN, "--model.widths", "3", "0", "3"], "widths"),
        (["compare", DLN, "--model.spectrum", "1", "1", "1", "1"], "rank"),
        (["compare", DLN, "--num-seeds", "0"], "num_seeds"),
        (["llc", DLN, "--sampler", "nut"], "did you mean 'nuts'"),
        (["llc", DLN, "--inverse-temperature", "-1"], "inverse_temperature"),
        (["llc", DLN, "--json", "nowhere/answer.json"], "no folder"),
        (["llc", DLN, "--resume", "nowhere"], "no run in this folder"),
        (["models", "nowhere"], "no folder"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, expected):
    assert expected in fails(capsys, *arguments)
    assert not list(Path().rglob("*.nc"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1 +\n", "line 1"),
        ("import jax\nx = 1 / 0\n", "line 2: x = 1 / 0"),
        ("x = 1\n", "has no Config"),
    ],
)
def test_a_broken_model_file_shows_the_users_line(capsys, source, expected):
    Path("mine.py").write_text(source)
    assert expected in fails(capsys, "llc", "mine.py")


def test_lost_chains_mean_no_verdict(capsys):
    """At three hundred times the stable learning rate every chain is lost: a result, not a traceback."""
    arguments = ["--dynamics", "sgd", "--learning-rate", "30", "--initial-scale", "1", *TOY, "--json", "lost.json"]
    assert run(["compare", DLN, *arguments]) == 0
    (found,) = json.loads(Path("lost.json").read_text())["comparisons"]
    assert found["verdict"] == "no-verdict"
    assert found["chains_lost"] == 200


def test_a_checkpoint_takes_the_place_of_the_optimum(capsys):
    values = {"W1": np.eye(3, 4), "W2": np.eye(3)}
    np.savez("checkpoint.npz", **values)
    short = ["--num-chains", "4", "--num-draws", "50", "--max-seconds", "3", "--localization", "100"]
    assert run(["llc", DLN, "--center", "checkpoint.npz", *short, "--json", "at.json"]) == 0
    found = json.loads(Path("at.json").read_text())
    assert found["model"]["center"] == "checkpoint.npz"
    assert found["baseline"]["source"] == "empirical loss at checkpoint.npz"
    assert found["truth"] is None
    assert "there is no such file" in fails(capsys, "llc", DLN, "--center", "missing.npz")
    Path("text.npz").write_text("weights")
    assert "is no .npz file" in fails(capsys, "llc", DLN, "--center", "text.npz")
    np.savez("wrong.npz", W1=np.eye(3, 4), W3=np.eye(3))
    assert "--center wrong.npz" in fails(capsys, "llc", DLN, "--center", "wrong.npz")
    np.savez("small.npz", W1=np.eye(3), W2=np.eye(3))
    assert "has shape (3, 3)" in fails(capsys, "llc", DLN, "--center", "small.npz")
