r"""When does noise in the labels make SGD forget its initialisation? A boundary in steps, learning rate, batch, noise and depth.

    python analyses/label_noise.py

Gradient flow on a linear network keeps :math:`D_l = W_{l+1}^\top W_{l+1} - W_l W_l^\top`: where on the set of minima it began is
never forgotten. Noise moves SGD along that set. A step with the residual matrix R changes D_l by exactly
:math:`\eta^2 (G_{l+1}^\top G_{l+1} - G_l G_l^\top)`, :math:`G_l = (W_L \cdots W_{l+1})^\top R\, (W_{l-1} \cdots W_1)^\top`. If
the squared singular values of each layer are all x_l, and those of the map all :math:`s^2 = \prod_l x_l`, this is on average

.. math:: \mathbb{E}\, \Delta D_l = -\eta^2 q\, d\, s^2 D_l / (x_l x_{l+1}),

d being the width and q the mean square of an entry of R: sigma^2 / B for batches of B examples with labels of noise sigma,
zeta^2 / n for all n with fresh noise zeta on the labels at each step (and a little more, see ``residual``). Near balance,
x_l = s^(2/L), it falls as exp(-N / N*) in N steps. In units of the curvature :math:`S = L s^{2 - 2/L}`, which bounds the
learning rate, a = eta S,

.. math:: N^* = \frac{L^2 s^2}{d\, a^2 q}.

Label noise matters in runs longer than this. Depth makes a network remember longer, and so does a start far from balance where
there are more than two layers. Before N* SGD stays on its start's part of the minima, long after it has only balanced networks;
the posterior has neither, since there the prior alone decides. (Left out: the fluctuations of the map, which lengthen N* by a few
tenths of a per cent here where there are more than two layers.)

The noise removes weights, too. Of two layers, :math:`\Theta = [W_1^\top W_2]`, the determinant of
:math:`\Theta^\top \Theta` falls as exp(-2 c d^2 t) on every path, t the time and c the variance of an entry of the gradient's
noise in it; gradient flow keeps it. Its leading minors are not so simple: they fluctuate, and only their drift given where they
are is known (``theory/label_noise.py``); they fall more slowly, the fewer columns they have. A single mode of two
layers is lost for good where its singular value s* is below c/2; of three layers it is near 0 for a share of the time that
vanishes with how near.

Writes the figure and its numbers beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import cumulative_trapezoid, quad, solve_ivp

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.report.figures import COLOURS, TWO_SIDED, new_figure, write_analysis
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.collapse import DeepModeLaw, square_law
from bayes_vs_sgd.theory.label_noise import log_minor_drift

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "deep_linear.py"
DEPTHS, WIDTH, VALUE = (2, 3, 4), 2, 2.0
"""L, d and s."""
NEAR, FAR = 1.2, 2.0
"""What multiplies the first layer and divides the last at the start."""
MINIBATCH, LABEL_NOISE, DESCENT = "batches of noisy labels", "all examples, label noise", "gradient descent"
"""Batches are of examples never seen before: of a data set without sampling errors."""
MARKS = {MINIBATCH: "o", LABEL_NOISE: "s", DESCENT: "^"}
RUNS = (
    (MINIBATCH, 0.1, 4, 0.2, NEAR),
    (MINIBATCH, 0.05, 16, 0.6, NEAR),
    (MINIBATCH, 0.1, 16, 1.6, NEAR),
    (MINIBATCH, 0.1, 16, 3.0, NEAR),
    (MINIBATCH, 0.1, 16, 1.2, FAR),
    (LABEL_NOISE, 0.05, 8, 0.4, NEAR),
    (LABEL_NOISE, 0.1, 8, 2.3, NEAR),
    (DESCENT, 0.1, 16, 1.0, NEAR),
)
"""Source of the noise, a, batch B or examples n, steps in units of N* (for gradient descent, of minibatches), and start."""
MINORS = {"widths": (2, 5, 2), "spectrum": (1.5,), "noise": 0.05, "rate": 0.002, "time": 60.0, "draws": 400}
"""Network and teacher, c, learning rate, time, and draws over which the drift is summed."""
COLLAPSE_NOISE, COLLAPSE_RATE, COLLAPSE_TIME, LOST = 0.8, 0.0025, 450.0, 1e-3
"""c of single modes, learning rate, time, and the singular value in units of c below which one is called lost.

At four times the learning rate some runs of three layers overshoot 0 from large weights, and stay behind it."""
COLLAPSE_TARGETS = (0.2, 0.3, 0.7, 1.0, 1.5)
"""s*/c; between .4 and .6 two layers relax too slowly."""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(
        description="What label noise does to the layers' balance, to minors and to small modes."
    )
    parser.add_argument("--num-seeds", type=int, default=16, help="independent runs of each")
    parser.add_argument("--length", type=float, default=1.0, help="times the steps that are run")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    wanted = [(depth, *run) for depth in DEPTHS for run in RUNS]
    points = [measure(*point, arguments.length, arguments.num_seeds, seed) for seed, point in enumerate(wanted)]
    short = min(1.0, arguments.length)
    found = {"imbalance": points, "minors": minors(6 * arguments.num_seeds, short)}
    cases = [(depth, target) for depth in (2, 3) for target in COLLAPSE_TARGETS]
    found["collapse"] = [collapse(*case, 60 * arguments.num_seeds, short, seed) for seed, case in enumerate(cases)]
    write_analysis(arguments.out, "label_noise", found, draw(found))


def residual(source: str, a: float, batch: int) -> float:
    """Mean square q of an entry of R for noise 1: that of the step, u, and v = u a / (2 - a) of the map's own fluctuations.

    With normal inputs one example's R has the variance 1 + (d + 1) v, so that u = (1 + (d + 1) v) / B.
    """
    share = a / (2 - a)
    return (1 + share) / (batch if source == LABEL_NOISE else batch - share * (WIDTH + 1))


def left_after(steps: np.ndarray, depth: int, source: str, a: float, batch: int, start: float) -> np.ndarray:
    """Share of the sum of all D_l that the equation above leaves; the loss keeps the product of the x_l, a the curvature."""
    rate = a / (depth * VALUE ** (2 - 2 / depth))
    x = np.full(depth, VALUE ** (2 / depth))
    x[0], x[-1] = x[0] * start**2, x[-1] / start**2

    def drift(_, x):
        now = rate * VALUE**2 * np.sum(1 / x)
        push = rate**2 * residual(source, now, batch) * WIDTH * VALUE**2 / x
        return push - np.sum(push / x) / np.sum(1 / x)

    ends = solve_ivp(drift, (0, steps[-1]), x, t_eval=steps, rtol=1e-9, atol=1e-12).y
    return (ends[-1] - ends[0]) / (x[-1] - x[0])


def measure(
    depth: int, source: str, a: float, batch: int, share: float, start: float, length: float, num_seeds: int, seed: int
) -> dict:
    """Share of tr D that is left, its standard error over runs, and what theory predicts; its own runs."""
    relabelled = source == LABEL_NOISE
    shape = {"widths": (WIDTH,) * (depth + 1), "spectrum": (VALUE,) * WIDTH, "unseen_inputs": 0, "noise": 1.0}
    examples = {"num_examples": batch if relabelled else 1000, "noise_free": relabelled}
    model = bvs.load_model(MODEL, data_seed=seed, **shape, **examples)
    noise = a**2 * residual(source, a, batch) / VALUE**2
    longest = depth**2 / (WIDTH * noise)
    num_steps = int(np.ceil(length * share * longest))
    first, *_, last = layers = [f"W{i + 1}" for i in range(depth)]
    # Gradient descent begins away from the minimum, where it would not move.
    place = {name: np.asarray(model.optimum[name]) * (0.9 if source == DESCENT else 1) for name in layers}
    place |= {first: place[first] * start, last: place[last] / start}
    rate = a / (depth * VALUE ** (2 - 2 / depth))
    dynamics = {
        MINIBATCH: bvs.SGD(rate, batch, sampling="fresh"),
        LABEL_NOISE: bvs.SGD(rate, sampling=bvs.LabelNoise(1.0)),
        DESCENT: bvs.GradientDescent(rate),
    }
    tree = bvs.simulate(
        dynamics[source],
        bvs.Posterior(model),
        key=seed,
        num_chains=num_seeds,
        num_steps=num_steps,
        num_draws=1,
        initial={name: np.repeat(value[None], num_seeds, axis=0) for name, value in place.items()},
        observables=["loss"],
        progress=False,
    )
    end = final_positions(tree)[0]
    kept = imbalance(end[first], end[last]) / imbalance(place[first], place[last])
    point = {"depth": depth, "source": source, "a": a, "batch": batch, "start": start, "steps": num_steps}
    point |= {"noise": noise, "share": num_steps / longest, "kept": float(kept.mean())}
    point["error"] = float(kept.std(ddof=1) / np.sqrt(num_seeds))
    theory = left_after(np.array([num_steps]), depth, source, a, batch, start)[0]
    point["predicted"] = 1.0 if source == DESCENT else float(theory)
    print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in point.items()), flush=True)
    return point


def imbalance(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Difference of the squared norms of the last and the first layer: the sum of all tr D_l."""
    return np.sum(upper**2, axis=(-1, -2)) - np.sum(lower**2, axis=(-1, -2))


def minors(num_seeds: int, length: float) -> list[dict]:
    """Change of the logarithms of the leading minors of Theta' Theta along label-noise SGD, beside its drift along the paths."""
    inputs, rate, noise = MINORS["widths"][0], MINORS["rate"], MINORS["noise"]
    shape = {"widths": MINORS["widths"], "spectrum": MINORS["spectrum"], "unseen_inputs": 0, "noise": 1.0}
    model = bvs.load_model(MODEL, num_examples=inputs, noise_free=True, **shape)
    steps = max(int(length * MINORS["time"] / rate) // MINORS["draws"], 1) * MINORS["draws"]
    rng = np.random.default_rng(0)
    start = {name: 0.7 * rng.normal(size=np.shape(model.optimum[name])) for name in ("W1", "W2")}
    shared = {"key": 0, "observables": ["loss"], "progress": False}
    # To the minima first: what remains of the gradient is then small, and its integral along the draws exact enough.
    flow = bvs.simulate(
        bvs.GradientDescent(rate),
        bvs.Posterior(model),
        num_chains=1,
        num_steps=20_000,
        num_draws=1,
        initial={name: value[None] for name, value in start.items()},
        **shared,
    )
    start = {name: np.asarray(value[0], float) for name, value in final_positions(flow)[0].items()}
    tree = bvs.simulate(
        bvs.SGD(rate, sampling=bvs.LabelNoise(float(np.sqrt(inputs * noise / rate)))),
        bvs.Posterior(model),
        num_chains=num_seeds,
        num_steps=steps,
        num_draws=MINORS["draws"],
        initial={name: np.repeat(value[None], num_seeds, axis=0) for name, value in start.items()},
        record_positions=True,
        **shared,
    )
    paths = {name: np.asarray(tree["posterior"][name], float) for name in start}
    paths = {
        name: np.concatenate([np.repeat(start[name][None, None], num_seeds, 0), p], 1) for name, p in paths.items()
    }
    theta = np.concatenate([paths["W1"], np.swapaxes(paths["W2"], -1, -2)], axis=-1)
    error = np.asarray(model.optimum["W2"]) @ np.asarray(model.optimum["W1"]) - paths["W2"] @ paths["W1"]
    times = np.linspace(0, steps * rate, MINORS["draws"] + 1)
    points, width = [], theta.shape[-1]
    for size in range(1, width + 1):
        first = theta[..., :size]
        logs = np.linalg.slogdet(np.swapaxes(first, -1, -2) @ first)[1]
        if size == width:
            # The mean gradient counts too, to first order in the learning rate.
            drift = -2 * (noise * inputs * (width - inputs) + rate * np.sum(error**2, axis=(-1, -2)))
        else:
            each = zip(theta.reshape(-1, *theta.shape[2:]), error.reshape(-1, *error.shape[2:]), strict=True)
            drift = np.array([log_minor_drift(t, inputs, size, e.T, noise) for t, e in each]).reshape(logs.shape)
        fall = logs - logs[:, :1]
        mean = np.concatenate([np.zeros((num_seeds, 1)), cumulative_trapezoid(drift, times, axis=1)], axis=1)
        for place in range(0, MINORS["draws"] + 1, MINORS["draws"] // 16):
            point = {"size": size, "time": float(times[place]), "change": float(fall[:, place].mean())}
            point["predicted"] = float(mean[:, place].mean())
            point["error"] = float((fall - mean)[:, place].std(ddof=1) / np.sqrt(num_seeds))
            points.append(point | {"spread": float(fall[:, place].std(ddof=1))})
        print(", ".join(f"{k} {v:.4g}" for k, v in points[-1].items()), flush=True)
    return points


def collapse(depth: int, target: float, num_seeds: int, length: float, seed: int) -> dict:
    """Share of single modes that are lost at the end, and in the stationary law; the error is that of the predicted share."""
    value, lost = target * COLLAPSE_NOISE, LOST * COLLAPSE_NOISE
    shape = {"widths": (1,) * (depth + 1), "spectrum": (value,), "unseen_inputs": 0, "noise": 1.0}
    model = bvs.load_model(MODEL, num_examples=2, noise_free=True, **shape)
    start = {f"W{i + 1}": np.full((num_seeds, 1, 1), value ** (1 / depth)) for i in range(depth)}
    tree = bvs.simulate(
        bvs.SGD(COLLAPSE_RATE, sampling=bvs.LabelNoise(float(np.sqrt(2 * COLLAPSE_NOISE / COLLAPSE_RATE)))),
        bvs.Posterior(model),
        key=seed,
        num_chains=num_seeds,
        num_steps=max(int(length * COLLAPSE_TIME / COLLAPSE_RATE), 1),
        num_draws=1,
        initial=start,
        observables=["loss"],
        progress=False,
    )
    end = final_positions(tree)[0]
    share = float(np.mean(np.abs(np.prod([end[name].ravel() for name in start], axis=0)) < lost))
    predicted = lost_share(depth, target)
    point = {"depth": depth, "target": target, "lost": share, "predicted": predicted}
    point["error"] = float(np.sqrt(max(predicted * (1 - predicted), 1 / num_seeds) / num_seeds))
    print(", ".join(f"{k} {v:.4g}" for k, v in point.items()), flush=True)
    return point


def lost_share(depth: int, target: float) -> float:
    """Mass of the stationary law of a mode of s* = ``target`` and c = c below ``LOST``; of three layers with w^3 = s."""
    if depth == 2:
        return float(square_law(target, 1.0).cdf(LOST)) if target > 0.5 else 1.0
    law = DeepModeLaw(depth, target * COLLAPSE_NOISE, COLLAPSE_NOISE)
    last = np.log(LOST * COLLAPSE_NOISE) / depth
    return float(quad(lambda u: np.exp(u) * law.density(np.exp(u)), -8, last)[0])


def draw(found: dict) -> Figure:
    """What is left of the imbalance, the steps N*, the minors, and the modes that are lost."""
    figure = new_figure(9.2, 7.4)
    (left, right), (below, last) = figure.subplots(2, 2)
    draw_imbalance(left, right, found["imbalance"])
    draw_minors(below, found["minors"])
    draw_collapse(last, found["collapse"])
    for axes in (left, right, below, last):
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_minors(axes: Axes, points: list[dict]) -> None:
    """Logarithms of the leading minors against time; one standard deviation of the paths is shaded."""
    sizes = sorted({p["size"] for p in points})
    for size, colour in zip(sizes, COLOURS, strict=False):
        own = [p for p in points if p["size"] == size]
        time, change, predicted, spread, error = (
            np.array([p[k] for p in own]) for k in ("time", "change", "predicted", "spread", "error")
        )
        name = "determinant" if size == sizes[-1] else f"minor of {size} column{'s' if size > 1 else ''}"
        axes.plot(time, predicted, color=colour, lw=1, label=name)
        axes.fill_between(time, change - spread, change + spread, color=colour, alpha=0.15, lw=0)
        axes.errorbar(time[1:], change[1:], TWO_SIDED * error[1:], color=colour, fmt="o", ms=3, lw=1)
    axes.set_xlabel("time, learning rate x steps")
    axes.set_ylabel("change of the logarithm")


def draw_collapse(axes: Axes, points: list[dict]) -> None:
    """Share of modes that are lost against s*/c, and the boundary of two layers."""
    x = np.concatenate([np.linspace(0.12, 0.5, 30), np.linspace(0.5001, 1.6, 60)])
    for depth, colour in ((2, COLOURS[0]), (3, COLOURS[1])):
        axes.plot(x, [lost_share(depth, value) for value in x], color=colour, lw=1, label=f"{depth} layers")
        own = [p for p in points if p["depth"] == depth]
        half = TWO_SIDED * np.array([p["error"] for p in own])
        axes.errorbar([p["target"] for p in own], [p["lost"] for p in own], half, color=colour, fmt="o", ms=4, lw=1)
    axes.axvline(0.5, color="grey", lw=0.8, ls=":")
    axes.text(0.52, 0.9, "s* = c/2", fontsize=8)
    axes.set_xlabel("singular value of the teacher over the noise, s*/c")
    axes.set_ylabel("share of modes below c / 1000")


def draw_imbalance(left: Axes, right: Axes, points: list[dict]) -> None:
    """What is left against the number of steps; and the steps N* after which 1/e is left, against the noise."""
    x = np.geomspace(0.15, 5, 60)
    left.axvspan(x[0], 1, color="#8883", lw=0)
    left.text(0.17, 1.05, "start remembered", fontsize=8)
    left.text(4.7, 1.05, "start forgotten", ha="right", fontsize=8)
    right.text(3.2e-5, 2e3, "start remembered", fontsize=8)
    right.text(6e-4, 4e4, "start forgotten", fontsize=8)
    noises = np.geomspace(3e-5, 2e-3, 2)
    for depth, colour in zip(DEPTHS, COLOURS, strict=False):
        for start, line in ((NEAR, "-"), (FAR, "--")):
            setting = (depth, LABEL_NOISE, 1e-3, 1)  # small steps
            steps = x * depth**2 * VALUE**2 / (WIDTH * setting[2] ** 2)
            left.plot(x, left_after(steps, *setting, start), line, color=colour, lw=1)
        right.plot(noises, depth**2 / (WIDTH * noises), color=colour, lw=1, label=f"{depth} layers")
        for p in (p for p in points if p["depth"] == depth):
            half, far = TWO_SIDED * p["error"], p["start"] == FAR
            look = {"color": colour, "fmt": MARKS[p["source"]], "ms": 4, "lw": 1, "mfc": "white" if far else colour}
            left.errorbar(p["share"] * (1.04 ** (depth - 3) if p["source"] == DESCENT else 1), p["kept"], half, **look)
            if p["source"] != DESCENT and not far:
                low, found, high = (-p["steps"] / np.log(p["kept"] + side * half) for side in (-1, 0, 1))
                right.errorbar(p["noise"], found, [[found - low], [high - found]], **look)
    for source, mark in MARKS.items():
        left.plot([], [], mark, color="grey", ms=4, label=source)
    left.plot([], [], "--o", color="grey", ms=4, lw=1, mfc="white", label="start further off balance")
    left.set_xscale("log")
    left.set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    left.set_xlim(x[0], x[-1])
    left.set_ylim(0, 1.12)
    left.set_xlabel("steps / N*")
    left.set_ylabel("imbalance that is left")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("noise of a step, a² q / s²")
    right.set_ylabel("steps N* after which 1/e is left")


if __name__ == "__main__":
    main()
