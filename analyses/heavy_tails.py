r"""When do the heavy tails of SGD matter? A boundary in learning rate and batch, and another one far below it.

    python analyses/heavy_tails.py

On least squares with inputs x ~ N(0, I_d) and labels of noise 1 a step of SGD is Kesten's recursion
:math:`\theta' = (I - \eta A)\theta + \eta b`, with :math:`A = \frac1B \sum_i x_i x_i^T` and
:math:`b = \frac1B \sum_i \epsilon_i x_i`. Its stationary law has the tail index alpha of
:math:`E \|(I - \eta A) e\|^\alpha = 1`, e any unit vector. As :math:`E\|b\|^2 = d/B` and
:math:`E \|(I - \eta A) e\|^2 = 1 - 2\eta + \eta^2 (B + d + 1)/B`, the variance of a weight is

.. math:: v = \frac{\eta}{2B} \Big/ \Big(1 - \frac{\eta}{\eta_c}\Big), \qquad \eta_c = \frac{2B}{B + d + 1},

infinite from the learning rate eta_c on, where alpha is 2. Gaussian noise with the covariance that SGD's has at the optimum
gives :math:`v_0 = \frac{\eta}{2B} / (1 - \frac\eta2)`. So the spread is off by more than a comparison's margin m = 0.1 where

.. math:: \tfrac12 \log \frac{v}{v_0} > m, \qquad \eta > \frac{2 (k - 1)}{2k/\eta_c - 1}, \qquad k = e^{2m},

and there alpha is large. Measured: the spread; the tail index by Hill's estimator on the stationary law, and by the growth
of single steps far from the optimum; and where these cross 0.1 and 2. Writes the figure and its numbers beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import root_scalar

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.tails import hill
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import COLOURS, TWO_SIDED, new_figure, write_analysis
from bayes_vs_sgd.theory.heavy_tails import finite_variance_learning_rate, moment_growth, tail_index
from bayes_vs_sgd.theory.quadratic import stationary_covariance

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "linear_regression.py"
DIMENSIONS, BATCHES = (1, 4), (1, 2, 4, 8, 16)
MARGIN = MARGINS["log_deviation_ratio"]
NEAR_MARGIN, NEAR_TAIL = (0.8, 1.0, 1.25), (0.93, 1.0, 1.07)
"""Learning rates, in units of the two boundaries."""
NUM_DRAWS, THINNING, BURN = 24, 10, 10
"""Draws, steps between them, and draws left out: by then the start is forgotten, in the tail too."""
UPPER = 0.01
"""Share of the draws that Hill's estimator looks at: with more it sees the body of the law, which falls slower or faster."""
FAR = 1e15, 1e5
"""Distances from the optimum: where single steps start, and from where on the noise of the labels is nothing."""
KINDS = {
    "spread": ("spread", COLOURS[0], {"marker": "D", "ms": 4}),
    "hill": ("tail index by Hill's estimator", COLOURS[1], {"marker": "o", "ms": 3}),
    "step": ("tail index by single steps", COLOURS[1], {"marker": "s", "ms": 7, "mfc": "none"}),
}
"""What is measured, and how its crossing is drawn."""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(
        description="Spread and tail index of SGD on least squares, by batch and dimension."
    )
    parser.add_argument(
        "--num-seeds", type=int, default=12000, help="independent runs of batch 1, fewer of larger ones"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="batch sizes")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    settings = [(dimension, batch) for dimension in DIMENSIONS for batch in arguments.batches]
    points = [p for number, s in enumerate(settings) for p in measure(*s, arguments.num_seeds, number)]
    boundaries = [boundary(points, *s, kind) for s in settings for kind in KINDS]
    for p in points + boundaries:
        place = f"dimension {p['dimension']}, batch {p['batch']}" + (f", rate {p['rate']:.3g}" if "rate" in p else "")
        print(f"{place}: {p['kind']} {p['measured']:.4g} ± {p['error']:.2g}, predicted {p['predicted']:.4g}")
    write_analysis(arguments.out, "heavy_tails", {"points": points, "boundaries": boundaries}, draw(boundaries))


def margin_learning_rate(dimension: int, batch: int) -> float:
    """Learning rate at which the spread is a margin above that of the Gaussian law."""
    k = np.exp(2 * MARGIN)
    return 2 * (k - 1) / (2 * k / finite_variance_learning_rate(batch, dimension) - 1)


def measure(dimension: int, batch: int, num_seeds: int, number: int) -> list[dict]:
    """Spread at learning rates on both sides of its boundary, tail indices on both sides of theirs."""
    place = {"dimension": dimension, "batch": batch}
    mild = [f * margin_learning_rate(dimension, batch) for f in NEAR_MARGIN]
    heavy = [f * finite_variance_learning_rate(batch, dimension) for f in NEAR_TAIL]
    num_chains = max(int(num_seeds / batch**0.5), 20)  # a larger batch takes longer, and its boundaries are sharper
    settled = run(dimension, batch, mild + heavy, num_chains, 2 * number)[:, :, BURN:]
    away = run(dimension, batch, heavy + heavy, num_chains, 2 * number + 1, FAR[0])
    away = np.linalg.norm(away, axis=-1).reshape(2, len(heavy), num_chains, -1).swapaxes(0, 1)
    found = []
    for rate, draws in zip(mild, settled[: len(mild)], strict=True):
        square = np.mean(draws**2, axis=(1, 2))
        gaussian = stationary_covariance(1, 1, rate, batch).item()
        variance = rate**2 / batch / (1 - moment_growth(2, rate, batch, dimension))
        error = np.std(square, ddof=1) / np.sqrt(num_chains) / np.mean(square) / 2
        measured, predicted = np.log(np.array([np.mean(square), variance]) / gaussian) / 2
        found.append(entry("spread", place, rate, measured, error, predicted))
    for rate, draws, norms in zip(heavy, settled[len(mild) :], away, strict=True):
        sample, predicted = draws.reshape(-1, dimension), tail_index(rate, batch, dimension)
        inverse, error = hill(sample, max(int(UPPER * len(sample)), 20))
        found.append(entry("hill", place, rate, 1 / inverse, error / inverse**2, predicted))
        found.append(entry("step", place, rate, *growth_root(norms), predicted))
    return found


def run(dimension: int, batch: int, rates: list[float], num_chains: int, key: int, start: float = 0.0) -> np.ndarray:
    """Weights (rate, chain, draw, d) of SGD on fresh examples, from the optimum, or every step of it from far away."""
    ones = (1.0,) * dimension
    model = bvs.load_model(MODEL, covariance=ones, weights=(0.0,) * dimension, num_examples=64)
    places = np.tile(start * np.eye(dimension)[0], (len(rates) * num_chains, 1))
    tree = bvs.simulate(
        bvs.SGD(np.repeat(rates, num_chains), batch, sampling="fresh"), bvs.Posterior(model), key=key,
        num_chains=len(places), num_draws=NUM_DRAWS, num_steps=NUM_DRAWS * (1 if start else THINNING),
        initial={"w": places}, observables=["loss"], record_positions=True, progress=False,
    )  # fmt: skip
    return np.asarray(tree["posterior"]["w"].values, float).reshape(len(rates), num_chains, NUM_DRAWS, dimension)


def growth_root(norms: np.ndarray) -> tuple[float, float]:
    """Order at which the mean power of the growth of a step is 1, over the steps that begin far away; its standard error."""
    before, after = norms[..., :-1], norms[..., 1:]
    logs, upper = np.log(after / before)[before > FAR[1]], 1.0
    while np.mean(np.exp(upper * logs)) < 1:
        upper *= 2
    order = root_scalar(lambda s: np.mean(np.exp(s * logs)) - 1, bracket=(1e-3, upper)).root
    power = np.exp(order * logs)
    return order, float(np.std(power, ddof=1) / np.sqrt(len(power)) / abs(np.mean(power * logs)))


def entry(kind: str, place: dict, rate: float, measured: float, error: float, predicted: float) -> dict:
    """One number beside its prediction."""
    return {"kind": kind} | place | {"rate": rate, "measured": measured, "error": float(error), "predicted": predicted}


def boundary(points: list[dict], dimension: int, batch: int, kind: str) -> dict:
    """Learning rate at which the spread crosses its margin or the tail index 2, by the slope from both sides."""
    own = [p for p in points if (p["dimension"], p["batch"], p["kind"]) == (dimension, batch, kind)]
    x, y, error = (np.array([p[name] for p in own]) for name in ("rate", "measured", "error"))
    level, predicted = MARGIN, margin_learning_rate(dimension, batch)
    if kind != "spread":
        y, error = 1 / y, error / y**2
        level, predicted = 1 / 2, finite_variance_learning_rate(batch, dimension)
    rise = y[2] - y[0]
    slope, off = rise / (x[2] - x[0]), (level - y[1]) / rise
    spread = np.hypot(error[1], off * np.hypot(error[0], error[2])) / abs(slope)
    place = {"kind": kind, "dimension": dimension, "batch": batch}
    return place | {"measured": float(x[1] + (level - y[1]) / slope), "error": float(spread), "predicted": predicted}


def draw(boundaries: list[dict]) -> Figure:
    """A map of learning rate and batch for each dimension."""
    figure = new_figure(8.0, 3.8)
    panels = figure.subplots(1, len(DIMENSIONS), sharey=True)
    for axes, dimension in zip(panels, DIMENSIONS, strict=True):
        zones(axes, dimension)
        for kind, (label, colour, look) in KINDS.items():
            own = [b for b in boundaries if b["kind"] == kind and b["dimension"] == dimension]
            x, y, error = (np.array([b[name] for b in own]) for name in ("batch", "measured", "error"))
            axes.errorbar(x, y, TWO_SIDED * error, color=colour, lw=1, ls="none", label=label, **look)
        axes.set_title(f"{dimension} weight{'s' if dimension > 1 else ''}", fontsize=10)
        axes.set_xlabel("batch size")
    panels[0].set_ylabel("learning rate, in units of 1 / curvature")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def zones(axes: Axes, dimension: int) -> None:
    """Draw both predictions and say what lies between them."""
    batch = np.geomspace(0.85, 1.2 * BATCHES[-1], 60)
    margin = np.array([margin_learning_rate(dimension, b) for b in batch])
    infinite = np.array([finite_variance_learning_rate(b, dimension) for b in batch])
    axes.fill_between(batch, infinite, 3, color=COLOURS[1], alpha=0.25, lw=0)
    axes.fill_between(batch, margin, infinite, color=COLOURS[0], alpha=0.15, lw=0)
    axes.plot(batch, infinite, color=COLOURS[1], lw=1)
    axes.plot(batch, margin, color=COLOURS[0], lw=1)
    axes.text(0.95, 2.6, "variance infinite: tail index below 2", va="top", fontsize=8)
    high, low = (tail_index(margin_learning_rate(dimension, b), b, dimension) for b in (BATCHES[0], BATCHES[-1]))
    line = f"on this line the spread is off by {MARGIN:.0%},\nthe tail index {high:.0f} (left) to {low:.0f} (right)"
    axes.text(0.98, 0.34, line, color=COLOURS[0], ha="right", va="top", fontsize=8, transform=axes.transAxes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(batch[0], batch[-1])
    axes.set_ylim(0.04, 3)
    axes.set_xticks(BATCHES, [str(b) for b in BATCHES])
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
