"""The main job: run several dynamics on one model, each against the posterior at its own temperature."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..diagnostics import quality
from ..dynamics import Dynamics
from ..errors import InputError
from ..given import from_positions
from ..model import Model
from ..posterior import Posterior
from ..reference import of_particles, posterior_draws
from ..results import final_positions, whole
from ..settings import Compare
from ..simulate import simulate
from .compare import compare
from .effects import Sample, sampled
from .matching import matched_along
from .plan import DEFAULT, MOST_RECORDED, Plan, Walk
from .result import Comparison
from .roots import judged, with_roots
from .spectrum import Spectrum, spectrum_at_minimum, temperature_spectrum, unit_scale
from .stationarity import hopeless, is_ensemble, law, unsettled
from .temperature import reference_scale
from .whole_law import EnsembleScores, ensemble_scores

MAX_DOUBLINGS = 6
DRAWS = 16
MOST_NUMBERS = 2 * 10**6
"""Recorded of an ensemble within its first steps: what changes slowly is seen in averages of some of them."""
COMPARED = 0.4
"""Of the time, for the comparisons themselves where repairs are to follow."""


class OutOfTime(Exception):
    """A run was not made, since it would not have ended in time."""


class Study(Plan):
    """Runs, references and comparisons of a plan.

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
        super().__init__(model, settings, own)
        self.seed, self.folder, self.progress = seed, folder, progress
        self.trees: dict[str, tuple[xr.DataTree, xr.DataTree | None]] = {}

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
        theory = reference_scale(dynamics, target, lambda: self.noise) if noisy else None
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
            landscape=self,
        )
        self.rest_seconds = max(self.rest_seconds, time.monotonic() - ran)
        return compared

    def matched(
        self, loss: Sample, reference: xr.DataTree, scale: float, name: str, deadline: float
    ) -> tuple[float | None, float | None]:
        """The n beta at which the posterior's mean loss is that of a law, and its standard error.

        From the reference's draws at one n beta on; further posteriors are drawn from until the deadline, or until draws of one
        do not agree with each other.
        """

        def posterior_losses(rung: float) -> Sample | None:
            if rung != scale and time.monotonic() >= deadline:
                return None
            found = reference if rung == scale else self.reference(rung, name)
            return sampled(found, "loss") if quality(found, list(self.chosen)).passed else None

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
