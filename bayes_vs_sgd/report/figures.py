"""Figures of what was found: temperature spectra, effects, running means. Plain matplotlib objects, to be restyled."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from scipy import stats

from ..comparison.effects import LEVEL
from ..comparison.result import Comparison
from ..comparison.spectrum import Spectrum
from ..comparison.verdict import MATCH, MISMATCH, overall, with_margins

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which read on light and dark and for all eyes."""
OTHERS = ("#882255", "#332288", "#999933", "#44AA99")
"""Tol's, for dynamics without a colour of their own."""
GREY = "#888888"
NAMES = {"sgld": "Langevin (Bayes)", "sgd": "SGD", "sgd-shuffled": "shuffled SGD", "sgd-momentum": "SGD with momentum"}
NAMES |= {"adam": "Adam", "gradient-descent": "gradient descent"}
TWO_SIDED, INTERVAL = float(stats.norm.ppf(0.975)), float(stats.norm.ppf(1 - LEVEL))
"""Half widths of 95 % and 90 % intervals, in standard errors."""


def new_figure(width: float, height: float) -> Figure:
    """Make a figure by pyplot, so that a notebook shows it, which forgets it at once, so that nothing shows it twice."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure


def write_analysis(folder: Path, name: str, numbers: Any, figure: Figure) -> None:
    """Write NAME.json and NAME.svg, of which the same numbers make the same bits."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def colour(dynamics: str) -> str:
    """One for each dynamics, the same in every figure."""
    known = list(NAMES)
    return COLOURS[known.index(dynamics)] if dynamics in known else OTHERS[crc32(dynamics.encode()) % len(OTHERS)]


def spectrum_axes(axes: Axes, spectra: Sequence[Spectrum]) -> None:
    """Draw temperature against curvature of each mode, with 95 % intervals and the lines that the slopes mean."""
    axes.axhline(1, color=GREY, linewidth=1, linestyle=":", zorder=0)
    for index, found in enumerate(spectra):
        shade, shown = colour(found.dynamics), found.temperatures > 0  # others have no logarithm
        curvature, temperature, half = (
            a[shown] for a in (found.eigenvalues, found.temperatures, TWO_SIDED * found.log_errors)
        )
        low, high = temperature * (1 - np.exp(-half)), temperature * (np.exp(half) - 1)
        label = NAMES.get(found.dynamics, found.dynamics)
        if found.slope is not None and found.slope_error is not None:
            label += f": slope {found.slope:.2f} ± {TWO_SIDED * found.slope_error:.2f}"
            x = np.log(found.eigenvalues)
            ends = np.array([x.min(), x.max()])
            middle = np.log(found.temperatures).mean()
            centre = np.sqrt(np.mean(found.log_errors**2) / len(x))
            line = middle + found.slope * (ends - x.mean())
            band = TWO_SIDED * np.hypot(centre, found.slope_error * (ends - x.mean()))
            axes.plot(np.exp(ends), np.exp(line), color=shade, linewidth=1.5)
            axes.fill_between(
                np.exp(ends), np.exp(line - band), np.exp(line + band), color=shade, alpha=0.2, linewidth=0
            )
        spread = 1 + 0.04 * (index - (len(spectra) - 1) / 2)
        points = {"fmt": "o", "markersize": 4, "elinewidth": 1, "color": shade, "label": label}
        axes.errorbar(curvature * spread, temperature, yerr=np.stack([low, high]), **points)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("curvature of the mode (Hessian eigenvalue)")
    axes.set_ylabel("temperature of the mode / T\N{SUBSCRIPT ZERO}")
    everywhere = np.concatenate([found.eigenvalues for found in spectra])
    if everywhere.max() < 2 * everywhere.min():
        axes.set_xlim(everywhere.min() / 2, everywhere.max() * 2)
    plain_ticks(axes)
    axes.legend(frameon=False, fontsize="small")


def plain_ticks(axes: Axes) -> None:
    """Numbers as people write them, few of them."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        steps = np.array([1, 1.5, 2, 3, 5] if high / low < 10 else [1, 2, 5] if high / low < 100 else [1])
        ticks = np.concatenate([steps * 10.0**power for power in range(-12, 13)])
        kept = ticks[(ticks >= low) & (ticks <= high)]
        axis.set_ticks(kept, [f"{tick:g}" for tick in kept])
        axis.set_minor_formatter(NullFormatter())


def spectrum_figure(
    panels: Mapping[str, Sequence[Spectrum]], temperatures: tuple[float, float] | None = None
) -> Figure:
    """One panel a model, temperatures on one scale, which may be given."""
    figure = new_figure(4.2 * len(panels), 3.8)
    rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, spectra) in zip(rows, panels.items(), strict=True):
        spectrum_axes(axes, spectra)
        axes.set_title(title)
        if axes is not rows[0]:
            axes.set_ylabel("")
    rows[0].set_ylim(temperature_range(panels) if temperatures is None else temperatures)
    plain_ticks(rows[0])
    return figure


def temperature_range(panels: Mapping[str, Sequence[Spectrum]]) -> tuple[float, float]:
    """Lowest and highest value of an axis that holds all temperatures."""
    everywhere = np.concatenate([found.temperatures for spectra in panels.values() for found in spectra])
    hot = [1.0, *everywhere[everywhere > 0]]
    return min(hot) / 2, 2 * max(hot)


def forest_figure(comparison: Comparison) -> Figure:
    """Effects with their 90 % intervals, in units of the margin, which is shaded; hollow, the temperatures that do not decide."""
    decide, beside = list(comparison.effects), list(comparison.temperatures)
    figure = new_figure(4.2, 0.6 + 0.24 * len(decide + beside))
    axes, shade = figure.subplots(), colour(comparison.dynamics)
    axes.axvspan(-1, 1, color=GREY, alpha=0.25, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=1)
    for row, effect in enumerate(decide + beside):
        low, high = (bound / effect.margin for bound in effect.interval)
        axes.plot([low, high], [row, row], color=shade, linewidth=1.5 if row < len(decide) else 0.8)
        fill = shade if row < len(decide) else "white"
        axes.plot(effect.value / effect.margin, row, "o", markersize=3.5, color=shade, markerfacecolor=fill)
    labels = [f"{e.observable}, {KINDS[e.kind]}" for e in decide] + [
        f"temperature, {'gradient' if e.observable == 'loss' else e.observable}" for e in beside
    ]
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=2)
    margin_ticks(axes.xaxis, axes.get_xlim())
    axes.set_xlabel("effect / margin")
    axes.set_title(NAMES.get(comparison.dynamics, comparison.dynamics))
    return figure


def margin_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Few numbers on an axis in units of a margin, linear near 0."""
    ticks = [
        tick for tick in (-1000, -100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 1000) if limits[0] <= tick <= limits[1]
    ]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def margin_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Verdict of each dynamics if all margins were wider or narrower by a factor."""
    factors = np.geomspace(1 / 8, 8, 97)
    shades = {MATCH: COLOURS[2], MISMATCH: COLOURS[1]}
    figure = new_figure(4.8, 0.9 + 0.32 * len(comparisons))
    axes = figure.subplots()
    for row, c in enumerate(comparisons):
        verdicts = [overall(with_margins(c.effects, float(factor))) for factor in factors]
        ends = [0, *(i for i in range(1, len(factors)) if verdicts[i] != verdicts[i - 1]), len(factors) - 1]
        for first, last in pairwise(ends):
            shade = shades.get(verdicts[first], GREY)
            axes.fill_betweenx([row - 0.35, row + 0.35], factors[first], factors[last], color=shade, linewidth=0)
    axes.axvline(1, color="white", linewidth=1.5, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(factors[0], factors[-1])
    axes.set_yticks(range(len(comparisons)), [NAMES.get(c.dynamics, c.dynamics) for c in comparisons])
    axes.invert_yaxis()
    axes.set_xlabel("all margins times")
    axes.spines[["top", "right", "left"]].set_visible(False)
    for label, shade in (("match", COLOURS[2]), ("open", GREY), ("mismatch", COLOURS[1])):
        axes.fill_between([], [], color=shade, label=label)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


def pattern_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Probability of each kind of function under each dynamics against that under its posterior, with 95 % intervals."""
    figure = new_figure(4.2, 4.2)
    axes = figure.subplots()
    shares = [x for c in comparisons for p in c.patterns for x in (p.probability, p.reference_probability) if x > 0]
    least = min(shares) / 2
    axes.plot([least, 1], [least, 1], color=GREY, linewidth=1)
    for c in comparisons:
        points = [(p.reference_probability, p.probability, p.reference_interval, p.interval) for p in c.patterns]
        x, y, across, along = (np.array(part) for part in zip(*points, strict=True))
        bars = [np.abs(bounds.T - value) for bounds, value in ((across, x), (along, y))]
        label = NAMES.get(c.dynamics, c.dynamics)
        style = {"markersize": 4, "color": colour(c.dynamics)}
        seen = (x > 0) & (y > 0)  # the bars of what was never seen, one length for all, would hide the others
        axes.errorbar(x[seen], y[seen], bars[1][:, seen], bars[0][:, seen], fmt="o", linewidth=1, label=label, **style)
        axes.plot(np.maximum(x[~seen], least), np.maximum(y[~seen], least), "o", clip_on=False, **style)
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))
    axes.set_xlabel("probability under its posterior")
    axes.set_ylabel("probability under the dynamics")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


KINDS = {
    "mean": "mean",
    "median": "median",
    "log_deviation_ratio": "spread",
    "log_mad_ratio": "spread",
    "log_temperature": "temperature",
}
