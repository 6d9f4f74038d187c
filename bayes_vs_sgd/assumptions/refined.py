"""Which refined model describes the run? Each is run like it, and compared with it observable by observable."""

from dataclasses import dataclass
from typing import Any

import xarray as xr

from ..comparison import verdict as rules
from ..comparison.effects import Effect, location_and_scale
from ..comparison.run import Study, Walk
from ..comparison.stationarity import law
from ..dynamics import AdamFlow, GaussianNoise, MomentumFlow, Optimizer, RMSpropFlow, StochasticGradientFlow
from ..dynamics.base import Dynamics
from ..dynamics.gradients import Minibatch
from ..dynamics.white_noise import WhiteNoise


@dataclass(frozen=True)
class Description:
    """A refined model, and whether its law at the end is the run's."""

    dynamics: str
    effects: list[Effect]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """As the contract has it."""
        return {
            "dynamics": self.dynamics,
            "verdict": self.verdict,
            "effects": [effect.to_json() for effect in self.effects],
        }


def refined_models(study: Study, dynamics: Optimizer) -> dict[str, Dynamics]:
    """Equations that could stand for an optimiser, the plainest first."""
    if not isinstance(dynamics.gradient, Minibatch) or dynamics.objective != "loss":
        return {}
    rate, batch, rule = float(dynamics.step_time), float(dynamics.gradient.batch_size), repr(dynamics.factory)
    noise, hyper = GaussianNoise(batch), {k: float(v) for k, v in dynamics.hyperparameters.items()}
    momentum = hyper.get("momentum", 0.0)
    if rule == "adam":
        b1, b2, eps = (hyper.get(k, v) for k, v in (("b1", 0.9), ("b2", 0.999), ("eps", 1e-8)))
        return {"Adam's equation": AdamFlow(rate, batch, b1, b2, eps)}
    if rule == "rmsprop":
        decay, eps = hyper.get("decay", 0.9), hyper.get("eps", 1e-8)
        return {"RMSprop's equation": RMSpropFlow(rate, batch, decay, eps)}
    if rule != "sgd":
        return {}
    white = WhiteNoise.heating(study.scale, rate, momentum)
    isotropic: dict[str, Dynamics] = {"isotropic Langevin": StochasticGradientFlow(rate / (1 - momentum), white, 1)}
    if momentum:
        return isotropic | {"underdamped, anisotropic": MomentumFlow(rate, momentum, noise, 1)}
    return isotropic | {
        "anisotropic Langevin": StochasticGradientFlow(rate, noise, 1),
        "second-order anisotropic": StochasticGradientFlow(rate, noise, 1, order=2),
    }


def describe(study: Study, name: str, plain: str, dynamics: Dynamics) -> Description:
    """Run a model as long as the run it stands for, from the same law, and compare the two."""
    tree, _ = study.trees[plain]
    num_steps = int(tree.attrs["num_steps"])
    study.own[name] = Walk(dynamics, longer=max(num_steps // study.settings.num_steps, 1))
    other = study.ensemble(name, dynamics, study.target(study.scale), deadline=0.0)
    return Description(name, *agreement(study, tree, other))


def agreement(study: Study, tree: xr.DataTree, other: xr.DataTree) -> tuple[list[Effect], str]:
    """Effects between the laws of two ensembles at their ends, and the verdict."""
    effects: list[Effect] = []
    for label, item in study.chosen.items():
        effects += location_and_scale(
            label, str(item.group), law(tree, label), law(other, label), study.settings.margins
        )
    return effects, rules.overall(rules.verdicts(effects)) if effects else rules.NO_VERDICT
