"""Settings of each verb, as dataclasses that are both the Python API and the command line's flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DYNAMICS = ("sgd", "sgld", "sgd-shuffled", "sgd-momentum", "adam")
KNOWN_DYNAMICS = (*DYNAMICS, "gradient-descent")
SAMPLERS = ("auto", "exact", "grid", "nuts", "sgld")


@dataclass(frozen=True)
class Compare:
    """What every comparison shares; None means: found from the model."""

    dynamics: tuple[str, ...] = DYNAMICS
    """Which dynamics are compared; gradient-descent is known too."""
    learning_rate: float | None = None
    """Learning rate of plain SGD; 0.1 over the largest Hessian eigenvalue at the minimum by default."""
    batch_size: int = 8
    """Examples a step."""
    num_seeds: int = 2000
    """Independent runs of each dynamics."""
    num_steps: int = 2000
    """Steps at first; doubled until the ensemble is stationary, or cannot be within max_seconds."""
    initial_scale: float | None = None
    """Runs start from prior draws times this; by default the largest of 1, 1/2, 1/4, ... at which plain SGD is stable."""
    objective: Literal["loss", "posterior"] = "loss"
    """What optimisers descend: the loss, or the posterior (with the prior's pull)."""
    inverse_temperature: float | None = None
    """Fixes beta; by default it is fitted on half the seeds, and the other half is tested."""
    observables: tuple[str, ...] = ()
    """Observables that decide, instead of the model's primary ones."""
    trajectories: tuple[Path, ...] = ()
    """NetCDF files of positions made elsewhere, an array (chain, draw, ...) a site, each compared like a dynamics."""
    controls: bool = True
    """Also look at the control models that the model file names, such as a network of one layer on the same data."""
    max_seconds: float = 150.0
    """After this wall time, shared by the comparisons, steps are not doubled again, spectra and controls left out."""


@dataclass(frozen=True)
class LLC:
    """How the learning coefficient is estimated."""

    sampler: str = "auto"
    """auto, exact (the model's own), grid (two parameters at most), nuts or sgld."""
    inverse_temperature: float | None = None
    """beta; 1/log n by default."""
    localization: float = 0.0
    """Strength gamma of the pull to the optimum."""
    baseline: Literal["optimum", "minimum"] | None = None
    """L(w*): the loss at the model's optimum (the default where it names one) or at the empirical minimum."""
    num_chains: int = 8
    """Independent chains."""
    num_draws: int = 1000
    """Draws of each chain."""
    num_warmup: int = 500
    """Steps before the first draw."""
    step_size: float | None = None
    """Step size of sgld; 0.1 over the sharpest curvature by default."""
    initial_scale: float = 1.0
    """Chains start from prior draws times this."""
    max_seconds: float | None = None
    """Stop sampling after this wall time and answer with what there is."""


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
    precision: Literal["float32", "float64"] | None = None
    """Floating-point numbers; float32 for compare, float64 for llc by default."""
