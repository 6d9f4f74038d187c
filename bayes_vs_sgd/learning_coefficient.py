r"""Local learning coefficient: what an estimate is, and how draws of the tempered posterior give one.

.. math:: \hat\lambda = n \beta\, (E[L] - L(w^*))

with the expectation over the draws (Lau et al., arXiv:2308.12108). At finite n it is not lambda: the difference tends
to -(m - 1)/log(n beta) and slower terms. The baseline L(w*) is named, since the empirical loss at a known population
optimum and at the empirical minimum differ by about d/(2n). ``measure.py`` gets the draws by itself.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from .curvature import NO_SLOPE, loss_and_gradient, reference_point
from .diagnostics import DIVERGING, ESS_LIMIT, RHAT_LIMIT, ess, finite_or_none, mean_error, rhat
from .errors import InputError
from .estimate import with_error
from .manifest import target_of
from .model import Model
from .posterior import Posterior

LARGE = 20_000
"""Parameters above which the empirical minimum is looked for only if there is no optimum."""
FEWEST_DRAWS = 8
LEFT_OUT = 1 / 3
"""Share of the draws of a measurement before the law is taken to be reached."""
ALONE = "one sampler alone"
"""Reason not to believe a sampler that is neither the model's own exact one nor a grid."""
RELAXED = 3.0
"""Relaxation times of the softest direction that a run takes at least: what is left out is then one of them."""
EXTRAPOLATED = 0.3
"""Relaxation times from which what a run lacks is told by how it moves, up to ten times as much as it does."""
DEEPER = 0.05
"""Share of the estimate by which a draw lies below a minimum that was found only where that is not the deepest."""


@dataclass(frozen=True)
class LearningCoefficient:
    """An estimate with its error and what says whether to believe it.

    Parameters
    ----------
    value, standard_error, interval
        Monte Carlo error alone; the 95 % interval is wider by the transient and by the discretisation error.
    rhat, ess
        The worse of n beta L and of the scale of the weights.
    baseline, other_baseline
        L(w*) and where it comes from; the estimate with the other one, where there are two.
    truth
        The known lambda. At finite n the estimate differs from it.
    finite_n_reference
        The exact n beta (E[L] - L(w*)) at this n, where the model knows it, or, with its error, a long independent run of the
        model's own exact sampler, where another was chosen.
    error_budget
        ``monte_carlo`` (standard error), ``transient`` (what chains that have not converged may still be off by; where they
        cannot tell, what leaves lambda between 0 and d/2, as at every minimum where the prior does not vanish),
        ``discretisation`` (what is left of a step size's bias), ``localisation`` (change from gamma to gamma/10), ``finite_n``
        (lambda less the exact finite-n value, or less the estimate) and ``baseline`` (change with the other baseline); None:
        not known, 0: none.
    divergence_rate
        Share of diverging transitions, of samplers that know of them.
    sampler, settings, second
        What made the draws, and how many; what a sampler of another kind says.
    """

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
    other_baseline: dict[str, Any] | None = None
    finite_n_reference: dict[str, Any] | None = None
    error_budget: dict[str, float | None] = field(default_factory=dict)
    divergence_rate: float | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; not-a-number becomes null."""
        return finite_or_none(asdict(self))

    def _repr_html_(self) -> str:
        from .report.notebook import estimate_html

        return estimate_html(self)


@dataclass(frozen=True)
class Chains:
    """Draws (chain, draw) of n beta (L - L*) and of the squared norm, of the chains that are not lost."""

    excess: np.ndarray
    size: np.ndarray
    num_lost: int
    diverging: float | None = None
    num_gradients: float = 0.0
    step_sizes: np.ndarray | None = None
    """Of each chain, where they differ."""
    lost_step_sizes: np.ndarray | None = None
    """Of each chain that is lost."""
    relaxations: float | None = None
    """How many relaxation times of the law's softest direction the run has taken; None: not known."""

    def rung(self, step_size: float) -> "Chains":
        """Chains of one step size."""
        chosen, lost = self.step_sizes == step_size, self.lost_step_sizes
        lost = 0 if lost is None else int(np.sum(lost == step_size))
        return replace(self, excess=self.excess[chosen], size=self.size[chosen], step_sizes=None, num_lost=lost)

    @cached_property
    def estimate(self) -> tuple[float, float]:
        """Mean of n beta (L - L*) and its standard error."""
        return float(self.excess.mean()), mean_error(self.excess, False)

    def too_short(self) -> list[str]:
        """The reason not to believe a run in which the softest direction has not settled."""
        if self.relaxations is None or self.relaxations >= RELAXED:
            return []
        return [
            f"the run takes {self.relaxations:.2g} relaxation times of the softest direction, not {RELAXED:g}: give --max-seconds"
        ]

    @cached_property
    def transient(self) -> float | None:
        """By how much the mean may be off while it still moves: where R-hat says that it does, or the run is too short to say.

        What decays by q from the first half of the draws to the second has moved the mean of all by (1 + q) / (1 - q) / 2 times
        their difference. In a run that is too short q is that of the softest direction's rate; in others the
        difference itself is taken. None for runs too short to tell.
        """
        first, second = np.array_split(self.excess.mean(axis=0), 2)
        moved = abs(float(second.mean() - first.mean()))
        if self.relaxations is None or self.relaxations >= RELAXED:
            return 0.0 if self.rhat < RHAT_LIMIT else moved
        if self.relaxations < EXTRAPOLATED:
            return None
        decayed = np.exp(-self.relaxations * (1 - LEFT_OUT) / 2)
        return moved * float((1 + decayed) / (1 - decayed)) / 2

    @cached_property
    def log_size(self) -> tuple[float, float]:
        """Mean of the log of the squared norm and its standard error."""
        logs = np.log(self.size)
        return float(logs.mean()), mean_error(logs, False)

    @cached_property
    def rhat(self) -> float:
        """The larger one."""
        return max(rhat(self.excess), rhat(self.size))

    @cached_property
    def ess(self) -> float:
        """The smaller one."""
        return min(ess(self.excess), ess(self.size))

    def doubts(self) -> list[str]:
        """Reasons not to believe their mean."""
        found = []
        if len(self.excess) < 2:
            found.append("one chain alone: nothing says whether it has converged; give two or more")
        elif not self.rhat < RHAT_LIMIT:
            found.append(f"R-hat of n beta L or of the squared norm is {self.rhat:.3f}, not below {RHAT_LIMIT}")
        if not self.ess >= ESS_LIMIT:
            found.append(
                f"effective sample size of n beta L or of the squared norm is {self.ess:.0f}, below {ESS_LIMIT:.0f}"
            )
        if self.num_lost:
            found.append(f"{self.num_lost} of {self.num_lost + len(self.excess)} chains were lost and left out")
        if self.diverging is not None and self.diverging > DIVERGING:
            found.append(f"{self.diverging:.2%} of the transitions diverged")
        value, error = self.estimate
        if value < -3 * error:
            found.append(
                "negative: w* is no minimum but a saddle or a slope, and the draws find smaller losses than L(w*)"
            )
        return found


def learning_coefficient(
    run: xr.DataTree | Model | Posterior,
    target: Posterior | None = None,
    baseline: str | None = None,
    seconds: float | None = None,
    **settings: Any,
) -> LearningCoefficient:
    """Measure the learning coefficient of a model, or estimate it along the chains of a run (a time average).

    Parameters
    ----------
    run
        A model or a posterior: sampler, step size, burn-in and length are chosen; beta is 1/log n for a model. Or a result
        of ``simulate`` with the observable ``loss``.
    target
        The run's target; found by its manifest by default.
    baseline
        ``"optimum"`` (the default where the model names one) or ``"minimum"``.
    seconds
        Wall time to report, of a run.
    settings
        Those of ``settings.LLC``, and ``key``, ``folder`` and ``progress``, for a model.

    Raises
    ------
    InputError
        If there are too few draws, or the baseline is not to be had.
    """
    if not isinstance(run, xr.DataTree):
        from .measure import measure

        return measure(run, baseline=baseline, **settings)[0]
    if settings:
        raise InputError(f"{', '.join(settings)}: a run has its settings already; give a model to choose them")
    target = target_of(run) if target is None else target
    check_scale(target)
    known, name = baselines(target, baseline)
    chains = read_chains(run, target, known[name]["value"])
    made = json.loads(run.attrs["manifest"])["dynamics"]
    law, doubts = made["law"], chains.doubts()
    if "squared_norm" not in run["posterior"]:
        doubts.append("the scale of the weights is not judged: record the observable 'squared_norm'")
    if law == "exact" and made["name"] not in ("Grid", type(target.model.exact_sampler).__name__):
        doubts.append(f"{ALONE}: give the model in place of the run, and a second of another kind is asked")
    if law == "approximate":
        doubts.append("the sampler is biased at its step size; the bias is not measured here")
    if law == "none":
        doubts.append("the dynamics does not target the posterior: this is n beta (E[L] - L*) of its own law")
    if float(target.localization) > 0:
        doubts.append(
            f"what the localization of {float(target.localization):g} does to it is not measured here: give the model in "
            "place of the run"
        )
    if run.attrs["stopped"] != "finished":
        doubts.append(f"the run was stopped early ({run.attrs['stopped']})")
    return summarise(chains, target, known, name, doubts, seconds, 0.0 if law == "exact" else None)


def check_scale(target: Posterior) -> None:
    """Refuse the prior."""
    if not np.all(np.asarray(target.scale) > 0):
        raise InputError("n beta is 0: the law is the prior, which knows of no loss; give an inverse temperature > 0")


def summarise(
    chains: Chains,
    target: Posterior,
    known: dict[str, dict[str, Any]],
    name: str,
    doubts: list[str],
    seconds: float | None,
    discretisation: float | None = 0.0,
    estimate: tuple[float, float] | None = None,
    reference: dict[str, Any] | None = None,
    **more: Any,
) -> LearningCoefficient:
    """An estimate from chains, or one that is made elsewhere, with its budget of errors.

    ``reference`` stands for the value at finite n where the model does not know it.
    """
    doubts = doubts + deeper(chains, name)
    value, error = chains.estimate if estimate is None else estimate
    low, high = with_error(value, error).interval
    facts = target.model.truth.get("learning_coefficient")
    (other,) = [key for key in known if key != name] or [None]
    moved = 0.0 if other is None else float(np.mean(target.scale)) * (known[name]["value"] - known[other]["value"])
    reference = finite_n_reference(target, known[name]["value"]) or reference
    exact = value if reference is None else reference["value"]
    transient, most = chains.transient, target.model.num_parameters / 2
    impossible = not chains.rhat < RHAT_LIMIT and value - 3 * error > most
    if transient is None or impossible:  # lambda <= d/2, as K <= c |w - w*|^2 (Watanabe 2009)
        transient = bounds_alone(value, most)
        doubts.append(f"chains have not come far enough to tell more than that lambda is between 0 and d/2 = {most:g}")
    budget = {
        "monte_carlo": error,
        "transient": transient,
        "discretisation": discretisation,
        "localisation": 0.0 if float(target.localization) == 0 else None,
        "finite_n": None if facts is None else facts.value - exact,
        "baseline": None if other is None else moved,
    }
    budget |= more.pop("error_budget", {})
    wider = (discretisation or 0.0) + transient
    return LearningCoefficient(
        value=value,
        standard_error=error,
        interval=(low - wider, high + wider),
        rhat=chains.rhat,
        ess=chains.ess,
        baseline=known[name],
        num_gradients=chains.num_gradients,
        seconds=seconds,
        trusted=not doubts,
        warnings=doubts,
        truth=None if facts is None else {"value": facts.value, "source": facts.source},
        other_baseline=None if other is None else known[other] | {"estimate": value + moved},
        finite_n_reference=reference,
        error_budget=budget,
        divergence_rate=chains.diverging,
        **more,
    )


def bounds_alone(value: float, most: float) -> float:
    """By how much a value may be off of which no more is known than that the truth is between 0 and ``most``."""
    return max(value, most - value)


def deeper(chains: Chains, baseline: str) -> list[str]:
    """The reason not to believe a minimum that was found where draws have smaller losses."""
    lowest = float(chains.excess.min())
    if baseline != "minimum" or lowest >= -DEEPER * abs(chains.estimate[0]):
        return []
    return [
        f"n beta L of a draw is {-lowest:.2g} below that of the minimum found: the value is too small by as much at least"
    ]


def baselines(target: Posterior, wanted: str | None = None) -> tuple[dict[str, dict[str, Any]], str]:
    """Loss at the known population optimum, where there is one, and at the empirical minimum next to it; the wanted one.

    That minimum costs nothing where the optimum has no slope, as of labels without noise: it is the optimum.
    """
    model, found, slope = target.model, {}, np.inf
    if model.optimum is not None:
        loss, gradient = loss_and_gradient(model, model.unconstrain(model.optimum))
        slope = float(np.linalg.norm(target.flat(gradient)))
        where = model.facts.get("center", "the model's population optimum")
        found["optimum"] = {"value": float(loss), "source": f"empirical loss at {where}"}
    if slope < NO_SLOPE or not found or model.num_parameters <= LARGE or wanted == "minimum":
        minimum = reference_point(model, target.center)
        source = f"empirical minimum by L-BFGS, gradient norm {minimum.gradient_norm:.1e}"
        source += "" if found else "; the model names no optimum"
        found["minimum"] = {"value": minimum.loss, "source": source}
    name = next(iter(found)) if wanted is None else wanted
    if name not in found:
        raise InputError(f"baseline is {name!r}: it must be one of {', '.join(found)}")
    return found, name


def finite_n_reference(target: Posterior, baseline: float) -> dict[str, Any] | None:
    """The exact n beta (E[L] - L*), where the model declares E[L]."""
    exact = target.expected_loss()
    if exact is None:
        return None
    return {"value": float(target.scale) * (exact - baseline), "source": "closed form or quadrature of the model file"}


def read_chains(tree: xr.DataTree, target: Posterior, baseline: float, left_out: float = 0.0) -> Chains:
    """Chains of a run, without the first share of their draws."""
    if "posterior" not in tree or tree["posterior"].sizes["draw"] < FEWEST_DRAWS:
        raise InputError(
            f"too few draws for an estimate: a chain needs at least {FEWEST_DRAWS}; give more draws or more time"
        )
    kept, drawn = kept_chains(tree), _drawn(tree)
    if not kept.any():
        raise InputError("every chain was lost: take a smaller step")
    first = int(left_out * tree["posterior"].sizes["draw"])
    scale = np.asarray(target.scale, float)
    scale = scale[kept, None] if scale.ndim else scale
    draws = {name: v[kept, first:] for name, v in drawn.items()}
    stats_group = tree["sample_stats"].to_dataset()
    diverging = float(stats_group["diverging"].values.mean()) if "diverging" in stats_group else None
    gradients = float(stats_group["num_gradients"].values.sum())
    excess = scale * (draws["loss"] - baseline)
    steps = tree["posterior"].to_dataset().coords.get("step_time")
    each, lost = (None, None) if steps is None else (np.asarray(steps)[rows] for rows in (kept, ~kept))
    return Chains(excess, draws.get("squared_norm", excess), int((~kept).sum()), diverging, gradients, each, lost)


def kept_chains(tree: xr.DataTree) -> np.ndarray:
    """Which chains of a run are not lost: where they are, and all that they have recorded, is finite."""
    kept = tree["final_position"].to_dataset()["lost_at_step"].values < 0
    return kept & np.all([np.isfinite(v).all(axis=1) for v in _drawn(tree).values()], axis=0)


def _drawn(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Losses and squared norms (chain, draw), as far as they are recorded."""
    if "loss" not in tree["posterior"]:
        raise InputError("this run has not recorded the observable 'loss'")
    names = [name for name in ("loss", "squared_norm") if name in tree["posterior"]]
    return {name: np.asarray(tree["posterior"][name].values, float) for name in names}
