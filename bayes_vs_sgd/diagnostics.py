"""Can a run be believed? R-hat, effective sample size and divergences, by arviz-stats, on invariants."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from jaxtyping import Float

RHAT_LIMIT, ESS_LIMIT, BFMI_LIMIT = 1.01, 400.0, 0.2
DIVERGING = 1e-3
"""Share of diverging transitions above which a run is not believed."""
FEWEST_WEIGHTS, EVEN = 25, 1e-9


@dataclass(frozen=True)
class Quality:
    """The worst over some scalars of a run, and whether it passes (R-hat < 1.01, ESS >= 400, few divergences, E-BFMI > 0.2).

    Divergences and E-BFMI are None for samplers without an energy.
    """

    dynamics: str
    num_chains: int
    rhat_max: float
    ess_min: float
    num_divergences: int | None
    bfmi_min: float | None
    chains_lost: int
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self))


def finite_or_none(content: Any) -> Any:
    """Plain values, objects by their ``to_json``, in which not-a-number and infinity are None, as JSON has neither."""
    if hasattr(content, "to_json"):
        return finite_or_none(content.to_json())
    if isinstance(content, dict):
        return {k: finite_or_none(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [finite_or_none(v) for v in content]
    return None if isinstance(content, float) and not np.isfinite(content) else content


def rhat(draws: np.ndarray) -> float:
    """Rank-normalised split R-hat of (chain, draw)."""
    if np.ptp(draws) == 0:
        return 1.0
    return float(np.asarray(array_stats.rhat(draws, chain_axis=0, draw_axis=1)))


def ess(draws: np.ndarray) -> float:
    """Smaller of bulk and tail effective sample size of (chain, draw)."""
    if np.ptp(draws) == 0:
        return float(draws.size)
    bulk = array_stats.ess(draws, chain_axis=0, draw_axis=1, method="bulk")
    tail = array_stats.ess(draws, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95))
    return min(float(np.asarray(bulk)), float(np.asarray(tail)))


def mean_error(psi: np.ndarray, independent: bool) -> float:
    """Standard error of the mean of psi (chain, draw); chains are independent, draws of a chain need not be."""
    if independent:
        return float(psi.std(ddof=1) / np.sqrt(psi.size))
    if np.ptp(psi) == 0:
        return 0.0
    return float(np.asarray(array_stats.mcse(psi, chain_axis=0, draw_axis=1, method="mean")))


def ratio_of_means(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """Ratio of the means of independent pairs, and its standard error (delta method)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = above.mean() / below.mean()
        influence = (above - value * below) / below.mean()
    return float(value), mean_error(influence, True)


def bfmi(energy: np.ndarray) -> float:
    """Smallest estimated Bayesian fraction of missing information of the chains: E[(E_t - E_{t-1})^2] / Var E."""
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def quality(tree: xr.DataTree, observables: list[str]) -> Quality:
    """Judge a run by some scalar observables."""
    name = json.loads(tree.attrs["manifest"])["dynamics"]["name"]
    lost = int(np.sum(tree["final_position"].to_dataset()["lost_at_step"].values >= 0))
    draws = [np.asarray(tree["posterior"][o].values, float) for o in observables]
    if lost or draws[0].shape[1] < 4:
        worst_rhat, worst_ess = float("nan"), 0.0
    else:
        worst_rhat, worst_ess = max(rhat(x) for x in draws), min(ess(x) for x in draws)
    stats = tree["sample_stats"].to_dataset()
    divergences = int(stats["diverging"].values.sum()) if "diverging" in stats else None
    few = divergences is None or divergences <= DIVERGING * stats["diverging"].size
    explores = bfmi(np.asarray(stats["energy"].values, float)) if "energy" in stats else None
    passed = bool(not lost and worst_rhat < RHAT_LIMIT and worst_ess >= ESS_LIMIT and few)
    passed = passed and (explores is None or explores > BFMI_LIMIT)
    return Quality(name, draws[0].shape[0], worst_rhat, worst_ess, divergences, explores, lost, passed)


def pareto_k(log_weights: Float[np.ndarray, "s e"]) -> Float[np.ndarray, " e"]:
    """Pareto shape of the largest weights of each column (arviz-stats, which takes log likelihoods: minus the logarithms).

    NaN of fewer than 25 draws, of which the tail, a fifth, is too few; 0 where the weights of the tail are even.
    """
    if len(log_weights) < FEWEST_WEIGHTS:
        return np.full(log_weights.shape[1], np.nan)

    def shape(column: np.ndarray) -> float:
        if np.ptp(np.sort(column)[-(len(column) // 5) :]) <= EVEN:
            return 0.0
        with np.errstate(divide="ignore", invalid="ignore"):  # a part of the tail in one place
            return float(array_stats.psislw(-column)[1])

    return np.array([shape(column) for column in log_weights.T])
