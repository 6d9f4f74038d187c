r"""The weak error: how far the optimiser is from its own equation, and whether half the learning rate halves that.

A run, and the equation of its noise in many sub-steps, start from the same law and take the same time. Their difference of
location, in sd, and of log sd, in every observable that decides, is the weak error, O(eta) at a fixed time: so both are run again
at eta / 2 for twice as many steps. On a quadratic of constant noise that of log sd is

.. math:: - \frac12 \log \Big(1 - \frac{\eta h}{2 (1 + \mu)}\Big)

at stationarity (``theory/quadratic.py``), where Mandt, Hoffman and Blei (2017) keep the equation's variance alone.

The equations of RMSprop and Adam stand for many steps of eta^2 each, with noise that is larger the smaller eta is (Malladi, Lyu,
Panigrahi and Arora, NeurIPS 2022): half the learning rate there goes by the square-root scaling rule, with a quarter of the batch
and of 1 - beta, twice epsilon and four times as many steps, and the weak error, O(eta^2), is a quarter. Where the noise of single
examples is skewed that of smaller batches is more so, and something of the error stays.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from ..comparison.effects import Effect
from ..comparison.plan import Walk
from ..comparison.run import OutOfTime, Study
from ..dynamics import Optimizer
from ..errors import InputError
from .assumption import CONFIDENCE, Assumption, from_interval, undefined
from .refined import ADAPTIVE, DECAYS, Description, describe, own_equation

NAME = "weak error"
HALF = "at half the learning rate"
SQUARES = ("initial_scale", "eps_root")
"""Settings in units of the gradient squared."""
STATISTIC = "largest difference from its own equation, in sd or in log sd"


def weak_error(study: Study, dynamics: Optimizer, plain: str, described: Description) -> Assumption:
    """Hold the difference between a run and its equation against the margins, and halve the learning rate.

    Parameters
    ----------
    study
        Model and settings; a run at half the learning rate is not begun if it would end after ``study.until``.
    dynamics
        The optimiser.
    plain
        Of its run in the study.
    described
        The run's equation, compared with it.
    """
    effects = described.effects
    if not effects:
        return undefined(NAME, STATISTIC, 0.0, study.margins["log_deviation_ratio"], "no observable has a spread")
    held = [as_assumption(effect, len(effects)) for effect in effects]
    worst = max(
        range(len(held)), key=lambda i: (held[i].holds is False, held[i].holds is None, held[i].value / held[i].margin)
    )
    try:
        halves = at_half(study, dynamics, plain, described).effects
        ratio = ratio_in_words(effects[worst], halves, order_of(dynamics))
    except OutOfTime:
        ratio = f"no time {HALF}"
    except InputError as error:
        ratio = str(error)
    return replace(held[worst], note=f"{held[worst].note}; {ratio}")


def as_assumption(effect: Effect, number: int) -> Assumption:
    """Size of one effect of several: its lower bound is for all of them at once, and all have to be within their margins."""
    size, level = abs(effect.value), (1 - CONFIDENCE) / 2
    low, high = (float(stats.norm.isf(p)) * effect.standard_error for p in (level / number, level))
    note = f"{effect.observable}, {effect.kind.replace('_', ' ')} {effect.value:+.3f}"
    return from_interval(NAME, STATISTIC, size, (max(size - low, 0.0), size + high), 0.0, effect.margin, note)


def at_half(study: Study, dynamics: Optimizer, plain: str, described: Description) -> Description:
    """Compare the optimiser and its equation at half the learning rate, for the same time and in sub-steps of one length."""
    half, times = halved(dynamics), order_of(dynamics)
    name, num_steps = f"{plain} {HALF}", int(study.trees[plain][0].attrs["num_steps"])
    study.own[name] = Walk(half, longer=max(round(times * num_steps / study.settings.num_steps), 1))
    study.trees[name] = study.ensemble(name, half, study.target(study.scale), deadline=0.0), None
    equation = own_equation(half, max(described.settings["substeps"] // times, 1), study.model.num_examples)
    return describe(study, f"{described.dynamics} {HALF}", name, equation)


def order_of(dynamics: Optimizer) -> int:
    """How many times smaller a weak error is at half the learning rate, and how many times as many steps take the same time."""
    return 4 if dynamics.rule in ADAPTIVE else 2


def halved(dynamics: Optimizer) -> Optimizer:
    """The optimiser of the same equation at half the learning rate, RMSprop and Adam by the square-root scaling rule.

    Raises
    ------
    InputError
        If their batch is not a multiple of four.
    """
    settings: dict[str, Any] = dict(dynamics.hyperparameters) | dict(dynamics.options)
    settings["learning_rate"] = settings["learning_rate"] / 2
    gradient, rule = dynamics.gradient, dynamics.rule
    if rule in ADAPTIVE:
        batch = dynamics.batch_size or 0
        if not batch or batch % 4:
            raise InputError(f"half the learning rate takes a quarter of the batch, and {batch} is no multiple of 4")
        gradient = type(gradient)(batch_size=batch // 4)  # pyright: ignore[reportCallIssue]
        for name, default in DECAYS[rule].items():
            settings[name] = np.asarray(1 - (1 - settings.get(name, default)) / 4)
        inside = rule == "rmsprop" and settings.get("eps_in_sqrt", True)
        settings["eps"] = np.asarray((4 if inside else 2) * settings.get("eps", 1e-8))
        settings |= {k: np.asarray(4 * settings[k]) for k in SQUARES if k in settings}
    factory: Any = dynamics.factory.function
    return Optimizer(factory, sampling=gradient, objective=dynamics.objective, **settings)


def ratio_in_words(effect: Effect, halves: list[Effect], times: int) -> str:
    """How many times smaller an effect is at half the learning rate, beside what theory says of small ones."""
    half = next((e for e in halves if (e.observable, e.kind) == (effect.observable, effect.kind)), None)
    if half is None:
        return f"not to be compared {HALF}"
    said = f"{HALF} {half.value:+.3f} ± {half.standard_error:.2g}"
    if abs(half.value) < 2 * half.standard_error:
        return said
    ratio = effect.value / half.value
    error = abs(ratio) * np.hypot(effect.standard_error / effect.value, half.standard_error / half.value)
    return f"{said}, {ratio:.2f} ± {error:.2g} times less (first order: {times})"
