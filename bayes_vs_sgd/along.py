r"""Learning coefficient and free energy along training: of the local Gibbs law around each checkpoint of a run.

Around a checkpoint w_k, with the prior pulled to it and normalised,

.. math:: \varphi_k(\theta) \propto \pi(\theta)\, e^{-\frac\gamma2 \|\theta - w_k\|^2}, \qquad
    F_k = -\log \int \varphi_k(\theta)\, e^{-n \beta L(\theta)} d\theta = \int_0^1 n \beta\, E_{t \beta}[L]\, dt.

All checkpoints and all rungs of the ladder of temperatures t_j = (j/J)^5 are chains of one run, so nothing is compiled twice. The
learning coefficient is n beta (E[L] - L(w_k)) on the last rung; it is negative where training still falls. The singular
fluctuation is half of beta times the sum of the variances of the examples' losses there: how far the law's loss on new examples
is above that on the data, times n/2.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .diagnostics import finite_or_none, mean_error
from .dynamics import NUTS
from .errors import InputError
from .estimate import Estimate, jackknife, with_error
from .given import read_positions, site_values
from .ladder import EnergyCurve
from .learning_coefficient import ALONE, FEWEST_DRAWS, LEFT_OUT, kept_chains, read_chains
from .observables import available, select
from .pilot import OBSERVED
from .posterior import Posterior
from .results import open_run, whole
from .sampler_choice import ACCEPTANCE
from .simulate import simulate

NUM_RUNGS, POWER = 12, 5
"""Rungs of the ladder, and by what power of j/J they lie closer near t = 0."""
MOST_NUMBERS, MOST_LOSSES = 3 * 10**7, 3 * 10**8
"""Recorded of positions, and losses of an example, with more of which there is no singular fluctuation."""


@dataclass(frozen=True)
class Checkpoint:
    """One place of a run: its step and loss, what is local there, and reasons not to believe it.

    R-hat and effective sample size are the worse of n beta L and of the scale of the weights. No singular fluctuation is known
    of one chain, nor of models without single examples or with too many or too many parameters.
    """

    step: int
    loss: float
    effective_rank: float | None
    learning_coefficient: Estimate
    singular_fluctuation: Estimate | None
    free_energy: Estimate
    rhat: float
    ess: float
    warnings: list[str]

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.warnings

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self) | {"trusted": self.trusted})


def along_training(
    run: xr.DataTree | str | Path,
    target: Posterior,
    key: int = 0,
    num_checkpoints: int = 12,
    num_chains: int = 4,
    num_draws: int = 300,
    *,
    chain: int = 0,
    progress: bool = True,
    max_seconds: float | None = None,
) -> list[Checkpoint]:
    """Measure at evenly spaced draws of one chain of a run.

    Parameters
    ----------
    run
        With recorded positions: a tree, a run folder, or a NetCDF file of positions.
    target
        Its inverse temperature and localisation (which must be > 0) are used; its centre is not.
    key
        Seed.
    num_checkpoints, num_chains, num_draws
        Checkpoints, chains at each rung of each, and draws of each of these.
    chain
        Of the run.
    progress
        Show it on standard error.
    max_seconds
        After this wall time the draws that there are have to do.

    Raises
    ------
    InputError
        If no positions are recorded, the localisation is 0, or no draws are reached in time.
    """
    if not float(target.localization) > 0:
        raise InputError("along a run the law must be local: give --localization, in units of 1/position squared")
    tree = run if isinstance(run, xr.DataTree) else read_run(run)
    steps, centers = checkpoints(tree, target, num_checkpoints, chain)

    ladder = (np.arange(NUM_RUNGS + 1) / NUM_RUNGS) ** POWER
    shape = (len(steps), len(ladder), num_chains)
    place = np.broadcast_to(np.arange(len(steps))[:, None, None], shape).ravel()
    rung = np.broadcast_to(ladder[None, :, None], shape).ravel()
    positions = jax.vmap(target.model.unconstrain)(centers)
    local = eqx.tree_at(
        lambda t: (t.inverse_temperature, t.center),
        target,
        (jnp.asarray(rung * float(target.inverse_temperature), float), {k: v[place] for k, v in positions.items()}),
        is_leaf=lambda x: x is None,
    )
    dynamics = target.model.exact_sampler or NUTS(target_acceptance_rate=ACCEPTANCE)
    recorded = (
        target.model.holds_examples
        and num_chains > 1
        and len(place) * num_draws * target.model.num_parameters <= MOST_NUMBERS
        and len(steps) * num_chains * num_draws * target.model.num_examples <= MOST_LOSSES
    )
    found = simulate(
        dynamics,
        local,
        key=key,
        num_chains=len(place),
        num_draws=num_draws,
        num_warmup=200 * dynamics.adaptive,
        initial={site: np.asarray(v)[place] for site, v in centers.items()},
        observables=OBSERVED,
        record_positions=recorded,
        progress=progress,
        title="along the run",
        max_seconds=max_seconds,
    )
    made = whole(found)
    num_made = made["posterior"].sizes["draw"] if "posterior" in made else 0
    if num_made < FEWEST_DRAWS:
        raise InputError(f"{num_made} draws at each checkpoint within {max_seconds} s: give --max-seconds")
    drawn = made["posterior"].to_dataset().isel(draw=slice(int(LEFT_OUT * num_made), None))
    losses = np.asarray(drawn["loss"].values, float).reshape(*shape, -1)
    lost = ~kept_chains(made).reshape(shape)
    seen = at_centers(target, positions)
    parts = [made.isel(chain=_last(index, shape), missing_dims="ignore") for index in range(len(steps))]
    around = [read_chains(part, target, loss, LEFT_OUT) for part, loss in zip(parts, seen["loss"], strict=True)]
    alone = [] if target.model.exact_sampler else [f"{ALONE}: along a run no second one is asked"]
    return [
        Checkpoint(
            int(steps[index]),
            float(seen["loss"][index]),
            float(seen["effective_rank"][index]) if "effective_rank" in seen else None,
            with_error(*chains.estimate),
            _fluctuation(target, drawn.isel(chain=_last(index, shape)).isel(chain=~lost[index, -1]))
            if recorded
            else None,
            _integral(float(target.scale) * losses[index], ladder, lost[index]),
            chains.rhat,
            chains.ess,
            chains.doubts() + lost_on_the_way(lost[index, :-1]) + alone,
        )
        for index, chains in enumerate(around)
    ]


def checkpoints(
    tree: xr.DataTree, target: Posterior, number: int, chain: int = 0
) -> tuple[np.ndarray, dict[str, jax.Array]]:
    """Steps and values of the program's sites (checkpoint, ...) at evenly spaced draws of one chain."""
    values = site_values(tree, target)
    num_chains, draws = next(iter(values.values())).shape[:2]
    if not (number >= 1 and 0 <= chain < num_chains):
        raise InputError(f"{number} checkpoints of chain {chain}: give one or more, of a chain below {num_chains}")
    chosen = np.unique(np.linspace(0, draws - 1, min(number, draws)).round().astype(int))
    steps = tree["posterior"].to_dataset().coords.get("step") if "posterior" in tree else None
    return chosen + 1 if steps is None else np.asarray(steps)[chosen], {k: v[chain, chosen] for k, v in values.items()}


def read_run(path: str | Path) -> xr.DataTree:
    """A run folder or a NetCDF file."""
    tree = read_positions(path) if Path(path).is_file() else open_run(path)
    return tree.load()


def at_centers(target: Posterior, positions: Any) -> dict[str, np.ndarray]:
    """Loss and effective rank at each checkpoint."""
    names = [name for name in ("loss", "effective_rank") if name in available(target.model)]
    items = select(target.model, names)

    @eqx.filter_jit
    def evaluate(model, positions):
        def one(position):
            return {name: item(model, model.constrain(position)) for name, item in items.items()}

        return jax.lax.map(one, positions)

    return {name: np.asarray(v, float) for name, v in evaluate(target.model, positions).items()}


def _last(index: int, shape: tuple[int, int, int]) -> slice:
    """Chains of the last rung at a checkpoint."""
    _, num_rungs, num_chains = shape
    stop = (index + 1) * num_rungs * num_chains
    return slice(stop - num_chains, stop)


def _fluctuation(target: Posterior, drawn: xr.Dataset) -> Estimate:
    """Half of beta times the sum over the examples of the variance of their loss; its error by leaving each chain out."""
    values = {site: jnp.asarray(drawn[site].values) for site, _ in target.model.latents}
    means, squares = np.moveaxis(np.asarray(_moments(target, values), float), 1, 0)
    half = float(target.inverse_temperature) / 2
    return with_error(*jackknife(lambda mean, square: half * np.sum(square - mean**2), means, squares), len(means) - 1)


@eqx.filter_jit
def _moments(target: Posterior, values: dict[str, jax.Array]) -> jax.Array:
    """Means over each chain's draws of the examples' losses, less those at the first draw, and of their squares (chain, 2, n)."""
    model = target.model

    def losses(draw: dict[str, jax.Array]) -> jax.Array:
        return model.example_losses(model.unconstrain(draw))

    first = losses({site: value[0, 0] for site, value in values.items()})

    def of_chain(draws: dict[str, jax.Array]) -> jax.Array:
        def add(sums: jax.Array, draw: dict[str, jax.Array]) -> tuple[jax.Array, None]:
            more = losses(draw) - first
            return sums + jnp.stack([more, more**2]), None

        sums, _ = jax.lax.scan(add, jnp.zeros((2, *first.shape)), draws)
        return sums / len(next(iter(draws.values())))

    return jax.lax.map(of_chain, values)


def lost_on_the_way(lost: np.ndarray) -> list[str]:
    """The reason not to believe a free energy some chains of which (rung, chain), warmer than the law, are lost."""
    if not lost.any():
        return []
    if lost.all(axis=1).any():
        return ["all chains of a warmer law were lost: the free energy is not known"]
    return [f"{lost.sum()} of {lost.size} chains of the warmer laws were lost: of the free energy they are left out"]


def _integral(energies: np.ndarray, ladder: np.ndarray, lost: np.ndarray) -> Estimate:
    """Integral over t of E_t[n beta L] (rung, chain, draw) by ``EnergyCurve``.

    Its error is that of the means, and the difference from the integral over every other rung. Chains that are lost (rung,
    chain) are left out; it is not known where all of a rung are.
    """
    if lost.all(axis=1).any():
        return with_error(math.nan, math.nan)
    kept = [rung[~gone] for rung, gone in zip(energies, lost, strict=True)]
    mean, variance = (np.array([f(rung) for rung in kept]) for f in (np.mean, np.var))

    def integrate(mean: np.ndarray, used: slice = slice(None)) -> float:
        return EnergyCurve(ladder[used], mean[used], variance[used]).integral()

    value, coarse = integrate(mean), integrate(mean, slice(None, None, 2))
    errors = np.diag([mean_error(rung, False) for rung in kept])
    moved = [integrate(mean + error) - value for error in errors]
    return with_error(value, math.hypot(*moved, value - coarse))
