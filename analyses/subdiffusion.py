r"""When does subdiffusion matter? How long a run on a clock that waits must be, and what its displacement cannot say.

    python analyses/subdiffusion.py

Langevin dynamics on an inverse alpha-stable clock S_t (``SubordinatedLangevin``) that starts from the prior, R times as wide
in variance as a normal posterior of precision lambda, has at time t the variance

.. math:: \lambda\, E x_t^2 = 1 + (R - 1) E_\alpha(-2 \lambda t^\alpha)

with the Mittag-Leffler function, which ends as :math:`1 / (\Gamma(1 - \alpha)\, 2 \lambda t^\alpha)`. Its spread is within a
comparison's margin m = 0.1 of the posterior's only after the time at which

.. math:: E_\alpha(-2 \lambda t^\alpha) = \frac{e^{2m} - 1}{R - 1}.

Displacements do not give it away. In the stationary law, the clock being new, the correlation after a lag tau is
:math:`E_\alpha(-\lambda \tau^\alpha)`, and with it the mean square displacement. But with w uniform on (0, 1)

.. math:: E_\alpha(-\lambda \tau^\alpha) = E\, e^{-r \tau}, \qquad
    r = \Big(\lambda \frac{\sin \pi\alpha w}{\sin \pi\alpha(1 - w)}\Big)^{1/\alpha}:

it is that of ordinary relaxation with these rates, at every lag. SGD on least squares has them where the curvatures h_i are
such: to first order it gives all directions one variance, and their correlation is :math:`(1 - \eta h_i)^n` after n steps.
Age tells the two apart. At age t the clock stands still for a time U more, U / (t + U) ~ Beta(1 - alpha, alpha), and
is new then (after Dynkin and Lamperti), so that the correlation is :math:`E\, E_\alpha(-\lambda (\tau - U)_+^\alpha)`. SGD does
not age. Writes the figure and its numbers beside this file.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import COLOURS, TWO_SIDED, new_figure, write_analysis
from bayes_vs_sgd.theory.fractional import mittag_leffler
from bayes_vs_sgd.theory.quadrature import unit_nodes

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "linear_regression.py"
MARGIN = MARGINS["log_deviation_ratio"]
WIDTHS, INDICES = (3.0, 10.0), (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Variance of the prior over that of the posterior, and alpha."""
TIMES, AT = np.array([0.5, 1.0, 1.5, 2.0]), 1
"""When the spread is measured, in units of the boundary, and which of these is the boundary."""
STEP = 0.02
"""Operational step of Langevin dynamics, over the relaxation time. Euler's steps widen the law by 1 / (1 - STEP / 2)."""
INDEX, AGE, LAGS, NUM_SHORT = 0.7, 10.0, np.array([0.4, 0.8, 1.6, 4.0, 10.0]), 3
"""Of the displacements; times in units of the relaxation time. The exponent is that of the first lags."""
NUM_CURVATURES, LARGEST = 8, 0.1
"""Curvatures of SGD's problem, and its learning rate times the largest of them."""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="How long a run on a clock that waits must be, and its displacement.")
    parser.add_argument("--num-seeds", type=int, default=12000, help="independent runs of each")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    num = arguments.num_seeds
    settings = [(width, alpha) for width in WIDTHS for alpha in INDICES]
    points = [measure(*s, num, key) for key, s in enumerate(settings)]
    displacements = [waiting_clock(num // 2, len(points)), many_curvatures(num // 6, len(points) + 1)]
    for p in points:
        found = f"{p['measured']:.4g} ± {p['error']:.2g}, predicted {p['predicted']:.4g}"
        print(f"prior {p['width']:g} times as wide, alpha {p['alpha']:g}: time {found}")
    for d in displacements:
        exponent = "{exponent:.3f} ± {exponent_error:.3f}, predicted {exponent_predicted:.3f}".format(**d)
        print(f"{d['dynamics']}: exponent of the displacement {exponent}")
        for p in d["points"]:
            found = f"{p['measured']:.4f} ± {p['error']:.4f}, predicted {p['predicted']:.4f}"
            print(f"{d['dynamics']}, age {p['age']:g}, lag {p['lag']:g}: displacement {found}")
    found = {"points": points, "displacements": displacements}
    write_analysis(arguments.out, "subdiffusion", found, draw(found))


def boundary(alpha: float, width: float) -> float:
    """Time from which the spread is within the margin, for a precision of 1."""
    left = np.expm1(2 * MARGIN) / (width - 1)
    power = brentq(lambda x: mittag_leffler(x, alpha).item() - left, 1e-6, 1 / left)  # E_alpha(-x) < 1/x
    return (power / 2) ** (1 / alpha)


def normal_posterior(width: float) -> tuple[bvs.Posterior, float]:
    """Return a normal posterior around 0 and its precision; the prior's variance is ``width`` times its own."""
    scale = float(np.sqrt(width - 1))
    settings = {"covariance": (1.0,), "weights": (0.0,), "isotropic": True, "num_examples": 4, "noise": 2.0}
    return bvs.Posterior(bvs.load_model(MODEL, prior_scale=scale, **settings)), 1 + 1 / scale**2


def measure(width: float, alpha: float, num_seeds: int, key: int) -> dict:
    """Spread before and after the boundary, and when it crosses the margin, with the error of a bootstrap."""
    target, precision = normal_posterior(width)
    time = boundary(alpha, width)
    dynamics = bvs.SubordinatedLangevin(
        alpha, step_size=STEP / precision, time_step=time * TIMES[0] / precision ** (1 / alpha)
    )
    tree = bvs.simulate(
        dynamics, target, key=key, num_chains=num_seeds, num_draws=len(TIMES), num_steps=len(TIMES),
        observables=["loss"], record_positions=True, progress=False,
    )  # fmt: skip
    square = precision * (1 - STEP / 2) * np.asarray(tree["posterior"]["w"].values[..., 0], float) ** 2
    spread, error = np.log(square.mean(axis=0)) / 2, square.std(axis=0, ddof=1) / square.mean(axis=0) / 2
    rng = np.random.default_rng(key)
    drawn = [crossing(time * TIMES, square[rng.integers(num_seeds, size=num_seeds)]) for _ in range(200)]
    predicted = np.log1p((width - 1) * mittag_leffler(2 * (time * TIMES) ** alpha, alpha)) / 2
    return {"width": width, "alpha": alpha, "predicted": time, "measured": crossing(time * TIMES, square)} | {
        "error": float(np.std(drawn)),
        "times": list(time * TIMES),
        "spread": list(spread),
        "spread_error": list(error / np.sqrt(num_seeds)),
        "spread_predicted": list(predicted),
    }


def crossing(times: np.ndarray, square: np.ndarray) -> float:
    """Time at which the spread is at the margin, by the slope against the logarithm of time from both sides."""
    spread = np.log(square.mean(axis=0)) / 2
    slope = (spread[-1] - spread[0]) / np.log(times[-1] / times[0])
    return float(times[AT] * np.exp((MARGIN - spread[AT]) / slope))


def waiting_clock(num_seeds: int, key: int) -> dict:
    """Displacement of Langevin dynamics on the clock that waits, from its stationary law."""
    target, precision = normal_posterior(WIDTHS[-1])
    step, unit = STEP / 2, LAGS[0]  # the clock is late by up to a step, which short lags see
    dynamics = bvs.SubordinatedLangevin(INDEX, step / precision, time_step=unit / precision ** (1 / INDEX))
    scale = (precision * (1 - step / 2)) ** -0.5
    start = scale * np.random.default_rng(key).normal(size=(num_seeds, 1))
    path = run(dynamics, target, start, key, 1) / scale

    def predicted(lag: float, age: float) -> float:
        if age == 0:
            return float(1 - mittag_leffler(lag**INDEX, INDEX))
        moved = betainc(1 - INDEX, INDEX, lag / (age + lag))  # by the end of the lag
        unit, _, weight = unit_nodes()
        ratio = betaincinv(1 - INDEX, INDEX, moved * unit)
        left = np.maximum(lag - age * ratio / (1 - ratio), 0)
        return float(moved * (1 - weight @ mittag_leffler(left**INDEX, INDEX)))

    return {"dynamics": "one curvature, a clock that waits"} | displacements(path, predicted)


def many_curvatures(num_seeds: int, key: int) -> dict:
    """Displacement of SGD with batch 1 on least squares where the curvatures are quantiles of the rates, stationary."""
    w = (np.arange(NUM_CURVATURES) + 0.5) / NUM_CURVATURES
    curvatures = (np.sin(np.pi * INDEX * w) / np.sin(np.pi * INDEX * (1 - w))) ** (1 / INDEX)
    num_steps = int(np.ceil(LAGS[0] * curvatures[-1] / LARGEST))  # a lag is a whole number of steps
    rate = LAGS[0] / num_steps
    model = bvs.load_model(MODEL, covariance=tuple(curvatures), weights=(0.0,) * NUM_CURVATURES, num_examples=64)
    share = 1 / (1 - rate * curvatures)
    share /= share.sum()
    # S = (1 - eta H) S (1 - eta H) + eta^2 (H S H + H tr H S + H): fourth moments of normal inputs, labels of noise 1.
    variance = rate / 2 / (1 - rate * curvatures)
    variance /= 1 - curvatures @ variance
    start = np.sqrt(variance) * np.random.default_rng(key).normal(size=(num_seeds, NUM_CURVATURES))
    path = run(bvs.SGD(rate, 1, sampling="fresh"), bvs.Posterior(model), start, key, num_steps)

    def predicted(lag: float, age: float) -> float:
        return float(share @ (1 - (1 - rate * curvatures) ** round(lag / rate)))

    found = {"dynamics": "SGD, many curvatures", "curvatures": list(curvatures), "learning_rate": rate}
    return found | displacements(path / variance.sum() ** 0.5, predicted)


def run(dynamics: bvs.Dynamics, target: bvs.Posterior, start: np.ndarray, key: int, thinning: int) -> np.ndarray:
    """Weights (chain, draw, d) from the start on, a draw each first lag, long enough for every lag at every age."""
    num_draws = round((AGE + LAGS[-1]) / LAGS[0])
    tree = bvs.simulate(
        dynamics, target, key=key, num_chains=len(start), num_draws=num_draws, num_steps=num_draws * thinning,
        initial={"w": start}, observables=["loss"], record_positions=True, progress=False,
    )  # fmt: skip
    return np.concatenate([start[:, None], np.asarray(tree["posterior"]["w"].values, float)], axis=1)


def displacements(path: np.ndarray, predicted: Callable[[float, float], float]) -> dict:
    """Half the mean square displacement by lag, new and at an age, and the exponent of the first lags, new."""
    points, moves = [], {}
    for age, lag in product((0.0, AGE), LAGS):
        begin, end = round(age / LAGS[0]), round((age + lag) / LAGS[0])
        move = moves[age, lag] = np.sum((path[:, end] - path[:, begin]) ** 2, axis=1) / 2
        error = float(np.std(move, ddof=1) / len(move) ** 0.5)
        point = {"age": age, "lag": float(lag), "measured": float(move.mean()), "error": error}
        points.append(point | {"predicted": predicted(lag, age)})
    first, second = (moves[0.0, lag] for lag in LAGS[[0, NUM_SHORT - 1]])
    span = np.log(LAGS[NUM_SHORT - 1] / LAGS[0])
    slope = {"exponent": float(np.log(second.mean() / first.mean()) / span)}
    slope["exponent_error"] = float(
        np.std(second / second.mean() - first / first.mean(), ddof=1) / len(first) ** 0.5 / span
    )
    slope["exponent_predicted"] = float(np.log(predicted(LAGS[NUM_SHORT - 1], 0.0) / predicted(LAGS[0], 0.0)) / span)
    return slope | {"points": points}


def draw(found: dict) -> Figure:
    """The boundary in index and time; the displacements."""
    figure = new_figure(8.0, 3.6)
    left, right = figure.subplots(1, 2)
    alpha = np.linspace(INDICES[0] - 0.03, 1, 60)
    for width, colour, offset in zip(WIDTHS, COLOURS, ((-70, -22), (4, 6)), strict=False):
        own = [p for p in found["points"] if p["width"] == width]
        left.plot(alpha, [boundary(a, width) for a in alpha], color=colour, lw=1)
        x, y, error = ([p[name] for p in own] for name in ("alpha", "measured", "error"))
        left.errorbar(x, y, TWO_SIDED * np.array(error), fmt="o", color=colour, ms=4, lw=1)
        place = 0.75, boundary(0.75, width)
        label = f"prior {width:g} times as wide"
        left.annotate(label, place, offset, textcoords="offset points", color=colour, fontsize=8)
    inside = f"above its line the spread is\nwithin {MARGIN:.0%} of the posterior's"
    left.text(0.98, 0.97, inside, ha="right", va="top", fontsize=8, transform=left.transAxes)
    left.set_yscale("log")
    left.set_yticks([1, 10, 100], ["1", "10", "100"])
    left.set_xlabel("index of the clock (1: ordinary)")
    left.set_ylabel("length of the run, in relaxation times")
    for d, colour, shift in zip(found["displacements"], (COLOURS[1], COLOURS[2]), (0.98, 1.02), strict=True):
        for age, fill in ((0.0, "white"), (AGE, colour)):
            own = [p for p in d["points"] if p["age"] == age]
            x, y, error, line = (np.array([p[name] for p in own]) for name in ("lag", "measured", "error", "predicted"))
            label = f"{d['dynamics']}, " + (f"age {age:g}" if age else "new")
            right.plot(x, line, color=colour, lw=1)
            right.errorbar(x * shift, y, TWO_SIDED * error, fmt="o", color=colour, mfc=fill, ms=4, lw=1, label=label)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_ylim(0.05, 1.3)
    right.set_xticks(LAGS, [f"{lag:g}" for lag in LAGS])
    right.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
    right.set_xlabel("lag, in relaxation times")
    right.set_ylabel("mean square displacement / its limit")
    right.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
