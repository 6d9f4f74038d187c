"""Learning coefficient and free energy as rows of names and values, for the terminal and the page."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from ..along import Checkpoint
from ..estimate import Estimate, from_replicates, with_error
from ..free_energy import FreeEnergy
from ..learning_coefficient import LearningCoefficient
from ..model import Model
from ..posterior import Posterior

PARTED = 0.5
"""Share of lambda log(n beta) - (m - 1) log log(n beta) by which the asymptotic log evidence, whose error is O(1), may be off."""


def llc_rows(found: LearningCoefficient, target: Posterior) -> list[tuple[str, str]]:
    """The estimate, its errors and what says whether to believe it."""
    low, high = found.interval
    rows = [("learning coefficient", f"{found.value:.4g} ± {found.standard_error:.2g} (95 %: {low:.4g} .. {high:.4g})")]
    if found.finite_n_reference:
        reference = found.finite_n_reference
        error = reference.get("standard_error")
        said = f"{reference['value']:.4g}" if error is None else str(with_error(reference["value"], error))
        rows.append((f"{'exact' if error is None else 'another run'} at this n", f"{said} ({reference['source']})"))
    if found.truth:
        known = f"{found.truth['value']:g} ({found.truth['source']}); at finite n the estimate differs from it"
        rows.append(("known lambda", known))
    rows.append(("baseline L(w*)", f"{found.baseline['value']:.8g}: {found.baseline['source']}"))
    if found.other_baseline:
        other = f"{found.other_baseline['estimate']:.4g}: {found.other_baseline['source']}"
        rows.append(("with the other baseline", other))
    beta, scale = float(np.mean(target.inverse_temperature)), float(np.mean(target.scale))
    rows.append(("target", f"beta {beta:.4g}, n beta {scale:.4g}, localization {float(target.localization):g}"))
    gradients = f"{found.num_gradients:,.3g} example gradients"
    name = found.sampler.get("dynamics", "sampler")
    diverged = "" if found.divergence_rate is None else f", {found.divergence_rate:.2%} diverged"
    rows.append(("sampler", f"{name}: R-hat {found.rhat:.3f}, ESS {found.ess:,.0f}, {gradients}{diverged}"))
    if found.second:
        value = with_error(found.second["value"]["value"], found.second["value"]["standard_error"])
        rows.append(("second sampler", f"{value} by {found.second['sampler']}"))
    if found.error_budget:
        rows += [(f"error: {name.replace('_', ' ')}", budget_line(name, found)) for name in found.error_budget]
    rows.append(("trusted", "yes" if found.trusted else "no: " + "; ".join(found.warnings)))
    return rows


BUDGET = {
    "monte_carlo": "standard error, by the effective sample size",
    "transient": "by which the mean may be off while it still moves",
    "discretisation": "that the step size may still have",
    "localisation": "change at a tenth of gamma",
    "finite_n": "lambda less the value at this n",
    "baseline": "change with the other baseline",
}


def budget_line(name: str, found: LearningCoefficient) -> str:
    """One part of the budget of errors, absolute and relative."""
    value = found.error_budget[name]
    if value is None:
        return f"not known ({BUDGET[name]})"
    if value == 0:
        return "none"
    relative = f", {abs(value / found.value):.1%}" if found.value else ""
    return f"{value:+.2g}{relative} ({BUDGET[name]})".replace(
        "+", "", name in ("monte_carlo", "transient", "discretisation")
    )


def llc_table(found: LearningCoefficient, target: Posterior) -> Table:
    """The same on the terminal."""
    return rows_table(llc_rows(found, target))


def rows_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def asymptotic_form(found: FreeEnergy, precision: float) -> str:
    """The asymptotic log evidence, how far it is from the answer, and whether that is much for what it leaves out."""
    value = found.asymptotic_log_evidence
    assert value is not None
    gap = value - found.log_evidence.value
    added = abs(value + precision * found.baseline["value"])  # lambda log N - (m - 1) log log N
    side = "above" if gap > 0 else "below"
    said = f"{value:.5g}, {abs(gap):.2g} nats {side}: "
    if not abs(gap) <= max(PARTED * added, 1.0):
        return said + f"they part, as what it adds to n beta L* is {added:.2g}"
    return said + "a constant that does not grow with n is left out"


def free_energy_rows(found: FreeEnergy, model: Model) -> list[tuple[str, str]]:
    """Every estimate with its 95 % interval, and what says whether to believe it."""
    settings, truth = found.settings, model.truth
    beta, n = settings["inverse_temperature"], model.num_examples

    def line(estimate: Estimate | None, note: str = "") -> str:
        if estimate is None:
            return f"not known {note}"
        low, high = estimate.interval
        return f"{estimate} (95 %: {low:.5g} .. {high:.5g}) {note}".rstrip()

    rows = [(f"log evidence at beta {beta:g}", line(found.log_evidence))]
    rows.append(("with k moves", f"{from_replicates(found.replicates['moves'])} (k = {settings['num_moves']})"))
    rows.append(("thermodynamic integration", line(found.thermodynamic_integration)))
    if found.asymptotic_log_evidence is not None:
        rows.append(("asymptotic form", asymptotic_form(found, beta * n)))
    rows.append(
        (
            "WBIC, of -log evidence",
            line(found.wbic, "" if found.wbic else "(beta is below 1/log n, or the law localised)"),
        )
    )
    for name in ("learning_coefficient", "multiplicity"):
        fitted = getattr(found, name)
        note = "(n beta is too small, or there is a localization)" if fitted is None else ""
        known = f"; known: {truth[name].value:g}" if name in truth else ""
        rows.append((name.replace("_", " "), line(fitted, note) + known))
    rows.append(("singular fluctuation", line(found.singular_fluctuation)))
    rows.append(("functional variance", line(found.functional_variance)))
    rows.append(("WAIC, an example", line(found.waic)))
    rows.append(("cumulants of n beta (L - L*)", ", ".join(str(c) for c in found.cumulants)))
    names = {"training": "training loss - L*", "held_out": "held-out loss - L*"}
    names |= {"distance_on_data": "E|f - f*|^2 on the data", "distance_off_data": "E|f - f*|^2 off the data"}
    rows += [(names[name], line(value)) for name, value in found.losses.items()]
    fitted = found.learning_coefficient
    if (known := truth.get("learning_coefficient", fitted)) is not None:
        source = "known" if "learning_coefficient" in truth else "fitted"
        rows.append((f"{source} lambda / n", f"{known.value / n:.3g}: mean of the held-out one, at beta 1"))
    rows.append(("baseline L*", f"{found.baseline['value']:.8g}: {found.baseline['source']}"))
    quality = (
        f"{found.num_stages} stages, acceptance at least {found.acceptance_rate:.2f}, likelihood remembered at most "
    )
    quality += f"{found.memory:.2f}, {settings['num_replicates']} x {settings['num_particles']:,} particles"
    rows.append(
        ("sampler", f"tempered sequential Monte Carlo: {quality}, {found.num_gradients:,.3g} example gradients")
    )
    rows.append(("trusted", "yes" if found.trusted else "no: " + "; ".join(found.warnings)))
    return rows


def free_energy_table(found: FreeEnergy, model: Model) -> Table:
    """The same on the terminal."""
    return rows_table(free_energy_rows(found, model))


ALONG = (
    "step",
    "loss",
    "effective rank",
    "learning coefficient",
    "singular fluctuation",
    "free energy",
    "R-hat",
    "ESS",
    "trusted",
)


def along_rows(found: Sequence[Checkpoint]) -> list[tuple[str, ...]]:
    """One row a checkpoint, under the heads of ``ALONG``."""
    return [
        (
            f"{point.step:,}",
            f"{point.loss:.5g}",
            "-" if point.effective_rank is None else f"{point.effective_rank:.3g}",
            str(point.learning_coefficient),
            "-" if point.singular_fluctuation is None else str(point.singular_fluctuation),
            str(point.free_energy),
            f"{point.rhat:.3f}",
            f"{point.ess:,.0f}",
            "yes" if point.trusted else "no",
        )
        for point in found
    ]


def along_table(found: Sequence[Checkpoint]) -> Table:
    """The same on the terminal."""
    table = Table(box=None, pad_edge=False)
    for head in ALONG:
        table.add_column(head, justify="right")
    for row in along_rows(found):
        table.add_row(*row)
    return table
