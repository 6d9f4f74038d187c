r"""When does broken detailed balance matter? A boundary in the noise's eigenvalues, its angle to the Hessian, and the current.

    python analyses/detailed_balance.py

Near a minimum the small-step law of SGD solves H S + S H = (eta/B) C. In units of a tempered posterior, T H^{-1}, it is

.. math::
    H^{1/2} S H^{1/2} = \frac{\eta}{B} \int_0^\infty H^{1/2} e^{-Ht} C e^{-Ht} H^{1/2}\, dt
    = \frac{\eta}{2B}\, C \circ G, \qquad G_{ij} = \frac{2 \sqrt{h_i h_j}}{h_i + h_j} \quad \text{(eigenbasis of } H),

with eigenvalues between those of (eta/2B) C: of all Hessians the law is furthest from a posterior for one that commutes with C,
and there detailed balance holds. For two modes of curvature ratio r and noise of eigenvalue ratio kappa, turned by an angle phi,
take the misfit m of the best temperature (half the range of log T over all directions) and the entropy production j^2 tr H:

.. math::
    \tanh m = \frac{\kappa - 1}{\kappa + 1} \sqrt{\cos^2 2\varphi + G_{12}^2 \sin^2 2\varphi}, \quad
    j = \sinh(\tfrac12 \log \kappa)\, \sin 2\varphi\, \frac{r - 1}{r + 1}, \quad
    \cosh m = \frac{\cosh(\tfrac12 \log \kappa)}{\sqrt{1 + j^2}},

whatever the learning rate and the batch. A current only brings the law nearer. The margin of a temperature, 0.2, bounds three
regions: kappa < exp(0.4) needs no care; above it the law is inside where cosh(log(kappa) / 2) < cosh(0.2) sqrt(1 + j^2), with a
current; and the modes' own temperatures, C_ii (the limit of large r), are inside from a smaller angle on, as they do not see the
correlations that rotated noise gives to modes. Writes the figure and its numbers beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import quadratic
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.margins import MARGINS
from bayes_vs_sgd.report.figures import GREY, TWO_SIDED, new_figure, write_analysis
from bayes_vs_sgd.theory.quadratic import continuous_covariance, production_rate, stationary_covariance

HERE = Path(__file__).parent
QUANTITIES = ("misfit", "modes", "current")
MARGIN = MARGINS["log_temperature"]
RATE, DRAWS = 0.02, 256
"""Learning rate x sharpness, so small that misfits differ by 0.005 from the lines'; successive positions of each run."""
ANGLES, CURVATURES, KAPPAS = (0, 15, 30, 45), (1, 5, 40), (1.4, 3, 9)
CASES = [{"kappa": KAPPAS[1], "angle": angle, "curvature": r} for r in CURVATURES for angle in ANGLES]
CASES += [{"kappa": k, "angle": a, "curvature": r} for k in KAPPAS[::2] for a, r in ((0, 5), (45, 5), (45, 40))]
OTHERS = {"half the learning rate": {"rate": RATE / 2}, "batches of 8": {"batch": 8}}
"""Settings that should change nothing, tried at one place."""
CASES += [{"kappa": KAPPAS[1], "angle": 45, "curvature": 5, "setting": name} | other for name, other in OTHERS.items()]
COLOURS = dict(zip(CURVATURES, ("#56b4e9", "#009e73", "#d55e00"), strict=True))


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Misfit of the best temperature under rotated noise, and the current.")
    parser.add_argument("--num-seeds", type=int, default=4000, help="independent runs of each")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    points = [measure(key, arguments.num_seeds, **case) for key, case in enumerate(CASES)]
    write_analysis(arguments.out, "detailed_balance", points, draw(points))


def measure(
    key: int,
    num_seeds: int,
    kappa: float,
    angle: float,
    curvature: float,
    setting: str = "default",
    rate: float = RATE,
    batch: int = 1,
) -> dict:
    """Misfit, misfit of the modes' own temperatures, and current, each with its prediction and standard error."""
    hessian, noise = np.diag([1.0, 1 / curvature]), rotated(kappa, angle)
    law, diffusion = stationary_covariance(hessian, noise, rate, batch), rate / (2 * batch) * noise
    root = np.sqrt(hessian)
    directions = root @ np.linalg.eigh(root @ law @ root)[1][:, ::-1]  # fixed beforehand: no bias from a search
    x = positions(hessian, noise, bvs.SGD(rate, batch), key, num_seeds, round(4 * curvature / rate))
    found = {}
    for name, axes in (("misfit", directions), ("modes", root)):
        found |= log_ratio(name, law, x, axes)
    areas = (x[:, :-1, 0] * x[:, 1:, 1] - x[:, :-1, 1] * x[:, 1:, 0]).mean(axis=1) / rate
    moments = np.einsum("cti,ctj->cij", x, x) / x.shape[1]
    trace = np.trace(hessian)
    groups = [np.delete(np.arange(num_seeds), rows) for rows in np.array_split(np.arange(num_seeds), 20)]
    left_out = [current(areas[g].mean(), moments[g].mean(axis=0), diffusion, trace) for g in groups]
    found["current"] = current(areas.mean(), moments.mean(axis=0), diffusion, trace)
    found["current_error"] = float(np.sqrt((len(groups) - 1) * np.var(left_out)))  # jackknife
    found["current_predicted"] = current(law[0, 1] * (1 - 1 / curvature), law, diffusion, trace)
    limit = continuous_covariance(hessian, noise, rate, batch)
    found["production_of_small_steps"] = production_rate(hessian, limit, diffusion) / trace
    place = f"kappa {kappa:g}, {angle} degrees, h1/h2 {curvature:g}, {setting}"
    values = [f"{n} {found[n]:.3f} ± {found[n + '_error']:.3f} ({found[n + '_predicted']:.3f})" for n in QUANTITIES]
    print(f"{place}: {', '.join(values)}")
    return {"kappa": kappa, "angle": angle, "curvature": curvature, "setting": setting} | found


def rotated(kappa: float, angle: float) -> np.ndarray:
    """Covariance of eigenvalues kappa and 1, the first turned by an angle in degrees from the sharp direction."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    basis = np.array([[cos, -sin], [sin, cos]])
    return basis * [kappa, 1.0] @ basis.T


def positions(
    hessian: np.ndarray, noise: np.ndarray, dynamics: bvs.Optimizer, key: int, num_seeds: int, num_warmup: int
) -> np.ndarray:
    """Stationary positions (seed, draw, 2) of SGD on a quadratic of this Hessian and this noise."""
    tree = bvs.simulate(
        dynamics, bvs.Posterior(quadratic(hessian, noise)), key=key, num_chains=num_seeds, num_warmup=num_warmup,
        num_steps=DRAWS, num_draws=DRAWS, initial="optimum", observables=["loss"], record_positions=True, progress=False,
    )  # fmt: skip
    return np.asarray(tree["posterior"]["theta"].values, float)


def log_ratio(name: str, law: np.ndarray, x: np.ndarray, axes: np.ndarray) -> dict:
    """Half the log ratio of the variances along two directions, and its standard error."""
    squares = np.mean((x @ axes) ** 2, axis=1)
    means, predicted = squares.mean(axis=0), np.diag(axes.T @ law @ axes)
    influence = (squares / means) @ [0.5, -0.5]
    error = float(influence.std(ddof=1) / np.sqrt(len(x)))
    values = (float(np.log(v[0] / v[1])) / 2 for v in (means, predicted))
    return dict(zip((name, f"{name}_predicted"), values, strict=True)) | {f"{name}_error": error}


def current(area_rate: float, covariance: np.ndarray, diffusion: np.ndarray, trace: float) -> float:
    """Signed root of the entropy production -tr(S^{-1} Q D^{-1} Q) over tr H; Q is antisymmetric, half the area rate."""
    unit = np.trace(np.linalg.solve(covariance, diffusion)) / np.linalg.det(diffusion) / trace
    return float(area_rate / 2 * np.sqrt(unit))


def draw(points: list[dict]) -> Figure:
    """The misfit against the angle, a line a ratio of curvatures, and against the current, a line a ratio of the noise."""
    figure = new_figure(8.6, 3.9)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.axhspan(0, MARGIN, color="#8883", lw=0)
        axes.spines[["top", "right"]].set_visible(False)
    angles = np.linspace(0, ANGLES[-1], 100)
    cos, sin = np.cos(np.radians(2 * angles)), np.sin(np.radians(2 * angles))
    share = (KAPPAS[1] - 1) / (KAPPAS[1] + 1)
    for r, colour in COLOURS.items():
        misfit = np.arctanh(share * np.hypot(cos, 2 * np.sqrt(r) / (r + 1) * sin))
        left.plot(angles, misfit, color=colour, lw=1, label=f"curvatures {r} : 1")
    left.plot(angles, np.arctanh(share * cos), "--", color=GREY, lw=1, label="the modes' own T alone (hollow)")
    for kappa in KAPPAS:
        alone = np.log(kappa) / 2
        j = np.sinh(alone) * np.sin(np.linspace(0, np.pi / 2, 200))
        right.plot(j, np.arccosh(np.maximum(np.cosh(alone) / np.sqrt(1 + j**2), 1)), color=GREY, lw=1)
        right.text(-0.1, alone, f"noise {kappa:g} : 1", ha="right", va="center", fontsize=8)
    for p in points:
        style = {"color": COLOURS[p["curvature"]], "ms": 4, "lw": 1, "fmt": "o"}
        if p["setting"] != "default":
            style |= {"fmt": "s^"[list(OTHERS).index(p["setting"])], "label": p["setting"]}
        bar, modes, wide = (TWO_SIDED * p[f"{name}_error"] for name in QUANTITIES)
        right.errorbar(p["current"], p["misfit"], bar, wide, **style)
        if p["kappa"] == KAPPAS[1] and p["setting"] == "default":
            left.errorbar(p["angle"], p["misfit"], bar, **style)
            if p["curvature"] == CURVATURES[1]:
                left.errorbar(p["angle"] + 0.8, p["modes"], modes, **style, mfc="white")
    left.text(0, MARGIN / 2, "one temperature fits\nwithin the margin", va="center", fontsize=8)
    left.set_ylim(-0.08, 0.82)
    left.set_xticks(ANGLES)
    left.set_xlabel("angle between the noise and the Hessian, degrees")
    left.set_ylabel("misfit of the best temperature\n(half range of log T, all directions)")
    left.set_title(f"eigenvalues of the noise {KAPPAS[1]} : 1", fontsize=10)
    right.set_xlim(-0.6, None)
    right.set_xticks([0, 0.5, 1])
    right.set_xlabel("current (root of entropy production / tr H)")
    right.set_title("of one noise: more current, better fit", fontsize=10)
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    right.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
