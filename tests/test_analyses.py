"""Every analysis runs from a clone and writes its figure and its numbers."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bayes_vs_sgd.comparison.effects import MARGINS

TOY = {
    "temperature_spectrum": ("--num-seeds", "20"),
    "noise_anisotropy": ("--num-seeds", "20"),
    "label_noise": ("--num-seeds", "4", "--length", "0.01"),
    "optimizers": ("--num-seeds", "20"),
    "saddle_to_saddle": ("--num-steps", "40", "--num-checkpoints", "3", "--num-draws", "20"),
    "llc_benchmark": ("--classes", "1K", "--num-networks", "2", "--times", "0.04", "--num-seeds", "2"),
}
ANALYSES = sorted((Path(__file__).parents[1] / "analyses").glob("*.py"))


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.parametrize("script", ANALYSES, ids=lambda path: path.stem)
def test_an_analysis_runs_at_toy_size(script, tmp_path):
    command = [sys.executable, str(script), *TOY[script.stem], "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / f"{script.stem}.json").read_text())
    assert "</svg>" in (tmp_path / f"{script.stem}.svg").read_text()


@pytest.mark.exact
def test_the_figure_of_the_readme_is_of_the_numbers_beside_it():
    """The committed numbers hold what the caption says: slope 0 for Bayes, about 1 for SGD wherever there is depth."""
    numbers = json.loads((ANALYSES[0].parent / "temperature_spectrum.json").read_text())
    one, *deep = numbers.values()
    assert all(spectrum["slope"] is None for spectrum in one)
    for panel in deep:
        slopes = {spectrum["dynamics"]: (spectrum["slope"], spectrum["slope_error"]) for spectrum in panel}
        assert abs(slopes["sgld"][0]) < 4 * slopes["sgld"][1]
        assert abs(slopes["sgd"][0] - 1) < 0.1


@pytest.mark.exact
def test_the_rules_give_the_modes_the_temperatures_that_theory_predicts():
    """SGD and momentum leave the margin before a ratio of 2, RMSprop and Adam before 4, Bayes never."""
    points = json.loads((ANALYSES[0].parent / "optimizers.json").read_text())
    assert all(abs(p["misfit"] - p["predicted"]) < 4 * p["error"] for p in points)
    assert sum((p["misfit"] - p["predicted"]) ** 2 / p["error"] ** 2 for p in points) < 2 * len(points)
    inside = {"Bayes (Langevin)": 8.0, "SGD": 1.25, "momentum 0.9": 1.25, "RMSprop": 1.25, "Adam": 1.25}
    for p in (p for p in points if p["series"] == "rules" and p["ratio"] != 2):
        assert (p["misfit"] < MARGINS["log_temperature"]) == (p["ratio"] <= inside[p["name"]])
    large = {p["name"]: p["misfit"] for p in points if p["series"] == "rules" and p["ratio"] == 8}
    assert large["Adam"] < 0.6 * large["SGD"]


@pytest.mark.exact
def test_label_noise_makes_networks_forget_their_start_when_theory_says():
    """More than 1/e of the imbalance is left before N* steps, less after; all of it without noise."""
    points = json.loads((ANALYSES[0].parent / "label_noise.json").read_text())
    still = [p for p in points if p["source"] == "gradient descent"]
    noisy = [p for p in points if p not in still]
    assert still
    assert all(0.999 < p["kept"] <= 1 for p in still)
    assert all(abs(p["kept"] - p["predicted"]) < 4 * p["error"] for p in noisy)
    near, far = ([p for p in noisy if (p["start"] > 1.5) == off] for off in (False, True))
    assert {p["share"] < 1 for p in near} == {True, False}
    assert all((p["kept"] > math.exp(-1)) == (p["share"] < 1) for p in near)
    assert all(p["kept"] > math.exp(-p["share"]) + 4 * p["error"] for p in far if p["depth"] > 2)
