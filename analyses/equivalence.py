r"""How often are a law and the posterior called a match, by the observables of each model? Identical ones, and one at a margin.

    python analyses/equivalence.py

Of each model draws of its posterior, at the temperature that ``compare`` takes by default, stand for the law. Seeds are drawn
from them, and as many draws as the reference has effective ones; both with replacement, so that the two laws are one. Then one
effect is moved to its margin: the mean or the spread of the loss (by its root, as it is judged), or the temperature of the
first mode. The verdict is that of the effects of all groups together.

Beside them, what the roots are for: identical laws of which losses and squared norms are judged as they are.

Intervals are Clopper and Pearson's, at 95 %. Writes the figure, its numbers, and, where these stay in this folder, the short
record that the library ships and its page quotes.
"""

import argparse
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from calibration import measured
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison import record
from bayes_vs_sgd.comparison.compare import primary
from bayes_vs_sgd.comparison.differences import log_temperature
from bayes_vs_sgd.comparison.effects import (
    LEVEL,
    Effect,
    Sample,
    heavy_tailed,
    kinds_of,
    location_and_scale,
    statistics_of,
)
from bayes_vs_sgd.comparison.roots import judged, with_roots
from bayes_vs_sgd.comparison.run import Study
from bayes_vs_sgd.comparison.temperature import SteinTerms, stein_terms
from bayes_vs_sgd.comparison.verdict import MATCH, overall, verdicts
from bayes_vs_sgd.curvature import reference_point
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.reference import posterior_draws
from bayes_vs_sgd.report.figures import COLOURS, GREY, new_figure, write_analysis

HERE = Path(__file__).parent
LAWS = {
    "linear_regression": None,
    "deep_linear": None,
    "deep_linear, n beta 1000": 1000.0,
    "product": None,
    "product, n beta 20": 20.0,
    "diagonal_linear": None,
    "normal_crossing": None,
    "polynomial": None,
    "tanh_network": None,
}
"""Models, and n beta where it is not the default."""
NUM_CHAINS, NUM_DRAWS = 16, 2000
SEEDS, EFFECTIVE = 2000, 6400
SELDOM = 10
"""Laws are judged as they are in one repetition of so many."""
IDENTICAL, WITHOUT_ROOTS = "identical laws", "identical laws, losses and norms as they are"


def main() -> None:
    """Draw, count, write."""
    parser = argparse.ArgumentParser(description="How often laws are called a match, of the models' own observables.")
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=list(LAWS), help="models")
    parser.add_argument("--repetitions", type=int, default=2000, help="of each case")
    parser.add_argument("--num-draws", type=int, default=NUM_DRAWS, help="draws of each of 16 chains of exact samplers")
    parser.add_argument("--num-processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    found = []
    with multiprocessing.get_context("spawn").Pool(arguments.num_processes) as pool:
        for name in arguments.laws:
            law = drawn(name, arguments.num_draws)
            found += [{"law": name, **entry} for entry in measured(pool, law.verdicts, arguments.repetitions)]
            print(
                *(f"{e['law']}, {e['case']}: {e['share']:.3f}" for e in found if e["law"] == name), sep="\n", flush=True
            )
    write_analysis(arguments.out, "equivalence", found, draw(found))
    if arguments.out == HERE:
        record.MATCHES.write_text(json.dumps(record.summary_of_matches(found), indent=1) + "\n")


@dataclass(frozen=True)
class Law:
    """Draws of what is judged (draw,) with its group, as they are and by roots, and Stein terms of the modes at n beta = 1."""

    name: str
    raw: dict[str, tuple[str, np.ndarray]]
    roots: dict[str, tuple[str, np.ndarray]]
    modes: dict[str, tuple[str, SteinTerms]]

    def verdicts(self, seed: int) -> list[tuple[dict, bool]]:
        """Whether each case is called a match."""
        rng = np.random.default_rng([list(LAWS).index(self.name), seed])
        size = len(next(iter(self.roots.values()))[1])
        seeds, others = rng.integers(size, size=SEEDS), rng.integers(size, size=(NUM_CHAINS, EFFECTIVE // NUM_CHAINS))
        hot = self.temperatures(seeds, 0.0)
        same = self.effects(self.roots, seeds, others)
        found = {IDENTICAL: same + hot}
        if seed % SELDOM == 0:
            found[WITHOUT_ROOTS] = self.effects(self.raw, seeds, others) + hot
        first, (group, draws) = next(iter(self.roots.items()))
        for case, moved in at_margin(draws).items():
            own = self.effects({first: (group, draws)}, seeds, others, moved)
            found[case] = own + [e for e in same if e.observable != first] + hot
        if hot:
            found["temperature at the margin"] = same + self.temperatures(seeds, MARGINS["log_temperature"])
        return [({"case": k, "effects": len(v)}, overall(verdicts(v)) == MATCH) for k, v in found.items()]

    def effects(
        self, observed: dict[str, tuple[str, np.ndarray]], seeds: np.ndarray, others: np.ndarray, moved=None
    ) -> list[Effect]:
        """Location and spread of some observables; of the seeds by other values, where they are moved."""
        found: list[Effect] = []
        for name, (group, draws) in observed.items():
            values = (draws if moved is None else moved)[seeds]
            found += location_and_scale(name, group, Sample(values[:, None], True), Sample(draws[others], False))
        return found

    def temperatures(self, seeds: np.ndarray, shift: float) -> list[Effect]:
        """Temperatures of the modes; the first of them higher than the law's by the exponential of a shift."""
        found = []
        for name, (group, terms) in self.modes.items():
            scale, by = terms.scale()[0], np.exp(shift if not found else 0.0)
            part = SteinTerms(terms.prior[seeds], by * terms.loss[seeds])
            found.append(log_temperature(name, group, part, scale))
        return found


def at_margin(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Draws whose location or spread is moved by its margin."""
    sample = Sample(draws[:, None], True)
    heavy = heavy_tailed(sample, sample)
    unit, (near, wide) = np.exp(statistics_of(sample, heavy)[1]()[0]), (MARGINS[kind] for kind in kinds_of(heavy))
    center = np.median(draws)
    return {
        "location at the margin": draws + near * unit,
        "spread at the margin": center + np.exp(wide) * (draws - center),
    }


def drawn(name: str, num_draws: int) -> Law:
    """Draws of the posterior of a model."""
    model = bvs.load_model(HERE.parent / "models" / f"{name.split(',')[0]}.py")
    target = bvs.Posterior(model, (LAWS[name] or Study(model, progress=False).scale) / model.num_examples)
    chosen = primary(target)
    tree = posterior_draws(target, NUM_CHAINS, num_draws, 0, list(chosen), list(chosen), progress=False)
    (tree,) = with_roots(chosen, reference_point(model).loss, tree)
    draws = {k: np.asarray(tree["posterior"][k].values, float).ravel() for k in {**chosen, **judged(chosen)}}
    values = {k: jnp.asarray(tree["posterior"][k].values, float) for k, _ in model.latents}
    flat = jax.vmap(model.unconstrain)({k: v.reshape(-1, *v.shape[2:]) for k, v in values.items()})
    positions = {k: np.asarray(v) for k, v in flat.items()}
    modes = {k: v for k, v in chosen.items() if v.mode}
    terms = stein_terms(target, positions, modes)
    return Law(
        name,
        {k: (str(v.group), draws[k]) for k, v in chosen.items() if np.ptp(draws[k])},
        {k: (str(v.group), draws[k]) for k, v in judged(chosen).items() if np.ptp(draws[k])},
        {k: (str(v.group), terms[k]) for k, v in modes.items()},
    )


def draw(found: list[dict]) -> Figure:
    """Share called a match, by law and case."""
    figure = new_figure(7.5, 0.9 + 0.42 * len({e["law"] for e in found}))
    axes = figure.subplots()
    laws = list(dict.fromkeys(e["law"] for e in found))
    cases = [c for c in dict.fromkeys(e["case"] for e in found) if c != IDENTICAL]
    for limit in (LEVEL, 0.9):
        axes.axvline(limit, color=GREY, lw=1, ls=":")
    for place, case in enumerate([IDENTICAL, *sorted(cases)]):
        own = [e for e in found if e["case"] == case]
        rows = [-laws.index(e["law"]) + 0.13 * (1.5 - place) for e in own]
        shares = np.array([e["share"] for e in own])
        bars = np.abs(np.array([e["interval"] for e in own]).T - shares)
        hollow = "white" if case == WITHOUT_ROOTS else None
        axes.errorbar(
            shares, rows, xerr=bars, color=("black", *COLOURS)[place], mfc=hollow, fmt="o", ms=4, lw=1, label=case
        )
    axes.set_yticks([-i for i in range(len(laws))], [name.replace("_", " ").replace("n beta", "nβ") for name in laws])
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel(f"share called a match ({SEEDS:,} seeds, ESS {EFFECTIVE:,})")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
