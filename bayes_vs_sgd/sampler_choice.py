r"""Which sampler measures a learning coefficient, at which step sizes, and the value that its step sizes tend to.

A sampler whose law is off by O(h^p) of its step size h is run at h, h/2 and h/4.
"""

import contextlib
import json
import math
from typing import Any

import numpy as np
import xarray as xr

from .curvature import hessian_eigenvalues, reference_point
from .dynamics import MALA, NUTS, SGHMC, SGLD, SGNHT, AdamSGLD, AdjustedMCLMC, Dynamics, Grid, RMSpropSGLD
from .errors import InputError
from .estimate import Estimate, with_error
from .posterior import Posterior
from .settings import LLC

RUNGS = (1.0, 0.5, 0.25)
"""Step sizes of a ladder; the numbers of chains are inversely proportional."""
NUM_WARMUP = 500
"""Steps in which samplers tune themselves."""
GRID_CHAINS = 128
"""Chains of a grid, whose draws are independent and cheapest side by side."""
FRICTION = 2.0
"""Of underdamped samplers without gradient noise: critical where the prior alone bends the law."""
ACCEPTANCE = 0.95
"""Of NUTS: near crossings its default makes trajectories diverge."""


def choose(target: Posterior, settings: LLC, times: float = 1.0) -> tuple[Dynamics, dict[str, Any]]:
    """Return the sampler that is asked for, or the best that the model has: its exact one, a grid, NUTS; and how it is run."""
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
        return model.exact_sampler, {}
    if name == "grid":
        return Grid(), {"num_chains": GRID_CHAINS}
    if name in ("nuts", "mala", "mclmc"):
        made = {"nuts": NUTS(target_acceptance_rate=ACCEPTANCE), "mala": MALA(), "mclmc": AdjustedMCLMC()}[name]
        return made, {"num_warmup": NUM_WARMUP}
    step = settings.step_size or times * safe_step_size(target, name)
    counts = [round(settings.num_chains / rung) for rung in RUNGS]
    steps = np.repeat(step * np.array(RUNGS), counts)
    kinds = {"sgld": SGLD, "rmsprop-sgld": RMSpropSGLD, "adam-sgld": AdamSGLD, "sghmc": SGHMC, "sgnht": SGNHT}
    friction = {"friction": FRICTION} if name == "sghmc" and settings.batch_size is None else {}
    dynamics = kinds[name](steps, batch_size=settings.batch_size, **friction)
    more = {"num_chains": len(steps), "thinning": 20, "num_warmup": NUM_WARMUP * dynamics.adaptive}
    if target.center is not None:  # the step size is that of its neighbourhood, and too large far away
        more |= {"initial": "optimum", "initial_scale": 0.0}
    return dynamics, more


def safe_step_size(target: Posterior, name: str) -> float:
    """Step size at which the sharpest direction near the minimum, of curvature h of -log p, is followed well.

    A tenth of 1/h for overdamped samplers, of 1/(G h) with their preconditioner G at temperature 1/(n beta), and a step of
    underdamped ones that drifts as far: sqrt(2 epsilon).
    """
    scale, minimum = float(target.scale), reference_point(target.model, target.center)
    sharpness = max(float(hessian_eigenvalues(target.model, minimum.position)[-1]), 0.0)
    curvature = scale * sharpness + 1.0 + float(target.localization)
    if name in ("rmsprop-sgld", "adam-sgld"):
        curvature /= float(RMSpropSGLD().damping) + math.sqrt(sharpness / scale)
    epsilon = 0.1 / curvature
    return math.sqrt(2 * epsilon) if name in ("sghmc", "sgnht") else epsilon


def extrapolate(steps: np.ndarray, values: np.ndarray, errors: np.ndarray) -> tuple[Estimate, float | None]:
    """Value at step 0 of the line of weighted least squares, and its distance from that of the parabola through three."""
    if len(steps) < 2:
        return with_error(values[0], errors[0]), None
    design = np.stack([np.ones_like(steps), steps / steps.max()], axis=1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    intercept = float((covariance @ design.T @ (values / errors))[0])
    left = None
    if len(steps) > 2:
        left = abs(intercept - float(np.polyfit(steps / steps.max(), values, 2)[-1]))
    return with_error(intercept, float(np.sqrt(covariance[0, 0]))), left


def sampler_of(tree: xr.DataTree) -> dict[str, Any]:
    """Name and settings of what made a run."""
    found = json.loads(tree.attrs["manifest"])["dynamics"]
    return {"dynamics": found.pop("name"), **found}


def bias_order(sampler: dict[str, Any]) -> int:
    """Order of the step size's bias: 2 of symmetric splittings with exact gradients, else 1."""
    return 2 if sampler["dynamics"] in ("SGHMC", "SGNHT") and sampler["batch_size"] is None else 1
