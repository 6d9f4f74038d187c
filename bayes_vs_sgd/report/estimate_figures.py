"""Figures of learning coefficients and free energies. Plain matplotlib objects, to be restyled."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..along import Checkpoint
from ..comparison.effects import scalar_draws
from ..estimate import from_replicates
from ..free_energy import FreeEnergy
from ..ladder import LEAST_PRECISION
from ..learning_coefficient import LearningCoefficient
from ..model import Model
from ..posterior import Posterior
from .figures import COLOURS, GREY, new_figure


def running_mean_figure(tree: xr.DataTree, found: LearningCoefficient, target: Posterior) -> Figure:
    """Running mean of n beta (L - L*) along each chain of a run, the interval of the estimate, and the known value."""
    draws = float(np.mean(target.scale)) * (scalar_draws(tree, "loss") - found.baseline["value"])
    figure = new_figure(5.5, 3)
    axes = figure.subplots()
    count = np.arange(1, draws.shape[1] + 1)
    means = np.cumsum(draws, axis=1) / count
    for chain in means:
        axes.plot(count, chain, color=COLOURS[0], linewidth=0.8, alpha=0.6)
    axes.axhspan(*found.interval, color=GREY, alpha=0.35, linewidth=0)
    known = [found.truth["value"]] if found.truth else []
    for value in known:
        axes.axhline(value, color=GREY, linewidth=1, linestyle="--")
    late = means[:, len(count) // 20 :]
    reach = [*np.quantile(late[np.isfinite(late)], [0.0, 1.0]), *found.interval, *known]
    room = 0.1 * (max(reach) - min(reach) + 1e-12)
    axes.set_ylim(min(reach) - room, max(reach) + room)
    axes.set_xlabel("draws of a chain")
    axes.set_ylabel("running mean")
    return figure


def ladder_figure(found: FreeEnergy, model: Model) -> Figure:
    """N E_N[L - L*] against N = n beta, of each replicate, with lambda - (m - 1)/log N as fitted and as known."""
    n, beta = model.num_examples, found.settings["inverse_temperature"]
    figure = new_figure(5.5, 3.2)
    axes = figure.subplots()
    paths = [
        (n * beta * run.tempering[1:], run.tempering[1:] * (-run.mean[1:] - n * beta * found.baseline["value"]))
        for run in found.ladders
    ]
    for scale, excess in paths:
        axes.plot(scale, excess, "o-", color=COLOURS[0], markersize=3, linewidth=0.8, alpha=0.7)
    line = np.geomspace(LEAST_PRECISION, max(n * beta, LEAST_PRECISION * 1.1), 100)
    forms: dict[str, tuple[Any, Any, str]] = {"fitted": (found.learning_coefficient, found.multiplicity, COLOURS[1])}
    forms["known"] = (model.truth.get("learning_coefficient"), model.truth.get("multiplicity"), GREY)
    heights = [excess[scale >= 1].max(initial=1.0) for scale, excess in paths]
    for name, (value, multiplicity, shade) in forms.items():
        if value is not None and multiplicity is not None:
            curve = value.value - (multiplicity.value - 1) / np.log(line)
            label = rf"{name}: $\lambda$ = {value.value:.3g}, m = {multiplicity.value:.2g}"
            axes.plot(line, curve, "--", color=shade, label=label)
            heights.append(value.value)
    if found.fitted_up_to < n * beta:
        axes.axvline(found.fitted_up_to, color=GREY, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(max(1.0, paths[0][0].min()), n * beta * 1.1)
    axes.set_ylim(0, 1.6 * max(heights))
    axes.set_xlabel("N = n\N{GREEK SMALL LETTER BETA}")
    axes.set_ylabel("N E[L \N{MINUS SIGN} L*]")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
    return figure


def evidence_figure(found: FreeEnergy) -> Figure:
    """Log evidence by each method, with 95 % intervals, and its replicates as dots."""
    replicates = found.replicates
    k = found.settings["num_moves"]
    shown = {f"{k} moves a stage": from_replicates(replicates["moves"]), f"{2 * k} moves a stage": found.log_evidence}
    shown["integration"] = found.thermodynamic_integration
    dots = dict(zip(shown, replicates.values(), strict=False))
    figure = new_figure(5.5, 2.2)
    axes = figure.subplots()
    for row, (name, estimate) in enumerate(shown.items()):
        low, high = estimate.interval
        axes.plot([low, high], [row, row], color=COLOURS[0], linewidth=1.5)
        axes.plot(estimate.value, row, "o", color=COLOURS[0], markersize=5)
        axes.plot(dots.get(name, []), [row + 0.25] * len(dots.get(name, [])), ".", color=COLOURS[1], markersize=5)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel("log evidence")
    return figure


def along_figure(found: Sequence[Checkpoint]) -> Figure:
    """Loss, effective rank, and what is local against the step, with 95 % intervals."""
    steps = [point.step for point in found]
    panels: dict[str, tuple[list[float], list[float]]] = {"loss": ([point.loss for point in found], [0.0] * len(found))}
    ranks = [point.effective_rank for point in found if point.effective_rank is not None]
    if len(ranks) == len(found):
        panels["effective rank"] = (ranks, [0.0] * len(found))
    for name in ("learning_coefficient", "singular_fluctuation", "free_energy"):
        estimates = [estimate for point in found if (estimate := getattr(point, name)) is not None]
        if len(estimates) < len(found):
            continue
        halves = [(e.interval[1] - e.interval[0]) / 2 for e in estimates]
        panels[f"local {name.replace('_', ' ')}"] = ([e.value for e in estimates], halves)
    figure = new_figure(5.5, 1.7 * len(panels))
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for index, (axes, (name, (values, halves))) in enumerate(zip(rows, panels.items(), strict=True)):
        shade = COLOURS[index % len(COLOURS)]
        axes.errorbar(steps, values, yerr=halves, fmt="o-", color=shade, markersize=3.5, linewidth=1.2)
        axes.set_ylabel(name, fontsize="small")
        if min(values) < 0 < max(values):  # what falls steeply is off the scale on which the plateaus are seen
            axes.axhline(0, color=GREY, linewidth=0.8)
            bottom = max(-0.5 * max(values), 1.2 * min(values))
            axes.set_ylim(bottom, 1.25 * max(values))
            below = [step for step, value in zip(steps, values, strict=True) if value < bottom]
            axes.plot(below, [0.9 * bottom] * len(below), "v", color=shade, markersize=6)
    rows[-1].set_xlabel("step")
    return figure
