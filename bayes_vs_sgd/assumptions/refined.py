r"""Which refined model describes the run? Each is run like it, and compared with it observable by observable.

Every equation is solved in m sub-steps of eta/m. With one it would be the optimiser's own recursion, which no equation can
fail to describe: on a quadratic of constant noise their variances are

.. math:: \frac{\eta C}{2 B h (1 - \eta h / 2)}, \qquad \frac{\eta C}{2 B h (1 - \eta h / 2m)}, \qquad \frac{\eta C}{2 B h}

for SGD, for m sub-steps and for the equation; with heavy-ball momentum the first has eta h / (1 + mu) in the place of eta h,
and sub-steps err by less.

Langevin dynamics with isotropic and with the batch's noise stand for every run. Two more stand for what the audit found to
fail, with what it measured there, and would be nearly the same as the first where it holds:

- noise of infinite variance: the equation driven by a stable Levy process of the measured tail index, its scale such that
  sums of noise are as large as the measured ones;
- displacement that grows too slowly: Langevin dynamics on an inverse stable clock, whose law solves the time-fractional
  Fokker-Planck equation. Where nothing confines it a clock of index alpha lowers the displacement's exponent by 1 - alpha.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import gamma

from ..comparison import verdict as rules
from ..comparison.effects import Effect, location_and_scale
from ..comparison.plan import Walk
from ..comparison.roots import judged
from ..comparison.run import Study
from ..comparison.stationarity import law
from ..dynamics import (
    AdamFlow,
    GaussianNoise,
    LabelNoise,
    MomentumFlow,
    Optimizer,
    RMSpropFlow,
    StableNoise,
    StochasticGradientFlow,
    SubordinatedLangevin,
)
from ..dynamics.base import Dynamics
from ..dynamics.gradients import FullBatch, Gradient, Minibatch
from ..dynamics.noise import NoisyGradient, noise_batch
from ..dynamics.white_noise import WhiteNoise
from . import path
from .assumption import Assumption
from .step_size import half_edge
from .tails import root_size, stable_scale

LEAST_SUBSTEPS = 4
ADAPTIVE = {"adam": "Adam's equation", "rmsprop": "RMSprop's equation"}
"""Rules with an equation of their own, and what it is called."""
DECAYS = {"adam": {"b1": 0.9, "b2": 0.999}, "rmsprop": {"decay": 0.9}}
"""Optax's, by rule."""
DISCRETE = 0.1
"""Share of the margin of a scale by which sub-steps may widen the sharpest mode."""


@dataclass(frozen=True)
class Description:
    """A refined model, and whether its law at the end is the run's."""

    dynamics: str
    settings: dict[str, Any]
    effects: list[Effect]
    verdict: str

    @property
    def furthest(self) -> float:
        """Largest difference between the two laws, in margins."""
        return max((abs(e.value) / e.margin for e in self.effects), default=np.nan)

    def to_json(self) -> dict[str, Any]:
        """As the contract has it."""
        return {
            "dynamics": self.dynamics,
            "settings": self.settings,
            "verdict": self.verdict,
            "furthest": self.furthest,
            "effects": [effect.to_json() for effect in self.effects],
        }


def refined_models(study: Study, dynamics: Optimizer, name: str, held: list[Assumption]) -> dict[str, Dynamics]:
    """Equations that could stand for an optimiser, the plainest first; none of one that descends the posterior.

    Parameters
    ----------
    study
        Model and settings.
    dynamics
        The optimiser.
    name
        Of its run in the study.
    held
        What was found of each assumption.
    """
    number, rule = study.model.num_examples, dynamics.rule
    noise = own_noise(dynamics.gradient, number)
    if noise is None or dynamics.objective != "loss":
        return {}
    if rule in ADAPTIVE and not isinstance(dynamics.gradient, Minibatch):
        return {}
    if isinstance(noise, LabelNoise) and not noise.is_linear(study.model, study.minimum.position):
        return {}  # sub-steps, whose labels move further, would have another mean
    rate, momentum = float(dynamics.step_time), dynamics.momentum
    sharp = next((a.value for a in held if a.name == "small learning rate"), 0.0)
    margin = study.margins["log_deviation_ratio"]
    longer = substeps(sharp * half_edge(dynamics) / (1 - momentum), margin)  # steps of eta / (1 - mu)
    parts = substeps(sharp, margin) if is_underdamped(dynamics) else longer
    if rule in ADAPTIVE:
        return {own_name(dynamics): own_equation(dynamics, longer, number)}
    if rule != "sgd":
        return {}

    white = WhiteNoise.heating(study.scale, rate, momentum)
    found: dict[str, Dynamics] = {"isotropic Langevin": StochasticGradientFlow(rate / (1 - momentum), white, longer)}
    found |= {own_name(dynamics): own_equation(dynamics, parts, number)}
    if not momentum:
        second = (
            "second-order anisotropic" if isinstance(noise, GaussianNoise) else f"second-order {own_name(dynamics)}"
        )
        found |= {second: StochasticGradientFlow(rate, noise, parts, order=2)}
    failing = {a.name: a for a in held if a.holds is False}
    if (tail := failing.get("finite variance of the noise")) is not None:
        heavy = stable_noise(study, dynamics, study.trees[name][0], tail)
        found |= {"stable Levy-driven": own_equation(dynamics, parts, number, heavy)}
    slow = failing.get("diffusion")
    if slow is not None and -1 < slow.value < 0:
        found |= {"time-fractional Langevin": waiting_clock(study, 1 + slow.value, rate)}
    return found


def own_noise(gradient: Gradient, num_examples: int) -> NoisyGradient | None:
    """Noise of the equation of a gradient: Gaussian, of the batches' covariance, or its own; None where there is none."""
    if isinstance(gradient, Minibatch):
        batch = noise_batch(gradient, num_examples)
        return GaussianNoise(batch) if np.isfinite(batch) else None
    if isinstance(gradient, WhiteNoise) and not isinstance(gradient.gradient, FullBatch):
        return None  # added to the noise of batches
    return gradient if isinstance(gradient, NoisyGradient) else None


def own_equation(dynamics: Optimizer, parts: int, num_examples: int, noise: NoisyGradient | None = None) -> Dynamics:
    """The equation of an optimiser; SGD's is underdamped with heavy-ball momentum, and by default has the noise of its gradient.

    Nesterov's momentum, whose friction grows with the curvature, has none here, and gets the overdamped one of its time scale,
    eta / (1 - mu) a step.
    """
    rate, rule = float(dynamics.step_time), dynamics.rule
    if rule in ADAPTIVE:
        batch = noise_batch(dynamics.gradient, num_examples)
        hyper = {k: float(v) for k, v in dynamics.hyperparameters.items()}
        decays = [hyper.get(name, default) for name, default in DECAYS[rule].items()]
        flow: Any = AdamFlow if rule == "adam" else RMSpropFlow
        return flow(rate, batch, *decays, hyper.get("eps", 1e-8), parts)
    noise = own_noise(dynamics.gradient, num_examples) if noise is None else noise
    if is_underdamped(dynamics):
        return MomentumFlow(rate, dynamics.momentum, noise, parts)
    return StochasticGradientFlow(rate / (1 - dynamics.momentum), noise, parts)


def own_name(dynamics: Optimizer) -> str:
    """What the equation of an optimiser, with the noise of its gradient, is called."""
    plain = "underdamped, anisotropic" if is_underdamped(dynamics) else "anisotropic Langevin"
    if not isinstance(dynamics.gradient, Minibatch | GaussianNoise):
        plain = f"{'underdamped' if is_underdamped(dynamics) else 'Langevin'}, {dynamics.gradient.name}"
    return ADAPTIVE.get(dynamics.rule, plain)


def is_underdamped(dynamics: Optimizer) -> bool:
    """Whether a heavy ball is rolling."""
    return dynamics.momentum > 0 and not dynamics.nesterov


def substeps(sharpness: float, margin: float) -> int:
    """Fewest sub-steps m that widen the sharpest mode by no more than a tenth of the margin of log sd: eta lambda / 4m."""
    return max(LEAST_SUBSTEPS, int(np.ceil(np.nan_to_num(sharpness, posinf=0.0) / (4 * DISCRETE * margin))))


def stable_noise(study: Study, dynamics: Optimizer, tree: xr.DataTree, tail: Assumption) -> StableNoise:
    """Noise of the measured tail index, as large as that of the run."""
    target = study.target(study.scale)
    drawn = path.noise_over_the_law(target, dynamics.gradient, path.late(target, tree), study.seed)
    return StableNoise(tail.value, stable_scale(drawn, tail.value, root_size(len(drawn)), study.seed))


def waiting_clock(study: Study, alpha: float, learning_rate: float) -> SubordinatedLangevin:
    r"""Langevin dynamics whose clock goes as far as that of the run in the longest lag of a displacement, K steps.

    On average it reads :math:`(K \tau)^\alpha / \Gamma(1 + \alpha)`, tau a step's physical time, where the other one, of K
    steps of eta at the temperature 1 / (n beta), reads K eta / (n beta).
    """
    steps, plainly = path.LAGS[-1], study.langevin(study.scale)
    reading = steps * learning_rate / study.scale
    time_step = (gamma(1 + alpha) * reading) ** (1 / alpha) / steps
    return SubordinatedLangevin(alpha, float(plainly.step_size), float(time_step))


def describe(study: Study, name: str, plain: str, dynamics: Dynamics) -> Description:
    """Run a model as long as the run it stands for, from the same law, and compare the two."""
    tree, _ = study.trees[plain]
    num_steps = int(tree.attrs["num_steps"])
    study.own[name] = Walk(dynamics, longer=max(round(num_steps / study.settings.num_steps), 1))
    other = study.ensemble(name, dynamics, study.target(study.scale), deadline=0.0)
    return Description(name, dynamics.settings, *agreement(study, tree, other))


def agreement(study: Study, tree: xr.DataTree, other: xr.DataTree) -> tuple[list[Effect], str]:
    """Effects between the laws of two ensembles at their ends, and the verdict."""
    effects: list[Effect] = []
    tree, other = study.judged(tree, other)
    for label, item in judged(study.chosen).items():
        effects += location_and_scale(label, str(item.group), law(tree, label), law(other, label), study.margins)
    return effects, rules.overall(rules.verdicts(effects)) if effects else rules.NO_VERDICT
