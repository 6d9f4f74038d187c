r"""Is SGD Bayesian on networks that are not linear, fitted to real data? The 442 patients of scikit-learn's diabetes data.

    python analyses/real_networks.py

A tanh and a ReLU network of two hidden units, of which NUTS draws the posterior, and five rules: Langevin dynamics as the
control, SGD on the loss alone, and with the prior in what it descends SGD, momentum and Adam. Each runs twice: from prior draws,
as in training, and from draws of the posterior at the temperature of theory, with the same noise: where both end alike, the start
is forgotten. The temperature is fitted on half of the runs, the other half is compared with the posterior at that
temperature. Writes the figure and its numbers beside this file; what is kept in ``--folder`` is not made again.
"""

import argparse
import time
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison.plan import Walk
from bayes_vs_sgd.comparison.run import Study
from bayes_vs_sgd.comparison.verdict import MATCHES, MISMATCH
from bayes_vs_sgd.report.figures import COLOURS, GREY, margin_ticks, new_figure, write_analysis
from bayes_vs_sgd.settings import Compare
from bayes_vs_sgd.store import remembered_json

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
NETWORKS = ("tanh", "relu")
ALONE = "SGD, loss alone"
RULES = {"sgld": "Langevin", ALONE: ALONE, "sgd": "SGD", "sgd-momentum": "momentum", "adam": "Adam"}
STARTS = ("posterior", "prior")
MARKERS = {
    "root_excess_loss": "o",
    "first_prediction": "s",
    "held_out_error": "^",
    "prediction_unseen": "D",
    "root_squared_norm": "x",
}
"""Of the primary observables: the last two are off the data, and of flat directions."""
RATE, BATCH = 0.4, 4
"""Learning rate times the sharpness, and examples a step: a warm posterior, in which NUTS mixes."""


def main() -> None:
    """Compare, draw, write."""
    parser = argparse.ArgumentParser(description="Is SGD Bayesian on networks that are not linear?")
    parser.add_argument("--num-seeds", type=int, default=2000, help="independent runs")
    parser.add_argument("--num-steps", type=int, default=8000, help="steps of each")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="activations")
    parser.add_argument("--rules", nargs="*", default=list(RULES), help="dynamics")
    parser.add_argument("--folder", type=Path, default=Path("runs/real_networks"), help="where runs are kept")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    found = []
    for activation in arguments.networks:
        folder = arguments.folder / f"{activation}-{arguments.num_seeds}-{arguments.num_steps}"
        place = Place(activation, arguments.num_seeds, arguments.num_steps, folder)
        for rule in arguments.rules:
            for start in STARTS:
                found.append(remembered_json(folder / f"{rule}-{start}.json", partial(place.cell, rule, start)))
                print(activation, rule, start, found[-1]["verdict"], found[-1]["reason"], sep="; ", flush=True)
    write_analysis(arguments.out, "real_networks", found, draw(found))


class Place:
    """A network, and its comparisons."""

    def __init__(self, activation: str, num_seeds: int, num_steps: int, folder: Path):
        self.activation, self.folder = activation, folder
        self.settings = Compare(
            dynamics=("sgd",), batch_size=BATCH, objective="posterior", num_seeds=num_seeds, num_steps=num_steps
        )

    @cached_property
    def study(self) -> Study:
        """At the temperature that theory has for the learning rate."""
        model = bvs.load_model(MODELS / "diabetes_network.py", activation=self.activation)
        rate = float(f"{RATE / Study(model, self.settings).sharpness:.3g}")
        return Study(model, replace(self.settings, learning_rate=rate), folder=self.folder, progress=False)

    @cached_property
    def start(self) -> dict[str, np.ndarray]:
        """Draws of the posterior at that temperature, one for each run."""
        drawn = self.study.reference(self.study.scale, "the start")["posterior"]
        drawn = {site: np.asarray(drawn[site].values) for site, _ in self.study.model.latents}
        values = {site: value.reshape(-1, *value.shape[2:]) for site, value in drawn.items()}
        rows = np.random.default_rng(0).choice(len(next(iter(values.values()))), self.settings.num_seeds, replace=False)
        return {site: value[rows] for site, value in values.items()}

    def cell(self, rule: str, start: str) -> dict[str, Any]:
        """One rule from one start."""
        started, study = time.monotonic(), self.study
        name = f"{rule} from the {start}"
        dynamics = bvs.SGD(study.learning_rate, BATCH) if rule == ALONE else study.dynamics(rule)
        study.own[name] = Walk(dynamics, self.start if start == "posterior" else None)
        found = study.compare(name, deadline=started)
        return {"network": self.activation, "rule": rule, "start": start, "seconds": time.monotonic() - started} | {
            key: value for key, value in found.to_json().items() if key in KEPT
        }


KEPT = ("verdict", "verdicts", "reason", "stationary", "confined", "num_steps", "num_seeds", "chains_lost")
KEPT += ("inverse_temperature", "reference", "effects", "temperatures", "tests", "held_out", "learning_coefficient")


def draw(found: list[dict]) -> Figure:
    """A panel a network and start: effects of each rule in units of their margins, shaded, with 90 % intervals."""
    networks, rules = (list(dict.fromkeys(entry[key] for entry in found)) for key in ("network", "rule"))
    figure = new_figure(9, 0.8 + 0.75 * len(rules) * len(networks))
    axes = figure.subplots(len(networks), len(STARTS), sharex=True, sharey=True, squeeze=False)
    for panel, (network, start) in zip(axes.flat, product(networks, STARTS), strict=True):
        own = {entry["rule"]: entry for entry in found if (entry["network"], entry["start"]) == (network, start)}
        panel.axvspan(-1, 1, color=GREY, alpha=0.25, linewidth=0)
        for row, entry in enumerate(own[rule] for rule in rules):
            shade = {**dict.fromkeys(MATCHES, COLOURS[2]), MISMATCH: COLOURS[1]}.get(entry["verdict"], GREY)
            effects = [e for e in entry["effects"] if e["value"] is not None]
            for place, e in zip(np.linspace(-0.35, 0.35, len(effects)), effects, strict=True):
                low, high = (bound / e["margin"] for bound in e["interval"])
                panel.plot([low, high], [row + place] * 2, color=shade, linewidth=1.2)
                panel.plot(e["value"] / e["margin"], row + place, MARKERS[e["observable"]], color=shade, markersize=4)
        panel.set_title(f"{network}, from {start} draws", fontsize=9)
        panel.set_yticks(range(len(rules)), [RULES[rule] for rule in rules])
        panel.set_ylim(len(rules) - 0.5, -0.5)
        panel.set_xscale("symlog", linthresh=2)
        margin_ticks(panel.xaxis, panel.get_xlim())
        if network == networks[-1]:
            panel.set_xlabel("effect / margin")
    for label, shade in (("match", COLOURS[2]), ("not decided", GREY), ("mismatch", COLOURS[1])):
        axes[0, 0].plot([], [], "-", color=shade, label=label)
    for label, marker in MARKERS.items():
        axes[0, 0].plot([], [], marker, color="black", markersize=4, label=label.replace("_", " "))
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
