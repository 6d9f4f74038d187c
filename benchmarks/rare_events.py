"""How well rare events are told in thirty seconds, where their probability is known.

    python benchmarks/rare_events.py --json rare_events.json

Each case is an event of probability .1, one in a thousand or one in a million, one also in a thousand million, under a posterior
or on a sublevel set. It is estimated from its settings' defaults alone, many times over; printed are the relative error, the
share of the repetitions whose 95 % interval holds the truth, and the seconds. What is kept in ``--folder`` is not made again.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from throughput import machine

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.store import remembered_json
from bayes_vs_sgd.theory.rare_events import sublevel_exceedance, sublevel_mass

MODELS = Path(__file__).parents[1] / "models"
FITTED = {"spectrum": (1.0,), "noise": 0.5, "noise_free": True, "num_held_out": 2}
"""Data of one input without noise; a second input is never seen."""
NETWORK = {"widths": (1, 4, 1), "num_examples": 100} | FITTED
NOISY = {"widths": (2, 4, 1), "spectrum": (1.0,), "noise": 0.5, "num_examples": 50, "inputs": "gaussian"}
CASES: dict[str, tuple[str, dict[str, Any], str, float]] = {  # file, settings, property, inverse temperature
    "one layer": ("deep_linear", {"widths": (1, 1), "num_examples": 50} | FITTED, "trigger", 1.0),
    "one layer, seen in part": (
        "deep_linear", {"widths": (1, 1), "num_examples": 50, "trigger": (0.5**0.5,) * 2} | FITTED, "trigger", 1.0,
    ),
    "product of two, prior": ("product", {}, "size", 0.0),
    "product of three, prior": ("product", {"depth": 3}, "size", 0.0),
    "two layers, cold": ("deep_linear", NETWORK, "trigger", 100.0),
    "two layers": ("deep_linear", NETWORK, "trigger", 1.0),
    "two layers, sublevel set": ("deep_linear", NETWORK, "trigger", 0.0),
    "two layers, noisy data": ("deep_linear", NOISY, "trigger", 1.0),
}  # fmt: skip
PROBABILITIES = (0.1, 1e-3, 1e-6)
RARER = {"two layers, cold": (1e-9,)}
TOLERANCE = 0.1
"""The sublevel set is |map - teacher| <= this."""


def main() -> None:
    """Estimate, summarise, write."""
    parser = argparse.ArgumentParser(description="Accuracy of rare events.")
    parser.add_argument("--repetitions", type=int, default=20, help="of each case")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names")
    parser.add_argument("--probabilities", type=float, nargs="*", help="how rare; by default as each case has it")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="of each estimate")
    parser.add_argument("--folder", type=Path, default=Path("runs/rare_events"), help="where estimates are kept")
    parser.add_argument("--json", type=Path, help="file of the numbers")
    arguments = parser.parse_args()
    prepare_jax()
    jax.config.update("jax_enable_x64", True)
    found = []
    wanted = {name: arguments.probabilities or (*PROBABILITIES, *RARER.get(name, ())) for name in arguments.cases}
    for name, probability in [(name, probability) for name, rare in wanted.items() for probability in rare]:
        for key in range(arguments.repetitions):
            path = arguments.folder / f"{name.replace(', ', '-').replace(' ', '_')}-{probability:g}-{key}.json"
            found.append(remembered_json(path, partial(cell, name, probability, key, arguments.max_seconds)))
        print(
            name, probability, [round(c["estimate"] / c["exact"], 2) for c in found if c["key"] == key][-1], flush=True
        )
    Console(width=120).print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "cells": found}, indent=1) + "\n")


def cell(name: str, probability: float, key: int, max_seconds: float) -> dict[str, Any]:
    """One estimate, and the truth."""
    file, config, item, beta = CASES[name]
    model = bvs.load_model(MODELS / f"{file}.py", **config)
    settings: dict[str, Any] = {"inverse_temperature": beta}
    if name.endswith("sublevel set"):
        settings = {"law": "sublevel", "excess_loss": TOLERANCE**2 / (2 * config["noise"] ** 2)}
        exact: Callable[[float], float] = partial(sublevel_exceedance, tolerance=TOLERANCE, hidden=4)
    else:
        exact = partial(model.properties[item].exact, bvs.Posterior(model, beta))
    threshold = float(brentq(lambda c: np.log(max(exact(c), 1e-300) / probability), 1e-3, 100.0))
    started = time.monotonic()
    found = bvs.robustness(model, item, threshold, key=key, max_seconds=max_seconds, **settings)
    low, high = found.interval
    mass = {}
    if found.set_mass is not None:
        whole = {"set_mass": found.set_mass.value, "set_mass_error": found.set_mass.standard_error}
        mass = whole | {"exact_set_mass": sublevel_mass(TOLERANCE, 4)}
    return mass | {
        "case": name, "probability": probability, "key": key, "exact": exact(threshold), "threshold": threshold,
        "estimate": found.probability, "interval": [low, high], "method": found.method, "trusted": found.trusted,
        "warnings": found.warnings, "seconds": time.monotonic() - started,
    }  # fmt: skip


def table(found: list[dict]) -> Table:
    """A row a case and probability, and one for all."""
    shown = Table(title="Rare events in the time that is given", title_justify="left")
    for column in (
        "case",
        "probability",
        "repetitions",
        "trusted",
        "interval holds it",
        "rms relative error",
        "seconds, median",
        "most",
    ):
        shown.add_column(column)
    groups: dict[tuple[str, float], list[dict]] = {}
    for one in found:
        groups.setdefault((one["case"], one["probability"]), []).append(one)
    for (case, probability), cells in [*groups.items(), (("all", np.nan), found)]:
        if cells:
            errors = [c["estimate"] / c["exact"] - 1 for c in cells]
            held = sum(c["interval"][0] <= c["exact"] <= c["interval"][1] for c in cells)
            rms, seconds = np.sqrt(np.mean(np.square(errors))), [c["seconds"] for c in cells]
            trusted = sum(c["trusted"] for c in cells)
            row = [case, f"{probability:g}", str(len(cells)), str(trusted), str(held), f"{rms:.3f}"]
            shown.add_row(*row, f"{np.median(seconds):.0f}", f"{max(seconds):.0f}")
    return shown


if __name__ == "__main__":
    main()
