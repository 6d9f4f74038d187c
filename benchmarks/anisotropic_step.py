"""What a step of anisotropic Langevin dynamics costs beside a full-batch gradient step on the same examples.

    python benchmarks/anisotropic_step.py --json anisotropic_step.json

The noise of ``GaussianNoise`` has the covariance of a minibatch and is made by weighting the examples of one gradient, so that
a step costs a gradient and one random number an example. Both steps go through ``simulate`` and look at every example, also
where sufficient statistics would do for the gradient alone. Each is timed several times in turn; the ratio is that of the
medians, its range that of the turns.
"""

import argparse
import json
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from throughput import machine

import bayes_vs_sgd as bvs

MODELS = Path(__file__).parents[1] / "models"
CASES = {  # file, settings, chains, steps
    "regression, 5 weights": ("linear_regression.py", {}, 64, 4_000),
    "regression, 50 weights": ("linear_regression.py", {"covariance": (1.0,) * 50}, 64, 2_000),
    "4-10-10-10-4, linear": ("deep_linear.py", {"widths": (4, 10, 10, 10, 4), "num_examples": 1024}, 16, 1_000),
    "4-16-4, tanh": ("tanh_network.py", {"widths": (4, 16, 4), "num_examples": 1024}, 16, 1_000),
}
TURNS = 7


class AllExamples(bvs.GaussianNoise):
    """The full batch, by the same weighted gradient with equal weights."""

    def weights(self, key: Array, num_examples: int) -> Float[Array, " n"]:
        """1/n each."""
        return jnp.full(num_examples, 1 / num_examples)


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description="Anisotropic Langevin steps beside full-batch gradient steps.")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of steps")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.scale) for name in CASES]
    for row in rows:
        print(f"{row['model']}: {row['ratio']:.2f} ({row['lowest']:.2f} .. {row['highest']:.2f}) times a gradient step")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def measure(name: str, scale: float) -> dict:
    """Nanoseconds an example of both steps on one model."""
    file, settings, num_chains, num_steps = CASES[name]
    model, num_steps = bvs.load_model(MODELS / file, **settings), max(20, round(num_steps * scale))
    steps = {"gradient": AllExamples(8), "anisotropic": bvs.GaussianNoise(8)}

    def timed(gradient: bvs.GaussianNoise) -> float:
        started = time.perf_counter()
        wanted = {"num_chains": num_chains, "num_draws": 1, "observables": ["loss"], "progress": False}
        sgd = bvs.SGD(1e-4, sampling=gradient)
        bvs.simulate(sgd, bvs.Posterior(model), num_steps=num_steps, initial="optimum", key=0, **wanted)
        return (time.perf_counter() - started) / (num_steps * num_chains * model.num_examples) * 1e9

    for gradient in steps.values():
        timed(gradient)  # compiles
    times = np.array([[timed(gradient) for gradient in steps.values()] for _ in range(TURNS)])
    middle, ratios = np.median(times, axis=0), times[:, 1] / times[:, 0]
    found = {"model": name, "num_examples": model.num_examples, "num_chains": num_chains, "num_steps": num_steps}
    found |= {f"{kind}_nanoseconds_an_example": float(value) for kind, value in zip(steps, middle, strict=True)}
    return found | {
        "ratio": float(middle[1] / middle[0]),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
    }


if __name__ == "__main__":
    main()
