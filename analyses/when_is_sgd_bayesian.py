r"""When is SGD Bayesian? A map over learning rate, batch, depth, degeneracy of the teacher, optimiser and kind of noise.

    python analyses/when_is_sgd_bayesian.py

Every cell is an ensemble that starts from the tempered posterior at its theoretical temperature and runs for five relaxation
times of its slowest mode: what moves away is not the posterior. The temperature is fitted on half of the seeds (Stein's identity
along grad L), the other half is held against the posterior at that temperature, in the observables of the function: the loss, and
place, spread and temperature of the sharpest and the flattest mode. The flat directions, which take 1/(learning rate x
temperature) steps to move, are left to ``compare``; the prior's pull is in what is descended.

The cells of a kind are one program, compiled once (once a batch size, where batches are drawn), and what is cut off goes on
after the last of them (``--folder``). The reason of a mismatch is the smallest repair in the map itself that makes a match:
plain SGD for the rule, Gaussian noise of the same covariance, isotropic noise of the same trace and then of one size everywhere,
a quarter of the learning rate and of the batch (the same temperature). It stands in the cell; in the numbers also what the audit
says at the minimum and where the runs end. Writes the figure and its numbers beside this file.
"""

import argparse
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.table import Table

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.central_limit import central_limit
from bayes_vs_sgd.assumptions.entries import constancy, preconditioner
from bayes_vs_sgd.assumptions.isotropy import isotropy
from bayes_vs_sgd.assumptions.local import local
from bayes_vs_sgd.assumptions.step_size import small_steps
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison import verdict as rules
from bayes_vs_sgd.comparison.compare import primary
from bayes_vs_sgd.comparison.differences import log_temperatures, observed_effects
from bayes_vs_sgd.comparison.gates import LOST_LIMIT
from bayes_vs_sgd.comparison.roots import judged, with_roots
from bayes_vs_sgd.comparison.temperature import SteinTerms
from bayes_vs_sgd.comparison.whole_law import ensemble_scores
from bayes_vs_sgd.curvature import gradient_noise, hessian_eigenvalues, reference_point
from bayes_vs_sgd.dynamics.white_noise import WhiteNoise
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import COLOURS, new_figure, write_analysis
from bayes_vs_sgd.results import final_positions, whole
from bayes_vs_sgd.store import remembered_json

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
RATES, BATCHES = (0.1, 0.2, 0.4), (4, 16)
"""Learning rates times the sharpness, and batch sizes."""
GRID = [(rate, batch) for batch in BATCHES for rate in RATES]
FEWER, NEAR = 4, 2
"""Times fewer seeds of networks with depth, of which each costs as much more and differs by more; in noise of one size; and of
those without depth where noise takes all examples one by one."""
MOMENTUM = 0.9
RELAXATIONS = 5
"""Length of a run in relaxation times 1 / (learning rate x curvature) of its slowest mode, at the smallest rate."""
FLAT = 0.1
"""Curvatures below this share of the largest are flat."""
STARTS, WARMUP = 100, 50
"""Chains of the exact sampler that runs start from, and their warm-up."""
CHAINS, DRAWS, SETTLING = 16, 800, 20
"""Chains and draws of a reference, after a few from the posterior at the theoretical temperature."""
EXAMPLES = 64
"""A power of two, which equal curvatures need."""


def networks() -> dict[str, bvs.Model]:
    """From the one that is Bayesian to those that are ever less so."""
    deep = {"num_examples": EXAMPLES, "noise": 1.0, "unseen_inputs": 0}
    line = {"num_examples": EXAMPLES, "prior_scale": 3.0}
    three = (2.0, 1.0, 0.5)
    load = bvs.load_model
    return {
        "one layer, equal curvatures": load(
            MODELS / "linear_regression.py", isotropic=True, covariance=(1.0,) * 4, **line
        ),
        "one layer, curvatures 8 : 1": load(MODELS / "linear_regression.py", covariance=(2.0, 1.0, 0.5, 0.25), **line),
        "two layers, teacher of rank 1": load(MODELS / "deep_linear.py", widths=(3, 3, 3), spectrum=(2.0,), **deep),
        "two layers, teacher of rank 3": load(MODELS / "deep_linear.py", widths=(3, 3, 3), spectrum=three, **deep),
        "three layers, teacher of rank 3": load(MODELS / "deep_linear.py", widths=(3, 3, 3, 3), spectrum=three, **deep),
    }


@dataclass(frozen=True)
class Kind:
    """A row of the map: an update rule with a way of drawing gradients."""

    rule: str
    noise: str

    @property
    def name(self) -> str:
        """As in the figure."""
        return f"{self.rule}, {self.noise}"

    @property
    def batch_is_static(self) -> bool:
        """Whether batch sizes are runs of their own."""
        return self.noise == MINIBATCH

    def fewer(self, shallow: bool) -> int:
        """Times fewer seeds of a network without depth, or with it."""
        if shallow:
            return NEAR if self.noise == ISOTROPIC else 1
        return NEAR if self.noise == ONE_SIZE else FEWER

    def make(self, rate: float, batch: float, num_examples: int, noise: float) -> bvs.Optimizer:
        """The dynamics of a cell; ``noise`` is the variance of a gradient in each direction."""
        if self.noise == ONE_SIZE:
            sampling: Any = WhiteNoise.heating(2 * batch / (rate * noise), rate)
        else:
            sampling = NOISES[self.noise](batch, num_examples)
        return RULES[self.rule](rate, batch, noise, {"sampling": sampling, "objective": "posterior"})


MINIBATCH, GAUSSIAN, ISOTROPIC, LABELS = "batches", "Gaussian noise", "isotropic noise", "label noise"
ONE_SIZE = "isotropic noise of one size"
NOISES: dict[str, Callable[[Any, int], Any]] = {
    MINIBATCH: lambda batch, n: bvs.Minibatch(batch),
    GAUSSIAN: lambda batch, n: bvs.GaussianNoise(batch),
    ISOTROPIC: lambda batch, n: bvs.IsotropicNoise(batch),
    LABELS: lambda batch, n: bvs.LabelNoise(np.sqrt(n / batch)),
}
"""Gaussian noise has the batch's covariance, isotropic noise its trace, label noise its size, as the residuals are 1."""
RULES: dict[str, Callable[[Any, Any, float, dict], bvs.Optimizer]] = {
    "SGD": lambda rate, batch, c, settings: bvs.SGD(rate, **settings),
    "momentum": lambda rate, batch, c, settings: bvs.SGD(rate * (1 - MOMENTUM), momentum=MOMENTUM, **settings),
    "Adam": lambda rate, batch, c, settings: bvs.Adam(rate * np.sqrt(c / batch), **settings),
}
"""Momentum's and Adam's rates are such that their steps are SGD's."""
KINDS = [Kind(rule, noise) for rule in RULES for noise in (*NOISES, ONE_SIZE) if rule == "SGD" or noise != ONE_SIZE]


def main() -> None:
    """Measure what is not yet measured, draw, write."""
    parser = argparse.ArgumentParser(description="Map of when the law of SGD is a tempered posterior.")
    parser.add_argument("--num-seeds", type=int, default=8000, help="independent runs of each cell")
    parser.add_argument("--networks", type=int, default=5, help="how many of the networks")
    names = [kind.name for kind in KINDS]
    parser.add_argument("--kinds", nargs="+", default=names, choices=names, help="which rules and noises")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/map"), help="where cells are kept: a cut-off run goes on there"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    runs: list[dict] = []
    for column, (title, model) in enumerate(list(networks().items())[: arguments.networks]):
        shallow = title.startswith("one layer")
        place = Place(model, arguments.num_seeds // (1 if shallow else NEAR))
        for row, kind in enumerate(KINDS):
            if kind.name not in arguments.kinds:
                continue
            num_seeds = arguments.num_seeds // kind.fewer(shallow)
            found = place.runs(kind, num_seeds, arguments.folder / f"{column}-{row}-{num_seeds}")
            runs += [
                {**run, "cells": [{"network": title, "kind": kind.name, **cell} for cell in run["cells"]]}
                for run in found
            ]
            print(f"{title}; {kind.name}: {', '.join(c['verdict'] for run in found for c in run['cells'])}", flush=True)
    cells = [cell for run in runs for cell in run["cells"]]
    for cell in cells:
        cell["reason"] = reason(cell, cells)
    Console(width=150).print(table(cells))
    numbers = {"seconds": sum(run["seconds"] for run in runs), "cells": cells}
    write_analysis(arguments.out, "when_is_sgd_bayesian", numbers, draw(cells))


class Place:
    """A network with its curvature, noise and posteriors."""

    def __init__(self, model: bvs.Model, most_seeds: int):
        self.model, self.most_seeds = model, most_seeds
        found = reference_point(model)
        self.minimum, self.least_loss = found.position, found.loss
        curvatures = np.asarray(hessian_eigenvalues(model, self.minimum), float)
        self.sharpness = curvatures[-1]
        slowest = curvatures[curvatures > FLAT * self.sharpness][0]
        self.num_steps = int(RELAXATIONS * self.sharpness / slowest / RATES[0])
        self.noise = gradient_noise(model, self.minimum).per_direction
        self.scales = np.array([2 * batch * self.sharpness / (rate * self.noise) for rate, batch in GRID])
        self.chosen = {k: v for k, v in primary(bvs.Posterior(model)).items() if v.group == "function"}

    @cached_property
    def starts(self) -> list[dict[str, np.ndarray]]:
        """Draws of the posterior at the theoretical temperature of each cell, for as many seeds as any kind has."""
        number = -(-self.most_seeds // STARTS)
        lengths = {"num_draws": number, "num_warmup": WARMUP, "record_positions": True}
        tree = self.posterior(self.scales, STARTS, **lengths, observables=["loss"])
        names = [name for name, _ in self.model.latents]
        cells = [{name: part(tree, i, STARTS)[name].values for name in names} for i in range(len(self.scales))]
        # Draw by draw, so that the first ones are of different chains.
        return [{name: np.concatenate(v.swapaxes(0, 1)) for name, v in cell.items()} for cell in cells]

    def posterior(self, scales: np.ndarray, num_chains: int, **settings: Any) -> xr.DataTree:
        """Exact draws at several n beta, each in so many chains."""
        target = bvs.Posterior(self.model, np.repeat(scales, num_chains) / self.model.num_examples)
        settings |= {"num_chains": num_chains * len(scales), "key": 1, "progress": False}
        assert self.model.exact_sampler is not None
        return whole(bvs.simulate(self.model.exact_sampler, target, **settings))

    def runs(self, kind: Kind, num_seeds: int, path: Path) -> list[dict]:
        """All cells of one kind of SGD, with the seconds that they took; those of one program are kept once they have ended."""
        grid = np.arange(len(GRID)).reshape((len(BATCHES), -1) if kind.batch_is_static else (1, -1))
        return [
            remembered_json(path / f"{i}.json", partial(self.timed, kind, num_seeds, rows))
            for i, rows in enumerate(grid)
        ]

    def timed(self, kind: Kind, num_seeds: int, rows: np.ndarray) -> dict:
        """Cells of one run, and its seconds."""
        started = time.monotonic()
        return {"cells": self.cells(kind, num_seeds, rows), "seconds": time.monotonic() - started}

    def cells(self, kind: Kind, num_seeds: int, rows: np.ndarray) -> list[dict]:
        """Some cells of one kind of SGD."""
        scales, places = self.scales[rows], [self.starts[i] for i in rows]
        found, ensembles = [], [self.ensemble(kind, num_seeds, i) for i in rows]
        terms = [ensemble_scores(e, bvs.Posterior(self.model), self.chosen).terms for e in ensembles]
        kept = [np.flatnonzero(final_positions(e)[1]) for e in ensembles]
        fitted = [t["loss"].subset(k[::2]).scale() for t, k in zip(terms, kept, strict=True)]
        near = {name: np.concatenate([place[name][:CHAINS] for place in places]) for name in places[0]}
        fits = [len(k) > (1 - LOST_LIMIT) * num_seeds and f[0] > 0 for k, f in zip(kept, fitted, strict=True)]
        used = np.where(fits, [value for value, _ in fitted], scales)
        lengths = {"num_draws": DRAWS, "num_warmup": SETTLING, "initial": near}
        reference = self.posterior(used, CHAINS, **lengths, observables=sorted(self.chosen))
        for index, (value, error) in enumerate(fitted):
            cell: dict = dict(zip(("rate", "batch"), GRID[rows[index]], strict=True))
            cell["audit"] = self.audit(kind, cell["rate"], cell["batch"], ensembles[index])
            cell |= dict.fromkeys(("temperature", "error")) | {
                "verdict": rules.NO_VERDICT,
                "worst": "runs are lost",
            }
            if fits[index]:
                ratio = float(scales[index]) / value
                other, tested = part(reference, index, CHAINS), kept[index][1::2]
                cell |= {"temperature": ratio, "error": ratio * error / value}
                cell |= self.decided(ensembles[index], other, terms[index], tested, value)
            found.append(cell)
        return found

    def ensemble(self, kind: Kind, num_seeds: int, index: int) -> xr.DataTree:
        """Runs of one cell, one at a time: those of all cells would not fit the cache, and they compile once."""
        rate, batch = GRID[index]
        tree = bvs.simulate(
            self.dynamics(kind, rate, batch),
            bvs.Posterior(self.model, self.scales[index] / self.model.num_examples),
            key=index,
            initial={name: v[:num_seeds] for name, v in self.starts[index].items()},
            num_chains=num_seeds,
            num_steps=self.num_steps,
            num_draws=1,
            observables=sorted(self.chosen),
            progress=False,
        )
        return whole(tree)

    def dynamics(self, kind: Kind, rate: float, batch: int) -> bvs.Optimizer:
        """A cell's; the batch is a number that compiles once, unless it is of examples."""
        size = batch if kind.batch_is_static else float(batch)
        return kind.make(rate / self.sharpness, size, self.model.num_examples, self.noise)

    def decided(
        self, tree: xr.DataTree, reference: xr.Dataset, terms: dict[str, SteinTerms], tested: np.ndarray, fitted: float
    ) -> dict:
        """Verdict of a cell: every other seed beside the posterior at the temperature fitted to the rest."""
        other = xr.DataTree.from_dict({"posterior": reference})
        tree, other = with_roots(self.chosen, self.least_loss, tree, other)
        effects = observed_effects(tree, other, judged(self.chosen), tested, MARGINS)
        effects += log_temperatures(terms, self.chosen, tested, fitted, MARGINS, False)[0]
        worst = max(effects, key=lambda e: abs(e.value) / e.margin)
        return {
            "verdict": rules.overall(rules.verdicts(effects)),
            "worst": f"{worst.observable}: {rules.describe(worst)}",
        }

    def audit(self, kind: Kind, rate: float, batch: int, tree: xr.DataTree) -> list[str]:
        """Assumptions that the audit finds broken at the minimum, and where the runs end."""
        dynamics = self.dynamics(kind, rate, batch)
        target = bvs.Posterior(self.model)
        root = preconditioner(target, dynamics, self.minimum)
        place = local(target, dynamics.gradient, self.minimum, root)
        held = [isotropy(place), small_steps(place, dynamics)]
        held += [central_limit(target, dynamics.gradient, self.minimum), constancy(target, dynamics, tree)]
        return [a.name for a in held if a.holds is False]


def part(tree: xr.DataTree, index: int, number: int) -> xr.Dataset:
    """One cell's chains of a run of several."""
    return tree["posterior"].to_dataset().isel(chain=slice(index * number, (index + 1) * number))


MENDS = {(MINIBATCH, GAUSSIAN): "C", (ISOTROPIC, ONE_SIZE): "1"} | {
    (noise, to): letters
    for noise in (MINIBATCH, GAUSSIAN, LABELS)
    for to, letters in ((ISOTROPIC, "I"), (ONE_SIZE, "I1"))
}
"""Letters of what is mended where one noise takes the place of another."""
LETTERS = {"R": "plain SGD", "C": "central limit", "I": "isotropy", "1": "one size", "S": "small steps"}


def reason(cell: dict, cells: list[dict]) -> str | None:
    """Smallest repair, of those that are cells of the map, that makes of a mismatch a match; a letter an assumption."""
    if cell["verdict"] != rules.MISMATCH:
        return None
    found = {(c["kind"], c["network"], c["rate"], c["batch"]): c["verdict"] for c in cells}
    own = next(kind for kind in KINDS if kind.name == cell["kind"])
    repairs = []
    for kind, slower in product(KINDS, (False, True)):
        noise = "" if kind.noise == own.noise else MENDS.get((own.noise, kind.noise))
        if noise is None or kind.rule not in (own.rule, "SGD"):
            continue
        letters = ("R" if kind.rule != own.rule else "") + noise + ("S" if slower else "")
        where = (cell["rate"] / 4, cell["batch"] // 4) if slower else (cell["rate"], cell["batch"])
        if letters and found.get((kind.name, cell["network"], *where)) == rules.MATCH:
            repairs.append(letters)
    return min(repairs, key=lambda letters: (len(letters), letters), default="none of the map's repairs")


def table(cells: list[dict]) -> Table:
    """Mismatches by network and kind: the repair that mends them, and what the audit finds broken."""
    shown = Table(
        title="Where the law is no tempered posterior: what mends it, what the audit says", title_justify="left"
    )
    for column in ("network", "kind", "match", "open", "mismatch", "mended by", "audit"):
        shown.add_column(column)
    for network, kind in dict.fromkeys((c["network"], c["kind"]) for c in cells):
        own = [c for c in cells if (c["network"], c["kind"]) == (network, kind)]
        counts = Counter({"match": "match", "mismatch": "mismatch"}.get(c["verdict"], "open") for c in own)
        reasons = ", ".join(f"{n} x {r}" for r, n in Counter(c["reason"] for c in own if c["reason"]).items())
        broken = ", ".join(dict.fromkeys(name for c in own for name in c["audit"]))
        shown.add_row(network, kind, *(str(counts[v]) for v in ("match", "open", "mismatch")), reasons, broken)
    return shown


def draw(cells: list[dict]) -> Figure:
    """A panel a network and kind: colour is the verdict, the number the fitted temperature over the theoretical one."""
    columns, rows = (list(dict.fromkeys(c[key] for c in cells)) for key in ("network", "kind"))
    figure = new_figure(1.2 + 1.75 * len(columns), 1.1 + 0.95 * len(rows))
    axes = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    for (row, kind), (column, network) in product(enumerate(rows), enumerate(columns)):
        panel = axes[row, column]
        for c in (c for c in cells if (c["network"], c["kind"]) == (network, kind)):
            x, y = RATES.index(c["rate"]), BATCHES.index(c["batch"])
            shade = {rules.MATCH: COLOURS[2], rules.MISMATCH: COLOURS[1]}.get(c["verdict"], "#bbbbbb")
            panel.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=shade, edgecolor="white"))
            number = "lost" if c["temperature"] is None else f"{c['temperature']:.2g}"
            if c["reason"]:
                number += f"\n{c['reason']}" if len(c["reason"]) < 5 else "\n-"
            panel.text(x, y, number, ha="center", va="center", fontsize=7, color="white")
        panel.set(xlim=(-0.5, len(RATES) - 0.5), ylim=(-0.5, len(BATCHES) - 0.5))
        panel.tick_params(length=0, labelsize=7)
        panel.set_xticks(range(len(RATES)), [f"{r:g}" for r in RATES])
        panel.set_yticks(range(len(BATCHES)), [str(b) for b in BATCHES])
        panel.spines[:].set_visible(False)
        if row == 0:
            panel.set_title(network.replace(", ", ",\n"), fontsize=8)
        if column == 0:
            panel.set_ylabel(textwrap.fill(kind, 16) + "\n\nbatch", fontsize=8)
        if row == len(rows) - 1:
            panel.set_xlabel("learning rate x sharpness", fontsize=7)
    for label, shade in (
        ("a tempered posterior", COLOURS[2]),
        ("not decided", "#bbbbbb"),
        ("no tempered posterior", COLOURS[1]),
    ):
        axes[0, 0].fill_between([], [], color=shade, label=label)
    legend = ", ".join(f"{letter} {words}" for letter, words in LETTERS.items())
    title = (
        "Is the law of the function a tempered posterior? Number: its temperature over theory's; below, what mends it"
    )
    title += f"\n({legend})"
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8, title=title, title_fontsize=9)
    return figure


if __name__ == "__main__":
    main()
