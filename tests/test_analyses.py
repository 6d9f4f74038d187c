"""Every analysis runs from a clone and writes its figure and its numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bayes_vs_sgd.comparison.effects import MARGINS

TOY = {
    "temperature_spectrum": ("--num-seeds", "20"),
    "noise_anisotropy": ("--num-seeds", "20"),
    "heavy_tails": ("--num-seeds", "50", "--batches", "1", "4"),
    "subdiffusion": ("--num-seeds", "120"),
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
def test_spread_and_tail_index_of_sgd_cross_their_levels_where_theory_says():
    """In every batch and dimension the points stand on both sides of the boundary, and all are within 4 standard errors."""
    numbers = json.loads((ANALYSES[0].parent / "heavy_tails.json").read_text())
    assert all(agrees(entry) for entry in numbers["points"] + numbers["boundaries"])
    for boundary in numbers["boundaries"]:
        same = [p for p in numbers["points"] if all(p[k] == boundary[k] for k in ("kind", "dimension", "batch"))]
        level, sign = (MARGINS["log_sd_ratio"], 1) if boundary["kind"] == "spread" else (2, -1)
        below, above = min(same, key=lambda p: p["rate"]), max(same, key=lambda p: p["rate"])
        assert below["rate"] < boundary["predicted"] < above["rate"]
        assert sign * below["measured"] < sign * level < sign * above["measured"]


@pytest.mark.exact
def test_a_clock_that_waits_is_late_and_ages_but_moves_like_many_curvatures():
    """Spreads, crossings and displacements within 4 standard errors; one exponent; of the two SGD does not age."""
    numbers = json.loads((ANALYSES[0].parent / "subdiffusion.json").read_text())
    for point in numbers["points"]:
        assert agrees(point)
        spreads = zip(point["spread"], point["spread_error"], point["spread_predicted"], strict=True)
        assert all(agrees({"measured": m, "error": e, "predicted": p}) for m, e, p in spreads)
        assert point["spread"][0] > MARGINS["log_sd_ratio"] > point["spread"][-1]
        assert point["times"][0] < point["predicted"] < point["times"][-1]
    waiting, sgd = numbers["displacements"]
    for found in (waiting, sgd):
        assert all(agrees(point) for point in found["points"])
        assert agrees({key: found["exponent" + end] for key, end in ENDS.items()})
        assert found["exponent"] + 4 * found["exponent_error"] < 1
    difference = abs(waiting["exponent"] - sgd["exponent"])
    assert difference < 4 * (waiting["exponent_error"] ** 2 + sgd["exponent_error"] ** 2) ** 0.5 < 0.1
    for found, ages in ((waiting, True), (sgd, False)):
        half = len(found["points"]) // 2
        for new, old in zip(found["points"][:half], found["points"][half:], strict=True):
            assert new["lag"] == old["lag"]
            assert new["age"] < old["age"]
            assert (new["measured"] - old["measured"] > 4 * (new["error"] + old["error"])) == ages


ENDS = {"measured": "", "error": "_error", "predicted": "_predicted"}


def agrees(entry):
    return abs(entry["measured"] - entry["predicted"]) < 4 * entry["error"]
