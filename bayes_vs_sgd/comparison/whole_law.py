"""All of a run's law at once: the global tests of an ensemble, with the temperature fixed or fitted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..margins import MARGINS, Margins
from ..observables import Observable
from ..posterior import Posterior
from ..results import final_positions
from .effects import heavy_tailed, kinds_of, scalar_draws, statistics_of
from .embedding import GlobalTest
from .global_tests import MOST_ITEMS, adjusted, ksd, least_changes, mmd, stein
from .stationarity import law
from .temperature import Scores, SteinTerms, scores, stein_terms

MOST_PARAMETERS = 2000
"""Most parameters for the kernel Stein discrepancy."""


@dataclass(frozen=True)
class EnsembleScores:
    """Gradients of all seeds of an ensemble at the end, and its Stein terms."""

    scores: Scores
    terms: dict[str, SteinTerms]


def ensemble_scores(tree: xr.DataTree, target: Posterior, chosen: dict[str, Observable]) -> EnsembleScores:
    """Scores of an ensemble, and Stein terms along grad L, its parts, and the modes among some observables."""
    modes = {k: v for k, v in chosen.items() if v.mode}
    positions = final_positions(tree)[0]
    found = scores(target, positions)
    return EnsembleScores(found, stein_terms(target, positions, modes, found.directions()))


def global_tests(
    tree: xr.DataTree,
    reference: xr.DataTree | None,
    target: Posterior,
    tested: np.ndarray,
    names: Sequence[str],
    ensemble: EnsembleScores | None,
    fitted: bool,
    margins: Margins = MARGINS,
    key: int = 0,
) -> list[GlobalTest]:
    """Test the law of a run, with p-values by Holm.

    Parameters
    ----------
    tree, reference, target
        As in ``compare``; without a reference the scores alone are tested.
    tested
        Chains of the run that take part.
    names
        Primary observables: what the discrepancy sees, and the alternatives of the power.
    ensemble
        Scores of the seeds; None for a few long chains, of which the observables alone are tested.
    fitted
        Whether the hypothesis is that some temperature fits.
    margins
        Of location and scale: how far the alternatives are.
    key
        Seed of the bootstrap.

    """
    seeds = tested[:MOST_ITEMS]
    rng = np.random.default_rng(key)
    found: list[GlobalTest] = []
    tilts = None if ensemble is None else _changes(tree, seeds, names, margins)
    if reference is not None:
        draws = np.stack([law(tree, name, seeds).values for name in names], axis=-1)
        others = np.stack([scalar_draws(reference, name) for name in names], axis=-1)
        energy = scalar_draws(reference, "loss") if fitted else None
        found.append(mmd(draws, others, rng, energy, tilts))
    if ensemble is not None:
        scale, terms, at = float(target.scale), ensemble.terms.values(), ensemble.scores
        prior, loss = (np.stack([getattr(t, side)[seeds] for t in terms], axis=1) for side in ("prior", "loss"))
        found.append(stein(prior, loss, scale, rng, fitted, tilts))
        if at.positions.shape[1] <= MOST_PARAMETERS:
            found.append(ksd(at.positions[seeds], at.prior[seeds], at.loss[seeds], scale, rng, fitted, tilts))
    return adjusted(found)


def _changes(tree: xr.DataTree, seeds: np.ndarray, names: Iterable[str], margins: Margins) -> np.ndarray | None:
    """Changes of the seeds' weights (q, s) that move location or scale of one observable by its margin."""
    moves = []
    for name in names:
        sample = law(tree, name, seeds)
        heavy = heavy_tailed(sample, sample)
        (_, place), (log_unit, _), (_, scale) = (statistic() for statistic in statistics_of(sample, heavy))
        if np.isfinite(log_unit):
            near, wide = (margins[kind] for kind in kinds_of(heavy))
            moves += [(place.ravel(), near * np.exp(log_unit)), (scale.ravel(), wide)]
    return least_changes(moves) if moves else None
