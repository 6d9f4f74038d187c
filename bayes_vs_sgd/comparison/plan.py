"""What the comparisons of one model have in common: its dynamics, their settings, and the temperatures of theory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from ..curvature import GradientNoise, gradient_noise, hessian_eigenvalues, noise_trace
from ..dynamics import SGD, SGLD, Adam, Dynamics, GradientDescent
from ..errors import InputError, nearest
from ..given import Given, read_positions, site_values
from ..model import Model
from ..observables import available
from ..posterior import Posterior
from ..settings import KNOWN_DYNAMICS, Compare
from .compare import primary
from .events import scalar_properties
from .landscape import Landscape
from .patterns import PREDICTIONS
from .spectrum import STEP
from .temperature import reference_scale

MOMENTUM = 0.9
NOISELESS = 1e-10
"""Gradient noise at the minimum whose variance is this much smaller than at prior draws is rounding."""
MOST_RECORDED = 5000
"""Most parameters of a model whose references record positions, for predictions on held-out examples."""
DEFAULT = Compare()


@dataclass(frozen=True)
class Walk:
    """A dynamics of one's own: where it starts (None: prior draws), and how many times as many steps and seeds it takes."""

    dynamics: Dynamics
    initial: Mapping[str, np.ndarray] | None = None
    longer: int = 1
    wider: int = 1


class Plan(Landscape):
    """A model with what its comparisons share: settings, dynamics, minimum, sharpness, gradient noise.

    Parameters
    ----------
    model, settings
        What is compared, and how.
    own
        Dynamics of one's own, by name.

    Raises
    ------
    InputError
        If a setting cannot be.
    """

    def __init__(self, model: Model, settings: Compare = DEFAULT, own: Mapping[str, Walk] | None = None):
        super().__init__(model)
        self.settings = settings
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
        self.positions = {
            name: site_values(read_positions(path), Posterior(model)) for name, path in self.given.items()
        }
        self.chosen = primary(Posterior(model), list(settings.observables) or None)
        asked = [name for name in PREDICTIONS if name in available(model)]
        self.observables = sorted({"loss", *self.chosen, *asked, *scalar_properties(model)})

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
            noise = self.noise.per_direction
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
        plain = SGD(self.learning_rate, self.settings.batch_size)
        found = reference_scale(plain, Posterior(self.model), lambda: self.noise)
        elsewhere = (noise_trace(self.model, self.model.sample_prior(jax.random.key(seed))) for seed in range(8))
        noisy = [trace for trace in elsewhere if trace > 0]
        return None if noisy and self.noise.trace < NOISELESS * np.median(noisy) else found

    @cached_property
    def noise(self) -> GradientNoise:
        """Noise of one example's gradient at the minimum."""
        return gradient_noise(self.model, self.minimum.position)

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
