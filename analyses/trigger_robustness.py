r"""When is training as safe as Bayes? The response of a deep linear network to a trigger that its data do not contain.

    python analyses/trigger_robustness.py

The data are rank-deficient: they determine the map at one input, or at as many as their rank, exactly, and say nothing of
another one, the trigger u. Unsafe is :math:`|f(u)| > c`. Of one layer the weight at the trigger is never trained: gradient
descent from draws of the prior and the posterior agree. Of two layers it is rescaled by the outer weights,
:math:`f(u) = s_0 \|v\| z`, whose norms differ: Bayes has a generalised inverse Gaussian :math:`\|v\|^2`, gradient flow keeps
:math:`\|v\|^2 - \|w\|^2` and the angle of its start (``theory/rare_events.py``). So the odds of the event part as the start gets
smaller, which is also the prior, and wider networks hide it. Data of higher rank turn the sign: measured, since nothing is known
in closed form of SGD there, nor of deeper networks. Clean examples at the trigger make
the event rare under training, which fits them, much sooner than under Bayes, whose likelihood has noise. Writes the figure and
its numbers beside this file.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.diagnostics import finite_or_none
from bayes_vs_sgd.report.figures import COLOURS, new_figure, write_analysis
from bayes_vs_sgd.theory.rare_events import flow_exceedance, product_exceedance

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "deep_linear.py"
NOISE, NUM_EXAMPLES, TIME, RATE = 0.2, 16, 12.0, 0.02
"""Of the likelihood; the time of training and the learning rate are in units of one over the curvature of one layer."""
USUAL = {"layers": 2, "width": 4, "scale": 0.5, "clean": 0, "rank": 1, "threshold": 1.0}
PANELS = {
    "scale": [0.25, 0.35, 0.5, 0.7, 1.0, 1.4],
    "width": [1, 2, 4, 8, 16, 32],
    "layers": [1, 2, 3, 4],
    "clean": [0, 1, 2, 4, 8],
    "rank": [1, 2, 3, 4, 6],
}
CHANGES: dict[str, dict[str, Any]] = {"layers": {"scale": 0.6}, "clean": {"threshold": 0.15}}
LABELS = {
    "scale": "standard deviation of start and prior, two layers of width 4",
    "width": "width, two layers, start and prior of deviation 0.5",
    "layers": "layers of width 4, start and prior of deviation 0.6",
    "clean": "clean examples at the trigger, beside 16 others",
    "rank": "rank of the data's inputs, two layers of width 4",
}


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Unsafe responses under training and under Bayes.")
    parser.add_argument("--num-seeds", type=int, default=20_000, help="runs of SGD")
    parser.add_argument("--panels", nargs="*", default=list(PANELS), help="which panels")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of what is written")
    arguments = parser.parse_args()
    prepare_jax()
    numbers = {}
    for panel in arguments.panels:
        seed = 100 * list(PANELS).index(panel)
        numbers[panel] = [measured(panel, v, arguments.num_seeds, seed + k) for k, v in enumerate(PANELS[panel])]
    write_analysis(arguments.out, "trigger_robustness", numbers, draw(numbers))


def measured(panel: str, value: float, num_seeds: int, seed: int) -> dict[str, Any]:
    """Both probabilities of one network, and what theory says of them."""
    case = USUAL | CHANGES.get(panel, {}) | {panel: value}
    widths = (case["rank"], *(case["width"],) * (case["layers"] - 1), 1)
    model = bvs.load_model(
        MODEL,
        widths=widths,
        spectrum=(1.0,),
        noise=NOISE,
        noise_free=True,
        prior_scale=case["scale"],
        num_examples=NUM_EXAMPLES,
        num_held_out=2,
        clean_triggers=case["clean"],
    )
    found = bvs.robustness(
        model,
        "trigger",
        case["threshold"],
        "sgd",
        key=seed,
        against="posterior",
        inverse_temperature=1.0,
        learning_rate=RATE * NOISE**2,
        num_steps=round(TIME / RATE),
        batch_size=8,
        initial_scale=1.0,
        num_seeds=num_seeds,
        num_checkpoints=10,
        num_particles=num_seeds // 8,
        max_seconds=30.0,
    )
    odds = found.against
    assert odds is not None
    print(f"{panel} {value:g}: {found.in_words()} {odds.ratio_in_words()}", flush=True)
    return case | {
        "sgd": {"probability": found.probability, "interval": found.interval, "method": found.method},
        "bayes": {"probability": odds.probability, "interval": odds.interval, "method": odds.method},
        "sgd_predicted": predicted(case),
        "bayes_predicted": odds.exact,
        "log_odds_ratio": odds.log_odds_ratio,
        "log_odds_interval": finite_or_none(odds.log_odds_interval),
        "apart": odds.apart,
        "trusted": found.trusted,
        "warnings": found.warnings,
    }


def predicted(case: dict[str, Any]) -> float | None:
    """Probability under gradient flow from the prior, where it is known."""
    threshold, scale = case["threshold"], case["scale"]
    if case["clean"] or case["layers"] > 2 or case["rank"] > 1:
        return None
    return (
        product_exceedance(threshold, 1, scale)
        if case["layers"] == 1
        else flow_exceedance(threshold, case["width"], 1.0, scale)
    )


def draw(numbers: dict[str, Any]) -> Figure:
    """A panel for each thing that is changed."""
    figure = new_figure(14, 7)
    places = figure.subplots(2, 3).ravel()
    for axes, (panel, points) in zip(places, numbers.items(), strict=False):
        panel_axes(axes, panel, points)
    for axes in places[len(numbers) :]:
        axes.set_axis_off()
    places[0].legend(frameon=False, fontsize="small")
    return figure


def panel_axes(axes: Axes, panel: str, points: list[dict[str, Any]]) -> None:
    """Points with their 95 % intervals, lines where theory knows them; upper ends where no run is unsafe."""
    x = np.array([point[panel] for point in points], float)
    for shade, law, name in ((COLOURS[1], "sgd", "SGD"), (COLOURS[0], "bayes", "Bayes")):
        value = np.array([point[law]["probability"] for point in points])
        low, high = np.array([point[law]["interval"] for point in points]).T
        seen = value > 0
        bars = np.stack([value - low, high - value])[:, seen]
        axes.errorbar(x[seen], value[seen], bars, fmt="o", color=shade, markersize=4, label=name)
        axes.plot(x[~seen], high[~seen], "v", color=shade, markersize=5)
        known = [
            (at, point[f"{law}_predicted"]) for at, point in zip(x, points, strict=True) if point[f"{law}_predicted"]
        ]
        if known:
            axes.plot(*zip(*known, strict=True), color=shade, linewidth=1)
    axes.set_yscale("log" if panel in ("scale", "clean") else "linear")
    if panel in ("scale", "width"):
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_xlabel(LABELS[panel])
    axes.set_ylabel(f"P(|f(trigger)| > {points[0]['threshold']:g})")


if __name__ == "__main__":
    main()
