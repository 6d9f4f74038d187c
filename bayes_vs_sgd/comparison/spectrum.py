r"""Temperature spectrum: the temperature of each mode of the Hessian at a minimum.

Let H v_i = lambda_i v_i at a minimum theta*, and d_i = v_i . (theta - theta*). Stein's identity along d_i v_i gives each mode
its own temperature, from scores alone (log r is prior and localisation):

.. math:: T_i = E[d_i\, v_i \cdot \nabla L] \,/\, E[1 + d_i\, v_i \cdot \nabla \log r].

Under a tempered posterior all T_i are one number, 1/(n beta). Under SGD T_i = (eta / 2B) v_i' C v_i to first order, so they
follow the curvature where the gradient noise C does (slope 1 of log T on log lambda).
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ..curvature import DENSE, Minimum, example_gradients, gradient_noise, hessian, reference_point
from ..dynamics.base import Dynamics
from ..errors import InputError
from ..manifest import target_of
from ..model import Position
from ..posterior import Posterior
from ..results import final_positions, whole
from ..simulate import simulate
from .effects import scalar_draws
from .landscape import DEGENERATE

if TYPE_CHECKING:
    from .run import Study

STEP = 0.05
"""Step size times the largest curvature, of Langevin dynamics: its temperatures are too high by half of it."""
FLAT = 0.05
"""Modes with less than this share of the largest eigenvalue are left out: they would take too long to settle."""
SETTLED = 4.0
"""Relaxation times of the flattest mode that an ensemble is run for: its variance is then within exp(-8) of its limit."""
LOCAL = 0.15
"""How far Langevin dynamics may diffuse along a flat direction meanwhile, in units of the weights' root mean square."""
LEAST_STEPS, MOST_GRADIENTS = 1000, 2 * 10**8
"""Steps (Adam remembers a thousand), and example gradients beyond which seeds are saved."""
RESOLVED = 0.5
"""A temperature is known if the standard error of its logarithm is at most this; no slope is fitted to others."""
SPREAD = np.log(1.5)
"""Eigenvalues that are closer together than this (range of their logarithms) have no slope."""


@dataclass(frozen=True)
class Spectrum:
    """Temperatures of the modes of one ensemble over a scale T0, sharpest mode first.

    Parameters
    ----------
    dynamics
        Its name.
    eigenvalues
        Of the Hessian of L at the minimum.
    temperatures, log_errors
        T_i / T0, and the standard errors of their logarithms.
    slope, slope_error
        Of log T on log lambda by least squares; None where the eigenvalues are all alike or a temperature is not resolved.
    excess, excess_error
        (E[L] - L*) / T0: half the number of modes under Bayes at a regular minimum, and lambda at a singular one; half the
        trace of H under SGD, to first order in the learning rate.
    half_trace
        tr H / 2.
    predicted_slope
        0 for what targets the posterior, that of v_i' C v_i for SGD with replacement; None where theory is silent.
    """

    dynamics: str
    eigenvalues: np.ndarray
    temperatures: np.ndarray
    log_errors: np.ndarray
    slope: float | None
    slope_error: float | None
    excess: float
    excess_error: float
    half_trace: float
    predicted_slope: float | None = None

    @property
    def is_resolved(self) -> bool:
        """Whether every mode's temperature is known well enough for a logarithm."""
        return _resolved(self.temperatures, self.log_errors)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}


@dataclass(frozen=True)
class Modes:
    """Minimum with the eigenvalues of the Hessian there that are not flat, descending, and their eigenvectors (d, k)."""

    minimum: Minimum
    eigenvalues: np.ndarray
    vectors: np.ndarray
    trace: float


def hessian_modes(target: Posterior, minimum: Minimum) -> Modes:
    """Modes of the Hessian of L at a minimum."""
    if target.model.num_parameters > DENSE:
        size = target.model.num_parameters
        raise InputError(f"a temperature spectrum needs at most {DENSE:,} parameters, the model has {size:,}")
    values, vectors = np.linalg.eigh(np.asarray(hessian(target.model, minimum.position), float))
    kept = np.flatnonzero(values > FLAT * values[-1])[::-1]
    return Modes(minimum, values[kept], vectors[:, kept], float(values.sum()))


def unit_scale(study: "Study") -> float:
    """Return 1/T0 with T0 = (eta / 2B) tr C / tr H: what plain SGD gives a mode of curvature 1 where C is c H."""
    noise = gradient_noise(study.model, study.minimum.position).trace
    trace = hessian_modes(Posterior(study.model), study.minimum).trace
    return (
        2 * study.settings.batch_size / study.learning_rate * trace / noise
        if noise
        else float(study.model.num_examples)
    )


def spectrum_at_minimum(study: "Study", name: str, dynamics: Dynamics | None = None) -> Spectrum:
    """Temperature spectrum of a dynamics that starts at the minimum and runs until its modes have settled.

    T0 is 1/(n beta) for Langevin dynamics, as cold as it takes to stay near the minimum, and that of ``unit_scale`` for the
    others. A dynamics of one's own may stand for the named one.
    """
    model, settings = study.model, study.settings
    modes = hessian_modes(Posterior(model), study.minimum)
    dynamics, rows = dynamics or study.dynamics(name), settings.batch_size
    if not len(modes.eigenvalues) or modes.eigenvalues[0] < DEGENERATE * study.sharpness:
        raise InputError("the Hessian at the minimum is zero")
    if dynamics.law == "none" and study.theory is None:
        raise InputError("the gradients have no noise at the minimum, so every mode is at temperature 0")
    scale, target = unit_scale(study), study.target(study.scale)
    if name == "sgld":
        size = np.mean(np.square(np.concatenate([np.ravel(v) for v in study.minimum.position.values()])))
        scale = max(scale, 2 * SETTLED / (modes.eigenvalues[-1] * LOCAL**2 * max(size, 1e-6)))
        dynamics, rows, target = study.langevin(scale), model.num_rows, study.target(scale)
    num_steps = max(LEAST_STEPS, int(np.ceil(SETTLED * modes.eigenvalues[0] / (STEP * modes.eigenvalues[-1]))))
    num_seeds = int(np.clip(MOST_GRADIENTS // (num_steps * rows), min(200, settings.num_seeds), settings.num_seeds))
    values = eqx.filter_jit(model.constrain)(study.minimum.position)
    tree = simulate(
        dynamics,
        target,
        key=study.seed + 2,
        num_chains=num_seeds,
        num_steps=num_steps,
        num_draws=4,
        initial={k: np.repeat(np.asarray(v)[None], num_seeds, axis=0) for k, v in values.items()},
        observables=study.observables,
        folder=None if study.folder is None else study.folder / f"spectrum-{name}",
        progress=study.progress,
        title=f"{name} from the minimum",
    )
    return mode_temperatures(name, whole(tree), target, modes, scale)


def temperature_spectrum(
    tree: xr.DataTree, target: Posterior | None = None, name: str | None = None, scale: float | None = None
) -> Spectrum:
    """Temperature spectrum of an ensemble, around the empirical minimum next to the model's optimum.

    Parameters
    ----------
    tree
        Its run; the law is that of the final positions of independent chains.
    target
        The run's target; found by its manifest by default.
    name
        Of the dynamics; its own by default.
    scale
        1/T0, the n beta in units of which temperatures are given; the target's by default.

    Raises
    ------
    InputError
        If fewer than two chains are not lost, or the model is too large.
    """
    target = target_of(tree) if target is None else target
    modes = hessian_modes(target, reference_point(target.model, target.center))
    name = name or str(json.loads(tree.attrs["manifest"])["dynamics"]["name"])
    return mode_temperatures(name, tree, target, modes, float(target.scale) if scale is None else scale)


def mode_temperatures(name: str, tree: xr.DataTree, target: Posterior, modes: Modes, scale: float) -> Spectrum:
    """Mode temperatures of an ensemble, in units of 1/scale."""
    positions, kept = final_positions(tree)
    if kept.sum() < 2:
        raise InputError(f"{name}: fewer than two chains are not lost; a smaller --learning-rate may keep them")
    losses = scalar_draws(tree, "loss")[kept, -1]
    settled = {k: jnp.asarray(v[kept]) for k, v in positions.items()}
    terms = _terms(target, settled, modes.minimum.position, jnp.asarray(modes.vectors, float))
    above, below = (np.asarray(x, float) for x in terms)  # (seed, mode)
    temperatures = above.mean(axis=0) / below.mean(axis=0)
    influence = above / above.mean(axis=0) - below / below.mean(axis=0)  # of log T, on each seed
    errors = influence.std(axis=0, ddof=1) / np.sqrt(len(influence))
    slope = slope_error = predicted = None
    x = np.log(modes.eigenvalues)
    if np.ptp(x) > SPREAD and _resolved(temperatures, errors):
        weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
        slope = float(weights @ np.log(temperatures))
        slope_error = float((influence @ weights).std(ddof=1) / np.sqrt(len(influence)))
        made = json.loads(tree.attrs["manifest"])["dynamics"]
        if made["law"] != "none":
            predicted = 0.0
        elif made.get("rule") == "sgd" and made["sampling"] == "with replacement":
            gradients = np.asarray(example_gradients(target.model, modes.minimum.position), float)
            predicted = float(weights @ np.log((gradients @ modes.vectors).var(axis=0)))
    excess = scale * (losses - modes.minimum.loss)
    mean, error = float(excess.mean()), float(excess.std(ddof=1) / np.sqrt(len(excess)))
    shared = (name, modes.eigenvalues, temperatures * scale, errors, slope, slope_error)
    return Spectrum(*shared, mean, error, modes.trace / 2, predicted)


def _resolved(temperatures: np.ndarray, log_errors: np.ndarray) -> bool:
    return bool(np.all(temperatures > 0) and np.max(log_errors, initial=0) <= RESOLVED)


@eqx.filter_jit
def _terms(
    target: Posterior, positions: Position, minimum: Position, vectors: Float[Array, "d k"]
) -> tuple[Float[Array, "s k"], Float[Array, "s k"]]:
    """Both sides of Stein's identity on each seed: d_i v_i . grad L, and 1 + d_i v_i . grad log r."""
    center = target.flat(minimum)

    def terms(position):
        vector = target.flat(position)
        along = (vector - center) @ vectors
        slope = jax.grad(lambda v: target.model.loss(target.unflat(v)))(vector) @ vectors
        prior = jax.grad(lambda v: target.log_regularizer(target.unflat(v)))(vector) @ vectors
        return along * slope, 1 + along * prior

    return jax.lax.map(terms, positions, batch_size=256)
