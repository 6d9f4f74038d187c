r"""When does a finite learning rate matter? Boundaries in learning rate x sharpness and depth, of the path and of the law.

    python analyses/continuous_limit.py

Backward error analysis: n steps of gradient descent are the flow, for the time eta n, of a field v~ with

.. math:: e^{\eta \tilde v \partial_w} w = w + \eta v, \qquad
    \tilde v = v - \tfrac{\eta}{2} v v' + \eta^2 (\tfrac13 v v'^2 + \tfrac1{12} v^2 v'') + \dots

The first term is the flow of L, the first two that of L + (eta/4)|grad L|^2. A balanced mode of a network of D equal layers has
v = w^{D-1} (s* - w^D), sharpness S = D s*^{2-2/D} at the minimum, and goes from w_0 to w_1 in

.. math:: \eta n = \int \frac{dw}{\tilde v} = t_{\text{flow}} + \frac{\eta}{2} \log \frac{|v(w_1)|}{|v(w_0)|} + O(\eta^2).

Steps are late where the gradient grows (out of small weights) and early where it shrinks (one layer). The error of the log
time is of order 1 in eta, that of the modified flow of order 2, and deeper networks are forgiving: they spend the time where
the loss hardly curves. The boundary is for a mode that grows from 0.01 to half its target; as it starts smaller the lag
relative to the time tends to x / 4 for two layers, x = eta S, and to 0 for more.

The stationary law near the minimum knows x alone, at any depth. SGD has 1/(1 - x/2) times the variance of its equation, which
has 1 + x/2 times that of the equation with the modified drift: what follows the path better is further from the law. At the
margin 0.1 of a log standard deviation the equation is good up to x = 2 (1 - exp(-0.2)) = 0.36, the modified one up to 2
tanh(0.1) = 0.20. (Log times are held against the same 0.1.) Writes the figure and its numbers beside this file.
"""

import argparse
from functools import lru_cache, reduce
from math import factorial
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.polynomial import Polynomial
from scipy.integrate import quad
from scipy.optimize import brentq

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.modes import chain
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.dynamics import GaussianNoise, StochasticGradientFlow
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import GREY, TWO_SIDED, new_figure, write_analysis
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.quadratic import continuous_covariance, stationary_covariance

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "deep_linear.py"
MARGIN = MARGINS["log_deviation_ratio"]
DEPTHS, START, END = (1, 2, 3, 4), 0.01, 0.5
"""Layers; singular values between which a mode of s* = 1 is timed."""
PATH, LAW = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9), (0.1, 0.2, 0.4, 0.8)
"""Learning rates x sharpness."""
OTHERS = {"batches of 2": {"batch": 2}, "twice the noise": {"noise": 0.04}}
"""Settings that should change nothing of the law, tried at one place."""
SUBSTEPS, TERMS = 8, 8
"""Of the equations; of the modified field that stands for gradient descent."""
ORDERS = ("first", "second")
FLOWS = (("the flow of L", "the modified flow"), ("its equation", "the modified equation"))
COLOURS = ("#56b4e9", "#009e73", "#d55e00", "#cc79a7")


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Where the flows of gradient descent and SGD fail, by depth.")
    parser.add_argument("--num-seeds", type=int, default=2000, help="independent runs of each ensemble")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    with jax.enable_x64(True):
        path = [point for depth in DEPTHS for point in timed(depth)]
        cases = [{"depth": depth, "x": x} for depth in DEPTHS for x in LAW]
        cases += [{"depth": 2, "x": LAW[2], "setting": name} | other for name, other in OTHERS.items()]
        law = [stationary(3 * i, arguments.num_seeds, **case) for i, case in enumerate(cases)]
    boundaries = crossings("path", path) + crossings("law", law)
    for p in path + law + boundaries:
        print(", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in p.items()))
    content = {"path": path, "law": law, "boundaries": boundaries}
    write_analysis(arguments.out, "continuous_limit", content, draw(content))


@lru_cache
def modified(depth: int, terms: int) -> list[Polynomial]:
    """Coefficients in eta of the field whose flow are the steps, each from those before it: exp(eta v~) w = w + eta v."""
    w = Polynomial([0, 1])
    fields = [w ** (depth - 1) * (1 - w**depth)]
    for k in range(1, terms):
        powers, total = fields, 0.0
        for m in range(2, k + 2):
            powers = [sum(fields[i] * powers[j - i].deriv() for i in range(j + 1)) for j in range(k + 2 - m)]
            total = total + powers[-1] / factorial(m)
        fields = [*fields, -total]
    return fields


def duration(depth: int, start: float, end: float, rate: float, terms: int) -> float:
    """Time between two singular values along the field of so many terms."""
    fields = modified(depth, terms)

    def slowness(u):  # in log w, where an escape from near 0 is smooth
        w = np.exp(u)
        return w / sum(rate**k * field(w) for k, field in enumerate(fields))

    ends = np.log([start, end]) / depth
    return float(quad(slowness, *ends, epsabs=0, epsrel=1e-11, limit=200)[0])


def time_errors(depth: int, rate: float, end: float = END) -> list[float]:
    """Logarithm of the time that the steps take over that of the flow, and of the modified flow."""
    steps, *flows = (duration(depth, START, end, rate, terms) for terms in (TERMS, 1, 2))
    return [float(np.log(steps / flow)) for flow in flows]


def timed(depth: int) -> list[dict]:
    """Time errors of gradient descent on a network of two modes, at learning rates whose n-th step ends next to END."""
    model = bvs.load_model(
        MODEL, widths=(2,) * (depth + 1), spectrum=(1.0, 0.5), noise=1.0, noise_free=True, unseen_inputs=0
    )
    small = {name: START ** (1 / depth) * np.asarray(layer)[None] for name, layer in model.optimum.items()}
    highest, found = 1.95 / depth, {}
    for rate in np.array(PATH) / depth:
        steps = max(1, round(duration(depth, START, END, rate, 2) / rate))
        if steps * highest < duration(depth, START, END, highest, TERMS) or steps in found:
            continue
        rate = brentq(lambda r, n=steps: n * r - duration(depth, START, END, r, TERMS), rate / 4, highest)
        run = bvs.simulate(
            bvs.GradientDescent(rate), bvs.Posterior(model), key=0, num_chains=1, num_steps=steps, num_draws=1,
            initial=small, observables=["loss"], progress=False,
        )  # fmt: skip
        layers = final_positions(run)[0]
        product = reduce(lambda low, high: high @ low, [layers[name][0] for name in small])
        end = float(np.linalg.svd(product)[1][0])
        flows = (duration(depth, START, end, rate, terms) for terms in (1, 2))
        values = dict(zip(ORDERS, (float(np.log(steps * rate / flow)) for flow in flows), strict=True))
        predicted = dict(zip(("first_predicted", "second_predicted"), time_errors(depth, rate, end), strict=True))
        found[steps] = {"depth": depth, "x": rate * depth, "steps": steps, "end": end} | values | predicted
    return list(found.values())


def stationary(
    key: int, num_seeds: int, depth: int, x: float, batch: int = 8, noise: float = 0.02, setting: str = "default"
) -> dict:
    """Log standard deviation of a mode under SGD over that of its equations of order 1 and 2, and their standard errors.

    The inputs are +-1, so that the batches' own curvature does not vary: what is left is the finite learning rate.
    """
    inputs, residuals = np.repeat([1.0, -1.0], 8), noise * np.tile([1.0, -1.0], 8)
    model, rate = chain(depth, inputs, inputs + residuals), x / depth
    flows = [StochasticGradientFlow(rate, GaussianNoise(batch), SUBSTEPS, order) for order in (1, 2)]
    logs, errors = [], []
    for shift, dynamics in enumerate((bvs.SGD(rate, batch), *flows)):
        tree = bvs.simulate(
            dynamics, bvs.Posterior(model), key=key + shift, num_chains=num_seeds, num_warmup=round(10 / x),
            num_steps=round(64 / x), num_draws=32, observables=["product"], progress=False,
            initial={f"w{i + 1}": np.ones(num_seeds) for i in range(depth)},
        )  # fmt: skip
        squares = np.mean((np.asarray(tree["posterior"]["product"], float) - 1) ** 2, axis=1)
        logs.append(np.log(squares.mean()) / 2)
        errors.append(squares.std(ddof=1) / squares.mean() / np.sqrt(num_seeds) / 2)
    found = {"depth": depth, "x": x, "setting": setting}
    variances = [stationary_covariance(depth, depth, rate, batch), continuous_covariance(depth, depth, rate, batch)]
    variances.append(variances[1] / (1 + x / 2))
    for order, name in enumerate(ORDERS, start=1):
        drift = 1 if order == 1 else 1 + x / 2
        euler = -np.log(1 - drift * x / (2 * SUBSTEPS)) / 2  # of the sub-steps, exact on a quadratic
        found[name] = float(logs[0] - logs[order] + euler)
        found[f"{name}_error"] = float(np.hypot(errors[0], errors[order]))
        found[f"{name}_predicted"] = float(np.log(variances[0] / variances[order]).item()) / 2
    return found


def sizes(rows: str, depth: int, x: float) -> tuple[float, float]:
    """Predicted sizes of the errors of order 1 and 2."""
    if rows == "path":
        first, second = time_errors(depth, x / depth)
        return abs(first), abs(second)
    return -np.log(1 - x / 2) / 2, np.arctanh(x / 2)


def crossings(rows: str, points: list[dict]) -> list[dict]:
    """Learning rate x sharpness at which an error passes the margin, if below 2: between points, and by theory."""
    found = []
    for depth, order in [(depth, order) for depth in DEPTHS for order in (0, 1)]:
        own = [p for p in points if p["depth"] == depth and p.get("setting", "default") == "default"]
        x, size = np.array([(p["x"], abs(p[ORDERS[order]])) for p in own]).T
        half = np.array([TWO_SIDED * p.get(f"{ORDERS[order]}_error", 0.0) for p in own]) / size
        if size[0] < MARGIN < size[-1]:
            logs = (np.interp(np.log(MARGIN), np.log(size) + shift * half, np.log(x)) for shift in (1, 0, -1))
            values = dict(zip(("low", "x", "high"), (float(np.exp(log)) for log in logs), strict=True))
            values["predicted"] = float(brentq(lambda x, d=depth, o=order: sizes(rows, d, x)[o] - MARGIN, 0.05, 1.9))
            found.append({"of": rows, "order": ORDERS[order], "depth": depth} | values)
    return found


def draw(content: dict) -> Figure:
    """Both errors of the path and of the law against learning rate x sharpness."""
    figure = new_figure(8.6, 4.0)
    panels = dict(zip(("path", "law"), figure.subplots(1, 2), strict=True))
    marks = {"default": "o"} | dict(zip(OTHERS, "s^", strict=True))
    layers = {depth: f"{depth} layer{'s' if depth > 1 else ''}" for depth in DEPTHS}
    for rows, axes in panels.items():
        axes.axhspan(1e-6, MARGIN, color="#8883", lw=0)
        axes.spines[["top", "right"]].set_visible(False)
        for depth in DEPTHS if rows == "path" else DEPTHS[:1]:
            x = np.geomspace(0.018, 0.55 if rows == "path" and depth == 1 else 1.95, 40)
            lines = np.array([sizes(rows, depth, value) for value in x]).T
            for line, style in zip(lines, ("-", "--"), strict=True):
                axes.plot(x, line, style, color=COLOURS[depth - 1] if rows == "path" else GREY, lw=1, zorder=1)
        for p in content[rows]:
            place = p["x"] * (1.05 ** (p["depth"] - 2.5) if rows == "law" else 1)
            for order, fill in zip(ORDERS, ({}, {"mfc": "white"}), strict=True):
                style = {"fmt": marks[p.get("setting", "default")], "color": COLOURS[p["depth"] - 1], "ms": 4, "lw": 1}
                axes.errorbar(place, abs(p[order]), TWO_SIDED * p.get(f"{order}_error", 0.0), **style, **fill)
        axes.set(xscale="log", yscale="log", xlabel="learning rate x sharpness at the minimum")
    for axes, xs, ys in ((panels["path"], (0.015, 2.1), (1e-4, 1)), (panels["law"], (0.075, 2.1), (0.005, 2))):
        axes.set(xlim=xs, ylim=ys)
        ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if tick > xs[0]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        end, side = (xs[0] * 1.08, "left") if axes is panels["path"] else (xs[1], "right")
        axes.text(end, MARGIN * 0.9, "within the margin", ha=side, va="top", fontsize=8)
        axes.yaxis.set_minor_locator(NullLocator())
    panels["path"].set(
        ylabel="size of the error, in logarithm", title="Time to learn half of a mode: gradient descent against"
    )
    panels["law"].set(title="Stationary standard deviation: SGD against")
    for axes, names in zip(panels.values(), FLOWS, strict=True):
        axes.title.set_fontsize(9)
        for name, style, fill in zip(names, ("o-", "o--"), (GREY, "white"), strict=True):
            axes.plot([], [], style, color=GREY, mfc=fill, ms=4, lw=1, label=name)
    for depth, name in layers.items():
        panels["path"].plot([], [], "o", color=COLOURS[depth - 1], ms=4, label=name)
    for name in OTHERS:
        panels["law"].plot([], [], marks[name], color=COLOURS[1], ms=4, label=name)
    panels["path"].legend(frameon=False, fontsize=8, loc="upper left", ncols=3)
    panels["law"].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


if __name__ == "__main__":
    main()
