"""Figures of laws, as functions of trees: densities, differences of distributions, the way there.

``runs`` maps the name of a dynamics to its run and to the run of its reference, as ``Study.trees`` does.
"""

from collections.abc import Mapping, Sequence

import arviz_plots
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from ..comparison.effects import Effect, Sample, location_and_scale
from ..comparison.stationarity import has_path, law, quarter_half_end, surviving
from ..diagnostics import ess
from ..margins import MARGINS, Margins
from ..posterior import Posterior
from .figures import GREY, INTERVAL, NAMES, colour, margin_ticks, new_figure

Runs = Mapping[str, tuple[xr.DataTree, xr.DataTree]]
MOST_PLOTTED = 4000


def density_figure(
    dynamics: str, tree: xr.DataTree, reference: xr.DataTree, names: Sequence[str], target: Posterior | None = None
) -> Figure:
    """Densities of some observables beside the reference's, by ArviZ; dotted the exact one, where the target's model knows it."""
    label = NAMES.get(dynamics, dynamics)
    laws = {label: tree, "posterior": reference}
    size = min(MOST_PLOTTED, *(law(t, name).values.size for t in laws.values() for name in names))
    columns = min(2, len(names))
    plots = arviz_plots.plot_dist(
        {title: _samples(t, names, size) for title, t in laws.items()},
        var_names=list(names),
        kind="kde",
        sample_dims=["sample"],
        backend="matplotlib",
        col_wrap=columns,
        color=[colour(dynamics), GREY],
        visuals={"credible_interval": False, "point_estimate": False, "point_estimate_text": False},
        stats={"dist": {"grid_len": 100}},
        figure_kwargs={"figsize": (2.4 * columns, 0.5 + 1.6 * -(-len(names) // columns)), "layout": "constrained"},
    )
    figure = plots.viz["figure"].item()
    plt.close(figure)  # it stays a figure, and pyplot forgets it
    for name in names:
        axes = plots.viz["plot"][name].item()
        axes.xaxis.get_major_locator().set_params(nbins=4)
        if target is not None and name in target.model.densities:
            low, high = axes.get_xlim()
            line = np.linspace(low, high, 401)
            density = np.asarray(target.model.densities[name](target, line), float)
            finite = np.isfinite(density)  # a logarithmic pole may lie on the grid
            mass = np.trapezoid(density[finite], line[finite])
            axes.plot(line[finite], density[finite] / mass, color=GREY, linewidth=1.5, linestyle=":")
    figure.suptitle(label)
    return figure


def _samples(tree: xr.DataTree, names: Sequence[str], size: int) -> xr.DataTree:
    """Evenly spaced draws of some observables, one dimension."""
    drawn = {name: law(tree, name).values.ravel() for name in names}
    picked = {k: ("sample", v[np.linspace(0, v.size - 1, size).astype(int)]) for k, v in drawn.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(picked, coords={"sample": np.arange(size)})})


def ecdf_difference_figure(name: str, runs: Runs) -> Figure:
    """Distribution function of an observable less its reference's, against the reference's quantile, with a 95 % band.

    The band is simultaneous in the argument, by Dvoretzky, Kiefer and Wolfowitz's inequality for each of the two laws: it
    holds wherever both do, so it is conservative.
    """
    figure = new_figure(4.2, 2.6)
    axes = figure.subplots()
    widest = 0.0
    for dynamics, (tree, reference) in runs.items():
        sample, other = law(tree, name), law(reference, name)
        if not sample.values.size:
            continue
        values = np.sort(other.values.ravel())
        points = values[:: max(len(values) // 400, 1)]
        ours = np.searchsorted(np.sort(sample.values.ravel()), points, side="right") / sample.values.size
        theirs = np.searchsorted(values, points, side="right") / values.size
        axes.plot(theirs, ours - theirs, color=colour(dynamics), linewidth=1.2)
        sizes = [s.values.size if s.independent else ess(s.values) for s in (sample, other)]
        widest = max(widest, sum(np.sqrt(np.log(2 / 0.025) / (2 * size)) for size in sizes))
    axes.axhspan(-widest, widest, color=GREY, alpha=0.25, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xlabel("quantile of the reference")
    axes.set_ylabel("difference")
    axes.set_title(name)
    return figure


def path_figure(name: str, runs: Runs, margins: Margins = MARGINS) -> Figure:
    """Location and scale of ensembles at a quarter, half and the end of the run (t, 2t, 4t), in margins from the reference's.

    Bars are 90 % intervals, the margin is shaded. Only ensembles of four draws or more are shown.
    """
    figure = new_figure(4.2, 3.6)
    above, below = figure.subplots(2, 1, sharex=True)
    every: list[int] = []
    for dynamics, (tree, reference) in runs.items():
        if not has_path(tree):
            continue
        num_steps = int(tree.attrs["num_steps"])
        steps, other = [num_steps // 4, num_steps // 2, num_steps], law(reference, name)
        pairs = [
            location_and_scale(name, "", Sample(x[:, None], True), other, margins)
            for x in quarter_half_end(surviving(tree, name))
        ]
        if not all(pairs):
            continue
        for axes, effects in zip((above, below), zip(*pairs, strict=True), strict=True):
            _draw_effects(axes, steps, effects, colour(dynamics))
        every += steps
    for axes, kind in ((above, "location"), (below, "spread")):
        axes.axhspan(-1, 1, color=GREY, alpha=0.25, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_yscale("symlog", linthresh=2)
        axes.margins(y=0.12)
        margin_ticks(axes.yaxis, axes.get_ylim())
        axes.set_ylabel(f"{kind} / margin")
    below.set_xscale("log")
    ticks = sorted(set(every))
    below.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45, fontsize="small")
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_minor_formatter(NullFormatter())
    below.set_xlabel("step")
    above.set_title(name)
    return figure


def _draw_effects(axes, steps: Sequence[int], effects: Sequence[Effect], shade: str) -> None:
    values = np.array([effect.value / effect.margin for effect in effects])
    half = np.array([INTERVAL * effect.standard_error / effect.margin for effect in effects])
    axes.errorbar(steps, values, yerr=half, color=shade, linewidth=1.2, elinewidth=1, marker="o", markersize=3)
