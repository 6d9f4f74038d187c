"""SGD against Bayes on a property: rows, and the event along training beside what the posterior has."""

import numpy as np
from matplotlib.figure import Figure

from ..robustness.odds import Odds
from .figures import COLOURS, GREY, new_figure


def odds_rows(odds: Odds) -> list[tuple[str, str]]:
    """The posterior's probability and temperature, the log odds ratio with its interval, and when the event was decided."""
    low, high = odds.interval
    exact = "" if odds.exact is None else f", exact {odds.exact:.6g}"
    beta = f"{odds.inverse_temperature:g}"
    beta += "" if odds.inverse_temperature_error is None else f" ± {odds.inverse_temperature_error:.2g}"
    rows = [
        ("the same, posterior", f"{odds.probability:.3g} (95 %: {low:.3g} .. {high:.3g}; {odds.method}{exact})"),
        ("its beta", f"{beta} ({odds.temperature})"),
    ]
    low, high = odds.log_odds_interval
    value = "one-sided" if odds.log_odds_ratio is None else f"{odds.log_odds_ratio:.3f}"
    shift = "" if odds.temperature_shift is None else f"; {odds.temperature_shift:+.2g} where beta is an error larger"
    rows.append(("log odds ratio, SGD over posterior", f"{value} (95 %: {low:.3f} .. {high:.3f}{shift})"))
    settled = ", ".join(f"{stage.as_at_end:.1%} at step {stage.step:,}" for stage in odds.along)
    rows += [("that is", odds.ratio_in_words()), ("along training", odds.course_in_words())]
    return [*rows, ("runs on the side where they end", settled)]


def course_figure(odds: Odds, event: str) -> Figure:
    """P(t) across the runs with 95 % intervals, and the posterior's probability."""
    steps = [stage.step for stage in odds.along]
    bounds = np.array([stage.interval for stage in odds.along]).T
    figure = new_figure(5.5, 3.2)
    axes = figure.subplots()
    axes.plot(steps, [stage.probability for stage in odds.along], color=COLOURS[0], label="SGD")
    axes.fill_between(steps, *bounds, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.axhline(
        odds.probability, color=COLOURS[1], linewidth=1.2, label=f"posterior, beta {odds.inverse_temperature:g}"
    )
    axes.axhspan(*odds.interval, color=COLOURS[1], alpha=0.2, linewidth=0)
    if odds.exact is not None:
        axes.axhline(odds.exact, color=GREY, linewidth=1, linestyle="--", label="posterior, exact")
    axes.axvline(odds.decided, color=GREY, linewidth=1, linestyle=":", label="decided")
    axes.set_xlabel("step")
    axes.set_ylabel(f"P({event})")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    return figure
