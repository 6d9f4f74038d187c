r"""Local learning coefficient from draws of the tempered posterior.

.. math:: \hat\lambda = n \beta\, (E[L] - L(w^*))

with the expectation over the draws (Lau et al., arXiv:2308.12108). At finite n it is not lambda: the difference tends
to -(m - 1)/log(n beta) and slower terms. The baseline L(w*) is named, since the empirical loss at a known population
optimum and at the empirical minimum differ by about d/(2n).
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from .comparison.effects import mean_error
from .curvature import loss_and_gradient, reference_point
from .diagnostics import ESS_LIMIT, RHAT_LIMIT, ess, finite_or_none, rhat
from .errors import InputError
from .manifest import target_of
from .posterior import Posterior


@dataclass(frozen=True)
class LearningCoefficient:
    """An estimate with its error and what says whether to believe it."""

    value: float
    standard_error: float
    interval: tuple[float, float]
    rhat: float
    ess: float
    baseline: dict[str, Any]
    num_gradients: float
    seconds: float | None
    trusted: bool
    warnings: list[str]
    truth: dict[str, Any] | None
    other_baseline: dict[str, Any] | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values; not-a-number becomes null."""
        return finite_or_none(asdict(self))

    def _repr_html_(self) -> str:
        from .report.notebook import estimate_html

        return estimate_html(self)


def baselines(target: Posterior) -> dict[str, dict[str, Any]]:
    """Loss at the known population optimum, where there is one, and at the empirical minimum next to it."""
    model, found = target.model, {}
    minimum = reference_point(model, target.center)
    if model.optimum is not None:
        loss = float(loss_and_gradient(model, model.unconstrain(model.optimum))[0])
        where = model.facts.get("center", "the model's population optimum")
        found["optimum"] = {"value": loss, "source": f"empirical loss at {where}"}
    source = f"empirical minimum by L-BFGS, gradient norm {minimum.gradient_norm:.1e}"
    return found | {"minimum": {"value": minimum.loss, "source": source}}


def learning_coefficient(
    tree: xr.DataTree, target: Posterior | None = None, baseline: str | None = None, seconds: float | None = None
) -> LearningCoefficient:
    """Estimate the learning coefficient along the chains of a run (a time average).

    Parameters
    ----------
    tree
        Result of ``simulate`` with the observable ``loss``.
    target
        The run's target; found by its manifest by default.
    baseline
        ``"optimum"`` (the default where the model names one) or ``"minimum"``.
    seconds
        Wall time to report.

    Raises
    ------
    InputError
        If there are too few draws, or the baseline is not to be had.
    """
    target = target_of(tree) if target is None else target
    known = baselines(target)
    baseline = ("optimum" if "optimum" in known else "minimum") if baseline is None else baseline
    if baseline not in known:
        raise InputError(f"baseline is {baseline!r}: it must be one of {', '.join(known)}")
    if "posterior" not in tree or tree["posterior"].sizes["draw"] < 8:
        raise InputError("too few draws for an estimate: a chain needs at least 8")
    scale = np.asarray(target.scale, float)
    kept = tree["final_position"].to_dataset()["lost_at_step"].values < 0
    if not kept.any():
        raise InputError("every chain was lost: take a smaller step")
    scale = scale[kept, None] if scale.ndim else scale
    draws = scale * (np.asarray(tree["posterior"]["loss"].values, float)[kept] - known[baseline]["value"])
    size = (
        np.asarray(tree["posterior"]["squared_norm"].values, float)[kept]
        if "squared_norm" in tree["posterior"]
        else draws
    )
    value, error = float(draws.mean()), mean_error(draws, False)
    worst_rhat, worst_ess = max(rhat(draws), rhat(size)), min(ess(draws), ess(size))
    half = float(stats.norm.ppf(0.975)) * error
    doubts = _doubts(tree, kept, worst_rhat, worst_ess)
    facts = target.model.truth.get("learning_coefficient")
    (other,) = [name for name in known if name != baseline] or [None]
    shift = None
    if other is not None:
        moved = float(np.mean(scale)) * (known[baseline]["value"] - known[other]["value"])
        shift = known[other] | {"estimate": value + moved}
    return LearningCoefficient(
        value,
        error,
        (value - half, value + half),
        worst_rhat,
        worst_ess,
        known[baseline],
        float(tree["sample_stats"].to_dataset()["num_gradients"].values.sum()),
        seconds,
        not doubts,
        doubts,
        None if facts is None else {"value": facts.value, "source": facts.source},
        shift,
    )


def _doubts(tree: xr.DataTree, kept: np.ndarray, worst_rhat: float, worst_ess: float) -> list[str]:
    """Reasons not to believe the number."""
    law = json.loads(tree.attrs["manifest"])["dynamics"]["law"]
    found = []
    if not worst_rhat < RHAT_LIMIT:
        found.append(f"R-hat of n beta L or of the squared norm is {worst_rhat:.3f}, not below {RHAT_LIMIT}")
    if not worst_ess >= ESS_LIMIT:
        found.append(
            f"effective sample size of n beta L or of the squared norm is {worst_ess:.0f}, below {ESS_LIMIT:.0f}"
        )
    if not kept.all():
        found.append(f"{int((~kept).sum())} of {kept.size} chains were lost and left out")
    if law == "approximate":
        found.append("the sampler is biased at its step size; the bias is not measured here")
    if law == "none":
        found.append("the dynamics does not target the posterior: this is n beta (E[L] - L*) of its own law")
    stats_group = tree["sample_stats"].to_dataset()
    if "diverging" in stats_group and (rate := float(stats_group["diverging"].values.mean())) > 1e-3:
        found.append(f"{rate:.2%} of the transitions diverged")
    if tree.attrs["stopped"] != "finished":
        found.append(f"the run was stopped early ({tree.attrs['stopped']})")
    return found
