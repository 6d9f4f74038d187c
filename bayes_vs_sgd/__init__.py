"""Does SGD sample the Bayesian posterior? One model, many dynamics, one loop, one comparison."""

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Threads of XLA's pool: batched LAPACK calls that take all of them wait for ever.
os.environ.setdefault("NPROC", str(2 * CORES))

if TYPE_CHECKING:
    from .along import Checkpoint, along_training
    from .assumptions.along import AuditAlong, audit_along
    from .assumptions.audit import Audit, audit
    from .assumptions.tails import tail_index
    from .comparison.compare import compare
    from .comparison.result import Comparison
    from .comparison.run import Study
    from .comparison.spectrum import temperature_spectrum
    from .dynamics import (
        MALA,
        MCLMC,
        NUTS,
        SGD,
        SGHMC,
        SGLD,
        SGNHT,
        Adam,
        AdamFlow,
        AdamSGLD,
        AdjustedMCLMC,
        Dynamics,
        Fresh,
        FullBatch,
        GaussianNoise,
        GradientDescent,
        Grid,
        IsotropicNoise,
        LabelNoise,
        LinearNetworkFibre,
        LinearNetworkGibbs,
        Minibatch,
        MomentumFlow,
        Optimizer,
        RMSpropFlow,
        RMSpropSGLD,
        Shuffled,
        StableNoise,
        StochasticGradientFlow,
        SublevelHMC,
        SubordinatedLangevin,
        WhiteNoise,
        from_blackjax,
    )
    from .errors import InputError
    from .free_energy import FreeEnergy, free_energy
    from .given import from_positions
    from .learning_coefficient import LearningCoefficient, learning_coefficient
    from .load import load_model
    from .model import Model, Truth
    from .observables import Observable, linear_network, observable
    from .posterior import Posterior
    from .results import open_run
    from .robustness.laws import Sublevel, Training
    from .robustness.properties import (
        Property,
        disagreement,
        group_loss,
        rank_excess,
        sensitivity,
        trigger_response,
    )
    from .robustness.run import Robustness, robustness
    from .simulate import simulate

_HOMES = {
    "assumptions.along": ("AuditAlong", "audit_along"),
    "assumptions.audit": ("Audit", "audit"),
    "assumptions.tails": ("tail_index",),
    "along": ("Checkpoint", "along_training"),
    "comparison.compare": ("Comparison", "compare"),
    "comparison.run": ("Study",),
    "comparison.spectrum": ("temperature_spectrum",),
    "dynamics": (
        "NUTS",
        "SGD",
        "SGLD",
        "Adam",
        "MALA",
        "MCLMC",
        "SGHMC",
        "SGNHT",
        "AdamSGLD",
        "AdjustedMCLMC",
        "RMSpropSGLD",
        "Dynamics",
        "AdamFlow",
        "Fresh",
        "FullBatch",
        "GaussianNoise",
        "IsotropicNoise",
        "LabelNoise",
        "Minibatch",
        "MomentumFlow",
        "RMSpropFlow",
        "Shuffled",
        "StableNoise",
        "StochasticGradientFlow",
        "SublevelHMC",
        "SubordinatedLangevin",
        "WhiteNoise",
        "GradientDescent",
        "Grid",
        "LinearNetworkFibre",
        "LinearNetworkGibbs",
        "Optimizer",
        "from_blackjax",
    ),
    "errors": ("InputError",),
    "free_energy": ("FreeEnergy", "free_energy"),
    "given": ("from_positions",),
    "learning_coefficient": ("LearningCoefficient", "learning_coefficient"),
    "load": ("load_model",),
    "model": ("Model", "Truth"),
    "observables": ("Observable", "linear_network", "observable"),
    "posterior": ("Posterior",),
    "results": ("open_run",),
    "robustness.laws": ("Sublevel", "Training"),
    "robustness.properties": (
        "Property",
        "disagreement",
        "group_loss",
        "rank_excess",
        "sensitivity",
        "trigger_response",
    ),
    "robustness.run": ("Robustness", "robustness"),
    "simulate": ("simulate",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "MALA",
    "MCLMC",
    "NUTS",
    "SGD",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "Adam",
    "AdamFlow",
    "AdamSGLD",
    "AdjustedMCLMC",
    "Audit",
    "AuditAlong",
    "Checkpoint",
    "Comparison",
    "Dynamics",
    "FreeEnergy",
    "Fresh",
    "FullBatch",
    "GaussianNoise",
    "GradientDescent",
    "Grid",
    "InputError",
    "IsotropicNoise",
    "LabelNoise",
    "LearningCoefficient",
    "LinearNetworkFibre",
    "LinearNetworkGibbs",
    "Minibatch",
    "Model",
    "MomentumFlow",
    "Observable",
    "Optimizer",
    "Posterior",
    "Property",
    "RMSpropFlow",
    "RMSpropSGLD",
    "Robustness",
    "Shuffled",
    "StableNoise",
    "StochasticGradientFlow",
    "Study",
    "Sublevel",
    "SublevelHMC",
    "SubordinatedLangevin",
    "Training",
    "Truth",
    "WhiteNoise",
    "along_training",
    "audit",
    "audit_along",
    "compare",
    "disagreement",
    "free_energy",
    "from_blackjax",
    "from_positions",
    "group_loss",
    "learning_coefficient",
    "linear_network",
    "load_model",
    "observable",
    "open_run",
    "rank_excess",
    "robustness",
    "sensitivity",
    "simulate",
    "tail_index",
    "temperature_spectrum",
    "trigger_response",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``bayes-vs-sgd --help`` does not wait for jax."""
    if name not in _HOME:
        raise AttributeError(f"module 'bayes_vs_sgd' has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__


class _Package(types.ModuleType):
    """Keeps a function such as ``simulate`` from being hidden by the file of the same name once that is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
