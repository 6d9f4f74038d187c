"""Settings of each verb, as dataclasses that are both the Python API and the command line's flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import InputError
from .margins import Margins, margins

DYNAMICS = ("sgd", "sgld", "sgd-shuffled", "sgd-momentum", "adam")
KNOWN_DYNAMICS = (*DYNAMICS, "gradient-descent")
SAMPLERS = (
    "auto",
    "exact",
    "grid",
    "smc",
    "nuts",
    "mala",
    "mclmc",
    "sgld",
    "rmsprop-sgld",
    "adam-sgld",
    "sghmc",
    "sgnht",
)


def check_seconds(max_seconds: float | None) -> None:
    """Refuse a negative time."""
    if max_seconds is not None and not max_seconds >= 0:
        raise InputError(f"max_seconds is {max_seconds:g}: it must be at least 0")


class Timed:
    """Settings of what ends in time."""

    max_seconds: float | None

    def __post_init__(self):
        check_seconds(self.max_seconds)


@dataclass(frozen=True)
class Ensemble(Timed):
    """How independent runs of an optimiser are made; None means: found from the model."""

    learning_rate: float | None = None
    """Learning rate of plain SGD; 0.1 over the largest Hessian eigenvalue at the minimum by default."""
    batch_size: int = 8
    """Examples a step."""
    num_steps: int = 2000
    """Steps at first; doubled until the ensemble is stationary, or cannot be within max_seconds."""
    initial_scale: float | None = None
    """Runs start from prior draws times this; by default the largest of 1, 1/2, 1/4, ... at which plain SGD is stable."""
    objective: Literal["loss", "posterior"] = "loss"
    """What optimisers descend: the loss, or the posterior (with the prior's pull)."""
    observables: tuple[str, ...] = ()
    """Observables that decide, instead of the model's primary ones."""
    margin_location: float = 0.2
    """Difference of location that does not matter, in sd of the posterior."""
    margin_scale: float = 0.1
    """Difference of the logarithm of the spread that does not matter."""
    margin_temperature: float = 0.2
    """Difference of the logarithm of a temperature that does not matter."""
    margin_distance: float = 0.2
    """Wasserstein distance that does not matter, in sd of the posterior; it has no part in the verdict."""
    margin_variation: float = 0.1
    """Total variation that does not matter; it has no part in the verdict."""
    margin_odds: float = 1.5
    """Ratio of the odds of a property that does not matter; it has no part in the verdict."""

    @property
    def margins(self) -> Margins:
        """Margins by kind of effect."""
        to_laws = (self.margin_location, self.margin_scale, self.margin_temperature)
        return margins(*to_laws, self.margin_distance, self.margin_variation, self.margin_odds)


@dataclass(frozen=True)
class Compare(Ensemble):
    """What every comparison shares; None means: found from the model."""

    dynamics: tuple[str, ...] = DYNAMICS
    """Which dynamics are compared; gradient-descent is known too."""
    num_seeds: int = 4000
    """Independent runs of each dynamics."""
    reference: Literal["auto", "none"] = "auto"
    """none: go by the posterior's score alone, without draws of it; that can show a mismatch, and never a match."""
    inverse_temperature: float | None = None
    """Fixes beta; by default it is fitted on half the seeds, and the other half is tested."""
    trajectories: tuple[Path, ...] = ()
    """NetCDF files of positions made elsewhere, an array (chain, draw, ...) a site, each compared like a dynamics."""
    controls: bool = True
    """Also look at the control models that the model file names, such as a network of one layer on the same data."""
    repairs: bool = False
    """Find the smallest repair that makes a match of a mismatch, such as isotropic noise: its reason (a longer --max-seconds)."""
    max_seconds: float = 180.0
    """After this wall time, shared by the comparisons, steps are not doubled again, spectra, controls and repairs left out; a
    reference that NUTS does not mix for may take as long again."""


@dataclass(frozen=True)
class AuditSettings(Ensemble):
    """What is audited, and for how long; None means: found from the model."""

    dynamics: Literal["sgd", "sgd-shuffled", "sgd-momentum", "adam"] = "sgd"
    """The optimiser."""
    num_seeds: int = 2000
    """Independent runs, of the optimiser and of every repair."""
    repairs: bool = True
    """Repair assumptions, all and then fewer, and compare again."""
    models: bool = True
    """Also run the refined models, and see which one describes the run."""
    max_seconds: float = 300.0
    """No repair or model is begun that would end later, by its first steps and by what those before it took."""
    along: Path | None = None
    """Folder or NetCDF file of a run that has recorded its positions: hold what needs only a point against its checkpoints
    instead, for the optimiser that made it."""
    num_checkpoints: int = 12
    """Checkpoints along a run."""


@dataclass(frozen=True)
class LLC(Timed):
    """How the learning coefficient is measured. What is not given is chosen."""

    sampler: str = "auto"
    """auto, exact (the model's own), grid (two parameters at most), smc (particles tempered from the prior, at most 300
    parameters), nuts, mala, mclmc (with Metropolis test); with a bias of their step size: sgld, rmsprop-sgld, adam-sgld, sghmc,
    sgnht."""
    precision: float = 0.02
    """Wanted standard error, relative to the estimate."""
    max_seconds: float = 120.0
    """After this wall time the answer is given with what there is."""
    inverse_temperature: float | None = None
    """beta; 1/log n by default."""
    localization: float = 0.0
    """Strength gamma of the pull to the optimum."""
    baseline: Literal["optimum", "minimum"] | None = None
    """L(w*): the loss at the model's optimum (the default where it names one) or at the empirical minimum."""
    num_chains: int | None = None
    """Independent chains (replicates of particles); of samplers with a step-size bias, at the largest of three step sizes. 8 by
    default, 2 where there are more than 100,000 parameters, of which a draw takes seconds."""
    num_draws: int = 300
    """Draws of each chain (particles, at least four a parameter) at first; doubled until the estimate is as precise as wanted. A
    third of them is left out (of particles none)."""
    step_size: float | None = None
    """Largest step size of samplers with a bias; found by a pilot run by default."""
    batch_size: int | None = None
    """Examples a step of the stochastic-gradient samplers; all by default (their sufficient statistics, where there are some)."""
    initial_scale: float = 1.0
    """Chains start from prior draws times this; of unbiased samplers with a localization around its centre, as far from it as
    prior and pull let them times this; of others from the centre, where there is one."""
    second: bool = True
    """Ask a sampler of another kind too, where the first is not the model's exact one."""
    along: Path | None = None
    """Folder or NetCDF file of a run that has recorded its positions: measure around each of its checkpoints instead."""
    num_checkpoints: int = 12
    """Checkpoints along a run."""

    def chains(self, num_parameters: int) -> int:
        """Chains of a model of so many parameters."""
        if self.num_chains is not None:
            return self.num_chains
        return 2 if num_parameters > 100_000 else 8


@dataclass(frozen=True)
class FreeEnergy(Timed):
    """How the free energy is estimated."""

    inverse_temperature: float = 1.0
    """beta; at 1 the answer is the log evidence."""
    num_particles: int = 2000
    """Particles of each replicate."""
    num_moves: int | None = None
    """k: trajectories of each particle a stage; the answer is made with 2k. Found by a pilot run by default."""
    num_replicates: int = 4
    """Independent runs with k and with 2k."""
    max_seconds: float | None = None
    """After this wall time no further replicate is begun, once there are two of each."""


@dataclass(frozen=True)
class Robustness(Ensemble):
    """Which event under which law, and how its probability is found."""

    property: str | None = None
    """The property, by its name in the model; the only one by default."""
    threshold: float | None = None
    """c: the event is property > c."""
    law: Literal["posterior", "sublevel", "sgd"] = "posterior"
    """posterior: the tempered posterior; sublevel: the prior on {L <= least loss + excess_loss}; sgd: the end of training."""
    against: Literal["posterior"] | None = None
    """With --law sgd: also how likely the event is under the posterior, the ratio of the odds, and the event along training."""
    inverse_temperature: float | None = None
    """beta of the posterior; 0 is the prior; 1 by default. Of --against the matched one by default: it fixes it."""
    temperature: Literal["fitted", "theory", "loss"] = "fitted"
    """How the posterior of --against is matched: to the runs by Stein's identity, to T0, or to the runs' mean loss."""
    num_checkpoints: int = 40
    """Most checkpoints at which --against looks at the event; the largest number that divides the steps is taken."""
    excess_loss: float | None = None
    """Size of the sublevel set; by default half the number of parameters over n, as far as a regular posterior reaches. With
    --law sgd: the law of as many further steps on condition that no step leads out of the set, and the rate at which they do."""
    num_particles: int | None = None
    """Particles of each replicate, where the event is rare; by default 1,000, and four times as many while the error is above 5 %
    and there are draws to start from and time."""
    num_moves: int | None = None
    """k: trajectories of each particle a stage, or trials of each run; the answer is made with 2k. By default doubled from 2, of
    runs from 4, until the two agree."""
    num_replicates: int = 8
    """Independent replicates with k and with 2k moves; four, where there is no time for more."""
    num_seeds: int = 4000
    """Independent runs of SGD, for its law."""
    influence: bool = False
    """Also tell which examples matter: how the probability under the posterior changes with the weight of each."""
    groups: Path | None = None
    """Text file with a label a line, one for each example: also the influence of each group."""
    candidates: Path | None = None
    """.npz file of examples that are not in the data, an array for each of theirs: also what it would do to include each."""
    retrain: int = 0
    """Also train SGD again, without each of so many of the most influential examples."""
    max_seconds: float = 120.0
    """Wall time: what would end later is not begun, but for four replicates: more of them, moves or particles, and training."""


@dataclass(frozen=True)
class Run:
    """What every verb shares."""

    seed: int = 0
    """Seed of the simulation."""
    data_seed: int = 0
    """Seed of the model's data."""
    center: Path | None = None
    """A checkpoint in the place of the optimum: an .npz file with an array for each site of the program."""
    out: Path | None = None
    """Run folder; a fresh one under runs/ by default."""
    resume: Path | None = None
    """Continue the run in this folder; give the other settings as before."""
    json: str | None = None
    """Also write the answer as JSON to this file, or to standard output for -."""
    dtype: Literal["float32", "float64"] | None = None
    """Floating-point numbers; float32 for compare and audit, float64 for the other verbs by default."""
