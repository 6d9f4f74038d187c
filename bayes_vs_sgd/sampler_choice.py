r"""Which sampler measures a learning coefficient, at which step sizes, and the value that its step sizes tend to.

A sampler whose law is off by its step size h is run at h, h/2 and h/4, or where it is off by O(h^2) at h, .7 h and h/2.
"""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from . import CORES
from .curvature import DENSE, hessian_eigenvalues, prior_curvatures, reference_point
from .dynamics import MALA, NUTS, SGHMC, SGLD, SGNHT, AdamSGLD, AdjustedMCLMC, Dynamics, Grid, RMSpropSGLD
from .errors import InputError
from .estimate import Estimate, with_error
from .pilot import arrive, steepness, underdamped_step
from .posterior import Posterior
from .reference import TemperedParticles
from .settings import LLC

LINEAR, QUADRATIC = (1.0, 0.5, 0.25), (1.0, 0.5**0.5, 0.5)
"""Step sizes of a ladder, by the order of the bias; the numbers of chains are inversely proportional."""
OVERDAMPED = 0.1
"""Step size at a curvature of 1 without momentum; unstable at 2."""
PILOT_SHARE = 0.4
"""Share of the time in which chains come to where the law is."""
KINDS = {"sgld": SGLD, "rmsprop-sgld": RMSpropSGLD, "adam-sgld": AdamSGLD, "sghmc": SGHMC, "sgnht": SGNHT}
MOST_TEMPERED, PARTICLES_EACH = 300, 4
"""Parameters above which particles are not asked; particles a parameter at least, whose covariance is theirs."""
FLAT, SOFTEST = 1e-5, 1e-30
"""Curvature over the largest below which a direction is flat but for rounding; curvature of a prior that has none."""
NUM_WARMUP = 500
"""Steps in which samplers tune themselves."""
GRID_CHAINS = 128
"""Chains of a grid, whose draws are independent and cheapest side by side."""
CRITICAL = 2.0
"""Friction over the root of the curvature at which an underdamped sampler forgets soonest."""
ACCEPTANCE = 0.95
"""Of NUTS: near crossings its default makes trajectories diverge."""


def choose(
    target: Posterior, settings: LLC, key: int, seconds: float, folder: Path, times: float = 1.0
) -> tuple[Dynamics, dict[str, Any]]:
    """Return the sampler that is asked for, or the best that the model has: its exact one, a grid, NUTS; and how it is run.

    Seed, wall time and folder are for finding a step size, which is multiplied by ``times``.
    """
    model, name = target.model, settings.sampler
    if name == "auto":
        if model.exact_sampler is not None:
            name = "exact"
        elif model.num_parameters <= 2:
            with contextlib.suppress(InputError):  # a law too narrow for the grid
                return Grid().prepare(target), {"num_chains": GRID_CHAINS}
        name = "nuts" if name == "auto" else name
    if name == "exact":
        if model.exact_sampler is None:
            raise InputError("this model declares no exact sampler: give --sampler nuts")
        return model.exact_sampler, start_of(target, settings)
    if name == "grid":
        return Grid(), {"num_chains": GRID_CHAINS}
    if name == "smc":
        if model.num_parameters > MOST_TEMPERED:
            raise InputError(
                f"smc has particles that move along their covariance: for at most {MOST_TEMPERED} parameters, not "
                f"{model.num_parameters}; give --sampler nuts"
            )
        return TemperedParticles(num_particles=max(settings.num_draws, PARTICLES_EACH * model.num_parameters)), {}
    if name in ("nuts", "mala", "mclmc"):
        made = {"nuts": NUTS(target_acceptance_rate=ACCEPTANCE), "mala": MALA(), "mclmc": AdjustedMCLMC()}[name]
        return made, {"num_warmup": NUM_WARMUP} | start_of(target, settings)
    options: dict[str, Any] = {"batch_size": settings.batch_size}
    if name == "sghmc" and settings.batch_size is None:  # no gradient noise to be damped
        options["friction"] = critical_friction(target)
    rungs = LINEAR if bias_order(name, settings.batch_size) == 1 else QUADRATIC
    counts = [round(settings.chains(model.num_parameters) / rung) for rung in rungs]
    counts[-1] += -sum(counts) % CORES  # else an odd chain leaves all of them to one core
    # A step size fits a neighbourhood: where the optimum is known, chains come from there.
    near = ("prior", settings.initial_scale) if target.center is None else ("optimum", 0.0)
    more = {"num_chains": sum(counts), "thinning": 20, "initial": near[0], "initial_scale": near[1]}
    step = settings.step_size
    if step is None:
        share = PILOT_SHARE * seconds
        more["initial"], curvature = arrive(target, settings.batch_size, *near, sum(counts), key, share, folder)
        step = step_at(name, target, curvature)
    dynamics = KINDS[name](np.repeat(times * step * np.array(rungs), counts), **options)
    return dynamics, more | {"num_warmup": NUM_WARMUP * dynamics.adaptive}


def step_at(name: str, target: Posterior, curvature: float) -> float:
    """Largest step size of a sampler where -log p has this curvature."""
    if name in ("sghmc", "sgnht"):
        return underdamped_step(curvature)
    if name == "sgld":
        return OVERDAMPED / curvature
    damping, alone = float(KINDS[name]().damping), steepness(target, 0.0)
    # Where the loss does not curve a preconditioner divides by its damping alone.
    return OVERDAMPED / max(curvature / preconditioner(target, damping, curvature), alone / damping)


def preconditioner(target: Posterior, damping: float, curvature: float) -> float:
    """What a preconditioner divides the steepest direction by: damping and the spread of the gradient of L.

    Where -log p has curvature h and L has k, that is k / sqrt(h).
    """
    loss = max(curvature - steepness(target, 0.0), 0.0) / float(target.scale)
    return damping + loss / math.sqrt(curvature)


def extrapolate(steps: np.ndarray, values: np.ndarray, errors: np.ndarray) -> tuple[Estimate, float | None]:
    """Value at step 0 of the line of weighted least squares, and its distance from that of the parabola through three.

    Of two steps the distance is that from the smaller one's value; of one nothing is known.
    """
    if len(steps) < 2:
        return with_error(values[0], errors[0]), None
    design = np.stack([np.ones_like(steps), steps / steps.max()], axis=1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    intercept = float((covariance @ design.T @ (values / errors))[0])
    other = values[np.argmin(steps)] if len(steps) == 2 else np.polyfit(steps / steps.max(), values, 2)[-1]
    return with_error(intercept, float(np.sqrt(covariance[0, 0]))), abs(intercept - float(other))


def sampler_of(tree: xr.DataTree) -> dict[str, Any]:
    """Name and settings of what made a run."""
    found = json.loads(tree.attrs["manifest"])["dynamics"]
    return {"dynamics": found.pop("name"), **found}


def bias_order(sampler: str, batch_size: int | None) -> int:
    """Order of the step size's bias: 2 of symmetric splittings with exact gradients, else 1."""
    return 2 if sampler.lower() in ("sghmc", "sgnht") and batch_size is None else 1


def critical_friction(target: Posterior) -> float:
    """Critical where prior and localisation alone bend the law; where they do not, as at a curvature of 1."""
    alone = float(prior_curvatures(target.model)[0]) + float(target.localization)
    return CRITICAL * math.sqrt(alone if alone > 0 else 1.0)


def start_of(target: Posterior, settings: LLC) -> dict[str, Any]:
    """Start of unbiased samplers: draws of the prior; with a pull, around its centre, as far as its stiffest direction allows.

    From draws of the prior chains could end in a well that is not the centre's; so what is sampled is the law in that well.
    """
    pull = float(target.localization)
    if not pull > 0:
        return {"initial": "prior", "initial_scale": settings.initial_scale}
    stiffest = pull + max(float(prior_curvatures(target.model)[-1]), 0.0)
    return {"initial": "optimum", "initial_scale": settings.initial_scale / math.sqrt(stiffest)}


def softness(target: Posterior) -> float:
    """Least curvature of -log p at a minimum, localisation apart: of the prior alone where the loss has a flat direction.

    Above 2,000 parameters it is taken to have one.
    """
    prior = max(float(prior_curvatures(target.model)[0]), SOFTEST)
    if target.model.num_parameters > DENSE:
        return prior
    minimum = reference_point(target.model, target.center)
    values = np.asarray(hessian_eigenvalues(target.model, minimum.position), float)
    return prior + float(target.scale) * (values[0] if values[0] > FLAT * values[-1] else 0.0)


def relaxation_time(sampler: dict[str, Any], curvature: float, divided_by: float = 1.0) -> float:
    """Time in which a direction of this curvature of -log p forgets, under Langevin dynamics with friction or without.

    ``divided_by`` is what a preconditioner slows the steepest direction down by, and every other one less. Damped by gamma v,
    theta'' + gamma theta' + h theta = 0 decays at the rate Re(gamma - sqrt(gamma^2 - 4 h)) / 2.
    """
    friction = sampler.get("friction", sampler.get("diffusion"))
    if friction is None:
        return divided_by / curvature
    friction = float(np.max(friction))
    return 2 / (friction - math.sqrt(max(friction**2 - 4 * curvature, 0.0)))
