r"""SGD on condition that it stays in a set {L <= l}: its quasi-stationary law, by runs of which those that leave are replaced.

A run that a step leads out takes the place and the state of another, drawn by lot from those still inside (Fleming and Viot's
process; Burdzy, Holyst and March, Comm. Math. Phys. 214 (2000) 679). With K the kernel of a step and A the set, their law comes
to the one that staying leaves as it is,

.. math:: \nu(B) = \frac{\nu K(A \cap B)}{\nu K(A)} \quad (B \subset A), \qquad \rho = 1 - \nu K(A),

the leading left eigenvector of K cut to A; rho is the escape rate, the chance that a step leads out. It is not the stationary law
cut to A, which has no memory of having stayed: a run near the boundary is soon outside, so nu has less mass there.

Bias and variance are O(1/runs), and runs that replace one another are not independent: the errors are those of independent
replicates. Where the set has parts between which no step leads, the mass of each is that of the start, changed by what left.
"""

from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..layout import chain_axis
from ..manifest import digest
from ..store import remembered
from .splitting import Runs

NUM_LOOKS = 32
"""Times at which the property is looked at, evenly over the second half."""


class Stay(NamedTuple):
    """One replicate: g (look, run), the share of the runs at each step that it left inside, and positions at the end."""

    values: Float[np.ndarray, "look s"]
    stayed: Float[np.ndarray, " step"]
    ends: Float[np.ndarray, "s d"]

    def escapes(self, later: bool) -> float:
        """Escape rate, in the third quarter or in the fourth."""
        return float(1 - np.split(self.stayed, 4)[3 if later else 2].mean())


def stay(runs: Runs, starts: np.ndarray, level: float, key: Array, folder: Path | None = None) -> Stay:
    """Go on from starts for as many steps as lead to them, or read it where the folder holds it already.

    Raises
    ------
    InputError
        If no run is inside.
    """
    numbers = jnp.asarray(starts, float), jnp.asarray(level, float)

    def make() -> dict[str, np.ndarray]:
        found = _stay(runs, *numbers, key, max(int(runs.num_steps) // NUM_LOOKS // 2, 1))
        return {name: np.asarray(value, float) for name, value in found.items()}

    if folder is None:
        found = make()
    else:
        arrays, static = eqx.partition(runs, eqx.is_array)
        names = digest([arrays, *numbers, jax.random.key_data(key)]), static.target.model.program.digest[:8]
        found = remembered(folder / f"staying-{'-'.join(names)}-{digest(repr(static.dynamics))[:4]}.npz", make)
    empty = np.flatnonzero(found["stayed"] == 0)
    if len(empty):
        when = "after training" if empty[0] == 0 else f"{empty[0]} steps after training"
        raise InputError(
            f"no run of SGD is in the set L <= {level:.6g} {when}: give a larger --excess-loss, more --num-steps or --num-seeds"
        )
    return Stay(found["values"], found["stayed"][1:], found["ends"])


@eqx.filter_jit
def _stay(runs: Runs, starts: Array, level: Array, key: Array, spacing: int) -> dict[str, Array]:
    """``stayed`` begins with the share of the starts that is inside."""
    axis, target, (count, _) = chain_axis(*starts.shape), runs.target, starts.shape

    def inside(states):
        return jax.vmap(lambda state: target.model.loss(state.position) <= level, axis)(states)

    def value(state):
        return runs.item(target.model, target.model.constrain(state.position))

    def replaced(states, key):
        """Each that is outside by one that is inside; the share that was inside."""
        kept = inside(states)
        ranks = jnp.cumsum(kept)
        lots = jnp.floor(jax.random.uniform(key, (count,)) * ranks[-1])
        others = jnp.searchsorted(ranks, lots, side="right")
        rows = jnp.where(kept, jnp.arange(count), jnp.minimum(others, count - 1))
        return jax.tree.map(lambda x: jnp.take(x, rows, axis=axis), states), kept.mean()

    def advance(states, index):
        key_lot, key_steps = jax.random.split(jax.random.fold_in(key, index))
        keys = jax.random.split(key_steps, count)
        states = jax.vmap(lambda s, k: runs.dynamics.step(target, k, s)[0], (axis, 0), axis)(states, keys)
        return replaced(states, key_lot)

    def look(states, index):
        states, stayed = jax.lax.scan(advance, states, index * spacing + jnp.arange(spacing))
        return states, (stayed, jax.vmap(value, axis)(states))

    key_first, key_lot, key = jax.random.split(key, 3)
    keys = jax.random.split(key_first, count)
    states = jax.vmap(lambda v, k: runs.dynamics.init(target, k, target.unflat(v)), out_axes=axis)(starts, keys)
    states = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), states)
    states, share = replaced(states, key_lot)
    states, (stayed, values) = jax.lax.scan(look, states, jnp.arange(2 * NUM_LOOKS))
    ends = jax.vmap(lambda state: target.flat(state.position), axis)(states)
    return {"values": values[NUM_LOOKS:], "stayed": jnp.append(share, stayed), "ends": ends}
