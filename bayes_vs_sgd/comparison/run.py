"""The main job: run several dynamics on one model, each against the posterior at its own temperature."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from ..curvature import Minimum, gradient_noise, hessian_eigenvalues, nearest_minimum, reference_point
from ..dynamics import SGD, SGLD, Adam, Dynamics, GradientDescent
from ..errors import InputError, nearest
from ..given import Given, from_positions, read_positions, site_values
from ..mean_square import curved_modes
from ..model import Model
from ..posterior import Posterior
from ..reference import of_particles, posterior_draws
from ..results import final_positions, whole
from ..settings import KNOWN_DYNAMICS, Compare
from ..simulate import simulate
from .compare import Comparison, compare, primary
from .effects import Sample, sampled
from .events import scalar_properties
from .instability import instability
from .matching import matched_along
from .roots import judged, with_roots
from .spectrum import DEGENERATE, STEP, Spectrum, spectrum_at_minimum, temperature_spectrum, unit_scale
from .stationarity import hopeless, is_ensemble, law, unsettled
from .temperature import reference_scale
from .whole_law import EnsembleScores, ensemble_scores

MOMENTUM = 0.9
MAX_DOUBLINGS = 6
DRAWS = 16
MOST_NUMBERS = 2 * 10**6
"""Recorded of an ensemble within its first steps: what changes slowly is seen in averages of some of them."""
NOISELESS = 1e-10
"""Gradient noise at the minimum whose variance is this much smaller than at prior draws is rounding."""
MOST_RECORDED = 5000
"""Most parameters of a model whose references record positions, for predictions on held-out examples."""
COMPARED = 0.4
"""Of the time, for the comparisons themselves where repairs are to follow."""
DEFAULT = Compare()


@dataclass(frozen=True)
class Walk:
    """A dynamics of one's own: where it starts (None: prior draws), and how many times as many steps and seeds it takes."""

    dynamics: Dynamics
    initial: Mapping[str, np.ndarray] | None = None
    longer: int = 1
    wider: int = 1


class OutOfTime(Exception):
    """A run was not made, since it would not have ended in time."""


class Study:
    """A model with what its comparisons share: minimum, sharpness, gradient noise, reference runs.

    ``until`` is when what is begun must have ended: a run that would take longer, by its first steps and by the time that
    the rest of a comparison has taken so far, raises ``OutOfTime``.
    """

    until = np.inf
    rest_seconds = 0.0
    mixes = True

    def __init__(
        self,
        model: Model,
        settings: Compare = DEFAULT,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
        own: Mapping[str, Walk] | None = None,
    ):
        self.own, self.margins = dict(own or {}), settings.margins
        for name in settings.dynamics:
            if name not in (*KNOWN_DYNAMICS, *self.own):
                raise InputError(f"unknown dynamics {name!r}: {nearest(name, KNOWN_DYNAMICS)}")
        for setting in ("num_seeds", "num_steps"):
            if getattr(settings, setting) < 4:
                raise InputError(f"{setting} is {getattr(settings, setting)}: it must be at least 4")
        self.given = {Path(path).stem: path for path in settings.trajectories}
        self.names = (*settings.dynamics, *self.given)
        if len(self.given) < len(settings.trajectories) or len(set(self.names)) < len(self.names):
            raise InputError(f"two of {', '.join(self.names)} have one name: give files of different names")
        if not self.names:
            raise InputError(
                f"nothing to compare: give --dynamics ({', '.join(KNOWN_DYNAMICS)}) or --trajectories FILE.nc"
            )
        if settings.repairs and (settings.reference == "none" or model.num_parameters > MOST_RECORDED):
            raise InputError(
                f"repairs start from draws of a reference, of {MOST_RECORDED:,} parameters at most: leave out --repairs"
            )
        self.model, self.settings, self.seed, self.progress = model, settings, seed, progress
        self.folder = folder
        self.positions = {
            name: site_values(read_positions(path), Posterior(model)) for name, path in self.given.items()
        }
        self.trees: dict[str, tuple[xr.DataTree, xr.DataTree | None]] = {}
        self.chosen = primary(Posterior(model), list(settings.observables) or None)
        self.observables = sorted({"loss", *self.chosen, *scalar_properties(model)})

    @cached_property
    def minimum(self) -> Minimum:
        """Empirical minimum."""
        return reference_point(self.model)

    @cached_property
    def sharpness(self) -> float:
        """Largest Hessian eigenvalue at the minimum; where that is degenerate, at the minima that prior draws descend to."""
        starts = [self.model.sample_prior(jax.random.key(seed)) for seed in range(8)]
        here, *there = (float(hessian_eigenvalues(self.model, p)[-1]) for p in (self.minimum.position, *starts))
        if here > DEGENERATE * np.median(there):
            return here
        reached = [nearest_minimum(self.model, start).position for start in starts]
        return max(float(hessian_eigenvalues(self.model, position)[-1]) for position in reached)

    @cached_property
    def curved_modes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean products of the examples' Hessians at the minimum, in the directions that curve; None where they are too dear."""
        return curved_modes(Posterior(self.model), self.minimum.position)

    @cached_property
    def learning_rate(self) -> float:
        """Learning rate of plain SGD."""
        if self.settings.learning_rate is not None:
            return self.settings.learning_rate
        if not self.sharpness > 0:
            raise InputError(
                f"the largest Hessian eigenvalue at the minimum is {self.sharpness:.3g}: give --learning-rate"
            )
        return float(f"{0.1 / self.sharpness:.3g}")

    def dynamics(self, name: str) -> Dynamics:
        """One of the named dynamics at comparable settings: all have the reference scale T0 of plain SGD."""
        if name in self.given:
            return Given(name)
        if name in self.own:
            return self.own[name].dynamics
        rate, batch, objective = self.learning_rate, self.settings.batch_size, self.settings.objective
        if name == "sgd-momentum":
            return SGD(rate * (1 - MOMENTUM), batch, momentum=MOMENTUM, objective=objective)
        if name == "sgd-shuffled":
            return SGD(rate, batch, sampling="shuffled", objective=objective)
        if name == "adam":
            noise = gradient_noise(self.model, self.minimum.position).per_direction
            return Adam(float(f"{rate * np.sqrt(noise / batch if noise else 1):.3g}"), batch, objective=objective)
        if name == "gradient-descent":
            return GradientDescent(rate, objective=objective)
        if name == "sgd":
            return SGD(rate, batch, objective=objective)
        return self.langevin(self.scale)

    def langevin(self, scale: float) -> SGLD:
        """Full-batch Langevin dynamics at n beta, with a step that is STEP of the sharpest mode's relaxation time."""
        return SGLD(float(f"{STEP / (scale * self.sharpness):.3g}"), batch_size=None)

    @cached_property
    def theory(self) -> float | None:
        """The n beta that theory gives plain SGD; None where the gradients at the minimum have no noise."""
        plain, target = SGD(self.learning_rate, self.settings.batch_size), Posterior(self.model)
        found = reference_scale(plain, target, self.minimum.position)
        elsewhere = [reference_scale(plain, target, self.model.sample_prior(jax.random.key(seed))) for seed in range(8)]
        noisy = [scale for scale in elsewhere if scale is not None]
        return None if found is None or (noisy and found > np.median(noisy) / NOISELESS) else found

    @cached_property
    def scale(self) -> float:
        """The n beta at which Langevin dynamics run and learning coefficients are printed: set, by theory, or n."""
        if self.settings.inverse_temperature is not None:
            return self.settings.inverse_temperature * self.model.num_examples
        return float(self.model.num_examples) if self.theory is None else self.theory

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
        """Draws of the tempered posterior, by the sampler that suits it; where NUTS did not mix once it is not tried again."""
        wanted = self.model.held_out is not None or bool(self.own) or self.settings.repairs
        found = posterior_draws(
            self.target(scale),
            num_chains=16,
            num_draws=1000,
            key=self.seed + 1,
            observables=self.observables,
            judged=sorted({"loss", *self.chosen}),
            folder=self._folder(f"reference-{scale:.6g}"),
            title=f"reference for {name}",
            progress=self.progress,
            record_positions=wanted and self.model.num_parameters <= MOST_RECORDED,
            max_seconds=self.settings.max_seconds,
            mixes=self.mixes,
        )
        self.mixes = self.mixes and not of_particles(found)
        return found

    def judged(self, *trees: xr.DataTree) -> list[xr.DataTree]:
        """Runs with all that is compared of them."""
        return with_roots(self.chosen, self.minimum.loss, *trees)

    def ensemble(self, name: str, dynamics: Dynamics, target: Posterior, deadline: float) -> xr.DataTree:
        """Independent runs, their steps doubled until stationary, or as long as the deadline allows."""
        if name in self.given:
            return from_positions(self.positions[name], target, name, self.observables)
        walk = self.own.get(name, Walk(dynamics))
        shortest = self.settings.num_steps * walk.longer
        start: dict[str, Any] = (
            {"initial_scale": self.initial_scale} if walk.initial is None else {"initial": walk.initial}
        )
        num_steps, every = shortest, max(shortest // DRAWS, 1)
        num_seeds = self.settings.num_seeds * walk.wider
        shared: dict[str, Any] = start | {"key": self.seed, "num_chains": num_seeds, "observables": self.observables}
        shared |= {"folder": self._folder(name), "progress": self.progress, "title": name}
        shared |= {"record_positions": self.model.num_parameters * num_seeds * DRAWS <= MOST_NUMBERS}
        while True:
            lengths: dict[str, Any] = {"num_steps": num_steps, "num_draws": num_steps // every}
            if np.isfinite(self.until):
                self._check_time(partial(simulate, dynamics, target, **shared, **lengths), num_steps)
            tree = simulate(dynamics, target, **shared, **lengths)
            (tree,) = self.judged(whole(tree))
            moving = unsettled(tree, list(judged(self.chosen)), self.margins)
            left = (deadline - time.monotonic()) * tree.attrs.get("steps_per_second", np.inf)
            if not moving or num_steps >= shortest * 2**MAX_DOUBLINGS or left < num_steps:
                return tree
            if hopeless(tree, moving, 1 + left / num_steps):
                return tree
            num_steps *= 2

    def _check_time(self, run: Callable[..., xr.DataTree], num_steps: int) -> None:
        """Make a first segment, which compiles, and a second, whose speed tells how long the others will take."""
        needed = self.rest_seconds
        if time.monotonic() + needed < self.until and whole(run(max_seconds=0.0)).attrs["stopped"] != "finished":
            tree = whole(run(max_seconds=0.0))
            if tree.attrs["stopped"] != "finished":
                needed += (num_steps - tree.attrs["num_steps"]) / tree.attrs["steps_per_second"]
        if time.monotonic() + needed > self.until:
            raise OutOfTime

    def compare(self, name: str, deadline: float) -> Comparison:
        """Run one dynamics and its reference, and compare them."""
        dynamics = self.dynamics(name)
        target = self.target(self.scale)
        tree = self.ensemble(name, dynamics, target, deadline)
        ran, given = time.monotonic(), name in self.given
        noisy = dynamics.law != "none" or self.theory is not None
        theory = reference_scale(dynamics, target, self.minimum.position) if noisy else None
        fitting = dynamics.law == "none" and self.settings.inverse_temperature is None
        fitting = fitting and (is_ensemble(tree) if given else self.theory is not None)
        kept = np.flatnonzero(final_positions(tree)[1])[:: 2 if fitting else 1]
        seen = ensemble_scores(tree, target, self.chosen) if len(kept) >= 2 else None
        fitted, error = fitted_scale(seen, kept)
        used, seeds, chosen = self.scale, slice(None), False
        if given and self.settings.inverse_temperature is None:
            used = float(self.model.num_examples)
        if fitting and fitted is not None and fitted > 0:
            used, seeds, chosen = float(f"{fitted:.4g}"), slice(1, None, 2), True
        found = None if self.settings.reference == "none" else self.reference(used, name)
        tree, *others = self.judged(tree, *([] if found is None else [found]))
        found = others[0] if others else None
        self.trees[name] = (tree, found)
        num_examples = self.model.num_examples
        temperature = {"theory": theory, "fitted": fitted, "fitted_standard_error": error, "used": used}
        if found is not None and len(kept) >= 2:
            matched = self.matched(law(tree, "loss", kept), found, used, name, deadline)
            temperature |= dict(zip(("matched", "matched_standard_error"), matched, strict=True))
        compared = compare(
            tree,
            found,
            self.target(used),
            name=name,
            primary_observables=list(self.settings.observables) or None,
            seeds=seeds,
            inverse_temperature={k: None if v is None else v / num_examples for k, v in temperature.items()},
            fitted=chosen,
            margins=self.margins,
            scores=seen,
            scale=self.scale,
            least_loss=self.minimum.loss,
        )
        if beyond := instability(self, dynamics):
            compared = replace(compared, reason=f"{beyond}; {compared.reason}")
        self.rest_seconds = max(self.rest_seconds, time.monotonic() - ran)
        return compared

    def matched(
        self, loss: Sample, reference: xr.DataTree, scale: float, name: str, deadline: float
    ) -> tuple[float | None, float | None]:
        """The n beta at which the posterior's mean loss is that of a law, and its standard error.

        From the reference's draws at one n beta on; further posteriors are drawn from until the deadline.
        """

        def posterior_losses(rung: float) -> Sample | None:
            if rung == scale:
                return sampled(reference, "loss")
            return sampled(self.reference(rung, name), "loss") if time.monotonic() < deadline else None

        return matched_along(loss, posterior_losses, scale, self.minimum.loss)

    def run(self) -> Iterator[Comparison]:
        """Yield the comparisons one by one."""
        target = self.target(self.scale)
        for name in self.names:
            self.dynamics(name).prepare(target)
        started = time.monotonic()
        share = self.settings.max_seconds * (COMPARED if self.settings.repairs else 1) / (len(self.names) + 4)
        for index, name in enumerate(self.names):
            found = self.compare(name, started + (index + 3) * share)
            spectrum = None
            try:
                if time.monotonic() < started + self.settings.max_seconds:
                    spectrum = self.spectrum(name)
            except KeyboardInterrupt:
                yield found  # its verdict stands without a spectrum
                raise
            yield replace(found, spectrum=spectrum)

    def spectrum(self, name: str) -> Spectrum | None:
        """Temperatures of the modes at the minimum; None where there are too many parameters, or chains are lost."""
        try:
            if name in self.given:
                tree, _ = self.trees[name]
                if not is_ensemble(tree):  # long chains, whose last draws are not their law
                    return None
                return temperature_spectrum(tree, self.target(self.scale), name, unit_scale(self))
            return spectrum_at_minimum(self, name)
        except InputError as error:
            warnings.warn(f"no temperature spectrum of {name}: {error}", stacklevel=2)
            return None

    def _folder(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name


def fitted_scale(seen: EnsembleScores | None, seeds: np.ndarray) -> tuple[float | None, float | None]:
    """Return n beta fitted to some seeds by Stein's identity along grad L, and its standard error; None for no number."""
    if seen is None:
        return None, None
    fitted, error = seen.terms["loss"].subset(seeds).scale()
    return (fitted, error) if np.isfinite(fitted) and np.isfinite(error) else (None, None)
