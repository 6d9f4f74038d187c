"""Whether block Gibbs is exact for a target: its conditionals are the target's, and rounding does not change them."""

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import InputError
from ..posterior import Posterior

if TYPE_CHECKING:
    from .gibbs import LinearNetworkGibbs

ROUNDING = 0.01
"""Largest share of the prior's precision that rounding may make up."""


@eqx.filter_jit
def _changes(gibbs: "LinearNetworkGibbs", target: Posterior, vectors: Array) -> list[tuple[Array, Array, Array]]:
    """For each layer moved alone: change of the target's log density, of the conditional's, and the size of the first."""
    first, second = (target.unflat(vector) for vector in vectors)
    weights = gibbs.matrices(first)
    changes = []
    for layer, name in enumerate(gibbs.layers):
        mean, scale, left, right = gibbs.conditional(target, weights, layer)
        before, after = (
            -0.5 * jnp.sum(((left.T @ gibbs.matrices(p)[layer] @ right - mean) / scale) ** 2) for p in (first, second)
        )
        moved, started = target.log_density(first | {name: second[name]}), target.log_density(first)
        changes.append((moved - started, after - before, jnp.abs(moved) + jnp.abs(started)))
    return changes


def check_conditionals(gibbs: "LinearNetworkGibbs", target: Posterior) -> None:
    """Along each block, the change of the target's log density is that of the Gaussian conditional."""
    names = {name for name, _ in target.model.latents}
    if names != set(gibbs.layers):
        raise InputError(f"exact_sampler knows the layers {sorted(gibbs.layers)}, the program has {sorted(names)}")
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(2, target.model.num_parameters)), float)
    for name, (expected, found, size) in zip(gibbs.layers, _changes(gibbs, target, vectors), strict=True):
        if not abs(expected - found) <= 1e4 * np.finfo(np.asarray(found).dtype).eps * (1 + size):
            raise InputError(
                f"exact_sampler is not exact for {name!r}: its log density changes by {found:.6g} where the program's "
                f"changes by {expected:.6g}; compare layers, noise and prior_scale with the program"
            )


def check_rounding(gibbs: "LinearNetworkGibbs", target: Posterior) -> None:
    """Singular values of products, of order prod_l tau_l sqrt(d_l), are rounded to their largest one's last digit.

    Where that meets the data with more than the prior's precision, what should be free is held.
    """
    widths = {name: max(shape, default=1) for name, shape in target.model.latents}
    product = np.prod(np.asarray(gibbs.prior_scale) * np.sqrt([widths[name] for name in gibbs.layers]))
    precision = np.max(np.asarray(target.inverse_temperature)) * np.linalg.norm(np.asarray(gibbs.inputs_root), 2) ** 2
    dtype = target.localization.dtype
    if precision * (np.finfo(dtype).eps * product / float(gibbs.noise)) ** 2 > ROUNDING:
        raise InputError(
            f"exact_sampler is not exact in {dtype} for layers of {', '.join(map(str, widths.values()))} units on "
            f"{target.model.num_examples} examples: use float64 (--dtype float64, or jax_enable_x64), or --sampler nuts"
        )
