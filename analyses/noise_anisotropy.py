r"""When does the anisotropy of SGD's noise matter? A boundary in depth and in how unequal the teacher's singular values are.

    python analyses/noise_anisotropy.py

At a balanced minimum of a deep linear network on whitened data the curvatures are
:math:`\lambda_{ij} = \sum_l s_i^{2(L-1-l)/L} s_j^{2l/L}`, and SGD gives each mode a temperature proportional to its own. No one
temperature fits them better than half the range of their logarithms,

.. math:: \tfrac12 \log \lambda_{\max} / \lambda_{\min} = \Big(1 - \frac1L\Big) \log \frac{s_{\max}}{s_{\min}},

whatever the learning rate, the batch and the noise of the labels: to first order those move all temperatures alike. (Beyond it
hotter runs are a little more unequal, as the loss is no quadratic.) It matters where this is above the margin of a comparison,
0.2. Writes the figure and its numbers beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison.spectrum import spectrum_at_minimum
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import new_figure, write_analysis
from bayes_vs_sgd.settings import Compare

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "deep_linear.py"
DEPTHS, RATIOS = (1, 2, 3, 4), (1.0, 1.25, 1.6, 2.0, 3.0)
OTHERS = {
    "half the learning rate": {"rate": 0.5},
    "batches of 2": {"batch": 2},
    "twice the label noise": {"noise": 2.0},
}
"""Settings that should change nothing, tried at depth 3 and the last ratio but one."""
NUM_EXAMPLES = 20_000
"""So many that the data's own C is the expected one: its entries vary by sqrt(8 / n), a fiftieth."""
COLOURS = ("#56b4e9", "#009e73", "#d55e00", "#cc79a7")


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Misfit of the best single temperature of SGD, by depth and teacher.")
    parser.add_argument("--num-seeds", type=int, default=2000, help="independent runs of each")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    points = [measure(depth, ratio, arguments.num_seeds) for depth in DEPTHS for ratio in RATIOS]
    points += [measure(3, RATIOS[-2], arguments.num_seeds, name, **other) for name, other in OTHERS.items()]
    for p in points:
        found = f"{p['misfit']:.3f} ± {p['error']:.3f}, predicted {p['predicted']:.3f}"
        print(f"depth {p['depth']}, s1/s2 {p['ratio']:g}, {p['setting']}: {found}")
    write_analysis(arguments.out, "noise_anisotropy", points, draw(points))


def measure(
    depth: int,
    ratio: float,
    num_seeds: int,
    setting: str = "default",
    rate: float = 1.0,
    batch: int = 8,
    noise: float = 1.0,
) -> dict:
    """Half the range of the logarithms of the mode temperatures of one network, and its standard error."""
    spectrum = (float(np.sqrt(ratio)), float(1 / np.sqrt(ratio)))
    shape = {"widths": (2,) * (depth + 1), "spectrum": spectrum, "noise": noise, "unseen_inputs": 0}
    model = bvs.load_model(MODEL, num_examples=NUM_EXAMPLES, **shape)
    sharpness = bvs.Study(model, Compare(num_seeds=num_seeds), progress=False).sharpness
    settings = Compare(num_seeds=num_seeds, batch_size=batch, learning_rate=rate * 0.1 / sharpness)
    found = spectrum_at_minimum(bvs.Study(model, settings, progress=False), "sgd")
    logs = np.log(found.temperatures)
    ends = [0, len(logs) - 1]  # of the eigenvalues, not of the temperatures: no bias
    return {
        "depth": depth,
        "ratio": ratio,
        "setting": setting,
        "misfit": float(logs[ends[0]] - logs[ends[1]]) / 2,
        "error": float(np.hypot(*found.log_errors[ends])) / 2,
        "predicted": (1 - 1 / depth) * float(np.log(ratio)),
    }


def draw(points: list[dict]) -> Figure:
    """The misfit against the ratio, a line a depth."""
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    axes.axhspan(0, MARGINS["log_temperature"], color="#8883", lw=0)
    inside = "one temperature fits within the margin"
    axes.text(RATIOS[-1], MARGINS["log_temperature"] - 0.02, inside, ha="right", va="top", fontsize=8)
    for depth, colour in zip(DEPTHS, COLOURS, strict=True):
        x = np.geomspace(1, RATIOS[-1], 50)
        axes.plot(x, (1 - 1 / depth) * np.log(x), color=colour, lw=1, label=f"{depth} layer{'s' if depth > 1 else ''}")
        own = [p for p in points if p["depth"] == depth]
        for p, place in zip(own, range(len(own)), strict=True):
            shift = 1 if p["setting"] == "default" else 1.03 ** (place - len(RATIOS) + 1)
            mark = "o" if p["setting"] == "default" else "s^D"[list(OTHERS).index(p["setting"])]
            axes.errorbar(p["ratio"] * shift, p["misfit"], 1.96 * p["error"], color=colour, fmt=mark, ms=4, lw=1)
    for name, mark in zip(OTHERS, "s^D", strict=True):
        axes.plot([], [], mark, color=COLOURS[2], ms=4, label=name)
    axes.set_xscale("log")
    axes.set_xticks([1, 1.5, 2, 3], ["1", "1.5", "2", "3"])
    axes.minorticks_off()
    axes.set_xlabel("ratio of the teacher's singular values")
    axes.set_ylabel("misfit of the best temperature\n(half range of log T)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
