"""How a comparison and an estimate show themselves in a notebook."""

from html import escape

from ..comparison.result import Comparison
from ..free_energy import FreeEnergy
from ..learning_coefficient import LearningCoefficient
from .figures import NAMES, forest_figure, spectrum_figure
from .page import svg


def comparison_html(comparison: Comparison) -> str:
    """Verdicts, reason, effects, and the temperature spectrum where there is one."""
    verdicts = ", ".join(f"{group.replace('_', ' ')}: {v}" for group, v in comparison.verdicts.items() if v is not None)
    name = NAMES.get(comparison.dynamics, comparison.dynamics)
    parts = [
        f"<p><b>{escape(name)}: {escape(comparison.verdict)}</b> ({escape(verdicts)})<br>{escape(comparison.reason)}</p>"
    ]
    if comparison.effects:
        parts.append(svg(forest_figure(comparison), f"Effects of {name} in units of their margins"))
    if comparison.spectrum is not None:
        parts.append(
            svg(spectrum_figure({name: [comparison.spectrum]}), "Temperature of each mode against its curvature")
        )
    return f'<div style="max-width: 32rem">{"".join(parts)}</div>'


def estimate_html(found: LearningCoefficient) -> str:
    """The estimate with its error, and what says whether to believe it."""
    low, high = found.interval
    rows = {
        "learning coefficient": f"{found.value:.4g} ± {found.standard_error:.2g} (95 %: {low:.4g} .. {high:.4g})",
        "R-hat, ESS": f"{found.rhat:.3f}, {found.ess:,.0f}",
        "baseline": f"{found.baseline['value']:.8g}: {found.baseline['source']}",
        "trusted": "yes" if found.trusted else "no: " + "; ".join(found.warnings),
    }
    if found.truth:
        rows["known lambda"] = f"{found.truth['value']:g} ({found.truth['source']})"
    return table_html(rows)


def free_energy_html(found: FreeEnergy) -> str:
    """The log evidence by each method, and what says whether to believe it."""
    rows = {"log evidence": str(found.log_evidence), "integration": str(found.thermodynamic_integration)}
    more = {"learning coefficient": found.learning_coefficient, "multiplicity": found.multiplicity, "WAIC": found.waic}
    rows |= {name: str(value) for name, value in more.items() if value is not None}
    return table_html(rows | {"trusted": "yes" if found.trusted else "no: " + "; ".join(found.warnings)})


def table_html(rows: dict[str, str]) -> str:
    """Names and values."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"
