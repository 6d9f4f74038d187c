"""Is SGD at a minimum Bayesian? The temperature of every mode of three networks on the same kind of data.

    python analyses/temperature_spectrum.py

One layer, two layers and two layers with tanh between them, all 3-3-3 (3-3) on whitened inputs with a noise of 1. Bayes
(Langevin dynamics) gives every mode one temperature. So does SGD for one layer, where all curvatures are equal. Depth alone
makes the curvatures unequal, and then SGD heats each mode in proportion to its curvature. Writes the figure and its numbers
beside this file; the claims are tested in ``tests/test_spectrum.py``.
"""

import argparse
from pathlib import Path

from rich.console import Console

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax
from bayes_vs_sgd.comparison.spectrum import Spectrum, spectrum_at_minimum
from bayes_vs_sgd.report.figures import spectrum_figure, write_analysis
from bayes_vs_sgd.report.tables import spectrum_table
from bayes_vs_sgd.settings import Compare

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
LINEAR = {"noise": 1.0, "unseen_inputs": 0}
PANELS = {
    "one layer": ("deep_linear.py", LINEAR | {"widths": (3, 3)}),
    "two layers": ("deep_linear.py", LINEAR | {"widths": (3, 3, 3)}),
    "two layers, tanh": (
        "tanh_network.py",
        {"widths": (3, 3, 3), "teacher_units": 3, "num_examples": 256, "noise": 1.0},
    ),
}
DYNAMICS = ("sgld", "sgd", "adam")


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Temperature of every mode at a minimum, under Bayes, SGD and Adam.")
    parser.add_argument("--num-seeds", type=int, default=2000, help="independent runs of each")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figure and its numbers")
    arguments = parser.parse_args()
    prepare_jax()
    found = {title: measure(*panel, arguments.num_seeds) for title, panel in PANELS.items()}
    numbers = {title: [spectrum.to_json() for spectrum in spectra] for title, spectra in found.items()}
    write_analysis(arguments.out, "temperature_spectrum", numbers, spectrum_figure(found))
    for title, spectra in found.items():
        print(title)
        Console(width=110).print(spectrum_table(spectra))


def measure(file: str, config: dict, num_seeds: int) -> list[Spectrum]:
    """Spectra of one network under each dynamics."""
    study = bvs.Study(bvs.load_model(MODELS / file, **config), Compare(num_seeds=num_seeds), progress=False)
    return [spectrum_at_minimum(study, name) for name in DYNAMICS]


if __name__ == "__main__":
    main()
