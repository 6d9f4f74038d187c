"""Which data matter: a rank table, and curves of the probability against the weight of an example."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from ..robustness.influence import KINDS, LARGEST_K, TOLERANCE, Influence
from .figures import COLOURS, GREY, TWO_SIDED, new_figure

HEADS = ("which", "dP/dε", "d log P/dε", "P without it*", "linear within", "change of SGD without it")
NOTE = "* at weight 0; of a candidate with it, at weight 1; k!: a Pareto shape above 0.7, not to be trusted"
NUM_ROWS = 10
"""Of each kind."""


def shown(found: Sequence[Influence]) -> list[Influence]:
    """The most influential of each kind."""
    return [one for kind in KINDS for one in [i for i in found if i.kind == kind][:NUM_ROWS]]


def influence_rows(found: Sequence[Influence]) -> list[tuple[str, ...]]:
    """One row each, under ``HEADS``."""
    rows = []
    for one in shown(found):
        other = within = "-"
        if (curve := one.reweighting) is not None:
            end = -1 if one.kind == "candidate" else 0
            other = f"{curve.probabilities[end]:.3g} ± {curve.standard_errors[end]:.1g}"
            other += "" if curve.pareto_k[end] <= LARGEST_K else f" (k {curve.pareto_k[end]:.2g}!)"
            within = "{:.2g} .. {:.2g}".format(*curve.linear_within)
        slope = f"{one.derivative:.3g} ± {one.standard_error:.1g}"
        again = "-" if one.retrained is None else str(one.retrained)
        rows.append((f"{one.kind} {one.example}", slope, f"{one.log_derivative:.3g}", other, within, again))
    return rows


def influence_words(found: Sequence[Influence]) -> str:
    """How many derivatives are told from zero, and the weights between which linear response holds for all re-weighted ones."""
    counts = []
    for kind in KINDS:
        of_it = [one for one in found if one.kind == kind]
        told = sum(abs(one.derivative) > 3 * one.standard_error for one in of_it)
        counts += [f"{told} of {len(of_it)} {kind}s"] if of_it else []
    words = f"{', '.join(counts)}: influence beyond three standard errors."
    ranges = []
    for kind in KINDS:
        curves = [one.reweighting for one in found if one.kind == kind and one.reweighting is not None]
        if curves:
            low, high = (max(c.linear_within[0] for c in curves), min(c.linear_within[1] for c in curves))
            ranges.append(f"{low:.2g} .. {high:.2g} for the {len(curves)} first {kind}s")
    return (
        f"{words} Linear response within {TOLERANCE:.0%} of the change: ε in {', '.join(ranges)}." if ranges else words
    )


def influence_table(found: Sequence[Influence]) -> Table:
    """The same on the terminal."""
    table = Table(
        box=None,
        pad_edge=False,
        title=influence_words(found),
        title_justify="left",
        caption=NOTE,
        caption_justify="left",
    )
    for head in HEADS:
        table.add_column(head, justify="left" if head == HEADS[0] else "right")
    for row in influence_rows(found):
        table.add_row(*row)
    return table


def influence_figure(found: Sequence[Influence], probability: float) -> Figure:
    """P against the change of weight by importance weights (dots, hollow where not trusted), and its linear response."""
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in found)]
    figure = new_figure(5.5, 2.8 * len(kinds))
    for axes, kind in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        curves = [(one, one.reweighting) for one in found if one.kind == kind and one.reweighting is not None]
        for (one, curve), shade in zip(curves, COLOURS, strict=False):
            weights, values = np.array(curve.weights), np.array(curve.probabilities)
            axes.plot(weights, curve.linear_response, "--", color=shade, linewidth=1)
            errors = TWO_SIDED * np.array(curve.standard_errors)
            believed = np.array(curve.pareto_k) <= LARGEST_K
            for which, filled in ((believed, shade), (~believed, "none")):
                marks = {"color": shade, "markersize": 3.5, "linewidth": 1, "markerfacecolor": filled}
                label = f"{kind} {one.example}" if which is believed else None
                axes.errorbar(weights[which], values[which], yerr=errors[which], fmt="o", label=label, **marks)
        axes.axhline(probability, color=GREY, linewidth=0.8)
        seen = [v for _, curve in curves for v in [*curve.probabilities, probability]]
        room = 0.1 * (max(seen) - min(seen)) + 1e-12
        axes.set_ylim(min(seen) - room, max(seen) + room)
        if kind == "candidate":
            axes.set_xscale("log")
        axes.set_xlabel("weight of the candidate" if kind == "candidate" else "change of the weight")
        axes.set_ylabel("P")
        axes.legend(frameon=False, fontsize="small")
    return figure
