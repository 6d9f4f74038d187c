"""How near do samplers come to the learning coefficient of deep linear networks of a thousand to a million weights.

Networks are drawn as in the public benchmarks (arXiv:2308.12108, arXiv:2507.21449): half with teachers of minimal rank, whose
local learning coefficient is Aoyagi's, half with random teachers, whose layers may have a rank of their own. Estimates are held
against the value at finite n: a Gibbs run of another seed and another start, as long as all others together; of four further
networks a class, with two layers and one output, an integral (``theory/evidence.py``). Writes ``llc_benchmark.json`` after
every network, so that it can be cut and continued, ``llc_benchmark.txt``, its table, and ``llc_benchmark.svg``.

The prior is N(0, 1) for every weight, without localisation; labels have no noise; n beta = n / log n.
"""

import json
import time
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from bayes_vs_sgd.cli import prepare_jax

prepare_jax()  # before jax starts, so that chains run on all cores

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd.diagnostics import ESS_LIMIT, RHAT_LIMIT, mean_error
from bayes_vs_sgd.learning_coefficient import baselines, bounds_alone, finite_n_reference, read_chains
from bayes_vs_sgd.measure import LEFT_OUT, measure
from bayes_vs_sgd.report.figures import COLOURS, new_figure

HERE = Path(__file__).parent
CHAINS = 4
LEVEL = 0.90
BUDGET = ("discretisation", "transient")
"""Errors beside the standard error."""
RANGES = {  # layers, widths, parameters, examples
    "1K": ((2, 5), (5, 50), (300, 3_000), 100_000),
    "10K": ((2, 10), (5, 100), (3_000, 30_000), 100_000),
    "100K": ((2, 10), (50, 500), (30_000, 300_000), 1_000_000),
}
LARGE = (((512,) * 5, "balanced"), ((724,) * 3, "balanced"), ((360,) * 9, "balanced"), ((512,) * 5, "random"))
"""Widths and teachers of a million weights."""
SECONDS = {"1K": 30.0, "10K": 25.0, "100K": 30.0, "1M": 90.0}
"""Wall time of Gibbs on a network."""
OTHERS = {"1K": 20.0, "10K": 50.0, "100K": 300.0, "1M": 900.0}
"""Wall time of each of the others."""
WIDTH = 165
"""Of the table, in letters."""
FAR = 3.0
"""Factor beyond the known values from which on an estimate is not drawn but counted."""
HEADS = ("class", "sampler", "networks", "error, median", "worst", "against lambda", "tau", "90 % covers", "pairs")
HEADS += ("bounds alone", "settled", "R-hat, worst", "gradients", "seconds")
DRAWN = 20
"""Networks of a class that are drawn as in the public benchmarks; those after them have two layers and one output."""


@dataclass(frozen=True)
class Settings:
    """What is run, and for how long."""

    classes: tuple[str, ...] = ("1K", "10K", "100K", "1M")  # sizes of networks
    samplers: tuple[str, ...] = ("gibbs", "sghmc")  # gibbs, or a name of llc --sampler; sghmc/500 has batches of 500
    num_networks: int = 24  # of each class up to 100K, the last four with one output; 1M has four
    num_seeds: int = 16  # of Gibbs on each network of class 1K; fewer of larger ones
    times: float = 1.0  # multiplies the wall time of a sampler on a network, see SECONDS and OTHERS
    out: Path = HERE  # folder of what is written


def main(settings: Settings) -> None:
    """Run what is not there yet, and show what is."""
    jax.config.update("jax_enable_x64", True)
    path = settings.out / "llc_benchmark.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for sampler in settings.samplers:
        for size in settings.classes:
            for index in range(len(LARGE) if size == "1M" else settings.num_networks):
                key = f"{size}/{index}"
                entry = found.setdefault(key, describe(size, index))
                if sampler not in entry["runs"]:
                    print(f"{sampler} on {key}: widths {entry['widths']}", flush=True)
                    entry["runs"][sampler] = run(entry, sampler, settings)
                    path.write_text(json.dumps(found, indent=1) + "\n")
    table = summary(found)
    with (settings.out / "llc_benchmark.txt").open("w") as file:
        for console in (Console(width=WIDTH), Console(width=WIDTH, file=file)):
            console.print(table)
    scatter(found).savefig(settings.out / "llc_benchmark.svg", metadata={"Date": None})


def describe(size: str, index: int) -> dict[str, Any]:
    """Draw a network of a class: its widths, and a teacher of minimal rank or a random one."""
    rng = np.random.default_rng([zlib.crc32(size.encode()), index])
    if size == "1M":
        (widths, teacher), num_examples = LARGE[index], 1_000_000
        rank = min(widths) // 8
    else:
        layers, width, parameters, num_examples = RANGES[size]
        while True:
            widths = tuple(rng.integers(width[0], width[1] + 1, rng.integers(layers[0], layers[1] + 1) + 1).tolist())
            widths = widths if index < DRAWN else (*widths[:2], 1)
            if parameters[0] <= sum(a * b for a, b in zip(widths[1:], widths[:-1], strict=True)) <= parameters[1]:
                break
        rank, teacher = int(rng.integers(0, min(widths) + 1)), "random" if index % 2 else "balanced"
    return {
        "size": size,
        "index": index,
        "widths": widths,
        "rank": rank,
        "teacher": teacher,
        "n": num_examples,
        "runs": {},
    }


def build(entry: dict[str, Any], sufficient: bool = True) -> bvs.Model:
    """Build the model of an entry, with its examples or with what stands for them, which does not grow with their number."""
    rank = entry["rank"] if entry["teacher"] == "balanced" else 0
    return bvs.load_model(
        HERE.parent / "models" / "deep_linear.py",
        data_seed=entry["index"], widths=tuple(entry["widths"]), spectrum=(1.0,) * rank, teacher=entry["teacher"],
        inputs="gaussian", sufficient=sufficient, num_examples=entry["n"], noise=2**-0.5, noise_free=True, unseen_inputs=0,
    )  # fmt: skip


def run(entry: dict[str, Any], sampler: str, settings: Settings) -> dict[str, Any]:
    """Estimates of one sampler on one network; with Gibbs also the value that all are held against."""
    name, _, batch = sampler.partition("/")
    model = build(entry, not batch)
    target = bvs.Posterior(model, 1 / np.log(entry["n"]))
    entry |= {"num_parameters": model.num_parameters, "precision": float(target.scale)}
    known = {fact: truth.value for fact, truth in model.truth.items()}
    entry |= {"lambda": known.get("learning_coefficient"), "lower_bound": known.get("lower_bound")}
    entry["global_lambda"] = known.get("global_learning_coefficient", known.get("learning_coefficient"))
    seconds = settings.times * (SECONDS if sampler == "gibbs" else OTHERS)[entry["size"]]
    if sampler != "gibbs":
        shared = {"second": False, "num_chains": 2, "num_draws": 100, "batch_size": int(batch) if batch else None}
        started = time.monotonic()
        try:
            found, _ = measure(target, sampler=name, max_seconds=seconds, **shared)
        except bvs.InputError as problem:
            made = {"estimates": [], "problem": str(problem)}
        else:
            value = {"value": found.value, "standard_error": found.standard_error, "rhat": found.rhat, "ess": found.ess}
            value |= {part: found.error_budget[part] for part in BUDGET}
            made = {"estimates": [value], "gradients": found.num_gradients}
        return made | {"seconds": time.monotonic() - started, "max_seconds": seconds}
    baseline = baselines(target, "optimum")[0]["optimum"]["value"]
    exact = finite_n_reference(target, baseline)
    num_seeds = {"1K": settings.num_seeds, "10K": min(settings.num_seeds, 5)}.get(entry["size"], 1)
    num_chains = num_seeds * (CHAINS if entry["size"] != "1M" else 2)
    started = time.monotonic()
    estimates, gradients = gibbs(target, baseline, 0, seconds, num_chains, num_seeds, {"initial_scale": 0.3})
    seconds_each = (time.monotonic() - started) / num_seeds
    if exact is None:
        start = {"initial": "optimum", "initial_scale": 0.3}
        (long,), _ = gibbs(target, baseline, 1, seconds, num_chains, 1, start)
        exact = {
            "value": long["value"],
            "standard_error": long["standard_error"],
            "source": "a Gibbs run of another start",
        }
    entry["reference"] = exact
    return {"estimates": estimates, "seconds": seconds_each, "gradients": gradients / num_seeds}


def gibbs(
    target: bvs.Posterior,
    baseline: float,
    key: int,
    seconds: float,
    num_chains: int,
    num_groups: int,
    start: dict[str, Any],
) -> tuple[list[dict[str, float]], float]:
    """Estimates by groups of chains of one Gibbs run."""
    shared = {"key": key, "num_chains": num_chains, "observables": ["loss", "squared_norm"], **start}
    bvs.simulate(target.model.exact_sampler, target, num_draws=2, **shared)  # ten layers compile longer than they run
    tree = bvs.simulate(target.model.exact_sampler, target, num_draws=3000, max_seconds=seconds, **shared)
    chains = read_chains(tree, target, baseline, LEFT_OUT)
    groups = np.split(chains.excess, num_groups)
    found = [{"value": float(g.mean()), "standard_error": mean_error(g, False)} for g in groups]
    return [group | {"rhat": chains.rhat, "ess": chains.ess / num_groups} for group in found], chains.num_gradients


def errors(entry: dict[str, Any], sampler: str) -> list[float]:
    """Relative error of each estimate against the finite-n reference."""
    exact = entry["reference"]["value"]
    return [estimate["value"] / exact - 1 for estimate in entry["runs"][sampler]["estimates"]]


def is_told(entry: dict[str, Any], estimate: dict[str, Any], bounds: bool = False) -> bool:
    """Whether a run knows its budget; with ``bounds`` also if that is no more than that lambda is between 0 and d/2."""
    if None in rest(estimate):
        return False
    return bounds or estimate.get("transient") != bounds_alone(estimate["value"], entry["num_parameters"] / 2)


def rest(estimate: dict[str, Any]) -> list[float | None]:
    """Errors beside the standard error."""
    return [estimate.get(part, 0.0) for part in BUDGET]


def settled(estimate: dict[str, Any]) -> bool:
    """Whether R-hat and effective sample size are as a measurement wants them."""
    return estimate["rhat"] < RHAT_LIMIT and estimate["ess"] >= ESS_LIMIT


def covered(entry: dict[str, Any], sampler: str, bounds: bool = False) -> list[bool]:
    """Whether each 90 % interval, with the rest of the budget, holds the reference, whose error it also bears.

    Of the runs that know their budget (``is_told``).
    """
    exact, other = entry["reference"]["value"], entry["reference"].get("standard_error", 0.0)
    found = []
    for estimate in entry["runs"][sampler]["estimates"]:
        half = stats.norm.ppf((1 + LEVEL) / 2) * np.hypot(estimate["standard_error"], other)
        if is_told(entry, estimate, bounds):
            found.append(abs(estimate["value"] - exact) <= half + sum(rest(estimate)))
    return found


def summary(found: dict[str, Any]) -> Table:
    """One row a class and sampler; the networks on which it has a draw and a chain left, of those that it was run on.

    ``bounds alone`` are runs that know no more than that lambda is between 0 and d/2, or less, and are no pairs; ``settled``
    those whose R-hat and effective sample size are as wanted.
    """
    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="right")
    samplers = ("gibbs", *sorted({s for e in found.values() for s in e["runs"]} - {"gibbs"}))
    for size, sampler in product(("1K", "10K", "100K", "1M"), samplers):
        asked = [e for e in found.values() if e["size"] == size and sampler in e["runs"] and "reference" in e]
        if asked := [e for e in asked if e["reference"]["value"] > 0]:
            table.add_row(size, sampler, *cells(asked, sampler))
    return table


def cells(asked: list[dict[str, Any]], sampler: str) -> list[str]:
    """What one sampler made of the networks of a class."""
    entries = [e for e in asked if e["runs"][sampler]["estimates"]]
    found = [f"{len(entries)} of {len(asked)}"]
    if not entries:
        return found
    relative = np.abs(np.concatenate([errors(e, sampler) for e in entries]))
    made = [x for e in entries for x in e["runs"][sampler]["estimates"]]
    holds = np.concatenate([covered(e, sampler) for e in entries])
    values = [np.mean([x["value"] for x in e["runs"][sampler]["estimates"]]) for e in entries]
    lambdas = [abs(v / e["lambda"] - 1) for v, e in zip(values, entries, strict=True) if e["lambda"]]
    tau = stats.kendalltau(values, [e["reference"]["value"] for e in entries]).statistic
    gradients, seconds = (
        np.median([e["runs"][sampler][k] or np.nan for e in entries]) for k in ("gradients", "seconds")
    )
    found += [f"{np.median(relative):.2%}", f"{relative.max():.1%}", f"{np.median(lambdas):.1%}" if lambdas else "-"]
    found += [f"{tau:.3f}" if len(entries) > 1 else "-", f"{holds.mean():.0%}" if len(holds) else "-"]
    found += [str(len(holds)), str(len(made) - len(holds)), str(sum(map(settled, made)))]
    found.append(f"{max(x['rhat'] for x in made):.2f}")
    return [*found, "-" if np.isnan(gradients) else f"{gradients:.1e}", f"{seconds:.0f}"]


def scatter(found: dict[str, Any]) -> Any:
    """Estimates against the closed form, one colour a class, one marker a sampler."""
    figure = new_figure(6.2, 4.5)
    axes = figure.subplots()
    sizes, markers = ("1K", "10K", "100K", "1M"), "o^svDPX*<>"
    samplers = sorted({s for e in found.values() for s in e["runs"]}, key=lambda s: (s != "gibbs", s))
    ends = [e["lambda"] or e["global_lambda"] for e in found.values()]
    ends = [min(x for x in ends if x > 0), max(ends)]
    shown, outside = (ends[0] / FAR, ends[1] * FAR), 0
    for entry in found.values():
        for sampler, made in entry["runs"].items():
            if not made["estimates"]:
                continue
            value, known = np.mean([x["value"] for x in made["estimates"]]), entry["lambda"] or entry["global_lambda"]
            outside += not shown[0] <= value <= shown[1]
            filled = {} if entry["lambda"] else {"markerfacecolor": "none"}
            axes.plot(
                known, value, markers[samplers.index(sampler) % len(markers)], color=COLOURS[sizes.index(entry["size"])],
                markersize=4, **filled,
            )  # fmt: skip
    axes.plot(ends, ends, color="#888888", linewidth=1)
    if outside:
        axes.text(0.98, 0.02, f"{outside} not shown", transform=axes.transAxes, ha="right", fontsize=8)
    for marker, sampler in zip(markers, samplers, strict=False):
        axes.plot([], [], marker, color="#888888", label=sampler)
    for size, shade in zip(sizes, COLOURS, strict=False):
        axes.plot([], [], "s", color=shade, label=size)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(*shown)
    axes.set_xlabel("closed form (hollow: only the global value is known)")
    axes.set_ylabel("estimate at finite n")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    main(tyro.cli(Settings))
