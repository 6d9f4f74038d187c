"""The page: one HTML file with all that a run found; nothing in it is fetched from elsewhere."""

import io
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ..along import Checkpoint
from ..comparison import record
from ..comparison.control import Control
from ..comparison.result import Comparison
from ..comparison.run import Study
from ..comparison.spectrum import Spectrum
from ..comparison.stationarity import has_path
from ..comparison.verdict import MATCHES
from ..free_energy import FreeEnergy
from ..learning_coefficient import LearningCoefficient
from ..model import Model
from ..posterior import Posterior
from .estimate_figures import along_figure, evidence_figure, ladder_figure, running_mean_figure
from .estimates import ALONG, along_rows, free_energy_rows, llc_rows
from .figures import (
    NAMES,
    TWO_SIDED,
    colour,
    forest_figure,
    margin_figure,
    pattern_figure,
    spectrum_figure,
    temperature_range,
)
from .laws import density_figure, ecdf_difference_figure, path_figure
from .tables import TESTS, control_sentence, legend, number, odds_ratio, p_and_power, repair_rows, used_beta, with_error

INK = "#010203"
"""Colour of text and frames in the figures, replaced by the page's own, so that they follow light and dark."""
LIBRARIES = ("bayes_vs_sgd", "jax", "numpyro", "blackjax", "optax", "arviz-stats")


def svg(figure: Figure, description: str) -> Markup:
    """Inline SVG of a figure, with its description for those who do not see it."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "bayes_vs_sgd", "text.color": INK, "axes.edgecolor": INK}
    style |= {"axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    for axes in figure.axes:
        recolour(axes)
    for text in figure.texts:
        text.set_color(INK)
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
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
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
        "match-within-margins": "the law of {} is the tempered posterior within the margins, though not identical to it",
        "mismatch": "the law of {} is not",
        "different-size-unresolved": "that of {} differs, by how much is not resolved",
        "inconclusive": "for {} more seeds or steps are needed",
        "no-verdict": "for {} there is no verdict",
    }
    parts = [text.format(listed(by[verdict])) for verdict, text in said.items() if verdict in by]
    answer = "; ".join(parts) + "."
    if not set(MATCHES) & set(by):
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
    study: Study,
    model: dict[str, Any],
    command: str,
    missing: Sequence[str] = (),
    controls: Sequence[Control] = (),
) -> str:
    """HTML of a comparison.

    Parameters
    ----------
    comparisons
        What was found.
    study
        Where it was found: the model, and of each dynamics its run and its reference.
    model
        As in the JSON.
    command
        The command line that repeats the run.
    missing
        Dynamics and controls that the run has not come to.
    controls
        What was found of the model's controls.
    """
    stem = Path(str(model["path"])).stem
    panels = {stem: [c.spectrum for c in comparisons if c.spectrum is not None]}
    panels = {title: spectra for title, spectra in (panels | {c.title: c.spectra for c in controls}).items() if spectra}
    scale = temperature_range(panels) if panels else None
    figures = [svg(spectrum_figure({t: spectra}, scale), describe_spectra(t, spectra)) for t, spectra in panels.items()]
    judged = [c for c in comparisons if c.effects]
    kinds = [c for c in judged if len(c.patterns) > 1]
    forests = [svg(forest_figure(c), f"Effects of {c.dynamics} in units of their margins: {c.verdict}") for c in judged]
    return render(
        "compare.html",
        answer=sentence(comparisons) if comparisons else "Interrupted before the first comparison.",
        comparisons=comparisons,
        controls=controls,
        panels=panels,
        lessons=" ".join(lesson(c.title, s) for c in controls for s in c.spectra if s.dynamics == "sgd"),
        figures=figures,
        forests=forests,
        by_margin=svg(margin_figure(judged), "Verdict of each dynamics by how wide the margins are") if judged else "",
        kinds=svg(pattern_figure(kinds), "Probability of each kind of function by dynamics") if kinds else "",
        odds_margin=study.settings.margin_odds,
        properties=list(dict.fromkeys(entry.property for c in comparisons for entry in c.odds)),
        **law_figures(study, [c for c in judged if c.reference is not None]),
        notes=legend(comparisons).split("\n") if comparisons else [],
        model=model,
        truth=study.model.truth,
        command=command,
        missing=missing,
        calibration=record.of_tests(),
    )


def law_figures(study: Study, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Figures of the laws of runs beside those of their references."""
    observables = list(dict.fromkeys(e.observable for c in comparisons for e in c.effects))
    runs = {name: (tree, reference) for name, (tree, reference) in study.trees.items() if reference is not None}
    runs = {c.dynamics: runs[c.dynamics] for c in comparisons}
    densities = [
        svg(
            density_figure(c.dynamics, *runs[c.dynamics], observables, posterior(study, c)),
            f"Densities under {c.dynamics} and its posterior",
        )
        for c in comparisons
    ]
    ecdfs = [
        svg(ecdf_difference_figure(name, runs), f"Distribution of {name} less the reference's, by dynamics")
        for name in observables
        if runs
    ]
    paths = [
        svg(
            path_figure(name, runs, study.margins),
            f"Location and spread of {name} at a quarter, half and the end of each run",
        )
        for name in observables
        if any(has_path(tree) for tree, _ in runs.values())
    ]
    exact = any(name in study.model.densities for name in observables)
    return {"densities": densities, "ecdfs": ecdfs, "paths": paths, "exact": exact}


def describe_spectra(title: str, spectra: Sequence[Spectrum]) -> str:
    """What a figure of temperatures shows, in words."""
    slopes = [f"{s.dynamics} {s.slope:.2f}" for s in spectra if s.slope is not None]
    return f"{title}: temperature of each mode against its curvature, log-log; slopes: {', '.join(slopes) or 'none'}"


def lesson(title: str, sgd: Spectrum) -> str:
    """What a control shows."""
    if sgd.slope is not None:
        return f"In the control with {title} the slope of SGD is {sgd.slope:.2f}."
    ratio = sgd.temperatures.max() / sgd.temperatures.min()
    return f"In the control with {title} all curvatures are alike, and SGD's temperatures are within a factor of {ratio:.1f}."


def posterior(study: Study, comparison: Comparison) -> Posterior:
    """The law that a comparison was made with."""
    return Posterior(study.model, comparison.inverse_temperature["used"] or 1.0)


def llc_page(
    found: LearningCoefficient, tree: xr.DataTree, target: Posterior, model: dict[str, Any], command: str
) -> str:
    """HTML of a learning coefficient."""
    figure = running_mean_figure(tree, found, target)
    num_chains = tree["posterior"].sizes["chain"]
    return render(
        "llc.html",
        answer=f"Learning coefficient {with_error(found.value, found.standard_error)}",
        found=found,
        rows=llc_rows(found, target),
        chains=svg(figure, f"Running means of {num_chains} chains, which end near {found.value:.3g}"),
        num_chains=num_chains,
        ladder="step_time" in tree["posterior"].coords,
        model=model,
        truth=target.model.truth,
        command=command,
    )


def along_page(found: Sequence[Checkpoint], target: Posterior, model: dict[str, Any], command: str) -> str:
    """HTML of learning coefficients and free energies along a run."""
    first, last = found[0].learning_coefficient, found[-1].learning_coefficient
    return render(
        "along.html",
        answer=f"Local learning coefficient {first} at step {found[0].step:,}, {last} at step {found[-1].step:,}",
        heads=ALONG,
        rows=along_rows(found),
        figure=svg(
            along_figure(found),
            "Loss, rank, and the local learning coefficient, fluctuation and free energy along training",
        ),
        doubted=[(f"{point.step:,}", point.warnings) for point in found if not point.trusted],
        beta=float(target.inverse_temperature),
        gamma=float(target.localization),
        model=model,
        truth=target.model.truth,
        command=command,
    )


def free_energy_page(found: FreeEnergy, model: Model, described: dict[str, Any], command: str) -> str:
    """HTML of a free energy."""
    return render(
        "free_energy.html",
        answer=f"Log evidence {found.log_evidence} at inverse temperature {found.settings['inverse_temperature']:g}",
        found=found,
        rows=free_energy_rows(found, model),
        evidence=svg(evidence_figure(found), "Log evidence by each method, with its replicates"),
        ladder=svg(ladder_figure(found, model), "Excess loss in units of the temperature, along the ladder"),
        model=described,
        truth=model.truth,
        command=command,
    )


def render(template: str, **content: Any) -> str:
    """Fill a template of this folder."""
    environment = Environment(
        loader=PackageLoader("bayes_vs_sgd", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.globals |= {"number": number, "names": NAMES, "used_beta": used_beta, "plain": plain, "colour": colour}
    environment.globals |= {"with_error": with_error, "control_sentence": control_sentence, "two_sided": TWO_SIDED}
    environment.globals |= {
        "test_names": TESTS,
        "p_and_power": p_and_power,
        "repair_rows": repair_rows,
        "odds_ratio": odds_ratio,
    }
    environment.globals |= {"versions": {name: version(name) for name in LIBRARIES}}
    return environment.get_template(template).render(**content) + "\n"
