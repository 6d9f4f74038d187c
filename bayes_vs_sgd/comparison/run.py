"""The main job: run several dynamics on one model, each against the posterior at its own temperature."""

import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from ..curvature import Minimum, gradient_noise, hessian_eigenvalues, reference_point
from ..dynamics import NUTS, SGD, SGLD, Adam, Dynamics, GradientDescent, Grid
from ..errors import InputError, nearest
from ..model import Model
from ..posterior import Posterior
from ..settings import KNOWN_DYNAMICS, Compare
from ..simulate import simulate
from .compare import Comparison, compare, ensemble_terms, is_stationary, primary
from .temperature import reference_scale

MOMENTUM = 0.9
MAX_DOUBLINGS = 6
DEFAULT = Compare()


def whole(tree: xr.DataTree) -> xr.DataTree:
    """Pass on Ctrl-C: an interrupted run is kept, and nothing is concluded from it."""
    if tree.attrs["stopped"] == "interrupted":
        raise KeyboardInterrupt
    return tree


class Study:
    """A model with what its comparisons share: minimum, sharpness, gradient noise, reference runs."""

    def __init__(
        self,
        model: Model,
        settings: Compare = DEFAULT,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
    ):
        for name in settings.dynamics:
            if name not in KNOWN_DYNAMICS:
                raise InputError(f"unknown dynamics {name!r}: {nearest(name, KNOWN_DYNAMICS)}")
        for setting in ("num_seeds", "num_steps"):
            if getattr(settings, setting) < 2:
                raise InputError(f"{setting} is {getattr(settings, setting)}: it must be at least 2")
        self.model, self.settings, self.seed, self.progress = model, settings, seed, progress
        self.folder = folder
        self.chosen = primary(Posterior(model), list(settings.observables) or None)
        self.observables = sorted({"loss", *self.chosen})

    @cached_property
    def minimum(self) -> Minimum:
        """Empirical minimum."""
        return reference_point(self.model)

    @cached_property
    def learning_rate(self) -> float:
        """Learning rate of plain SGD."""
        if self.settings.learning_rate is not None:
            return self.settings.learning_rate
        sharpness = float(hessian_eigenvalues(self.model, self.minimum.position)[-1])
        if not sharpness > 0:
            raise InputError(f"the largest Hessian eigenvalue at the minimum is {sharpness:.3g}: give --learning-rate")
        return float(f"{0.1 / sharpness:.3g}")

    def dynamics(self, name: str) -> Dynamics:
        """One of the named dynamics at comparable settings: all have the reference scale T0 of plain SGD."""
        rate, batch, objective = self.learning_rate, self.settings.batch_size, self.settings.objective
        if name == "sgd-momentum":
            return SGD(rate * (1 - MOMENTUM), batch, momentum=MOMENTUM, objective=objective)
        if name == "sgd-shuffled":
            return SGD(rate, batch, sampling="shuffled", objective=objective)
        if name == "adam":
            noise = gradient_noise(self.model, self.minimum.position).per_direction
            return Adam(float(f"{rate * np.sqrt(noise / batch):.3g}"), batch, objective=objective)
        if name == "gradient-descent":
            return GradientDescent(rate, objective=objective)
        if name == "sgd":
            return SGD(rate, batch, objective=objective)
        sharpness = float(hessian_eigenvalues(self.model, self.minimum.position)[-1])
        scale = self.scale
        return SGLD(float(f"{0.05 / (scale * sharpness):.3g}"), batch_size=None)

    @cached_property
    def scale(self) -> float:
        """The n beta that theory gives plain SGD, at which Langevin dynamics run and learning coefficients are printed."""
        if self.settings.inverse_temperature is not None:
            return self.settings.inverse_temperature * self.model.num_examples
        plain = SGD(self.learning_rate, self.settings.batch_size)
        found = reference_scale(plain, Posterior(self.model), self.minimum.position)
        if found is None:
            raise InputError(
                "the gradient noise at the minimum is zero, so SGD has no temperature: give --inverse-temperature"
            )
        return found

    @cached_property
    def initial_scale(self) -> float:
        """Largest of 1, 1/2, 1/4, ... at which plain SGD is stable (learning rate x sharpness < 1) at 32 starting points."""
        if self.settings.initial_scale is not None:
            return self.settings.initial_scale
        draws = [self.model.sample_prior(jax.random.key(seed)) for seed in range(32)]
        for scale in 0.5 ** np.arange(8):
            starts = [jax.tree.map(lambda x, s=scale: s * x, draw) for draw in draws]
            if all(self.learning_rate * hessian_eigenvalues(self.model, start)[-1] < 1 for start in starts):
                return float(scale)
        raise InputError(
            "plain SGD is unstable at any scale of the prior: give --initial-scale, or a smaller --learning-rate"
        )

    def target(self, scale: float) -> Posterior:
        """Tempered posterior at n beta."""
        return Posterior(self.model, scale / self.model.num_examples)

    def reference(self, scale: float, name: str) -> xr.DataTree:
        """Draws of the tempered posterior: exact sampler where the model has one, grid up to two parameters, else NUTS."""
        shared: dict[str, Any] = {"observables": self.observables, "folder": self._folder(f"reference-{scale:.6g}")}
        shared |= {"progress": self.progress, "title": f"reference for {name}", "key": self.seed + 1}
        if self.model.exact_sampler is not None:
            dynamics, lengths = self.model.exact_sampler, {"num_chains": 16, "num_draws": 1000, "num_warmup": 200}
        elif self.model.num_parameters <= 2:
            dynamics, lengths = Grid(), {"num_chains": 16, "num_draws": 1000}
        else:
            dynamics, lengths = NUTS(), {"num_chains": 16, "num_draws": 500, "num_warmup": 500}
        return whole(simulate(dynamics, self.target(scale), **lengths, **shared))

    def ensemble(self, name: str, dynamics: Dynamics, target: Posterior, deadline: float) -> xr.DataTree:
        """Independent runs, their steps doubled until stationary or the deadline."""
        num_steps, every = self.settings.num_steps, max(self.settings.num_steps // 2, 1)
        while True:
            tree = simulate(
                dynamics,
                target,
                key=self.seed,
                num_chains=self.settings.num_seeds,
                num_steps=num_steps,
                num_draws=num_steps // every,
                initial_scale=self.initial_scale,
                observables=self.observables,
                folder=self._folder(name),
                progress=self.progress,
                title=name,
            )
            limit = self.settings.num_steps * 2**MAX_DOUBLINGS
            if (
                is_stationary(whole(tree), list(self.chosen)) is not False
                or num_steps >= limit
                or time.monotonic() > deadline
            ):
                return tree
            num_steps *= 2

    def compare(self, name: str, deadline: float) -> Comparison:
        """Run one dynamics and its reference, and compare them."""
        dynamics = self.dynamics(name)
        target = self.target(self.scale)
        tree = self.ensemble(name, dynamics, target, deadline)
        theory = reference_scale(dynamics, target, self.minimum.position)
        fitting = dynamics.law == "none" and self.settings.inverse_temperature is None
        fitted = self.fitted_scale(tree, target, slice(0, None, 2) if fitting else slice(None))
        used, seeds = self.scale, slice(None)
        if fitting and fitted is not None and fitted > 0:
            used, seeds = float(f"{fitted:.4g}"), slice(1, None, 2)
        found = self.reference(used, name)
        num_examples = self.model.num_examples
        temperature = {"theory": theory, "fitted": fitted, "used": used}
        return compare(
            tree,
            found,
            self.target(used),
            name=name,
            primary_observables=list(self.chosen),
            seeds=seeds,
            inverse_temperature={k: None if v is None else v / num_examples for k, v in temperature.items()},
            scale=self.scale,
        )

    def fitted_scale(self, tree: xr.DataTree, target: Posterior, seeds: slice) -> float | None:
        """Return n beta fitted to some seeds by Stein's identity along grad L; None where it is not a number."""
        kept = np.flatnonzero(tree["final_position"].to_dataset()["lost_at_step"].values < 0)[seeds]
        if len(kept) < 2:
            return None
        fitted = ensemble_terms(tree, target, self.chosen)["loss"].subset(kept).scale()[0]
        return fitted if np.isfinite(fitted) else None

    def run(self) -> Iterator[Comparison]:
        """Yield the comparisons one by one."""
        target = self.target(self.scale)
        for name in self.settings.dynamics:
            self.dynamics(name).prepare(target)
        started = time.monotonic()
        share = self.settings.max_seconds / (len(self.settings.dynamics) + 1)
        for index, name in enumerate(self.settings.dynamics):
            yield self.compare(name, started + (index + 2) * share)

    def _folder(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name
