"""Every assumption of "SGD is Langevin dynamics", held against a model at its minimum and against the run of an optimiser."""

import jax
import numpy as np
import xarray as xr

from ..comparison.result import Comparison
from ..comparison.roots import judged
from ..comparison.run import Study
from ..comparison.stationarity import ENSEMBLE
from ..curvature import DENSE
from ..dynamics import Fresh, Minibatch, Optimizer
from ..model import Position
from ..posterior import Posterior
from ..results import final_positions
from . import path
from .assumption import Assumption, measured, undefined
from .central_limit import central_limit
from .degeneracy import non_degeneracy, prior_share
from .isotropy import commutation, isotropy
from .local import Local, local
from .noise import NO_VARIANCE, gradient_samples, has_variance, noise_traces, num_draws
from .production import entropy_production, shaken_directions
from .regularity import regularity
from .step_size import small_steps, stability
from .tails import SMALLEST, tail_index
from .temperatures import one_temperature

CONSTANCY = 0.2
"""Margin of the relative spread of tr C over the law."""
NUM_PLACES = 64
"""Positions of the law at which tr C is taken."""
MOST_DIRECTIONS = 32
"""Directions in which tails are looked at."""
MOST_PATHS = 200
"""Most parameters of models whose steps are recorded one by one."""
CHAINS, FEW, BATCHES = f"{ENSEMBLE} chains", f"at most {DENSE:,} parameters", "batches of the examples"
PLAIN = "plain SGD on the loss"
PATHS = f"{PLAIN}, at most {MOST_PATHS} parameters, more than one direction that curves and is shaken"
TAKES = {
    "central limit": "",
    "finite variance of the noise": f"{SMALLEST} chains",
    "finite variance of the law": f"{SMALLEST} chains",
    "isotropy": "",
    "noise of one size": CHAINS,
    "non-degeneracy": FEW,
    "regularity": "",
    "detailed balance": "",
    "no currents": PATHS,
    "entropy production": PATHS,
    "small learning rate": "",
    "mean-square stability": f"SGD in {BATCHES}, few parameters",
    "weak error": "a refined model of its own, and time for it",
    "stationarity": CHAINS,
    "one temperature": f"{CHAINS}, more than one direction that curves",
    "fluctuation and dissipation": PLAIN,
    "diffusion": f"{PLAIN}, at most {MOST_PATHS} parameters",
    "independent batches": BATCHES,
    "prior": f"the loss as objective, {FEW}",
}
"""Assumptions in the order in which they are told, and what looking at one takes."""


def assumptions(study: Study, name: str, dynamics: Optimizer) -> list[Assumption]:
    """Hold every assumption against the model at its minimum, and against the run where enough chains are left."""
    tree, _ = study.trees[name]
    target, position = study.target(study.scale), study.minimum.position
    dynamics.gradient.check(study.model)
    place = local(target, dynamics.gradient, position, preconditioner(target, dynamics, position), study.seed)
    found = at_a_point(target, dynamics, position, place, study.seed)
    if place.hessian is not None and dynamics.objective == "loss":
        found.append(prior_share(place, target, position))
    if final_positions(tree)[1].sum() >= ENSEMBLE:
        found += over_the_law(study, tree, dynamics, place)
    return in_order(found)


def regular_law(study: Study, comparison: Comparison) -> Assumption:
    """What the draws that the run was compared with say of the posterior itself."""
    reference, used = study.trees[comparison.dynamics][1], comparison.inverse_temperature["used"]
    assert reference is not None  # an audit has one
    assert used is not None  # a comparison has one
    return regularity(reference, study.target(used * study.model.num_examples))


def in_order(found: list[Assumption]) -> list[Assumption]:
    """As they are told."""
    return sorted(found, key=lambda a: list(TAKES).index(a.name))


def left_out(found: list[Assumption]) -> dict[str, str]:
    """What an audit did not look at, and what that takes."""
    names = {a.name for a in found}
    return {name: need for name, need in TAKES.items() if name not in names}


def at_a_point(target: Posterior, dynamics: Optimizer, position: Position, place: Local, seed: int) -> list[Assumption]:
    """What the Hessian and the gradients of the examples say at one position."""
    gradient, num_examples = dynamics.gradient, target.model.num_examples
    steps = (float(dynamics.step_time), dynamics.momentum, dynamics.nesterov)
    found = [central_limit(target, gradient, position, seed), isotropy(place)]
    found += [commutation(place), small_steps(place, dynamics)]
    if place.hessian is not None:
        found.append(non_degeneracy(place, target))
    if isinstance(gradient, Minibatch) and not isinstance(gradient, Fresh):
        found.append(path.repetition(target, gradient, position, max(num_examples // gradient.batch_size, 1), seed))
        limit = stability(target, gradient.batch_size, position, *steps) if dynamics.rule == "sgd" else None
        found += [] if limit is None else [limit]
    return found


def over_the_law(study: Study, tree: xr.DataTree, dynamics: Optimizer, place: Local) -> list[Assumption]:
    """What the ensemble and its next steps say."""
    target, gradient, rate = study.target(study.scale), dynamics.gradient, float(dynamics.step_time)
    found = [*tails(target, dynamics, tree, study.seed), constancy(target, dynamics, tree)]
    found.append(path.stationarity(tree, list(judged(study.chosen)), study.margins))
    temperature = one_temperature(target, study.minimum.position, path.ended(tree), study.margins)
    found += [] if temperature is None else [temperature]
    if is_plain(dynamics) and dynamics.objective == "loss" and place.has_variance:  # of which all these are made
        found.append(path.fluctuation_dissipation(target, gradient, rate, path.ended(tree), study.seed))
        if study.model.num_parameters <= MOST_PATHS:
            paths = path.continued(dynamics, target, tree, study.seed + 3)
            found += of_paths(paths, place, rate, study.seed) if len(paths) >= ENSEMBLE else []
    return found


def of_paths(paths: np.ndarray, place: Local, rate: float, seed: int) -> list[Assumption]:
    """What successive positions say."""
    found, shaken = [path.anomalous_diffusion(paths, place, rate)], shaken_directions(place)
    found += [path.current(paths, place, rate)] if len(place.modes()[0]) > 1 else []
    return [*found, entropy_production(paths, shaken, seed)] if shaken.shape[1] > 1 else found


def is_plain(dynamics: Optimizer) -> bool:
    """Whether the update is theta - eta g."""
    return dynamics.rule == "sgd" and not dynamics.momentum


def preconditioner(target: Posterior, dynamics: Optimizer, position: dict) -> np.ndarray | None:
    """Diagonal by which Adam and RMSprop multiply the gradient at stationarity: 1 over the root of its mean square."""
    if dynamics.rule not in ("adam", "rmsprop", "adamw"):
        return None
    key, number = jax.random.key(0), num_draws(target)
    drawn = np.asarray(gradient_samples(target, dynamics.gradient, position, key, number), float)
    return 1 / (np.sqrt(np.mean(drawn**2, axis=0)) + float(dynamics.hyperparameters.get("eps", 1e-8)))


def tails(target: Posterior, dynamics: Optimizer, tree: xr.DataTree, seed: int) -> list[Assumption]:
    """Tail index of the gradient's noise over the law, and of the law itself around its median.

    Samples of one chain stand together, so that their correlations are in the errors and in the null.
    """
    _, kept = final_positions(tree)
    if kept.sum() < SMALLEST:
        return []
    positions = path.late(target, tree)
    noise = path.noise_over_the_law(target, dynamics.gradient, positions, seed)
    law = np.asarray(jax.vmap(target.flat)(positions), float)
    return [finite_variance("noise", noise, seed), finite_variance("law", law - np.median(law, axis=0), seed)]


def finite_variance(what: str, sample: np.ndarray, seed: int, independent: bool = False) -> Assumption:
    """Tail index of some vectors, one a row, by both estimators."""
    sample = sample[np.any(sample != 0, axis=1)]
    if sample.shape[1] > MOST_DIRECTIONS:  # random ones keep a tail, and what surrogates cost is theirs
        sample = sample @ np.random.default_rng(seed).normal(size=(sample.shape[1], MOST_DIRECTIONS))
    index = tail_index(sample, independent=independent)
    nulls = f"{index.hill.null[0]:.1f} to {index.hill.null[1]:.1f}"
    note = f"99 % interval; by sums of {index.block_size}: {index.blocks.value:.2f}; normal samples: {nulls}"
    holds, hill = None if index.heavy is None else not index.heavy, index.hill
    name = f"finite variance of the {what}"
    return Assumption(name, "tail index, above 2", hill.value, hill.interval, 2.0, 0.0, holds, note)


def constancy(target: Posterior, dynamics: Optimizer, tree: xr.DataTree) -> Assumption:
    """Relative standard deviation of tr C over the law: a temperature needs noise of one size."""
    statistic = "relative spread of tr C over the law"
    if not has_variance(dynamics.gradient):
        return undefined("noise of one size", statistic, 0.0, CONSTANCY, NO_VARIANCE)
    places = {k: v[:NUM_PLACES] for k, v in path.ended(tree).items()}
    traces = noise_traces(target, dynamics.gradient, places)
    value = traces.std(ddof=1) / traces.mean()
    left_out = np.array([np.delete(traces, i).std(ddof=1) / np.delete(traces, i).mean() for i in range(len(traces))])
    error = float(np.sqrt((len(traces) - 1) * left_out.var()))
    return measured("noise of one size", statistic, value, error, 0.0, CONSTANCY)
