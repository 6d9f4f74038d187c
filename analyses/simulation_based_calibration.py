r"""Does each sampler sample the posterior of each model? Ranks of the truth among draws, on data drawn from the prior.

    python analyses/simulation_based_calibration.py

For every model family at a small size and every sampler that suits it: parameters from the prior, data from them, draws from the
sampler, and the rank of the truth's primary observables (the loss, which is the log likelihood, map coordinates, norms) among
those of the draws. Ranks are uniform if the sampler is right. NUTS and MALA on the polynomial are not: they cannot cross between
the wells. Nor is the last panel, Langevin dynamics with a step too large: its variance is 1 / (1 - step x precision / 2) times
the posterior's.

Writes the figure, its numbers, and, where these stay in this folder, the record that the library ships.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from arviz_stats.ecdf_utils import ecdf_pit
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison import record, sbc
from bayes_vs_sgd.comparison.effects import LEVEL
from bayes_vs_sgd.comparison.sbc import Chain, Particles
from bayes_vs_sgd.report.figures import COLOURS, GREY, OTHERS, new_figure, write_analysis

HERE = Path(__file__).parent
FEW = {"num_examples": 16, "num_held_out": 2}
MODELS = {
    "linear_regression": {"covariance": (2.0, 0.5)} | FEW,
    "deep_linear": {"widths": (2, 2, 2), "spectrum": (1.0,), "unseen_inputs": 0, "noise": 1.0} | FEW,
    "product": {"depth": 2, "target": 1.0} | FEW,
    "diagonal_linear": {"teacher": (1.0, 0.5)} | FEW,
    "tanh_network": {"widths": (1, 2, 1), "noise": 0.5} | FEW,
    "polynomial": {"label_noise": 1.0} | FEW,
    "normal_crossing": {"powers": (1, 2)} | FEW,
    "diabetes_network": {"num_held_out": 426},  # of 442: as few are fitted
}
BIASED = "sgld, step too large"
SAMPLERS: dict[str, Callable[[bvs.Model], Chain | Particles]] = {
    "gibbs": lambda model: Chain(model.exact_sampler, 100, 5),
    "nuts": lambda model: Chain(bvs.NUTS(), 200, 4),
    "mala": lambda model: Chain(bvs.MALA(), 500, 100),
    "mclmc": lambda model: Chain(bvs.AdjustedMCLMC(), 300, 10),
    "smc": lambda model: Particles(num_particles=256, num_moves=5),
    "grid": lambda model: Chain(bvs.Grid(num_points=2 ** (14 if model.num_parameters == 1 else 19)), 0, 1),
    BIASED: lambda model: Chain(bvs.SGLD(0.04), 100, 10),  # precision 33: the variance is 2.9 times too large
}
CASES = [(model, sampler) for model in MODELS for sampler in ("nuts", "smc", "mala")]
CASES += [(model, "mclmc") for model in MODELS if model != "polynomial"]  # which has one parameter
CASES += [(model, "gibbs") for model in ("linear_regression", "deep_linear", "product")]
CASES += [("product", "grid"), ("polynomial", "grid"), ("linear_regression", BIASED)]
CASES.sort(key=lambda case: (case[1] == BIASED, list(MODELS).index(case[0])))


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Simulation-based calibration of every model family and sampler.")
    parser.add_argument("--num-simulations", type=int, default=256, help="data sets of each case")
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="numbers of the cases, all")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    numbers = []
    for index in arguments.cases:
        numbers.append(measure(*CASES[index], index, arguments.num_simulations))
        print(*(v for k, v in numbers[-1].items() if k != "counts"), flush=True)
        write(numbers, arguments.out)


def measure(name: str, sampler: str, key: int, num_simulations: int) -> dict:
    """Calibrate one sampler on one model."""
    path = HERE.parent / "models" / f"{name}.py"
    model = bvs.load_model(path, **MODELS[name])
    found = sbc.calibrate(bvs.Posterior(model), SAMPLERS[sampler](model), key, num_simulations)
    counts = {observable: found.counts(observable, found.num_draws + 1).tolist() for observable in found.ranks}
    about = {"model": name, "sampler": sampler, "num_simulations": num_simulations, "source": model.facts["digest"]}
    return about | {"p": found.p, "p_values": found.p_values, "counts": counts}


def write(numbers: list[dict], out: Path) -> None:
    """Write the figure, its numbers, and the record of the library."""
    write_analysis(out, "simulation_based_calibration", numbers, draw(numbers))
    if out == HERE:
        right = [n for n in numbers if n["sampler"] != BIASED]
        record.SAMPLERS.write_text(json.dumps(record.summary_of_samplers(right), indent=1) + "\n")


def draw(numbers: list[dict]) -> Figure:
    """Distribution functions of the ranks less the uniform one, with a band that holds all curves of a panel at 95 %."""
    columns = 5
    rows = -(-len(numbers) // columns)
    figure = new_figure(11.5, 2.1 * rows + 0.4)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    rng = np.random.default_rng(0)
    for axes in panels[len(numbers) :]:
        axes.remove()
    for axes, case in zip(panels, numbers, strict=False):
        total = len(next(iter(case["counts"].values())))
        for colour, counts in zip((*COLOURS, *OTHERS), case["counts"].values(), strict=False):
            ranks = (np.repeat(np.arange(total), counts) + rng.random(sum(counts))) / total
            level = 1 - LEVEL / len(case["counts"])
            x, found, low, high = (part[::4] for part in ecdf_pit(ranks, level, 1000, rng=rng))
            axes.plot(x, found - x, color=colour, lw=1)
        axes.fill_between(x, low - x, high - x, color=GREY, alpha=0.25, lw=0)
        axes.axhline(0, color=GREY, lw=0.6)
        axes.set_title(f"{case['model'].replace('_', ' ')}\n{case['sampler']}: p = {case['p']:.2g}", fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("rank of the truth among the draws", fontsize="small")
    figure.supylabel("distribution less the uniform one", fontsize="small")
    return figure


if __name__ == "__main__":
    main()
