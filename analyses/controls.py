"""Controls: does the comparison say where SGD is known to be Bayesian, where it is known not to be, and why.

    python analyses/controls.py

Each control is compared at three seeds (of the data and of the runs), and a mismatch is repaired: the smallest repair that makes
a match is the reason that is printed, beside the one that theory names. Controls that are not Bayesian are compared at seventeen
seeds more, to see whether any is called a match. Writes the figure and its numbers beside this file; what is kept in ``--folder``
is not made again.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison.interventions import POWER, decided, explained
from bayes_vs_sgd.comparison.plan import Walk
from bayes_vs_sgd.comparison.run import Study
from bayes_vs_sgd.comparison.verdict import MATCHES, MISMATCH
from bayes_vs_sgd.report.figures import COLOURS, new_figure, write_analysis
from bayes_vs_sgd.settings import Compare
from bayes_vs_sgd.store import remembered_json
from bayes_vs_sgd.theory.collapse import square_law
from bayes_vs_sgd.theory.minibatch_product import MinibatchProductLaw

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
SETTLING = 60.0
"""Seconds in which steps are doubled until the runs are stationary."""
REPAIRING = 300.0
"""Seconds after which no repair is begun."""
STEP = 0.04
"""Learning rate times the sharpness of a product of balanced weights that is 1, which is their number."""


@dataclass(frozen=True)
class Control:
    """A model, an optimiser, and what theory says: None where its law is the posterior, else what has to be repaired."""

    title: str
    study: Callable[[int, int], tuple[Study, str]]
    repair: str | None
    factor: Callable[[Study], float] | None = None
    """Exact beta over theory's leading order, where it is known."""


def study(model: bvs.Model, name: str, seed: int, walk: Walk | None = None, **settings: Any) -> tuple[Study, str]:
    """A comparison of one dynamics, and its name."""
    made = Compare(dynamics=(name,), repairs=True, **settings)
    return Study(model, made, seed, progress=False, own=None if walk is None else {name: walk}), name


def regression(seed: int, **config: Any) -> bvs.Model:
    """One layer under a wide prior."""
    return bvs.load_model(MODELS / "linear_regression.py", seed, **{"prior_scale": 30.0, "num_examples": 256} | config)


EQUAL = {"isotropic": True, "covariance": (1.0,) * 4}
CURVED = {"covariance": (1.0, 0.5, 0.2, 0.1), "inputs": "gaussian"}


def langevin(seed: int, num_seeds: int) -> tuple[Study, str]:
    """Langevin dynamics at a fixed step on a quadratic."""
    return study(regression(seed, **CURVED), "sgld", seed, num_seeds=2 * num_seeds)


def isotropic(seed: int, num_seeds: int) -> tuple[Study, str]:
    """Gradient noise that is a multiple of the unit matrix everywhere."""
    return study(regression(seed, **EQUAL), "sgd", seed, num_seeds=2 * num_seeds)


def isotropic_beta(of: Study) -> float:
    """1 - eta h (1 + (d - 1) / B) / 2: from the fourth moment E[x x' S x x'] = tr(S) x x' of Hadamard data."""
    share = 1 + (of.model.num_parameters - 1) / of.settings.batch_size
    return 1 - 0.1 * share / 2


def anisotropic(seed: int, num_seeds: int) -> tuple[Study, str]:
    """Noise whose covariance is the Hessian's: the law is round where the posterior is long.

    Its trace varies by some d T / variance of the labels = 1 % over the law, so that isotropic noise of that trace is enough.
    """
    return study(regression(seed, **CURVED), "sgd", seed, num_seeds=num_seeds)


def prior_left_out(seed: int, num_seeds: int) -> tuple[Study, str]:
    """A narrow prior that SGD, which descends the loss, does not know of."""
    return study(regression(seed, **EQUAL | {"prior_scale": 0.3}), "sgd", seed, num_seeds=num_seeds)


def two_wells(seed: int, num_seeds: int) -> tuple[Study, str]:
    """Two wells of different degeneracy, between which the runs do not cross."""
    model = bvs.load_model(MODELS / "polynomial.py", seed, num_examples=100, label_noise=1.0)
    settings = {"inverse_temperature": 1.0, "initial_scale": 1.0, "learning_rate": 0.01}
    return study(model, "sgd", seed, num_seeds=num_seeds, **settings)


def narrow_start(seed: int, num_seeds: int) -> tuple[Study, str]:
    """Gradient descent to zero loss from half the prior: the fibre is where it was, only nearer."""
    model = bvs.load_model(
        MODELS / "deep_linear.py", seed, widths=(1, 4, 1), spectrum=(1.0,), noise=1.0, noise_free=True
    )
    settings = {"inverse_temperature": 0.4, "initial_scale": 0.5, "observables": ("total_norm", "prediction_unseen")}
    return study(model, "gradient-descent", seed, num_seeds=num_seeds, **settings)


def label_noise(seed: int, num_seeds: int) -> tuple[Study, str]:
    """Two weights, whose product has a Gamma law under label noise and a Bessel law under Bayes.

    Isotropic noise of the same trace is not enough: see ``minibatch_noise``, with a constant q.
    """
    rate, c, size = STEP / 2, 0.2, 20
    dynamics = bvs.SGD(rate, sampling=bvs.LabelNoise(float(np.sqrt(c * size / rate))))
    return balanced(product(seed), seed, num_seeds, dynamics, square_law(1.0, np.sqrt(c)).ppf, 20 / rate)


def minibatch_noise(num_weights: int, seed: int, num_seeds: int) -> tuple[Study, str]:
    """Weights under minibatch noise, whose product has a tail of power 5 - 3 / their number.

    Once the noise is repaired, the flat directions have their posterior after some 1 / (learning rate x temperature) steps,
    with batches of one 2 / learning rate^2. It has to be of one size: tr C = q(s) |grad s|^2 is in proportion to the sharpness,
    which along the fibre s = 1 of two weights is 2 cosh v where v has the posterior density exp(-cosh v). Isotropic noise of that
    trace, T(v) = T0 cosh v, makes it 1 / cosh^2 v with the prior at T0; the temperature fitted along grad L is E T^2 / E T, which
    is 2.6 T0 (steps end at learning rate x sharpness 1), while the mode has E T = 1.5 T0, outside the margin.
    """
    model, rate = product(seed, num_weights), STEP / num_weights
    x, y = (np.asarray(model.data[k], float) for k in "xy")
    law = MinibatchProductLaw.of_data(x, y, rate, 1, num_weights)
    return balanced(model, seed, 2 * num_seeds, bvs.SGD(rate, 1), law.quantile, 3.2 / rate**2)


def product(seed: int, num_weights: int = 2) -> bvs.Model:
    """Weights whose product is fitted to twenty examples."""
    return bvs.load_model(MODELS / "product.py", seed, depth=num_weights, target=1.0, num_examples=20)


def balanced(
    model: bvs.Model, seed: int, num_seeds: int, dynamics: bvs.Optimizer, quantile: Callable, num_steps: float
) -> tuple[Study, str]:
    """Start from the stationary law, in all of its wells, so that what is seen is the law and not the start."""
    rng, number = np.random.default_rng(seed), POWER * num_seeds
    size = quantile(rng.uniform(size=number)) ** (1 / len(model.latents))
    signs = rng.choice([-1, 1], size=(len(model.latents) - 1, number))
    weights = size * np.concatenate([signs, signs.prod(axis=0, keepdims=True)])
    walk = Walk(dynamics, {site: weight for (site, _), weight in zip(model.latents, weights, strict=True)})
    lengths = {"num_steps": round(num_steps), "num_seeds": num_seeds}
    return study(model, "sgd", seed, walk, learning_rate=float(dynamics.step_time), **lengths)


CONTROLS = (
    Control("Langevin dynamics, regression", langevin, None),
    Control("SGD, isotropic noise", isotropic, None, isotropic_beta),
    Control("SGD, noise as the Hessian", anisotropic, "isotropy"),
    Control("SGD, prior left out", prior_left_out, "prior"),
    Control("SGD, two wells", two_wells, "noise of one size + stationarity"),
    Control("gradient descent, narrow start", narrow_start, "stationarity"),
    Control("label noise, two weights", label_noise, "noise of one size + prior"),
    Control("minibatch noise, two weights", partial(minibatch_noise, 2), "noise of one size + prior"),
    Control("minibatch noise, three weights", partial(minibatch_noise, 3), "noise of one size + prior"),
)


def main() -> None:
    """Compare, draw, write."""
    parser = argparse.ArgumentParser(description="Controls of the comparison.")
    parser.add_argument("--num-seeds", type=int, default=4000, help="independent runs")
    parser.add_argument(
        "--explained", type=int, default=3, help="seeds at which every control is compared and repaired"
    )
    parser.add_argument(
        "--repeated", type=int, default=20, help="seeds at which those that are not Bayesian are compared"
    )
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the controls")
    parser.add_argument("--folder", type=Path, default=Path("runs/controls"), help="where cells are kept")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    found = []
    for index, control in enumerate(CONTROLS):
        if arguments.only and index not in arguments.only:
            continue
        repeated = arguments.explained if control.repair is None else arguments.repeated
        for seed in range(max(repeated, arguments.explained)):
            explain = seed < arguments.explained
            name = f"{index}-{seed}-{arguments.num_seeds}{'-explained' if explain else ''}.json"
            make = partial(cell, control, seed, arguments.num_seeds, explain)
            found.append(remembered_json(arguments.folder / name, make))
            said = found[-1]
            print(
                f"{said['control']}, seed {seed}: {said['verdict']}; {said['reason']} ({said['seconds']:.0f} s)",
                flush=True,
            )
    write_analysis(arguments.out, "controls", found, draw(found))


def cell(control: Control, seed: int, num_seeds: int, explain: bool) -> dict[str, Any]:
    """One control at one seed."""
    started = time.monotonic()
    made, name = control.study(seed, num_seeds)
    walk = made.own.get(name, Walk(made.dynamics(name)))
    settling = SETTLING if control.repair is None else 0.0
    comparison = decided(made, name, walk, started + REPAIRING, settling)
    repairs = []
    if explain:
        comparison = explained(made, comparison, time.monotonic() + REPAIRING)
        repairs = [r.to_json() for r in comparison.repairs]
    smallest = [r["assumption"] for r in repairs if r["verdict"] in MATCHES]
    beta = comparison.inverse_temperature
    expected = None
    if control.factor is not None and beta["theory"] is not None:
        expected = beta["theory"] * control.factor(made)
    return {
        "control": control.title,
        "seed": seed,
        "expected": control.repair,
        "verdict": comparison.verdict,
        "reason": comparison.reason,
        "repair": min(reversed(smallest), key=lambda names: names.count("+")) if smallest else None,
        "repairs": repairs,
        "beta": beta,
        "exact_beta": expected,
        "num_seeds": comparison.num_seeds,
        "seconds": time.monotonic() - started,
    }


def draw(found: list[dict]) -> Figure:
    """A row a control, a square a seed: its colour is the verdict; the reason that was found beside the true one."""
    titles = list(dict.fromkeys(entry["control"] for entry in found))
    figure = new_figure(10, 1.2 + 0.5 * len(titles))
    axes = figure.subplots()
    shades = {**dict.fromkeys(MATCHES, COLOURS[2]), MISMATCH: COLOURS[1]}
    widest = max(entry["seed"] for entry in found) + 1
    for row, title in enumerate(titles):
        own = [entry for entry in found if entry["control"] == title]
        for entry in own:
            axes.plot(entry["seed"], row, "s", markersize=9, color=shades.get(entry["verdict"], "#bbbbbb"))
        reasons = list(dict.fromkeys(entry["repair"] for entry in own if entry["repair"]))
        true = own[0]["expected"]
        said = "is the posterior" if true is None else f"repaired by {' or '.join(reasons) or '-'}\ntheory: {true}"
        axes.text(widest, row, said, va="center", fontsize=8).set_in_layout(False)
    axes.set_yticks(range(len(titles)), titles)
    axes.set_xticks(range(0, widest, 2), range(0, widest, 2))
    axes.set_xlabel("seed of data and runs", loc="left")
    axes.set_xlim(-0.7, widest + max(widest, 12))
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for label, shade in (("match", COLOURS[2]), ("not decided", "#bbbbbb"), ("mismatch", COLOURS[1])):
        axes.plot([], [], "s", color=shade, label=label)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
