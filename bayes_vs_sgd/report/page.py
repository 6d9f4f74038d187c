"""The page: one HTML file with all that a run found; nothing in it is fetched from elsewhere."""

import io
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ..comparison.compare import Comparison
from ..comparison.effects import Sample, scalar_draws
from ..comparison.stationarity import ENSEMBLE
from ..diagnostics import ess
from ..learning_coefficient import LearningCoefficient
from ..posterior import Posterior
from .figures import NAMES, colour, ecdf_difference_figure, forest_figure, running_mean_figure, spectrum_figure
from .tables import legend, llc_rows, number, used_beta

INK = "#010203"
"""Colour of text and frames in the figures, replaced by the page's own, so that they follow light and dark."""
LIBRARIES = ("bayes_vs_sgd", "jax", "numpyro", "blackjax", "optax", "arviz-stats")


def svg(figure: Figure, description: str) -> Markup:
    """Inline SVG of a figure, with its description for those who do not see it."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "bayes_vs_sgd", "text.color": INK, "axes.edgecolor": INK}
    style |= {"axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    for axes in figure.axes:
        recolour(axes)
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = description.replace("&", "and").replace('"', "'").replace("<", "below")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def recolour(axes: Any) -> None:
    """Paint text, ticks and frame in INK."""
    for spine in axes.spines.values():
        spine.set_edgecolor(INK)
    axes.tick_params(colors=INK, which="both")
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_color(INK)
    if (box := axes.get_legend()) is not None:
        for text in box.get_texts():
            text.set_color(INK)


def sentence(comparisons: Sequence[Comparison]) -> str:
    """The answer in one sentence."""
    by: dict[str, list[str]] = {}
    for c in comparisons:
        by.setdefault(c.verdict, []).append(NAMES.get(c.dynamics, c.dynamics))
    said = {
        "match": "the law of {} is the tempered posterior within the margins",
        "mismatch": "the law of {} is not",
        "different-size-unresolved": "that of {} differs, by how much is not resolved",
        "inconclusive": "for {} more seeds or steps are needed",
        "no-verdict": "for {} there is no verdict",
    }
    parts = [text.format(listed(by[verdict])) for verdict, text in said.items() if verdict in by]
    answer = "; ".join(parts) + "."
    if "match" not in by:
        answer = answer.replace("is not", "is not the tempered posterior", 1)
    return answer[0].upper() + answer[1:]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plain(value: Any) -> str:
    """A setting as a person writes it."""
    return number(value) if isinstance(value, float) else str(value)


def comparison_page(
    comparisons: Sequence[Comparison],
    trees: dict[str, tuple[xr.DataTree, xr.DataTree]],
    model: dict[str, Any],
    truth: dict[str, Any],
    command: str,
    missing: Sequence[str] = (),
) -> str:
    """HTML of a comparison.

    Parameters
    ----------
    comparisons
        What was found.
    trees
        Of each dynamics, its ensemble and its reference.
    model
        As in the JSON.
    truth
        What is known of the model.
    command
        The command line that repeats the run.
    missing
        Dynamics that an interrupted run has not come to.
    """
    spectra = [c.spectrum for c in comparisons if c.spectrum is not None]
    spectrum = None
    if spectra:
        slopes = [f"{s.dynamics} {s.slope:.2f}" for s in spectra if s.slope is not None]
        text = f"Temperature of each mode against its curvature, log-log; slopes: {', '.join(slopes) or 'none'}"
        spectrum = svg(spectrum_figure({Path(str(model["path"])).stem: spectra}), text)
    forests = [
        svg(forest_figure(c), f"Effects of {c.dynamics} in units of their margins: {c.verdict}")
        for c in comparisons
        if c.effects
    ]
    observables = list(dict.fromkeys(e.observable for c in comparisons for e in c.effects))
    ecdfs = [
        svg(
            ecdf_difference_figure(name, laws(name, trees)), f"Distribution of {name} less the reference's, by dynamics"
        )
        for name in observables
        if trees
    ]
    return render(
        "compare.html",
        answer=sentence(comparisons) if comparisons else "Interrupted before the first comparison.",
        comparisons=comparisons,
        spectra=spectra,
        spectrum=spectrum,
        forests=forests,
        ecdfs=ecdfs,
        notes=legend(comparisons).split("\n") if comparisons else [],
        model=model,
        truth=truth,
        command=command,
        missing=missing,
    )


def llc_page(
    found: LearningCoefficient, tree: xr.DataTree, target: Posterior, model: dict[str, Any], sampler: str, command: str
) -> str:
    """HTML of a learning coefficient."""
    factor = float(np.mean(target.scale))
    excess = factor * (scalar_draws(tree, "loss") - found.baseline["value"])
    figure = running_mean_figure(excess, found.interval, found.truth["value"] if found.truth else None)
    return render(
        "llc.html",
        answer=f"Learning coefficient {number(found.value, 4)} ± {number(found.standard_error, 2)}",
        found=found,
        rows=llc_rows(found, sampler, target),
        chains=svg(figure, f"Running means of {len(excess)} chains, which end near {found.value:.3g}"),
        num_chains=len(excess),
        model=model,
        truth=target.model.truth,
        command=command,
    )


def render(template: str, **content: Any) -> str:
    """Fill a template of this folder."""
    environment = Environment(
        loader=PackageLoader("bayes_vs_sgd", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.globals |= {"number": number, "names": NAMES, "used_beta": used_beta, "plain": plain, "colour": colour}
    environment.globals |= {"versions": {name: version(name) for name in LIBRARIES}}
    return environment.get_template(template).render(**content) + "\n"


def laws(name: str, trees: dict[str, tuple[xr.DataTree, xr.DataTree]]) -> dict[str, tuple[Sample, Sample, float]]:
    """Samples of an observable: of each dynamics, its reference, and that one's effective size."""
    found = {}
    for dynamics, (tree, reference) in trees.items():
        draws, theirs = scalar_draws(tree, name), scalar_draws(reference, name)
        ensemble = len(draws) >= ENSEMBLE
        kept = draws[np.isfinite(draws).all(axis=1)]
        if not kept.size:
            continue
        sample = Sample(kept[:, -1:] if ensemble else kept, ensemble)
        found[dynamics] = (sample, Sample(theirs, False), ess(theirs))
    return found
