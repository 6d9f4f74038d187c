"""Controls: models near the one at hand that show what makes the difference, such as the same data without depth."""

import time
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..model import Model
from .result import Comparison
from .run import Study
from .spectrum import Spectrum, spectrum_at_minimum
from .stationarity import ENSEMBLE

POWER = 2
"""Seeds of a control's comparison over those of the study: a match needs narrow intervals, and one layer is cheap."""


@dataclass(frozen=True)
class Control:
    """Temperature spectra of a control under Langevin dynamics and SGD; ``problem`` says why any are missing.

    Where the control has an exact sampler, also SGD's comparison with its posterior, with the prior's pull in what SGD
    descends: a mismatch that is only the prior left out would say nothing about the noise.
    """

    title: str
    spectra: list[Spectrum]
    comparison: Comparison | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        comparison = None if self.comparison is None else self.comparison.to_json()
        spectra = [s.to_json() for s in self.spectra]
        return {"title": self.title, "spectra": spectra, "comparison": comparison, "problem": self.problem}


def run_control(study: Study, title: str, model: Model) -> Control:
    """Look at a control with the settings of a study, at a learning rate of its own and an eighth of the seeds for spectra."""
    num_seeds = study.settings.num_seeds
    own: dict[str, Any] = {"dynamics": ("sgld", "sgd"), "num_seeds": max(num_seeds // 8, min(num_seeds, ENSEMBLE))}
    own |= dict.fromkeys(("learning_rate", "initial_scale", "inverse_temperature")) | {
        "observables": (),
        "trajectories": (),
    }
    settings = replace(study.settings, **own)
    folder = None if study.folder is None else study.folder / f"control-{title.replace(' ', '-')}"
    spectra: list[Spectrum] = []
    try:
        control = Study(model, settings, study.seed, folder, study.progress)
        for name in settings.dynamics:
            spectra.append(spectrum_at_minimum(control, name))
        if model.exact_sampler is None:
            return Control(title, spectra, None)
        settings = replace(settings, objective="posterior", num_seeds=POWER * num_seeds)
        control = Study(model, settings, study.seed, folder, study.progress)
        return Control(title, spectra, control.compare("sgd", time.monotonic()))
    except InputError as error:
        return Control(title, spectra, None, str(error))
