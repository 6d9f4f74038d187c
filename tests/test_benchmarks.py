"""The committed numbers of the benchmarks say what the texts beside them say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bayes_vs_sgd.claims import chosen

ROOT = Path(__file__).parents[1]


def numbers(name):
    return json.loads((ROOT / name).read_text())


STOCHASTIC = ("sgld", "rmsprop-sgld", "adam-sgld", "sghmc", "sghmc/500", "sgnht")


@pytest.fixture(scope="module")
def networks():
    return numbers("analyses/llc_benchmark.json")


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "analyses"))
    import llc_benchmark

    yield llc_benchmark
    sys.path.remove(str(ROOT / "analyses"))


def relative_errors(benchmark, entries, sampler):
    """Of all estimates of a sampler on networks where the truth is not 0."""
    made = [e for e in entries if e["runs"].get(sampler, {}).get("estimates") and e["reference"]["value"] > 0]
    return np.abs(np.concatenate([benchmark.errors(e, sampler) for e in made]))


@pytest.mark.exact
def test_gibbs_measures_the_coefficients_of_networks_of_up_to_a_million_weights(networks, benchmark):
    """Median error at most .3 % in every class, 2 % at 1M, in two minutes; 90 % intervals cover 85 to 95 % of over 400 pairs."""
    found = {size: [e for e in networks.values() if e["size"] == size] for size in benchmark.SECONDS}
    assert {size: len(entries) for size, entries in found.items()} == {"1K": 24, "10K": 24, "100K": 24, "1M": 4}
    relative = {size: relative_errors(benchmark, entries, "gibbs") for size, entries in found.items()}
    assert all(np.median(relative[size]) < 0.003 for size in ("1K", "10K", "100K"))
    assert np.max(relative["1M"]) < 0.02
    assert max(e["runs"]["gibbs"]["seconds"] for e in found["1M"]) < 120
    holds = {size: np.concatenate([benchmark.covered(e, "gibbs") for e in entries]) for size, entries in found.items()}
    together = np.concatenate(list(holds.values()))
    assert len(together) >= 400
    assert 0.85 < together.mean() < 0.95
    assert all(stats.binomtest(int(h.sum()), len(h), 0.9).pvalue > 1e-3 for h in holds.values())
    said = (ROOT / "analyses/README.md").read_text()
    medians = [f"{100 * np.median(relative[size]):.2f}".lstrip("0") for size in found]
    assert (
        "Gibbs within {} % (median) at a thousand, {} % at ten, {} % at a hundred thousand, {} % at".format(*medians)
        in said
    )


@pytest.mark.exact
def test_gibbs_has_the_closed_form_of_networks_with_one_output(networks, benchmark):
    """Twelve networks, whose errors are those of chance, one by one and together."""
    entries = [e for e in networks.values() if e["reference"]["source"].startswith("closed form")]
    assert len(entries) == 12
    assert all(len(e["widths"]) == 3 and e["widths"][-1] == 1 for e in entries)
    assert np.median(relative_errors(benchmark, entries, "gibbs")) < 0.003
    z = []
    for entry in entries:
        made = entry["runs"]["gibbs"]["estimates"]
        value = np.mean([x["value"] for x in made])
        error = np.sqrt(np.sum([x["standard_error"] ** 2 for x in made])) / len(made)
        z.append((value - entry["reference"]["value"]) / error)
    assert abs(np.sum(z)) / len(z) ** 0.5 < stats.norm.isf(1e-6 / 2)
    assert np.sum(np.square(z)) < stats.chi2.isf(1e-6, len(z))


@pytest.mark.exact
def test_a_stochastic_gradient_sampler_alone_is_near_or_says_that_it_is_not(networks, benchmark):
    """On twenty networks a class: at 1K within 5 % (median) by every one in twenty seconds; at 10K within the printed budget.

    Most budgets are no more than the bounds of lambda; those that are more hold on their own.
    """
    small, large = ([e for e in networks.values() if e["size"] == size] for size in ("1K", "10K"))
    for sampler in STOCHASTIC:
        entries = [e for e in small if sampler in e["runs"]]
        assert len(entries) == 20
        assert np.median([e["runs"][sampler]["seconds"] for e in entries]) < 25, sampler
        assert np.median(relative_errors(benchmark, entries, sampler)) < 0.05, sampler
    assert np.median(relative_errors(benchmark, large, "sgnht")) < 0.1
    for entries, sampler, fewest in (
        (small, "sghmc", 20),
        (small, "sgnht", 16),
        (large, "sgnht", 2),
        (large, "sghmc", 6),
        (small, "sghmc/500", 4),
    ):
        made = [e for e in entries if sampler in e["runs"]]
        told, all_told = (
            np.concatenate([benchmark.covered(e, sampler, bounds) for e in made]) for bounds in (False, True)
        )
        assert len(told) >= fewest
        assert told.mean() > 0.9
        assert all_told.mean() > 0.9
        assert len(all_told) == 20


@pytest.mark.exact
def test_every_sampler_is_tried_and_what_settles_is_right(networks, benchmark):
    """On twenty networks of a thousand weights each."""
    names = {*STOCHASTIC, "nuts", "mala", "mclmc"}
    small = [e for e in networks.values() if e["size"] == "1K"]
    assert set().union(*(e["runs"] for e in small)) == names | {"gibbs"}
    settled = []
    for name in names:
        asked = [e for e in small if name in e["runs"]]
        assert len(asked) == 20, name
        pairs = [(e["reference"]["value"], x) for e in asked for x in e["runs"][name]["estimates"]]
        settled += [(exact, x) for exact, x in pairs if benchmark.settled(x)]
        assert not any(benchmark.settled(x) and None in benchmark.rest(x) for _, x in pairs)
    assert len(settled) == 2
    assert all(abs(x["value"] / exact - 1) < 0.01 for exact, x in settled)


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
def test_all_claims_hold_in_eight_minutes():
    readings = numbers("benchmarks/claims.json")
    seconds = {reading["id"]: reading["seconds"] for reading in readings}
    assert list(seconds) == [c.id for c in chosen(["C", "D", "E", "F", "G", "H", "M"])]
    assert {reading["verdict"] for reading in readings} == {"holds"}
    total = sum(seconds.values())
    assert total < 480
    said = (ROOT / "benchmarks/README.md").read_text()
    assert f"in {total // 60:.0f} minutes {total % 60:.0f} s on two" in said.replace("\n", " ")


@pytest.mark.exact
def test_the_ratios_to_peers():
    peer = numbers("benchmarks/devinterp_llc.json")
    ratios = {(row["network"], row["ours"]): row["ratio"] for row in peer["ratios"]}
    assert ratios["16-16-16-16", "SGLD, minibatch"] > 15
    large = ratios["512 x 5", "SGLD, minibatch"]
    assert large > 2
    assert f"On 512 x 5 it is {large:.1f} times devinterp's speed" in (ROOT / "benchmarks/README.md").read_text()
    reached = {}
    for row in peer["time_to_accuracy"]:
        reached.setdefault(row["system"], []).append(row["seconds_to_target"] or np.inf)
    fastest = {system: min(seconds) for system, seconds in reached.items()}
    assert fastest["ours: block Gibbs"] < fastest["devinterp"]
    assert fastest["ours: SGLD, all data compressed"] < fastest["devinterp"]
    ensemble = numbers("benchmarks/pytorch_ensemble.json")["ours_over"]
    assert ensemble["PyTorch, plain loop"] > 500
    assert ensemble["PyTorch, torch.func.vmap"] > 6
    steps = {row["model"]: row["ratio"] for row in numbers("benchmarks/anisotropic_step.json")["rows"]}
    assert all(ratio < 1.5 for model, ratio in steps.items() if model != "regression, 5 weights")
