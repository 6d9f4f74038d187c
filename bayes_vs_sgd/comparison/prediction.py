r"""How well does a law predict examples it has not seen? Expected log predictive density, per held-out example.

A law over positions predicts y at x by averaging likelihoods over its draws,

.. math:: \mathrm{elpd} = \frac1m \sum_{i=1}^m \log \frac1S \sum_{s=1}^S p(y_i \mid x_i, \theta_s),

Bayes with draws of the tempered posterior, SGD with its ensemble; one run of SGD has the log of one likelihood, and is
averaged over the runs only to say what to expect. Errors add two parts: that of the m examples, and that of the draws, by
their influence (the mean over i of p_is / p_i - 1). The first is smaller for a difference between two laws, taken example by
example.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ..diagnostics import mean_error
from ..posterior import Posterior
from ..results import final_positions
from .stationarity import is_ensemble

MOST_DRAWS, MOST_DENSITIES = 4000, 2**25
"""Draws of a law, and densities (draws times held-out examples), that are evaluated."""


@dataclass(frozen=True)
class Predictive:
    """Log predictive density of each held-out example (m,), and the influence of each draw on its mean (chain, draw)."""

    densities: np.ndarray
    influence: np.ndarray
    independent: bool

    def mean(self) -> tuple[float, float]:
        """Elpd per example and its standard error."""
        return self._with_error(self.densities, mean_error(self.influence, self.independent))

    def less(self, other: "Predictive") -> tuple[float, float]:
        """Difference of two elpd, and its standard error."""
        ours, theirs = (mean_error(p.influence, p.independent) for p in (self, other))
        return self._with_error(self.densities - other.densities, float(np.hypot(ours, theirs)))

    @staticmethod
    def _with_error(values: np.ndarray, of_draws: float) -> tuple[float, float]:
        of_examples = float(values.std(ddof=1) / np.sqrt(len(values)))
        return float(values.mean()), float(np.hypot(of_examples, of_draws))


def predictives(log_likelihoods: np.ndarray, independent: bool) -> tuple[Predictive, Predictive]:
    """Of the whole law, and of a single draw of it, from log likelihoods (chain, draw, m)."""
    top = log_likelihoods.max(axis=(0, 1))
    likelihoods = np.exp(log_likelihoods - top)
    average = likelihoods.mean(axis=(0, 1))
    pooled = Predictive(np.log(average) + top, (likelihoods / average).mean(axis=2) - 1, independent)
    single = log_likelihoods.mean(axis=2)
    return pooled, Predictive(log_likelihoods.mean(axis=(0, 1)), single - single.mean(), independent)


def held_out_prediction(tree: xr.DataTree, reference: xr.DataTree, target: Posterior) -> dict[str, Any] | None:
    """Elpd of Bayes, of an ensemble and of one of its runs, with the differences from Bayes; None where it is not known.

    The model must have held-out examples, and the runs recorded positions; of an ensemble the final ones will do.
    """
    if target.model.held_out is None:
        return None
    ours, theirs = (log_likelihoods(t, target) for t in (tree, reference))
    if ours is None or theirs is None:
        return None
    ensemble, single = predictives(*ours)
    bayes, _ = predictives(*theirs)
    found = {"bayes": bayes.mean(), "ensemble": ensemble.mean(), "single": single.mean()}
    found |= {"ensemble_less_bayes": ensemble.less(bayes), "single_less_bayes": single.less(bayes)}
    plain = {name: dict(zip(("value", "standard_error"), pair, strict=True)) for name, pair in found.items()}
    return plain | {"num_examples": len(bayes.densities)}


def log_likelihoods(tree: xr.DataTree, target: Posterior) -> tuple[np.ndarray, bool] | None:
    """Log likelihood (chain, draw, m) of the held-out examples at draws of a run, and whether draws are independent."""
    assert target.model.held_out is not None  # asked for only where there are some
    most = int(np.clip(MOST_DENSITIES // len(next(iter(target.model.held_out.values()))), 100, MOST_DRAWS))
    positions, kept = final_positions(tree)
    ensemble = is_ensemble(tree)
    if ensemble:
        drawn = {k: jnp.asarray(v[kept][:most, None]) for k, v in positions.items()}
    else:
        names = [name for name, _ in target.model.latents]
        if not kept.any() or any(name not in tree["posterior"] for name in names):
            return None
        draws = tree["posterior"].to_dataset()[names]
        every = max(int(np.ceil(draws.sizes["draw"] * kept.sum() / most)), 1)
        values = {name: draws[name].values[kept][:, ::every] for name in names}
        drawn = _unconstrained(target, {k: jnp.asarray(v, float) for k, v in values.items()})
    if len(next(iter(drawn.values()))) < 2:
        return None
    return np.asarray(_log_likelihoods(target, drawn), float), ensemble


@eqx.filter_jit
def _unconstrained(target: Posterior, values: dict[str, Array]) -> dict[str, Array]:
    return jax.vmap(jax.vmap(target.model.unconstrain))(values)


@eqx.filter_jit
def _log_likelihoods(target: Posterior, positions: dict[str, Array]) -> Float[Array, "c t m"]:
    flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), positions)
    found = jax.lax.map(lambda p: -target.model.held_out_losses(p), flat, batch_size=64)
    return found.reshape(*next(iter(positions.values())).shape[:2], -1)
