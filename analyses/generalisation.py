r"""How does a checkpoint generalise? What learning coefficient, singular fluctuation and free energy tell of it.

    python analyses/generalisation.py

SGD trains deep linear networks from small weights on many data sets, of teachers that differ by rotations. At checkpoints: the
loss on the data and on new examples, above the teacher's; half the squared answer to an input that no data show, where the
teacher's answer is 0; and, of one run, what is local: learning coefficient, singular fluctuation nu and free energy. In theory

.. math:: E[L_{new} - L_{data}] = \frac1n \sum_i \mathrm{Cov}(f_i, y_i) / \sigma^2 = \frac{2 \nu}{n}, \qquad
    E\,\tfrac12 |f(e)|^2 = \tfrac{a^2}{2} E |W_3 W_2|_F^2,

the first by Efron (JASA 99 (2004) 619) and Watanabe (2009), and r (d_in + d_out - r) / n where rank r is learned (a regular
model has lambda = nu; here the pull that keeps the law at a checkpoint takes more from lambda than from nu); the second with
the start's variance a^2, since no gradient changes the first layer's column at e. Were the layers balanced, as gradient descent
leaves them, it would be a^2/2 times the sum over the singular values of s^(4/3): noise moves them along the fibre, where neither
loss nor local law tells. Writes the figure and its numbers beside this file.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.report.figures import COLOURS, GREY, new_figure, write_analysis

HERE = Path(__file__).parent
WIDTH, SPECTRUM, NUM_EXAMPLES = 4, (4.0, 1.0), 100
RATE, BATCH, START = 0.005, 8, 0.05
"""Learning rate, examples a step, and standard deviation of the weights at first."""
LOCALIZATIONS = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Pulls to a checkpoint, of which the weakest is taken that keeps the law there, ..."""
FALLING = -2.0
"""... that is, whose learning coefficient is not below 0 by so many standard errors."""
COMMON = 100.0
"""Pull at which free energies are held against each other."""


def main() -> None:
    """Train, measure, draw, write."""
    parser = argparse.ArgumentParser(description="Generalisation along training.")
    parser.add_argument("--num-data-sets", type=int, default=64, help="data sets of one teacher")
    parser.add_argument("--num-seeds", type=int, default=32, help="runs on each")
    parser.add_argument("--num-steps", type=int, default=40000, help="of each run")
    parser.add_argument("--num-checkpoints", type=int, default=20, help="evenly spaced in log time")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    jax.config.update("jax_enable_x64", True)
    runs = []
    for seed in range(arguments.num_data_sets):
        model = network(seed)
        runs.append((model, train(model, seed, arguments)))
        print(f"data set {seed + 1} of {arguments.num_data_sets}", flush=True)
    points = [
        {"step": int(step)} | seen | around
        for step, seen, around in zip(
            runs[0][1]["posterior"]["step"].values, errors(runs), local(*runs[0]), strict=True
        )
    ]
    write_analysis(arguments.out, "generalisation", points, draw(points))


def network(seed: int) -> bvs.Model:
    """Three layers, a teacher of rank two, and one input that no data show."""
    return bvs.load_model(
        HERE.parent / "models" / "deep_linear.py", seed,
        widths=(WIDTH,) * 4, spectrum=SPECTRUM, unseen_inputs=1, num_examples=NUM_EXAMPLES, noise=1.0, num_held_out=2,
    )  # fmt: skip


def train(model: bvs.Model, seed: int, arguments: argparse.Namespace) -> xr.DataTree:
    """Runs of SGD, of which draws are kept that are evenly spaced in log time."""
    number = min(arguments.num_steps, 800)
    run = bvs.simulate(
        bvs.SGD(RATE, BATCH), bvs.Posterior(model), key=seed, num_chains=arguments.num_seeds, initial_scale=START,
        num_steps=arguments.num_steps, num_draws=number, record_positions=True, observables=["loss"], progress=False,
    )  # fmt: skip
    kept = np.unique(np.geomspace(1, number, arguments.num_checkpoints).round().astype(int)) - 1
    return xr.DataTree.from_dict({"posterior": run["posterior"].to_dataset().isel(draw=kept).load()})


def errors(runs: list[tuple[bvs.Model, xr.DataTree]]) -> list[dict[str, Any]]:
    """At each checkpoint the means over the data sets, each with its standard error, a data set being one draw.

    With whitened inputs the gap is <Xi, W - W*> of the noise's moment Xi = sum_i eps_i x_i' / n. What is taken in W*'s place is
    the mean map of the other data sets, in the teacher's singular bases: of the same mean, for the noise knows nothing of it,
    and less variance (Efron's covariance).
    """
    data, new, off, predicted, balanced, noises, maps = ([] for _ in range(7))
    for model, run in runs:
        optimum, drawn = model.optimum, run["posterior"].to_dataset()
        assert optimum is not None  # the model names its teacher
        w1, w2, w3 = (np.asarray(drawn[site]) for site in ("W1", "W2", "W3"))
        teacher = np.linalg.multi_dot([np.asarray(optimum[site]) for site in ("W3", "W2", "W1")])[:, :WIDTH]
        end_to_end = w3 @ w2 @ w1
        seen, left, right = end_to_end[..., :WIDTH], *np.linalg.svd(teacher)[::2]
        x, y = (np.asarray(model.data[name], float) for name in "xy")
        noises.append(left.T @ ((y - x[:, :WIDTH] @ teacher.T).T @ x[:, :WIDTH] / NUM_EXAMPLES) @ right.T)
        maps.append(left.T @ seen.mean(axis=0) @ right.T)
        data.append(np.asarray(drawn["loss"]).mean(axis=0) - float(model.loss(model.unconstrain(optimum))))
        new.append(((seen - teacher) ** 2).sum(axis=(-2, -1)).mean(axis=0) / 2)
        off.append((end_to_end[..., WIDTH] ** 2).sum(axis=-1).mean(axis=0) / 2)
        predicted.append(START**2 / 2 * ((w3 @ w2) ** 2).sum(axis=(-2, -1)).mean(axis=0))
        powers = np.linalg.svd(seen, compute_uv=False) ** (4 / 3)
        balanced.append(START**2 / 2 * powers.sum(axis=-1).mean(axis=0))
    others = (np.sum(maps, axis=0) - np.array(maps)) / (len(maps) - 1)
    gap = np.einsum("kij,kcij->kc", np.array(noises), np.array(maps) - others)
    found = {"data": data, "new": new, "gap": gap, "off_data": off}
    found |= {"off_data_predicted": predicted, "off_data_balanced": balanced}
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    spreads = {f"{name}_error": np.std(values, axis=0, ddof=1) / len(runs) ** 0.5 for name, values in found.items()}
    both = means | spreads
    return [{name: float(value[index]) for name, value in both.items()} for index in range(len(means["data"]))]


def local(model: bvs.Model, run: xr.DataTree) -> list[dict[str, Any]]:
    """Of the first run at each checkpoint: what the weakest pull shows that keeps the law there; free energies at one pull."""
    number = run["posterior"].sizes["draw"]
    found = {
        pull: bvs.along_training(run, bvs.Posterior(model, localization=pull), num_checkpoints=number, progress=False)
        for pull in LOCALIZATIONS
    }
    shown = []
    for index in range(number):
        here = {pull: points[index] for pull, points in found.items()}
        coefficients = {pull: point.learning_coefficient for pull, point in here.items()}
        weakest = [pull for pull, c in coefficients.items() if c.value > FALLING * c.standard_error]
        free = here[COMMON].free_energy
        values = {"localization": min(weakest, default=None), "free_energy": free.value}
        values |= {"free_energy_error": free.standard_error, "effective_rank": here[COMMON].effective_rank}
        for name in ("learning_coefficient", "singular_fluctuation"):
            estimate = getattr(here[min(weakest)], name) if weakest else None
            values |= {name: estimate and estimate.value, f"{name}_error": estimate and estimate.standard_error}
        shown.append(values)
    return shown


def draw(points: list[dict]) -> Figure:
    """Errors in distribution, their gap, the error off the data, and what is local, against the step."""
    figure = new_figure(9, 6.2)
    (loss, gap), (off, free) = figure.subplots(2, 2, sharex=True)
    kept = [p for p in points if p["localization"] is not None]
    curve(loss, points, "data", COLOURS[0], "on the data")
    curve(loss, points, "new", COLOURS[1], "on new examples")
    steps, (optimism, bars) = [p["step"] for p in kept], twice_an_example(kept, "singular_fluctuation")
    sums = [p["data"] + each for p, each in zip(kept, optimism, strict=True)]
    loss.plot(steps, sums, "D", color=COLOURS[2], markersize=4, label="on the data + 2\u03bd/n")
    loss.set(ylim=(-0.2, 1.2), title="loss, above the teacher's")
    curve(gap, points, "gap", COLOURS[0], "measured")
    gap.errorbar(steps, optimism, bars, fmt="D", color=COLOURS[2], markersize=4, label="2\u03bd/n")
    lambdas, bars = twice_an_example(kept, "learning_coefficient")
    gap.errorbar(
        steps, lambdas, bars, fmt="s", color=COLOURS[3], markersize=4, markerfacecolor="none", label="2\u03bb/n"
    )
    for rank in (1, 2, WIDTH):
        gap.axhline(rank * (2 * WIDTH - rank) / NUM_EXAMPLES, color=GREY, linewidth=0.8, linestyle="--")
        gap.text(points[0]["step"], rank * (2 * WIDTH - rank) / NUM_EXAMPLES, f"rank {rank}", fontsize=7, va="bottom")
    gap.set_title("what the data hide: the difference of the two")
    curve(off, points, "off_data", COLOURS[1], "measured")
    off.plot(*column(points, "off_data_predicted"), color=GREY, linewidth=1, label="predicted")
    off.plot(*column(points, "off_data_balanced"), "--", color=GREY, linewidth=1, label="by the singular values alone")
    off.set_title("squared answer to an input no data show, halved")
    curve(free, points, "free_energy", COLOURS[3], f"free energy, pull {COMMON:g}")
    free.set_title("local free energy")
    for axes in (loss, gap, off, free):
        axes.set_xscale("log")
        axes.title.set_fontsize(9)
        axes.legend(frameon=False, fontsize=8, loc="lower right" if axes in (gap, off) else "upper right")
    for axes in (off, free):
        axes.set_xlabel("step")
    return figure


def twice_an_example(points: list[dict], name: str) -> tuple[list[float], list[float]]:
    """Twice a value over n, and two of its standard errors."""
    return tuple([2 * k * p[key] / NUM_EXAMPLES for p in points] for k, key in ((1, name), (2, f"{name}_error")))


def column(points: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values."""
    return np.array([p["step"] for p in points]), np.array([p[name] for p in points])


def curve(axes: Axes, points: list[dict], name: str, shade: str, label: str) -> None:
    """A mean with its band of two standard errors."""
    steps, values = column(points, name)
    half = 2 * column(points, f"{name}_error")[1]
    axes.plot(steps, values, color=shade, linewidth=1.5, label=label)
    axes.fill_between(steps, values - half, values + half, color=shade, alpha=0.25, linewidth=0)


if __name__ == "__main__":
    main()
