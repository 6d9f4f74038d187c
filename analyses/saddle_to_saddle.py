"""What does gradient descent learn, and when? Effective complexity of a deep linear network as it passes from saddle to saddle.

From small weights gradient descent finds one singular value of the teacher after another: the loss falls in steps, the rank
of the map rises in steps, and so does the local learning coefficient. Writes ``saddle_to_saddle.svg`` and ``.json``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

import bayes_vs_sgd as bvs
from bayes_vs_sgd.report.estimate_figures import along_figure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """Training, and how local the measurement is."""

    learning_rate: float = 0.02  # of gradient descent
    num_steps: int = 2400  # of gradient descent
    initial_scale: float = 0.02  # of prior draws
    localization: float = 1000.0  # gamma, in units of 1/position squared
    num_checkpoints: int = 32  # where the law is measured
    num_draws: int = 300  # of each chain
    out: Path = HERE  # folder of what is written


def main(settings: Settings) -> list[bvs.Checkpoint]:
    """Train, measure, draw."""
    jax.config.update("jax_enable_x64", True)
    model = bvs.load_model(
        HERE.parent / "models" / "deep_linear.py",
        widths=(4, 4, 4, 4), spectrum=(4.0, 2.0, 1.0), unseen_inputs=0, num_examples=1000, noise=1.0,
    )  # fmt: skip
    run = bvs.simulate(
        bvs.GradientDescent(settings.learning_rate), bvs.Posterior(model), key=0, num_chains=2,
        num_steps=settings.num_steps, num_draws=min(settings.num_steps, 200), record_positions=True,
        initial_scale=settings.initial_scale,
    )  # fmt: skip
    target = bvs.Posterior(model, 0.145, localization=settings.localization)
    found = bvs.along_training(run, target, num_checkpoints=settings.num_checkpoints, num_draws=settings.num_draws)
    along_figure(found).savefig(settings.out / "saddle_to_saddle.svg", metadata={"Date": None})
    content = {"settings": {k: str(v) for k, v in vars(settings).items() if k != "out"}}
    content |= {"checkpoints": [point.to_json() for point in found]}
    (settings.out / "saddle_to_saddle.json").write_text(json.dumps(content, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main(tyro.cli(Settings))
