"""How often the tests err and what they see, as ``analyses/calibration.py`` measured it: the record that the page quotes."""

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("calibration.json")
GLOBAL = ("mmd", "stein", "ksd")


def record() -> dict[str, Any]:
    """The record that the library ships; see ``summary``."""
    return json.loads(PATH.read_text())


def summary(numbers: dict[str, Any]) -> dict[str, Any]:
    """Shorten what the analysis found to its worst cases.

    Parameters
    ----------
    numbers
        Content of ``analyses/calibration.json``.

    Returns
    -------
    dict
        ``level``, the largest share of identical laws that a test rejects, by test; ``naive``, that of tests that take draws for
        independent; ``power``, of the most powerful test for each alternative at ``seeds``; ``true_match`` and
        ``false_match``, shares called a match of identical laws and, the larger, of laws with one effect at its margin.
    """
    levels, matches = numbers["levels"], numbers["matches"]
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
        "true_match": next(e["share"] for e in matches if e["case"] == "identical laws"),
        "false_match": max(e["share"] for e in matches if e["case"] != "identical laws"),
    }


def _largest(levels: list[dict[str, Any]], test: str) -> float:
    return max(entry["share"] for entry in levels if entry["test"] == test)
