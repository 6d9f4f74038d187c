r"""Free energy: minus the log evidence of a model, by tempered sequential Monte Carlo.

.. math:: \log Z(\beta) = \log \int \varphi(\theta) e^{-n \beta L(\theta)} d\theta

What decides the error of sequential Monte Carlo is how well the moves of a stage mix: with too few the answer looks as sure and
is wrong. So every answer is made with k moves and with 2k, each replicated, and it is a warning where they part. How much
of the likelihood is remembered over the moves of a stage says how many are needed: unless given, k is doubled until it is
under a fifth.

The same ladder of temperatures gives all the rest: thermodynamic integration (of energies, not of weights; the quadrature's
error is seen by leaving out every other stage), WBIC, the learning coefficient and its multiplicity; and the particles at
its end WAIC, the singular fluctuation, the cumulants of n beta L, and how well new examples are predicted.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .curvature import reference_point
from .diagnostics import finite_or_none
from .errors import InputError
from .estimate import Estimate, differ, from_replicates
from .ladder import energies, learning_coefficient_and_multiplicity, thermodynamic_integral
from .model import Model
from .posterior import Posterior
from .predictive import example_losses, prediction_distance, predictive
from .settings import check_seconds
from .tempered import MOST_STAGES, REMEMBERED, FromPrior, Ladder, at_particles, enough_moves, tempered

APART, WIDE = 3.0, 0.5
"""Standard errors by which two answers part; nats by which replicates may spread."""
FITTED = 0.01
"""Where n beta times the loss that fitting the labels' noise gains is below this, there is no noise to fit."""


@dataclass(frozen=True)
class FreeEnergy:
    """Log evidence and what the ladder tells beside it, each with its error.

    Parameters
    ----------
    log_evidence
        Mean over the replicates with 2k moves, with the interval of Student's t.
    replicates
        Of ``moves`` (k) and ``twice_the_moves`` (2k): log evidences, one a replicate.
    thermodynamic_integration
        Log evidence by quadrature over the ladder.
    learning_coefficient, multiplicity
        Intercept and slope of N E_N[L - L*] against 1/log N; None where N does not reach 27.
    singular_fluctuation, functional_variance, waic
        Of the examples, at the given beta; None for a model that holds none.
    wbic
        E[n L] at beta = 1/log n: an approximation of the free energy at beta = 1. None below that beta.
    asymptotic_log_evidence
        -(n beta L* + lambda log N - (m - 1) log log N) with the known lambda and m, or else the fitted ones; its error is O(1).
    cumulants
        The first four of n beta (L - L*): the derivatives of the free energy by log t.
    losses
        Loss each of the training examples and of those held out, by the posterior's predictive law, less that of the
        optimum; and E|f - f*|^2 on the data's inputs and off them.
    fitted_up_to
        Largest N that lambda and m are fitted to: above n/log n the noise of the labels is.
    num_stages, acceptance_rate, memory
        Largest number of stages, lowest mean acceptance rate of a stage, and the largest correlation of the likelihood before
        a stage's moves with that after, of any replicate with 2k moves.
    warnings
        Reasons not to believe it; ``trusted`` if there are none.
    """

    log_evidence: Estimate
    replicates: dict[str, list[float]]
    thermodynamic_integration: Estimate
    learning_coefficient: Estimate | None
    multiplicity: Estimate | None
    singular_fluctuation: Estimate | None
    functional_variance: Estimate | None
    waic: Estimate | None
    wbic: Estimate | None
    asymptotic_log_evidence: float | None
    cumulants: list[Estimate]
    losses: dict[str, Estimate]
    fitted_up_to: float
    baseline: dict[str, Any]
    num_stages: int
    acceptance_rate: float
    memory: float
    num_gradients: float
    settings: dict[str, Any]
    trusted: bool
    warnings: list[str]
    ladders: list[Ladder]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = asdict(replace(self, ladders=[]))
        found |= {"standard_error": self.log_evidence.standard_error}
        return finite_or_none({name: value for name, value in found.items() if name != "ladders"})

    def _repr_html_(self) -> str:
        from .report.notebook import free_energy_html

        return free_energy_html(self)


def free_energy(
    model: Model | Posterior,
    inverse_temperature: float = 1.0,
    *,
    key: int = 0,
    num_particles: int = 2000,
    num_moves: int | None = None,
    num_replicates: int = 4,
    target_ess: float = 0.8,
    max_seconds: float | None = None,
    folder: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> FreeEnergy:
    """Estimate log Z of a model's tempered posterior.

    Parameters
    ----------
    model
        Its prior is taken as it is: normalised, if the program has no ``numpyro.factor`` outside the plate. A
        ``Posterior`` brings its own inverse temperature and localisation.
    inverse_temperature
        beta; at 1, Z is the evidence.
    key
        Seed.
    num_particles
        Of each replicate.
    num_moves
        k: trajectories of each particle a stage; the answer is made with 2k. Found by a pilot run by default.
    num_replicates
        Independent runs with k and with 2k moves.
    target_ess
        Effective share of the particles after a stage.
    max_seconds
        After this wall time no further replicate is begun, once there are two of each.
    folder
        Where replicates are kept; those that are there already are not run again.
    progress
        Called with a line on what is being done.

    Raises
    ------
    InputError
        If a setting cannot be.
    """
    target = model if isinstance(model, Posterior) else _target(model, inverse_temperature)
    _check(num_particles, num_moves, num_replicates, target_ess)
    check_seconds(max_seconds)
    started, seed, say = time.monotonic(), jax.random.key(key), progress or (lambda line: None)
    kept = None if folder is None else Path(folder)
    tempering = FromPrior(target)
    if num_moves is None:
        num_moves = enough_moves(tempering, num_particles, target_ess, jax.random.fold_in(seed, 2), kept, say)
    found: dict[str, list[Ladder]] = {"moves": [], "twice_the_moves": []}
    for index in range(num_replicates):
        late = max_seconds is not None and time.monotonic() - started > max_seconds
        if index >= 2 and late:
            break
        for times, runs in enumerate(found.values(), start=1):
            say(f"free energy: replicate {index + 1} of {num_replicates}, {times * num_moves} moves a stage")
            run_key = jax.random.split(jax.random.fold_in(seed, times - 1), num_replicates)[index]
            runs.append(tempered(tempering, run_key, num_particles, times * num_moves, target_ess, kept))
    best = found["twice_the_moves"]
    settings = {"inverse_temperature": float(target.inverse_temperature), "localization": float(target.localization)}
    settings |= {"num_particles": num_particles, "num_moves": num_moves, "num_replicates": len(best)}
    settings |= {"target_ess": target_ess, "seed": key}
    logs = {name: [run.log_evidence for run in runs] for name, runs in found.items()}
    log_evidence = from_replicates(logs["twice_the_moves"])
    fine, coarse = ([thermodynamic_integral(run, every) for run in best] for every in (1, 2))
    integral = from_replicates(fine, float(np.mean(fine) - np.mean(coarse)))
    memory = max(float(run.memory.max()) for run in best)
    doubts = _doubts(logs, log_evidence, integral, [*found["moves"], *best], memory)
    if len(best) < num_replicates:
        doubts.append(f"stopped after {max_seconds:g} s with {len(best)} of {num_replicates} replicates")
    return FreeEnergy(
        log_evidence=log_evidence,
        replicates=logs,
        thermodynamic_integration=integral,
        **_from_ladders(target, best),
        num_stages=max(len(run.memory) for run in best),
        acceptance_rate=min(float(run.acceptance.min()) for run in best),
        memory=memory,
        num_gradients=sum(run.num_gradients for runs in found.values() for run in runs),
        settings=settings,
        trusted=not doubts,
        warnings=doubts,
        ladders=best,
    )


def _target(model: Model, inverse_temperature: float) -> Posterior:
    if not (np.isfinite(inverse_temperature) and inverse_temperature > 0):
        raise InputError(f"inverse_temperature is {inverse_temperature}: it must be finite and > 0")
    return Posterior(model, inverse_temperature)


def _check(num_particles: int, num_moves: int | None, num_replicates: int, target_ess: float) -> None:
    for name, value, least in (
        ("num_particles", num_particles, 10),
        ("num_moves", 1 if num_moves is None else num_moves, 1),
        ("num_replicates", num_replicates, 2),
    ):
        if value < least:
            raise InputError(f"{name} is {value}: it must be at least {least}")
    if not 0 < target_ess < 1:
        raise InputError(f"target_ess is {target_ess}: it must be between 0 and 1")


def _from_ladders(target: Posterior, runs: list[Ladder]) -> dict[str, Any]:
    """All estimates but the evidence."""
    model, beta, n = target.model, float(target.inverse_temperature), target.model.num_examples
    minimum = reference_point(model, target.center)
    optimum = None if model.optimum is None else model.unconstrain(model.optimum)
    at_optimum = minimum.loss if optimum is None else float(model.loss(optimum))
    source = "the empirical minimum by L-BFGS" if optimum is None else "the model's optimum"
    found: dict[str, Any] = {"baseline": {"value": at_optimum, "source": f"loss at {source}"}}
    local = float(target.localization) > 0  # its energy is not n L alone
    noisy = n * beta * (at_optimum - minimum.loss) > FITTED
    most = min(n / np.log(n) if noisy else np.inf, n * beta)
    fits = [learning_coefficient_and_multiplicity(run, beta, n, n * at_optimum, most) for run in runs]
    found |= {"learning_coefficient": None, "multiplicity": None, "asymptotic_log_evidence": None, "fitted_up_to": most}
    if not local and None not in fits:
        value, multiplicity, change, other_change = np.array(fits, float).T
        fitted = {
            "learning_coefficient": from_replicates(value, float(np.mean(change))),
            "multiplicity": from_replicates(multiplicity, float(np.mean(other_change))),
        }
        found |= fitted
        lambda_, m = (model.truth.get(name, fitted[name]).value for name in fitted)
        precision = n * beta
        asymptotic = precision * at_optimum + lambda_ * np.log(precision) - (m - 1) * np.log(np.log(precision))
        found["asymptotic_log_evidence"] = -float(asymptotic)
    at = 1 / np.log(n) / beta if n > 2 else np.inf
    wbic = [energies(run)(at) / beta for run in runs] if at <= 1 and not local else None
    found["wbic"] = None if wbic is None else from_replicates(wbic)
    parts = [_at_the_end(target, run, optimum, at_optimum) for run in runs]
    errors = {"held_out": float(np.mean([part.pop("held_out_error", 0.0) for part in parts]))}  # over the examples
    estimates = {name: from_replicates([part[name] for part in parts], errors.get(name, 0.0)) for name in parts[0]}
    found["cumulants"] = [estimates.pop(f"cumulant_{order}") for order in range(1, 5)]
    for name in ("singular_fluctuation", "functional_variance", "waic"):
        found[name] = estimates.pop(name, None)
    return found | {"losses": estimates}


def _at_the_end(target: Posterior, run: Ladder, optimum: Any, at_optimum: float) -> dict[str, float]:
    """What one replicate's particles at t = 1 tell."""
    model, beta, weights = target.model, float(target.inverse_temperature), run.weights
    losses = at_particles(target, run.particles, "loss")
    excess = model.num_examples * beta * (losses - at_optimum)
    first = float(weights @ excess)
    second, third, fourth = (float(weights @ (excess - first) ** order) for order in (2, 3, 4))
    found = {"cumulant_1": first, "cumulant_2": second, "cumulant_3": third, "cumulant_4": fourth - 3 * second**2}
    seen = predictive(target, run.particles, weights)
    variance = float(seen.variances.sum())
    training = float(seen.losses.mean())
    found |= {"functional_variance": variance, "singular_fluctuation": beta * variance / 2}
    found |= {"waic": training + beta * variance / model.num_examples, "training": training - at_optimum}
    if optimum is not None and model.held_out is not None:
        new = predictive(target, run.particles, weights, held_out=True)
        excess = new.losses - np.asarray(example_losses(target, optimum, True), float)
        found |= {"held_out": float(excess.mean()), "held_out_error": float(excess.std(ddof=1) / np.sqrt(len(excess)))}
    if optimum is not None and model.probes is not None:
        for name, probes in (("distance_on_data", False), ("distance_off_data", True)):
            found[name] = prediction_distance(target, run.particles, weights, optimum, probes)
    return found


def _doubts(
    logs: dict[str, list[float]], best: Estimate, integral: Estimate, runs: list[Ladder], memory: float
) -> list[str]:
    """Reasons not to believe the answer."""
    if not np.isfinite([*logs["moves"], *logs["twice_the_moves"]]).all():
        return ["a replicate is not finite: the likelihood may vanish on all of the prior's draws"]
    found = []
    if differ(logs["moves"], logs["twice_the_moves"]):
        found.append(f"k moves give {from_replicates(logs['moves'])}, 2k give {best}: give more moves")
    spread = max(np.std(values, ddof=1) for values in logs.values())
    if memory > REMEMBERED:
        found.append(f"2k moves still remember {memory:.2f} of the likelihood: give more moves")
    if spread > WIDE:
        found.append(f"replicates spread by {spread:.2g} nats: give more moves or particles")
    if abs(integral.value - best.value) > APART * np.hypot(integral.standard_error, best.standard_error):
        found.append(f"thermodynamic integration gives {integral}")
    if not all(run.finished for run in runs):
        found.append(f"not at the posterior after {MOST_STAGES} stages: give a smaller target_ess")
    return found
