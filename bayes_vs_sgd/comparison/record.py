"""What is on record: how often the tests of ``compare`` err, and which samplers stood simulation-based calibration.

``analyses/calibration.py``, ``analyses/equivalence.py`` and ``analyses/simulation_based_calibration.py`` write the records, the
page quotes them, and ``compare`` looks up the sampler of its reference.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..model import Model

TESTS, MATCHES, SAMPLERS = (
    Path(__file__).with_name(name) for name in ("calibration.json", "equivalence.json", "sbc.json")
)
GLOBAL = ("mmd", "stein", "ksd")
FAILED = 1e-3
"""p-value below which a sampler failed."""
NAMES = {
    "LinearNetworkGibbs": "gibbs",
    "NUTS": "nuts",
    "MALA": "mala",
    "AdjustedMCLMC": "mclmc",
    "Grid": "grid",
    "TemperedParticles": "smc",
}
"""Samplers on record, by the names of their dynamics."""


def of_tests() -> dict[str, Any]:
    """Levels and powers, and true and false matches; see ``summary_of_tests`` and ``summary_of_matches``."""
    return json.loads(TESTS.read_text()) | json.loads(MATCHES.read_text())


def of_samplers() -> dict[str, Any]:
    """Model family by sampler: p-value, number of data sets, observables, and the digest of the family's file."""
    return json.loads(SAMPLERS.read_text())


def of_sampler(model: Model, dynamics: str) -> dict[str, Any] | None:
    """What is on record of a sampler on the family of a model, its file as it was then; None where nothing is."""
    family = Path(str(model.facts.get("path"))).stem
    found = of_samplers().get(family, {}).get(NAMES.get(dynamics, dynamics))
    return found if found and found["source"] == model.facts.get("digest") else None


def summary_of_tests(numbers: dict[str, Any]) -> dict[str, Any]:
    """Shorten what the analysis found to its worst cases.

    Parameters
    ----------
    numbers
        Content of ``analyses/calibration.json``.

    Returns
    -------
    dict
        ``level``, the largest share of identical laws that a test rejects, by test; ``naive``, that of tests that take draws for
        independent; ``power``, of the most powerful test for each alternative at ``seeds``.
    """
    levels = numbers["levels"]
    seeds = max(entry["seeds"] for entry in numbers["powers"])
    power: dict[str, list[Any]] = {}
    for entry in numbers["powers"]:
        found = [entry["share"], entry["test"]]
        if entry["seeds"] == seeds and entry["test"] in GLOBAL:
            power[entry["alternative"]] = max(found, power.get(entry["alternative"], found), key=lambda x: x[0])
    return {
        "level": {test: _largest(levels, test) for test in (*GLOBAL, "holm")},
        "naive": max(_largest(levels, test) for test in {e["test"] for e in levels} - {*GLOBAL, "holm"}),
        "repetitions": min(e["repetitions"] for e in levels if e["test"] in GLOBAL),
        "seeds": seeds,
        "power": power,
    }


def summary_of_matches(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shorten ``analyses/equivalence.json``: shares called a match, of identical laws by model, the largest at a margin."""
    return {
        "true_match": {e["law"]: e["share"] for e in found if e["case"] == "identical laws"},
        "false_match": max(e["share"] for e in found if e["case"].endswith("margin")),
    }


def _largest(levels: list[dict[str, Any]], test: str) -> float:
    return max(entry["share"] for entry in levels if entry["test"] == test)


def summary_of_samplers(numbers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shorten content of ``analyses/simulation_based_calibration.json``, without the case that is wrong, to the record."""
    found: dict[str, Any] = {}
    for case in numbers:
        entry = {name: case[name] for name in ("p", "num_simulations", "source")}
        entry["observables"] = list(case["counts"])
        found.setdefault(case["model"], {})[case["sampler"]] = entry
    return found
