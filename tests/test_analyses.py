"""Every analysis runs from a clone and writes its figure and its numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOY = {
    "temperature_spectrum": ("--num-seeds", "20"),
    "noise_anisotropy": ("--num-seeds", "20"),
    "detailed_balance": ("--num-seeds", "20"),
    "continuous_limit": ("--num-seeds", "20"),
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
def test_broken_detailed_balance_brings_a_law_nearer_to_the_posterior():
    """Points are at their predictions, these on cosh m sqrt(1 + j^2) = cosh(log(kappa) / 2), on both sides of the margin."""
    points = json.loads((ANALYSES[0].parent / "detailed_balance.json").read_text())
    for p in points:
        for name in ("misfit", "modes", "current"):
            assert abs(p[name] - p[f"{name}_predicted"]) < 4 * p[f"{name}_error"], p
        alone, current = np.log(p["kappa"]) / 2, p["current_predicted"]
        assert current**2 == pytest.approx(p["production_of_small_steps"], rel=0.02, abs=1e-12)  # eta x sharpness
        assert np.cosh(p["misfit_predicted"]) * np.hypot(1, current) == pytest.approx(np.cosh(alone), rel=0.01)
    rotated = [p for p in points if p["kappa"] == 3 and p["angle"] == 45 and p["setting"] == "default"]
    assert [p["misfit"] + 4 * p["misfit_error"] < 0.2 for p in rotated] == [False, False, True]
    assert all(abs(p["modes"]) + 4 * p["modes_error"] < 0.2 for p in rotated)  # which their temperatures do not tell
    assert rotated[-1]["current"] > 20 * rotated[-1]["current_error"]
    assert min(p["misfit"] - 4 * p["misfit_error"] for p in points if p["kappa"] == 3 and p["angle"] == 0) > 0.2


@pytest.mark.exact
def test_flows_fail_where_backward_error_analysis_says():
    """Orders 1 and 2, times within a hundredth of the margin, laws within four standard errors, boundaries by depth."""
    found = json.loads((ANALYSES[0].parent / "continuous_limit.json").read_text())
    for depth in (1, 2, 3, 4):
        small = [p for p in found["path"] if p["depth"] == depth and p["x"] < 0.11]
        x = np.log([p["x"] for p in small])
        for name, order in (("first", 1), ("second", 2)):
            assert np.polyfit(x, np.log([abs(p[name]) for p in small]), 1)[0] == pytest.approx(order, abs=0.05)
    for name in ("first", "second"):
        assert max(abs(p[name] - p[f"{name}_predicted"]) for p in found["path"]) < 0.001
        assert all(abs(p[name] - p[f"{name}_predicted"]) < 4 * p[f"{name}_error"] for p in found["law"])
    path = {(b["order"], b["depth"]): b for b in found["boundaries"] if b["of"] == "path"}
    assert all(b["x"] == pytest.approx(b["predicted"], rel=0.01) for b in path.values())
    flows = [path["first", depth]["x"] for depth in (1, 2, 3, 4)]
    assert flows == sorted(flows)
    laws = [b for b in found["boundaries"] if b["of"] == "law"]
    assert len(laws) == 8
    assert all(b["low"] < b["predicted"] < b["high"] for b in laws)
