r"""Whose stationary law is the posterior: SGD's, momentum's, RMSprop's or Adam's? A boundary in the spread of the curvatures.

    python analyses/optimizers.py

On a linear regression one example's gradient has variance :math:`\lambda_i`, the curvature, along mode i. A rule of effective
learning rate :math:`\eta_i` gives that mode the temperature

.. math:: T_i = \lambda_i \mathrm{Var}\,\theta_i = \frac{1}{B} \frac{a_i}{2 - a_i}, \quad a_i = \eta_i \lambda_i, \qquad
    \eta_i = \eta \text{ (SGD)}, \quad \frac{\eta}{1 - \mu} \text{ (momentum)}, \quad
    \frac{\eta}{\sqrt{v_i} + \epsilon} \text{ (RMSprop, Adam)}, \quad v_i = \frac{\lambda_i}{B} + \lambda_i T_i

(momentum mu, also Adam's, multiplies the :math:`a_i` below the line by (1 - mu) / (1 + mu)). Bayes has one temperature. With
small steps SGD and momentum have :math:`T_i \propto \lambda_i`. RMSprop and Adam have :math:`T_i \propto \lambda_i^{1/2}` where
epsilon is below :math:`s = \sqrt{\lambda / B}`, the noise of the batch's gradient, and SGD's law where it is above: large batches
make Adam SGD. The decay beta_2 hardly matters; steps of a near 1 make all rules worse. Gradient descent has no noise and ends at
a point, T = 0.

An exponent p leaves the best single temperature wrong by :math:`\frac p2 \log (\lambda_{\max} / \lambda_{\min})`; it matters
where this is above the margin of a comparison, 0.2. Modes lie along the coordinates here, as the preconditioners do: where each
has equal parts in all coordinates, all v are equal and RMSprop and Adam are SGD. Writes the figure and its numbers beside this
file.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import optax
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison.spectrum import STEP, spectrum_at_minimum
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import COLOURS, GREY, TWO_SIDED, new_figure, write_analysis
from bayes_vs_sgd.settings import Compare
from bayes_vs_sgd.theory.quadratic import stationary_covariance

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "linear_regression.py"
MARGIN = MARGINS["log_temperature"]
RATIOS, MIDDLE = (1.25, 2.0, 4.0, 8.0), 4.0
"""Of the two curvatures, whose product is 1; and the one at which epsilon is varied."""
EPSILONS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
NUM_EXAMPLES = 100_000
"""So many that the data's own C is the expected one: its entries vary by sqrt(8 / n), a hundredth."""
NUM_STEPS = 2000
"""Of gradient descent."""


@dataclass(frozen=True)
class Rule:
    """An optimiser: epsilon in units of s at curvature 1 (infinite: no preconditioner), ``step`` the small-step a there."""

    name: str
    epsilon: float = np.inf
    momentum: float = 0.0
    decay: float = 0.99
    step: float = 0.05
    batch: int = 8

    @property
    def dynamics(self) -> bvs.Optimizer:
        """The library's, on Optax's update rule."""
        if np.isinf(self.epsilon):
            return bvs.SGD(self.step * (1 - self.momentum), self.batch, momentum=self.momentum or None)
        noise = self.batch**-0.5
        settings = {"learning_rate": self.step * noise * (1 + self.epsilon), "eps": self.epsilon * noise + 1e-8}
        if self.momentum:
            return bvs.Optimizer(optax.adam, self.batch, b1=self.momentum, b2=self.decay, **settings)
        return bvs.Optimizer(optax.rmsprop, self.batch, decay=self.decay, eps_in_sqrt=False, **settings)

    def temperature(self, curvature: float) -> float:
        """The equation above, its second moment by iteration."""
        noise = moment = curvature / self.batch
        for _ in range(100):
            root = np.sqrt(self.batch * moment)
            gain = 1.0 if np.isinf(self.epsilon) else (1 + self.epsilon) / (root + self.epsilon)
            rate = self.step * gain * (1 - self.momentum)
            variance = stationary_covariance(curvature, curvature, rate, self.batch, self.momentum)[0, 0]
            moment = noise + curvature**2 * variance
        return curvature * variance

    def misfit(self, ratio: float) -> float:
        """Half the difference of the logarithms of the temperatures of two modes."""
        if self.name == BAYES:  # Langevin dynamics at a finite step
            return float(np.log((2 - STEP / ratio) / (2 - STEP))) / 2
        return float(np.log(self.temperature(ratio**0.5) / self.temperature(ratio**-0.5))) / 2


BAYES = "Bayes (Langevin)"
RULES = (
    Rule(BAYES),
    Rule("SGD"),
    Rule("momentum 0.9", momentum=0.9),
    Rule("RMSprop", 0.0),
    Rule("Adam", 0.0, momentum=0.9, decay=0.999),
)
SERIES = {
    "RMSprop, small steps (a = 0.05)": Rule("RMSprop", 0.0),
    "decay 0.9 in place of 0.99": Rule("RMSprop", 0.0, decay=0.9),
    "batches of 64 in place of 8": Rule("RMSprop", 0.0, batch=64),
    "Adam": Rule("Adam", 0.0, momentum=0.9, decay=0.999),
    "RMSprop, large steps (a = 0.5)": Rule("RMSprop", 0.0, step=0.5, batch=64),
}
"""Where epsilon is varied: all of it for the first and the last, every other for those between."""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Misfit of the best single temperature of five rules.")
    parser.add_argument("--num-seeds", type=int, default=4000, help="independent runs of each")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    wanted = [("rules", rule, ratio) for rule in RULES for ratio in RATIOS]
    for place, (name, rule) in enumerate(SERIES.items()):
        every = 1 if place in (0, len(SERIES) - 1) else 2
        wanted += [(name, replace(rule, epsilon=epsilon), MIDDLE) for epsilon in EPSILONS[::every]]
    points = [measure(*point, arguments.num_seeds, seed) for seed, point in enumerate(wanted)]
    still = descent(arguments.num_seeds, len(points))
    print(f"gradient descent: temperatures over SGD's {still[0]:.2g}, {still[1]:.2g}")
    write_analysis(arguments.out, "optimizers", {"points": points, "gradient_descent": still}, draw(points, still))


def measure(series: str, rule: Rule, ratio: float, num_seeds: int, seed: int) -> dict:
    """Half the range of the logarithms of both mode temperatures, and its standard error; own data and runs."""
    model = two_modes((ratio**0.5, ratio**-0.5), seed)
    study = bvs.Study(model, Compare(num_seeds=num_seeds, batch_size=rule.batch), seed=100 * seed, progress=False)
    langevin = rule.name == BAYES
    found = spectrum_at_minimum(study, "sgld" if langevin else "rule", None if langevin else rule.dynamics)
    sharp, flat = np.log(found.temperatures)
    point = {
        "series": series,
        "ratio": ratio,
        **asdict(rule),
        "epsilon": None if np.isinf(rule.epsilon) else rule.epsilon,
    }
    point |= {"misfit": (sharp - flat) / 2, "error": np.hypot(*found.log_errors) / 2, "predicted": rule.misfit(ratio)}
    print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in point.items()), flush=True)
    return point


def two_modes(curvatures: tuple[float, float], seed: int) -> bvs.Model:
    """A regression of two weights, each along a mode, with data of its own."""
    return bvs.load_model(MODEL, data_seed=seed, covariance=curvatures, num_examples=NUM_EXAMPLES)


def descent(num_seeds: int, seed: int) -> list[float]:
    """Temperatures of both modes over SGD's, where runs of gradient descent from prior draws end."""
    rule, curvatures = Rule("SGD"), (MIDDLE**0.5, MIDDLE**-0.5)
    model = two_modes(curvatures, seed)
    tree = bvs.simulate(
        bvs.GradientDescent(rule.step), bvs.Posterior(model), key=seed, num_chains=num_seeds, num_steps=NUM_STEPS,
        num_draws=1, observables=["loss"], record_positions=True, progress=False,
    )  # fmt: skip
    variances = np.asarray(tree["posterior"]["w"].values, float)[:, -1].var(axis=0)
    return [float(h * v / rule.temperature(h)) for h, v in zip(curvatures, variances, strict=True)]


def draw(points: list[dict], still: list[float]) -> Figure:
    """The misfit against the ratio, a line a rule; and the ratio that is still within the margin, against epsilon."""
    figure = new_figure(9.2, 3.8)
    left, right = figure.subplots(1, 2)
    left.axhspan(0, MARGIN, color="#8883", lw=0)
    left.text(9, MARGIN - 0.02, "one temperature fits within the margin", ha="right", va="top", fontsize=8)
    x = np.geomspace(1, 9, 40)
    for place, (rule, colour, mark) in enumerate(zip(RULES, (GREY, *COLOURS), "oo^s^", strict=False)):
        left.plot(x, [rule.misfit(ratio) for ratio in x], "--" if mark == "^" else "-", color=colour, lw=1)
        for p in (p for p in points if p["series"] == "rules" and p["name"] == rule.name):
            at = p["ratio"] * 1.025 ** (place - 2)
            left.errorbar(at, p["misfit"], TWO_SIDED * p["error"], color=colour, fmt=mark, ms=4, lw=1)
        left.plot([], [], f"-{mark}", color=colour, ms=4, lw=1, label=rule.name)
    least = 10.0 ** np.ceil(np.log10(max(still)))
    left.plot([], [], " ", label=f"gradient descent: below\n{least:.0e} of SGD's T")
    left.set_xscale("log")
    left.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    left.set_xlabel("ratio of the curvatures")
    left.set_ylabel("misfit of the best temperature\n(half range of log T)")
    x = np.geomspace(0.03, 20, 40)
    looks = zip(SERIES.items(), "osD^o", (COLOURS[2], *COLOURS[2:5], COLOURS[1]), strict=True)
    for place, ((name, rule), mark, colour) in enumerate(looks):
        if place in (0, len(SERIES) - 1):
            line = [boundary(replace(rule, epsilon=epsilon).misfit(MIDDLE)) for epsilon in x]
            right.plot(x, line, color=colour, lw=1)
        for p in (p for p in points if p["series"] == name):
            low, found, high = (boundary(p["misfit"] + side * TWO_SIDED * p["error"]) for side in (1, 0, -1))
            at = max(p["epsilon"], x[0]) * 1.07 ** (place - 2)
            right.errorbar(at, found, [[found - low], [high - found]], color=colour, fmt=mark, ms=4, lw=1)
        right.plot([], [], mark, color=colour, ms=4, label=name)
    right.fill_between(x, 1, line, color="#8883", lw=0)
    right.text(0.04, 1.03, "one temperature fits within the margin", va="bottom", fontsize=8)
    right.set_ylim(1, 3.2)
    right.set_xscale("log")
    right.set_xticks([0.03, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    right.set_xlabel("ε / noise s of the batch's gradient")
    right.set_ylabel("largest ratio of curvatures\nthat one temperature fits")
    for axes in (left, right):
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def boundary(misfit: float) -> float:
    """Ratio of curvatures at which the power law through the misfit at ``MIDDLE`` reaches the margin."""
    return float(MIDDLE ** (MARGIN / max(misfit, 1e-3)))


if __name__ == "__main__":
    main()
