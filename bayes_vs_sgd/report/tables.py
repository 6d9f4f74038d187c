"""Answers as tables on the terminal; the same numbers go to the JSON."""

from collections.abc import Sequence

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..comparison.compare import Comparison
from ..learning_coefficient import LearningCoefficient
from ..posterior import Posterior

COLOURS = {"match": "green", "mismatch": "red"}


def comparison_table(comparisons: Sequence[Comparison]) -> Group:
    """Verdicts of all dynamics, then every effect with its interval and margin."""
    verdicts = Table(title="Is its law the tempered posterior?", title_justify="left", pad_edge=False)
    for column in (
        "dynamics",
        "function",
        "geometry",
        "off the data",
        "steps",
        "beta theory",
        "beta used",
        "n beta0 (E[L] - L*)",
    ):
        verdicts.add_column(column, justify="right" if column not in ("dynamics",) else "left")
    for c in comparisons:
        cells = [coloured(c.verdicts.get(g)) for g in ("function", "geometry", "off_data")]
        steps = f"{c.num_steps:,}" + ("" if c.stationary else " (not stationary)" if c.stationary is False else "")
        beta, llc = c.inverse_temperature, c.learning_coefficient
        verdicts.add_row(
            c.dynamics,
            *cells,
            steps,
            number(beta["theory"]),
            number(beta["used"]),
            f"{number(llc['value'])} ± {number(llc['standard_error'], 2)}",
        )
    effects = Table(title="\nEffects, with 90 % intervals", title_justify="left", pad_edge=False)
    for column in ("dynamics", "group", "observable", "kind", "effect", "interval", "margin", ""):
        effects.add_column(column, justify="right" if column in ("effect", "interval", "margin") else "left")
    for c in comparisons:
        for index, e in enumerate(c.effects):
            low, high = e.interval
            effects.add_row(
                c.dynamics if index == 0 else "",
                e.group,
                e.observable,
                e.kind,
                f"{e.value:+.3f}",
                f"{low:+.3f} .. {high:+.3f}",
                f"{e.margin:g}",
                Text("inside", "green")
                if e.inside
                else Text("outside" if min(abs(low), abs(high)) > e.margin and low * high > 0 else "open", "red"),
                end_section=index == len(c.effects) - 1,
            )
    return Group(effects, Text(), verdicts, Text(legend(comparisons)))


def legend(comparisons: Sequence[Comparison]) -> str:
    """What the numbers mean, and what they rest on."""
    first = comparisons[0]
    references = [c.reference for c in comparisons]
    return (
        f"{first.initial['kind']} times {first.initial['scale']:g} as the start; optimisers descend the "
        f"{next((c.objective for c in comparisons if c.objective), 'loss')}. Effects: difference in reference sd, or logarithm of the ratio.\n"
        f"References: {references[0].dynamics}, {references[0].num_chains} chains, R-hat at most "
        f"{max(r.rhat_max for r in references):.3f}, ESS at least {min(r.ess_min for r in references):,.0f}."
    )


def llc_table(found: LearningCoefficient, dynamics: str, target: Posterior) -> Group:
    """The estimate, its errors and what says whether to believe it."""
    table = Table(show_header=False, box=None, pad_edge=False)
    low, high = found.interval
    table.add_row(
        "learning coefficient", f"{found.value:.4g} ± {found.standard_error:.2g} (95 %: {low:.4g} .. {high:.4g})"
    )
    if found.truth:
        table.add_row(
            "known lambda",
            f"{found.truth['value']:g} ({found.truth['source']}); at finite n the estimate differs from it",
        )
    table.add_row("baseline L(w*)", f"{found.baseline['value']:.8g}: {found.baseline['source']}")
    if found.other_baseline:
        table.add_row(
            "with the other baseline", f"{found.other_baseline['estimate']:.4g}: {found.other_baseline['source']}"
        )
    table.add_row(
        "target",
        f"beta {float(np.mean(target.inverse_temperature)):.4g}, n beta {float(np.mean(target.scale)):.4g}, localization {float(target.localization):g}",
    )
    table.add_row(
        "sampler",
        f"{dynamics}: R-hat {found.rhat:.3f}, ESS {found.ess:,.0f}, {found.num_gradients:,.3g} example gradients",
    )
    table.add_row("trusted", "yes" if found.trusted else "no: " + "; ".join(found.warnings))
    return Group(table)


def coloured(verdict: str | None) -> Text:
    """A verdict in its colour; a dash where there is none."""
    return Text("-" if verdict is None else verdict, COLOURS.get(str(verdict), "yellow"))


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few digits, a dash for none."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}g}"
