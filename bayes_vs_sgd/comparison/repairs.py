"""What is made of an optimiser whose assumptions are repaired.

A repair makes one assumption hold and leaves the others: another noise of the same size, half the step at the same temperature,
the prior in what is descended, a start from the posterior. Noise of one size everywhere is isotropic too: with it and all others
the dynamics is Langevin dynamics, whose law is the posterior up to its step.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..assumptions.noise import noise_samples, num_draws
from ..dynamics import Dynamics, FullBatch, GaussianNoise, Gradient, IsotropicNoise, Minibatch, Optimizer, StableNoise
from ..dynamics.noise import batch_size_of, noise_batch
from ..dynamics.rotated_noise import RotatedNoise
from ..dynamics.white_noise import WhiteNoise
from ..model import Model
from .plan import Walk
from .run import Study

NUM_DRAWS = 4096
"""Of noise whose trace is not that of the examples."""
ONE_SIZE = "noise of one size"
REPAIRS = {
    "update rule": "plain SGD in the place of its update rule",
    "independent batches": "batches drawn with replacement",
    "non-degeneracy": "isotropic noise added, as large as that of the temperature",
    "isotropy": "isotropic noise of the same trace, in the place of the batch's",
    ONE_SIZE: "isotropic noise of one size everywhere, that of the temperature, in the place of the batch's",
    "small learning rate": "half the batch, and the learning rate in proportion: the same temperature",
    "prior": "the prior in what is descended",
    "stationarity": "a start from the posterior",
    "central limit": "Gaussian noise of the batch's covariance",
}
"""What each repair does; the last costs a pass over all examples a step, and is tried last."""


def possible(dynamics: Optimizer, model: Model) -> list[str]:
    """Repairs that change something of an optimiser."""
    gradient, num_examples = dynamics.gradient, model.num_examples
    without = set()
    if dynamics.rule == "sgd" and not dynamics.momentum:
        without |= {"update rule"}
    if type(gradient) is Minibatch:
        without |= {"independent batches"}
    if not isinstance(gradient, Minibatch):
        without |= {"independent batches", "central limit"}
    elif noise_batch(gradient, num_examples) == np.inf:
        without |= {"isotropy", "central limit"}
    if model.num_parameters == 1 or is_isotropic(gradient):
        without |= {"isotropy"}
    if dynamics.objective == "posterior":
        without |= {"prior"}
    without |= set(impossible(dynamics, num_examples))
    return [name for name in REPAIRS if name not in without]


def is_isotropic(gradient: Gradient) -> bool:
    """Whether a gradient has no noise, or noise that has no direction by its definition."""
    if isinstance(gradient, WhiteNoise):
        return is_isotropic(gradient.gradient)
    of_parameters = isinstance(gradient, StableNoise) and gradient.of == "parameters"
    return of_parameters or isinstance(gradient, (FullBatch, IsotropicNoise, RotatedNoise))


def impossible(dynamics: Optimizer, num_examples: int) -> dict[str, str]:
    """Repairs that would change something and cannot be made, and why."""
    gradient, why = dynamics.gradient, ""
    if not isinstance(gradient, Minibatch):
        why = "there is no batch to halve"
    elif gradient.batch_size < 2:
        why = "a batch of one has no half"
    elif noise_batch(gradient, num_examples) == np.inf:
        why = "an epoch of one batch has no temperature to keep"
    reasons = {"small learning rate": why} if why else {}
    if isinstance(gradient, StableNoise) and gradient.of == "examples" and np.any(np.asarray(gradient.alpha) < 2):
        reasons["isotropy"] = "noise without a variance has no trace"
    return reasons


def repaired(study: Study, dynamics: Optimizer, names: Iterable[str], start: dict[str, np.ndarray] | None) -> Walk:
    """The dynamics with some assumptions repaired.

    Parameters
    ----------
    study
        Model, settings and the n beta at which noise of one size heats.
    dynamics
        What is repaired.
    names
        Of ``REPAIRS``.
    start
        Positions drawn from the posterior, where the start is repaired.
    """
    names, settings = set(names), dict[str, Any](dynamics.hyperparameters) | dict(dynamics.options)
    gradient: Any = dynamics.gradient
    rate, number = float(dynamics.step_time), study.model.num_examples
    factory: Any = dynamics.factory.function
    longer = 1
    if "update rule" in names:
        import optax

        factory, rate, settings = optax.sgd, study.learning_rate, {}
    if "independent batches" in names:
        gradient = Minibatch(batch_size=gradient.batch_size)
    if "small learning rate" in names:
        smaller = type(gradient)(batch_size=gradient.batch_size // 2)
        share = noise_batch(smaller, number) / noise_batch(gradient, number)
        rate, longer, gradient = rate * share, int(np.ceil(1 / share)), smaller
    momentum = float(settings.get("momentum", 0.0))
    if ONE_SIZE in names:
        gradient = WhiteNoise.heating(study.scale, rate, momentum)
    else:
        if "central limit" in names:
            gradient = GaussianNoise(noise_batch(gradient, number))
        if "isotropy" in names:
            gradient = RotatedNoise(gradient)
        if "non-degeneracy" in names:
            gradient = WhiteNoise.heating(study.scale, rate, momentum, gradient)
    objective = "posterior" if "prior" in names else dynamics.objective
    settings |= {"learning_rate": np.asarray(rate)}
    made = Optimizer(factory, sampling=gradient, objective=objective, **settings)
    return Walk(made, start if "stationarity" in names else None, longer)


def isotropic_scale(study: Study, dynamics: Dynamics) -> float | None:
    r"""The n beta of SGD whose noise nu is turned to all d directions alike; None of other rules, and without noise.

    1/T, :math:`T = \eta\, E|\nu|^2 / (2 d (1 - \mu))` at the minimum: a temperature where the size of the noise is the same
    everywhere. It is not that of the run as it is, whose noise may be large where the loss curves.
    """
    if not isinstance(dynamics, Optimizer) or dynamics.rule != "sgd":
        return None
    turned = dynamics.gradient.gradient if isinstance(dynamics.gradient, RotatedNoise) else dynamics.gradient
    batch = batch_size_of(turned, study.model.num_examples)
    if batch is None:
        target = study.target(study.scale)
        number = min(NUM_DRAWS, num_draws(target))
        noise = noise_samples(target, turned, study.minimum.position, study.seed, number)
        square = float(np.mean(np.sum(noise**2, axis=1)))
    else:  # of batches there is none where all examples are fitted, but for rounding
        square = 0.0 if study.theory is None else study.noise.trace / batch
    temperature = float(dynamics.step_time) * square / (2 * study.model.num_parameters * (1 - dynamics.momentum))
    return float(f"{1 / temperature:.4g}") if temperature > 0 else None
