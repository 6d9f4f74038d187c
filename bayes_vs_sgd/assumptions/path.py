r"""What the trajectories themselves say: stationarity, currents, diffusion, and noise that repeats itself.

All are means over independent chains, continued from where the ensemble ended.

- Fluctuation and dissipation (Yaida 2019): at stationarity :math:`E[(\theta - \theta_0) \cdot \nabla L] = (\eta / 2) E|g_B|^2`
  for any loss and any fixed :math:`\theta_0`.
- Currents: in the plane (u, v) the area swept a unit of time is :math:`E[x\,dy - y\,dx] = 2 Q_{xy}\,dt`, Q = K S - D, zero under
  detailed balance.
- Diffusion: the mean square displacement grows as the lag to a power; for a linear process with the drift and noise at the
  minimum it is :math:`2\,\mathrm{tr}(S - (I - \eta H)^k S)`, also no straight line, and that is the null; in flat
  directions it is :math:`k \eta^2\,\mathrm{tr}\,C`, of steps that nothing pulls back.
- Repetition: the noise summed over as many steps as an epoch has, over that of independent batches: 1 with replacement, 0
  where an epoch uses every example once.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ..comparison.stationarity import hopeless, unsettled
from ..diagnostics import ratio_of_means
from ..dynamics.base import Dynamics
from ..dynamics.gradients import Gradient
from ..margins import MARGINS, Margins
from ..model import Position
from ..posterior import Posterior
from ..results import final_positions
from ..simulate import simulate
from ..theory.quadratic import production_rate
from .assumption import Assumption, from_interval, measured
from .isotropy import COMMUTATION
from .local import FLAT, Local
from .noise import drawn, mean_gradient

BALANCE, EXPONENT, REPETITION = 0.1, 0.1, 0.1
"""Margins: of the ratio of the two sides, of an exponent, of a ratio of variances."""
LAGS = (1, 2, 4, 8, 16, 32)
NUM_EPOCHS = 2048
MOST_NUMBERS = 8 * 10**6
"""Numbers in the paths that are recorded step by step: of so many chains as there is room for."""


def fluctuation_dissipation(
    target: Posterior, gradient: Gradient, learning_rate: float, positions: Position, seed: int = 0
) -> Assumption:
    """Ratio of the two sides on an ensemble of independent chains, theta0 its mean."""
    sides = _both_sides(target, gradient, positions, jax.random.key(seed))
    pull, power = (np.asarray(side, float) for side in sides)
    value, error = ratio_of_means(pull, learning_rate / 2 * power)
    statistic = "E[(theta - theta0).grad L] over (eta/2) E|g_B|^2"
    return measured("fluctuation and dissipation", statistic, value, error, 1.0, BALANCE)


@eqx.filter_jit
def _both_sides(target, gradient, positions, key):
    center = target.flat(jax.tree.map(lambda x: x.mean(axis=0), positions))

    def one(given):
        position, key = given
        kick = drawn(target, gradient, position, key)
        slope = mean_gradient(target, position)
        return (target.flat(position) - center) @ slope, kick @ kick

    keys = jax.random.split(key, len(jax.tree.leaves(positions)[0]))
    return jax.lax.map(one, (positions, keys), batch_size=256)


def ended(tree: xr.DataTree) -> Position:
    """Final positions of the chains that are not lost."""
    positions, kept = final_positions(tree)
    return {k: jnp.asarray(v[kept]) for k, v in positions.items()}


def late(target: Posterior, tree: xr.DataTree) -> Position:
    """Positions of the second half of every chain that is not lost, those of one chain together; else the final ones."""
    sites, drawn = sorted(name for name, _ in target.model.latents), tree["posterior"]
    if not set(sites) <= set(drawn.data_vars):
        return ended(tree)
    kept, half = final_positions(tree)[1], drawn.sizes["draw"] // 2
    values = {k: np.asarray(drawn[k].values)[kept, half:] for k in sites}
    return jax.vmap(target.model.unconstrain)({k: jnp.asarray(v.reshape(-1, *v.shape[2:])) for k, v in values.items()})


def noise_over_the_law(target: Posterior, gradient: Gradient, positions: Position, seed: int = 0) -> np.ndarray:
    """One gradient drawn at each position, less its mean, one a row: independent where the positions are."""
    return np.asarray(_noise(target, gradient, positions, jax.random.key(seed)), float)


@eqx.filter_jit
def _noise(target, gradient, positions, key):
    def one(given):
        position, key = given
        return drawn(target, gradient, position, key) - mean_gradient(target, position)

    keys = jax.random.split(key, len(jax.tree.leaves(positions)[0]))
    return jax.lax.map(one, (positions, keys), batch_size=256)


def continued(dynamics: Dynamics, target: Posterior, tree: xr.DataTree, seed: int) -> np.ndarray:
    """Positions (chain, step, d) of some chains of an ensemble over the next steps, as vectors; without those that are lost."""
    most = MOST_NUMBERS // (2 * LAGS[-1] * target.model.num_parameters)
    values = jax.vmap(target.model.constrain)({k: v[:most] for k, v in ended(tree).items()})
    more = simulate(
        dynamics, target, key=seed, num_chains=len(next(iter(values.values()))), num_steps=2 * LAGS[-1], num_draws=2 * LAGS[-1],
        initial={k: np.asarray(v) for k, v in values.items()}, observables=["loss"], record_positions=True, progress=False,
    )  # fmt: skip
    parts = [
        np.asarray(more["posterior"][name].values, float) for name in sorted(name for name, _ in target.model.latents)
    ]
    paths = np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)
    return paths[np.isfinite(paths).all(axis=(1, 2))]


def linearised(place: Local, flat: float | None = FLAT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curvatures, noise and basis of the directions whose curvature is above a share of the largest; None: all."""
    values, vectors = place.modes(flat)
    assert place.noise is not None  # so are the modes
    return values, vectors.T @ place.noise @ vectors, vectors


def current(paths: Float[np.ndarray, "chain step d"], place: Local, learning_rate: float) -> Assumption:
    """Area rate in the plane in which the linear theory has the largest current, in units of what relaxes there.

    The unit is (h_x + h_y) sqrt(S_xx S_yy), with the covariance of the trajectories.
    """
    values, noise, vectors = linearised(place)
    spread, covariance = learning_rate / 2 * noise, learning_rate * noise / (values[:, None] + values)
    circulation = values[:, None] * covariance - spread
    left, _, right = np.linalg.svd(circulation)
    u, v = left[:, 0], right[0]
    v = v - (u @ v) * u  # of an antisymmetric matrix, orthogonal but for rounding
    v = v / np.linalg.norm(v) if np.linalg.norm(v) > 1e-8 else np.linalg.qr(np.stack([u, left[:, -1]], 1))[0][:, 1]
    centered = (paths - paths.mean(axis=(0, 1))) @ vectors
    x, y = centered @ u, centered @ v
    areas = (x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]).mean(axis=1) / learning_rate
    unit = (u**2 @ values + v**2 @ values) * np.sqrt(np.mean(x**2) * np.mean(y**2))
    predicted = 2 * u @ circulation @ v / unit
    value, error = areas.mean() / unit, areas.std(ddof=1) / np.sqrt(len(areas)) / unit
    note = f"by linear theory {predicted:.3f}"
    if np.linalg.cond(spread) < 1e10:
        produced = production_rate(np.diag(values), covariance, spread) / values.sum()
        note += f"; entropy production {produced:.3g} of tr H"
    return measured("no currents", "area swept, relative", value, error, 0.0, COMMUTATION, note)


def anomalous_diffusion(paths: Float[np.ndarray, "chain step d"], place: Local, learning_rate: float) -> Assumption:
    """Exponent of the mean square displacement less that of the linear process of the same drift and noise."""
    squares = np.stack([np.mean(np.sum((paths[:, k:] - paths[:, :-k]) ** 2, axis=2), axis=1) for k in LAGS], axis=1)
    x = np.log(LAGS)
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    mean = squares.mean(axis=0)
    value = weights @ np.log(mean)
    error = float((squares @ (weights / mean)).std(ddof=1) / np.sqrt(len(squares)))
    values, noise, _ = linearised(place, None)
    kept = 1 - learning_rate * values  # of a step
    friction = 2 - learning_rate * values * (learning_rate * values[-1] < 2)  # of the steps, else of the equation
    kicks = 2 * learning_rate**2 * np.diag(noise) / friction
    null = [np.sum(kicks * kept ** np.arange(k)[:, None]) for k in LAGS]  # a geometric series: flat directions too
    expected = float(weights @ np.log(null))
    note = f"exponent {value:.3f} where a linear process has {expected:.3f}"
    statistic = "exponent of the displacement less the linear one's"
    return measured("diffusion", statistic, value - expected, error, 0.0, EXPONENT, note)


def repetition(target: Posterior, gradient: Gradient, position: Position, num_steps: int, seed: int = 0) -> Assumption:
    """Noise summed over an epoch, over that of as many independent batches; 1 where batches are independent."""
    sums, singles = (np.asarray(x, float) for x in _epochs(target, gradient, position, num_steps, jax.random.key(seed)))
    value, error = ratio_of_means(sums, singles)
    statistic = f"variance of the noise of {num_steps} steps over that of independent batches"
    return measured("independent batches", statistic, value, error, 1.0, REPETITION)


@eqx.filter_jit
def _epochs(target, gradient, position, num_steps, key):
    mean = mean_gradient(target, position)

    def epoch(key) -> tuple[Array, Array]:
        key_state, key_steps = jax.random.split(key)
        state = gradient.init(target.model.num_examples, key_state)

        def step(carry, key):
            state, total, square = carry
            found, state = gradient.estimate(target, key, state, position)
            noise = target.flat(found) - mean
            return (state, total + noise, square + noise @ noise), None

        start = (state, jnp.zeros_like(mean), jnp.zeros(()))
        (_, total, square), _ = jax.lax.scan(step, start, jax.random.split(key_steps, num_steps))
        return total @ total, square

    return jax.lax.map(epoch, jax.random.split(key, NUM_EPOCHS), batch_size=32)


def stationarity(tree: xr.DataTree, names: list[str], margins: Margins = MARGINS) -> Assumption:
    """Whether the law of every observable that decides has forgotten its start; fails where it surely has not."""
    moving, statistic = unsettled(tree, names, margins), "share of observables not shown to be stationary"
    if not moving:
        value = np.nan if moving is None else 0.0
        return from_interval("stationarity", statistic, value, (value, value), 0.0, 0.0)
    share, note = len(moving) / len(names), f"{', '.join(moving)} may still depend on the start"
    holds = False if hopeless(tree, moving, 1.0) else None
    return Assumption("stationarity", statistic, share, (share, share), 0.0, 0.0, holds, note)
