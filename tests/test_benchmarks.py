"""The committed numbers of the benchmarks say what the texts beside them say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def numbers(name):
    return json.loads((ROOT / name).read_text())


@pytest.fixture(scope="module")
def networks():
    return numbers("analyses/llc_benchmark.json")


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "analyses"))
    import llc_benchmark

    yield llc_benchmark
    sys.path.remove(str(ROOT / "analyses"))


@pytest.mark.exact
def test_gibbs_measures_the_coefficients_of_networks_of_up_to_a_million_weights(networks, benchmark):
    """Median error at most .3 % up to 100K (all), 2 % at 1M, in two minutes; 90 % intervals cover 85 to 95 % of 472 pairs."""
    found = {size: [e for e in networks.values() if e["size"] == size] for size in benchmark.SECONDS}
    assert {size: len(entries) for size, entries in found.items()} == {"1K": 20, "10K": 20, "100K": 20, "1M": 3}
    relative = {
        size: np.abs(np.concatenate([benchmark.errors(e, "gibbs") for e in entries if e["reference"]["value"] > 0]))
        for size, entries in found.items()
    }
    assert np.median(np.concatenate([relative[size] for size in ("1K", "10K", "100K")])) < 0.003
    assert all(np.median(relative[size]) < 0.004 for size in ("1K", "10K", "100K"))
    assert np.max(relative["1M"]) < 0.02
    assert max(e["runs"]["gibbs"]["seconds"] for e in found["1M"]) < 120
    holds = np.concatenate([benchmark.covered(e, "gibbs") for e in networks.values()])
    assert len(holds) >= 400
    assert 0.85 < holds.mean() < 0.95


@pytest.mark.exact
def test_a_stochastic_gradient_sampler_alone_is_near_or_says_that_it_is_not(networks, benchmark):
    made = [e for e in networks.values() if e["runs"].get("sghmc", {}).get("estimates") and e["reference"]["value"] > 0]
    small = [e for e in made if e["size"] == "1K"]
    assert np.median(np.abs(np.concatenate([benchmark.errors(e, "sghmc") for e in small]))) < 0.05
    for size, fewest in (("1K", 16), ("10K", 12)):
        entries = [e for e in made if e["size"] == size]
        holds = np.concatenate([benchmark.covered(e, "sghmc") for e in entries])
        assert len(entries) == 20
        assert len(holds) >= fewest  # the others say that their budget is not known, and print no interval
        assert holds.mean() > 0.9
    for entry in made:
        (estimate,) = entry["runs"]["sghmc"]["estimates"]
        assert not (estimate["trusted"] and None in [estimate[name] for name in benchmark.BUDGET])


@pytest.mark.exact
def test_rare_events_are_told_in_thirty_seconds():
    """Twenty repetitions of 25 events: 90 % of the intervals hold, 1e-6 is told to 15 % and 1e-9 within 1.5, the set to 2 %."""
    cells = numbers("benchmarks/rare_events.json")["cells"]
    events = {}
    for cell in cells:
        events.setdefault((cell["case"], cell["probability"]), []).append(cell)
    assert len(events) == 25
    assert all([cell["key"] for cell in repeated] == list(range(20)) for repeated in events.values())
    held = np.mean([cell["interval"][0] <= cell["exact"] <= cell["interval"][1] for cell in cells])
    rms = {
        event: np.sqrt(np.mean([(cell["estimate"] / cell["exact"] - 1) ** 2 for cell in repeated]))
        for event, repeated in events.items()
    }
    assert held > 0.9
    million = [error for (_, probability), error in rms.items() if probability == 1e-6]
    assert max(million) < 0.15
    rarest = events["two layers, cold", 1e-9]
    assert all(1 / 1.5 < cell["estimate"] / cell["exact"] < 1.5 for cell in rarest)
    masses = [cell["set_mass"] / cell["exact_set_mass"] for cell in events["two layers, sublevel set", 1e-6]]
    assert np.mean(masses) == pytest.approx(1, abs=0.02)
    said = (ROOT / "benchmarks/README.md").read_text().replace("\n", " ")
    assert f"{held * len(cells):.0f} intervals of 95 % hold the truth" in said
    assert f"at most {100 * max(million):.1f} % of one in a million" in said
    assert f"and {100 * rms['two layers, cold', 1e-9]:.1f} % of 1e-9" in said


@pytest.mark.exact
def test_the_ratios_to_peers():
    peer = numbers("benchmarks/devinterp_llc.json")
    ratios = {(row["network"], row["ours"]): row["ratio"] for row in peer["ratios"]}
    assert ratios["16-16-16-16", "SGLD, minibatch"] > 15
    large = ratios["512 x 5", "SGLD, minibatch"]
    assert large > 1.5
    assert f"On 512 x 5 it is {large:.1f} times devinterp's speed" in (ROOT / "benchmarks/README.md").read_text()
    reached = {}
    for row in peer["time_to_accuracy"]:
        reached.setdefault(row["system"], []).append(row["seconds_to_target"] or np.inf)
    fastest = {system: min(seconds) for system, seconds in reached.items()}
    assert fastest["ours: exact Gibbs"] < fastest["devinterp"]
    assert fastest["ours: SGLD, all data compressed"] < fastest["devinterp"]
    ensemble = numbers("benchmarks/pytorch_ensemble.json")["ours_over"]
    assert ensemble["PyTorch, plain loop"] > 500
    assert ensemble["PyTorch, torch.func.vmap"] > 6
    steps = {row["model"]: row["ratio"] for row in numbers("benchmarks/anisotropic_step.json")["rows"]}
    assert all(ratio < 1.5 for model, ratio in steps.items() if not model.startswith("regression"))
