r"""How often do the tests of ``compare`` err, and do they see what they should? Levels and powers.

    python analyses/calibration.py

*Level.* Seeds and reference are of one law, the standard normal in four dimensions, the reference being 16 chains with
autocorrelation :math:`\phi^t`. A test at 5 % may reject 5 % of the time, whatever :math:`\phi`, at a given temperature and at
one fitted on as many other seeds. Beside them two tests that take every draw for independent.

*Power.* The seeds have another law than the reference: how often does each test reject?

Intervals are Clopper and Pearson's, at 95 %. Writes the figure, its numbers, and, where these stay in this folder, the short
record that the library ships and its page quotes.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import signal, stats

from bayes_vs_sgd.comparison import record
from bayes_vs_sgd.comparison.effects import LEVEL
from bayes_vs_sgd.comparison.global_tests import adjusted, ksd, mmd, stein
from bayes_vs_sgd.comparison.verdict import holm
from bayes_vs_sgd.report.figures import COLOURS, GREY, new_figure, write_analysis

HERE = Path(__file__).parent
SIZE, CHAINS, SEEDS, DRAWS = 4, 16, 200, 30
PHIS = (0.0, 0.5, 0.9, 0.97)
OPERATING = {400: 45, 2000: 1200}
"""Seeds, and draws a chain at phi = 1/2: effective sample sizes 240 and 6,400."""
TESTS = {"mmd": "observables (MMD)", "stein": "Stein identities", "ksd": "positions (KSD)", "holm": "all three (Holm)"}
NAIVE = {"ks": "naive: KS by coordinate", "sign_a_draw": "naive: a sign a draw"}
NAIVE_SHARE = 10
"""The naive tests are run in one repetition of so many."""
WELL = 3.0
"""Wells of the first coordinate stand at plus and minus this."""
ALTERNATIVES: dict[str, Callable] = {
    "shift .2 sd, one direction": lambda x: x + 0.2 * np.eye(SIZE)[0],
    "temperature 1.25": lambda x: np.sqrt(1.25) * x,
    "T = 1.5, 1, 1, 1": lambda x: x * np.sqrt([1.5, 1, 1, 1]),
    "T = 1.5, 1.5, .67, .67": lambda x: x * np.sqrt([1.5, 1.5, 2 / 3, 2 / 3]),
    "tails of Student's t5": lambda x: stats.t(5).ppf(stats.norm.cdf(x)) / np.sqrt(5 / 3),
    "wells .7 / .3, not .5 / .5": lambda x: wells(x, 0.7),
}


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Level and power of the tests of compare.")
    parser.add_argument("--levels", type=int, default=2000, help="repetitions with identical laws")
    parser.add_argument("--alternatives", type=int, nargs=2, default=(150, 40), help="repetitions at 400, 2,000 seeds")
    parser.add_argument("--num-processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    with multiprocessing.get_context("spawn").Pool(arguments.num_processes) as pool:
        levels = measured(pool, level, arguments.levels)
        powers = []
        for number, repetitions in zip(OPERATING, arguments.alternatives, strict=True):
            for name in ALTERNATIVES:
                powers += measured(pool, partial(power, name, number), repetitions)
    numbers = {"levels": levels, "powers": powers}
    for entry in levels + powers:
        print(", ".join(str(v) for k, v in entry.items() if k != "interval"))
    write_analysis(arguments.out, "calibration", numbers, draw(numbers))
    if arguments.out == HERE:
        record.TESTS.write_text(json.dumps(record.summary_of_tests(numbers), indent=1) + "\n")


def measured(pool, function: Callable[[int], list[tuple[dict, bool]]], repetitions: int) -> list[dict]:
    """How often something happened, by what is said of it, with intervals."""
    counts: dict[str, list[bool]] = {}
    for found in pool.imap_unordered(function, range(repetitions), max(repetitions // 64, 1)):
        for about, happened in found:
            counts.setdefault(json.dumps(about), []).append(bool(happened))
    return [json.loads(about) | frequency(happened) for about, happened in sorted(counts.items())]


def frequency(happened: Sequence[bool]) -> dict:
    """Share and its interval."""
    test = stats.binomtest(sum(happened), len(happened))
    low, high = test.proportion_ci()
    return {"share": test.statistic, "interval": [float(low), float(high)], "repetitions": len(happened)}


def level(seed: int) -> list[tuple[dict, bool]]:
    """Rejections of identical laws."""
    rng = np.random.default_rng([1, seed])
    sample, others = rng.normal(size=(2, SEEDS, SIZE))
    chains = {phi: autoregressive(rng, phi, DRAWS) for phi in PHIS}
    fit = others.size / np.sum(others**2)
    found = []
    for fitted, scale in ((False, 1.0), (True, fit)):
        alone = [stein(*stein_terms(sample), scale, rng, fitted), of_positions(sample, scale, rng, fitted)]
        for phi, draws in chains.items():
            reference = draws / np.sqrt(scale)
            energy = np.sum(reference**2, axis=-1) / 2 if fitted else None
            about = {"phi": phi, "fitted": fitted}
            found += rejected(about, [mmd(sample[:, None], reference, rng, energy), *alone])
    for phi, draws in chains.items() if seed % NAIVE_SHARE == 0 else ():
        pooled = draws.reshape(-1, SIZE)
        by_coordinate = [stats.ks_2samp(sample[:, i], pooled[:, i], method="asymp").pvalue for i in range(SIZE)]
        a_draw = mmd(sample[:, None], pooled[:, None], rng).p
        for name, p in (("ks", holm(by_coordinate).min()), ("sign_a_draw", a_draw)):
            found.append(({"phi": phi, "fitted": False, "test": name}, p < LEVEL))
    return found


def power(name: str, number: int, seed: int) -> list[tuple[dict, bool]]:
    """Rejections of an alternative by a number of seeds."""
    rng = np.random.default_rng([2, number, list(ALTERNATIVES).index(name), seed])
    chains, well = autoregressive(rng, 0.5, OPERATING[number]), name.startswith("wells")
    sample = ALTERNATIVES[name](rng.normal(size=(number, SIZE)))
    reference = wells(chains, 0.5) if well else chains
    slope, curvature = slopes(sample) if well else (sample, np.ones_like(sample))
    tests = [
        mmd(sample[:, None], reference, rng),
        stein(*stein_terms(slope, curvature), 1.0, rng),
        ksd(sample, np.zeros_like(sample), slope, 1.0, rng),
    ]
    return rejected({"alternative": name, "seeds": number}, tests)


def rejected(about: dict, tests: list) -> list[tuple[dict, bool]]:
    """Which tests reject, each alone and by Holm."""
    found = [(about | {"test": test.name}, test.p < LEVEL) for test in tests]
    return [*found, (about | {"test": "holm"}, min(test.p_holm for test in adjusted(tests)) < LEVEL)]


def stein_terms(slope: np.ndarray, curvature: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Terms div g and g . grad L of the fields grad L and its coordinates."""
    curvature = np.ones_like(slope) if curvature is None else curvature
    return tuple(np.column_stack([x.sum(axis=1), x]) for x in (curvature, slope**2))


def of_positions(sample: np.ndarray, scale: float, rng: np.random.Generator, fitted: bool):
    """Kernel Stein discrepancy from the law of L = |x|^2 / 2."""
    return ksd(sample, np.zeros_like(sample), sample, scale, rng, fitted)


def autoregressive(rng: np.random.Generator, phi: float, length: int) -> np.ndarray:
    """Stationary chains (chain, draw, coordinate) with unit variance and autocorrelation phi^t."""
    noise = rng.normal(size=(CHAINS, length, SIZE))
    noise[:, 1:] *= np.sqrt(1 - phi**2)
    return signal.lfilter([1.0], [1.0, -phi], noise, axis=1)


def wells(normal: np.ndarray, weight: float) -> np.ndarray:
    """Draws with two wells in the first coordinate, by the inverse of its distribution function from normal draws."""
    grid = np.linspace(-WELL - 9, WELL + 9, 20_001)
    right, left = (stats.norm.cdf(grid - center) for center in (WELL, -WELL))
    moved = np.array(normal)
    moved[..., 0] = np.interp(stats.norm.cdf(normal[..., 0]), weight * right + (1 - weight) * left, grid)
    return moved


def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and diagonal of the Hessian of minus the log density of two wells of equal weight."""
    slope, curvature, side = np.array(x), np.ones_like(x), np.tanh(WELL * x[:, 0])
    slope[:, 0] -= WELL * side
    curvature[:, 0] -= WELL**2 * (1 - side**2)
    return slope, curvature


def draw(numbers: dict) -> Figure:
    """Levels and powers beside each other."""
    figure = new_figure(9.2, 4.2)
    left, middle = figure.subplots(1, 2, width_ratios=(1.15, 1))
    colours = dict(zip(TESTS, (*COLOURS[:3], "black"), strict=True))
    draw_levels(left, numbers["levels"], colours)
    places = {name: -index for index, name in enumerate(ALTERNATIVES)}
    middle.axvline(0.8, color=GREY, lw=1, ls=":")
    for entry in numbers["powers"]:
        shift = 0.13 * (1.5 - list(TESTS).index(entry["test"]))
        many, colour = entry["seeds"] == max(OPERATING), colours[entry["test"]]
        face = {"color": colour, "mfc": colour if many else "white", "ms": 5, "lw": 1, "fmt": "o"}
        middle.errorbar(entry["share"], places[entry["alternative"]] + shift, xerr=bars(entry), **face)
    middle.set_yticks(list(places.values()), list(places))
    middle.set_xlabel("share rejected\n(filled: 2,000 seeds; hollow: 400)")
    middle.set_title("Different laws: power")
    middle.set_xlim(-0.03, 1.03)
    for axes in (left, middle):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_levels(axes, levels: list[dict], colours: dict[str, str]) -> None:
    """Share of rejections of identical laws against the autocorrelation, on a logarithmic axis."""
    axes.axhline(LEVEL, color=GREY, lw=1, ls=":")
    axes.text(len(PHIS) - 0.6, LEVEL, "5 %", va="center", fontsize="small")
    for place, (name, label) in enumerate((TESTS | NAIVE).items()):
        mark = "o" if name in TESTS else "sd"[place - len(TESTS)] + "--"
        for fitted in (False, True):
            own = [e for e in levels if e["test"] == name and e["fitted"] == fitted]
            x = np.array([PHIS.index(e["phi"]) for e in own]) + 0.06 * (place - 2.5) + 0.03 * fitted
            shade = colours.get(name, GREY)
            style = {"color": shade, "ms": 4, "lw": 1, "mfc": "white" if fitted else shade, "fmt": mark}
            heights = np.array([bars(e) for e in own]).reshape(-1, 2).T
            if own:
                axes.errorbar(x, [e["share"] for e in own], heights, label=None if fitted else label, **style)
    axes.set_yscale("log")
    axes.set_ylim(0.012, 1.05)
    axes.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], ["2 %", "5 %", "10 %", "20 %", "50 %", "100 %"])
    axes.minorticks_off()
    axes.set_xticks(range(len(PHIS)), [f"{phi:g}" for phi in PHIS])
    axes.set_xlabel("autocorrelation of the reference's draws\n(filled: given temperature; hollow: fitted)")
    axes.set_ylabel("share rejected")
    axes.set_title("Identical laws: level")
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def bars(entry: dict) -> list[list[float]]:
    """Lengths of an error bar below and above."""
    low, high = entry["interval"]
    return [[entry["share"] - low], [high - entry["share"]]]


if __name__ == "__main__":
    main()
