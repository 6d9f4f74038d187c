"""Exact block Gibbs sampling of deep linear networks, with gauge moves between the layers."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info

MOST_MOVES = 96
"""Gauge moves between wide layers, which would take longer than the layers themselves."""


class GibbsState(NamedTuple):
    """Position."""

    position: Position


class LinearNetworkGibbs(Dynamics):
    r"""Exact sampler of y = W_L ... W_1 x + noise, with W_l ~ N(0, tau_l^2) and Gaussian noise of scale sigma.

    Given the other layers, with A = W_L...W_{l+1}, Z = W_{l-1}...W_1 X and b = beta / sigma^2, layer l is Gaussian
    with precision :math:`b\, ZZ^T \otimes A^T A + (\tau_l^{-2} + \gamma) I`, diagonal in the two eigenbases, so a
    sweep costs nothing that grows with n. Between the layers, W_l -> G W_l and W_{l+1} -> W_{l+1} G^{-1} leave
    the likelihood as it is; G = I + (e^s - 1) u u^T with u uniform on the sphere and s random is proposed, and
    accepted by Metropolis with the Jacobian |det G|^(d_in - d_out). Without those moves the loss mixes and the
    geometry does not.

    Parameters
    ----------
    layers
        Names of the weight sites, from input to output; W_l has shape (d_l, d_{l-1}). A scalar site is 1 by 1, a
        vector site a row.
    noise
        Scale sigma of the observation noise.
    prior_scale
        Scale tau of the prior, one number or one a layer.
    inputs, outputs
        Names of the data.
    gauge_moves
        Moves for each pair of layers in a sweep; by default three for each hidden unit, at most 96.
    """

    law: ClassVar = "exact"
    layers: tuple[str, ...] = eqx.field(static=True)
    inputs: str = eqx.field(static=True)
    outputs: str = eqx.field(static=True)
    gauge_moves: int | None = eqx.field(static=True)
    noise: Array
    prior_scale: Float[Array, " layers"]
    second_moment: Float[Array, "d_in d_in"] | None
    cross_moment: Float[Array, "d_out d_in"] | None
    inputs_basis: tuple[Array, Array] | None
    """Eigenvalues and eigenvectors of the second moment."""

    def __init__(
        self,
        layers: tuple[str, ...],
        noise: Any,
        prior_scale: Any,
        inputs: str = "x",
        outputs: str = "y",
        gauge_moves: int | None = None,
    ):
        self.layers, self.inputs, self.outputs, self.gauge_moves = tuple(layers), inputs, outputs, gauge_moves
        self.noise = jnp.asarray(noise, float)
        self.prior_scale = jnp.asarray(np.broadcast_to(np.asarray(prior_scale, float), (len(layers),)), float)
        self.second_moment = self.cross_moment = self.inputs_basis = None

    def prepare(self, target: Posterior) -> "LinearNetworkGibbs":
        """Compute the data's moments and check the conditionals against the target's log density."""
        data = target.model.compressed or target.model.data
        inputs, outputs = (np.asarray(data[k]).reshape(data[k].shape[0], -1) for k in (self.inputs, self.outputs))
        moment = inputs.T @ inputs
        ready = eqx.tree_at(
            lambda s: (s.second_moment, s.cross_moment, s.inputs_basis),
            self,
            (jnp.asarray(moment), jnp.asarray(outputs.T @ inputs), tuple(map(jnp.asarray, np.linalg.eigh(moment)))),
            is_leaf=lambda x: x is None,
        )
        _check_conditionals(ready, target.of_one_chain())
        return ready

    def init(self, target: Posterior, key: Array, position: Position) -> GibbsState:
        """Start at a position."""
        return GibbsState(position)

    def step(self, target: Posterior, key: Array, state: GibbsState) -> tuple[GibbsState, Info]:
        """One sweep: every layer from its conditional, then the gauge moves."""
        weights = self._matrices(state.position)
        key_layers, key_gauge = jax.random.split(key)
        noise = target.unflat(jax.random.normal(key_layers, (target.model.num_parameters,)))
        for layer, layer_noise in enumerate(self._matrices(noise)):
            mean, scale, left, right = self._conditional(target, weights, layer)
            weights[layer] = left @ (mean + scale * layer_noise) @ right.T
        accepted = jnp.ones(())
        if len(weights) > 1:
            weights, accepted = self._gauge(target, key_gauge, weights)
        position = {n: w.reshape(jnp.shape(state.position[n])) for n, w in zip(self.layers, weights, strict=True)}
        info = {"num_gradients": jnp.asarray(float(target.model.num_rows * len(weights))), "acceptance_rate": accepted}
        return GibbsState(position), info

    def _matrices(self, position: Position) -> list[Array]:
        return [jnp.atleast_2d(position[name]) for name in self.layers]

    def _centers(self, target: Posterior) -> Sequence[Array | float]:
        return [0.0] * len(self.layers) if target.center is None else self._matrices(target.center)

    def _conditional(self, target: Posterior, weights: list[Array], layer: int) -> tuple[Array, Array, Array, Array]:
        """Mean and scale of a layer in the eigenbases of A'A (left) and ZZ' (right), and those bases."""
        assert self.second_moment is not None  # by prepare
        assert self.cross_moment is not None
        assert self.inputs_basis is not None
        below, above = jnp.eye(weights[0].shape[1]), jnp.eye(weights[-1].shape[0])
        for matrix in weights[:layer]:
            below = matrix @ below
        for matrix in reversed(weights[layer + 1 :]):
            above = above @ matrix
        precision = target.inverse_temperature / self.noise**2
        left_values, left = (
            (jnp.ones(len(above)), above) if layer == len(weights) - 1 else jnp.linalg.eigh(above.T @ above)
        )
        right_values, right = self.inputs_basis if layer == 0 else jnp.linalg.eigh(below @ self.second_moment @ below.T)
        pull = self._centers(target)[layer] * target.localization
        linear = precision * above.T @ self.cross_moment @ below.T + pull
        total = precision * jnp.outer(jnp.maximum(left_values, 0), jnp.maximum(right_values, 0))
        total = total + self.prior_scale[layer] ** -2 + target.localization
        return left.T @ linear @ right / total, 1 / jnp.sqrt(total), left, right

    def _gauge(self, target: Posterior, key: Array, weights: list[Array]) -> tuple[list[Array], Array]:
        """Metropolis moves along random one-parameter groups between neighbouring layers."""
        accepted = []
        for layer in range(len(weights) - 1):
            moves = min(3 * weights[layer].shape[0], MOST_MOVES) if self.gauge_moves is None else self.gauge_moves
            if moves == 0:
                continue

            def move(carry, draws, layer=layer):
                lower, upper = carry
                new_lower, new_upper, log_ratio = self._propose(target, draws[:-1], layer, lower, upper)
                accept = jnp.log(draws[-1]) < log_ratio
                return (jnp.where(accept, new_lower, lower), jnp.where(accept, new_upper, upper)), accept

            random = jnp.column_stack(
                [
                    jax.random.normal(jax.random.fold_in(key, 2 * layer), (moves, weights[layer].shape[0] + 1)),
                    jax.random.uniform(jax.random.fold_in(key, 2 * layer + 1), (moves, 2)),
                ]
            )
            pair, accepts = jax.lax.scan(move, (weights[layer], weights[layer + 1]), random)
            weights[layer], weights[layer + 1] = pair
            accepted.append(jnp.mean(accepts))
        return weights, jnp.mean(jnp.stack(accepted)) if accepted else jnp.ones(())

    def _propose(self, target: Posterior, draws: Array, layer: int, lower: Array, upper: Array) -> tuple:
        """G = I + (e^s - 1) u u', and the log ratio of the density times the Jacobian.

        ``draws``: normals for the direction and for s, a uniform for the size of s, spread over its scales (0.03 to 2).
        """
        direction, move, level = draws[:-2], draws[-2], draws[-1]
        direction = direction / jnp.linalg.norm(direction)
        log_scale = 0.03 * (2 / 0.03) ** level * move
        new_lower = lower + jnp.expm1(log_scale) * jnp.outer(direction, direction @ lower)
        new_upper = upper + jnp.expm1(-log_scale) * jnp.outer(upper @ direction, direction)
        centers = self._centers(target)

        def log_prior(matrix, which):
            pull = target.localization * jnp.sum((matrix - centers[which]) ** 2)
            return -0.5 * (jnp.sum(matrix**2) / self.prior_scale[which] ** 2 + pull)

        log_ratio = (lower.shape[1] - upper.shape[0]) * log_scale
        log_ratio += log_prior(new_lower, layer) - log_prior(lower, layer)
        log_ratio += log_prior(new_upper, layer + 1) - log_prior(upper, layer + 1)
        return new_lower, new_upper, log_ratio

    @property
    def settings(self) -> dict[str, Any]:
        """Layers, noise and prior."""
        return {
            "layers": list(self.layers),
            "noise": float(self.noise),
            "prior_scale": self.prior_scale.tolist(),
            "gauge_moves": self.gauge_moves,
        }


@eqx.filter_jit
def _changes(gibbs: LinearNetworkGibbs, target: Posterior, vectors: Array) -> list[tuple[Array, Array, Array]]:
    """For each layer moved alone: change of the target's log density, of the conditional's, and the size of the first."""
    first, second = (target.unflat(vector) for vector in vectors)
    weights = gibbs._matrices(first)
    changes = []
    for layer, name in enumerate(gibbs.layers):
        mean, scale, left, right = gibbs._conditional(target, weights, layer)
        before, after = (
            -0.5 * jnp.sum(((left.T @ gibbs._matrices(p)[layer] @ right - mean) / scale) ** 2) for p in (first, second)
        )
        moved, started = target.log_density(first | {name: second[name]}), target.log_density(first)
        changes.append((moved - started, after - before, jnp.abs(moved) + jnp.abs(started)))
    return changes


def _check_conditionals(gibbs: LinearNetworkGibbs, target: Posterior) -> None:
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
