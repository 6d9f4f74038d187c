"""Exact block Gibbs sampling of deep linear networks, with gauge moves between the layers."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..factorisations import eigenvectors, left_vectors, right_vectors
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info
from .gibbs_checks import check_conditionals, check_rounding

PROPOSALS = 8
"""For each direction of a gauge move."""


class GibbsState(NamedTuple):
    """Position."""

    position: Position


class LinearNetworkGibbs(Dynamics):
    r"""Exact sampler of y = W_L ... W_1 x + noise, with W_l ~ N(0, tau_l^2) and Gaussian noise of scale sigma.

    Given the other layers, with A = W_L...W_{l+1}, Z = W_{l-1}...W_1 X and b = beta / sigma^2, layer l is Gaussian
    with precision :math:`b\, ZZ^T \otimes A^T A + (\tau_l^{-2} + \gamma) I`, diagonal in the two eigenbases, so a
    sweep costs nothing that grows with n. Between the layers, W_l -> G W_l and W_{l+1} -> W_{l+1} G^{-1} leave
    the likelihood as it is; G = Q e^s Q^T, with Q uniform on the orthogonal group and s diagonal, is moved by Metropolis
    with the Jacobian |det G|^(d_in - d_out): the s of all columns of Q at once, since they are independent. Without
    those moves the loss mixes and the geometry does not.

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
        Bases Q for each pair of layers in a sweep.
    """

    law: ClassVar = "exact"
    layers: tuple[str, ...] = eqx.field(static=True)
    inputs: str = eqx.field(static=True)
    outputs: str = eqx.field(static=True)
    gauge_moves: int = eqx.field(static=True)
    noise: Array
    prior_scale: Float[Array, " layers"]
    inputs_root: Float[Array, "rank d_in"] | None
    """R of X' = Q R, the rows of X' being examples."""
    inputs_basis: Float[Array, "d_in d_in"] | None
    """Eigenvectors of R'R."""
    cross_moment: Float[Array, "d_out d_in"] | None

    def __init__(
        self,
        layers: tuple[str, ...],
        noise: Any,
        prior_scale: Any,
        inputs: str = "x",
        outputs: str = "y",
        gauge_moves: int = 1,
    ):
        self.layers, self.inputs, self.outputs, self.gauge_moves = tuple(layers), inputs, outputs, gauge_moves
        self.noise = jnp.asarray(noise, float)
        self.prior_scale = jnp.asarray(np.broadcast_to(np.asarray(prior_scale, float), (len(layers),)), float)
        self.inputs_root = self.inputs_basis = self.cross_moment = None

    def prepare(self, target: Posterior) -> "LinearNetworkGibbs":
        """Compute the data's moments and check the conditionals against the target's log density."""
        data = target.model.compressed or target.model.data
        inputs, outputs = (np.asarray(data[k]).reshape(data[k].shape[0], -1) for k in (self.inputs, self.outputs))
        root = np.linalg.qr(inputs, mode="r")
        ready = eqx.tree_at(
            lambda s: (s.inputs_root, s.inputs_basis, s.cross_moment),
            self,
            (jnp.asarray(root), jnp.asarray(np.linalg.svd(root)[2].T), jnp.asarray(outputs.T @ inputs)),
            is_leaf=lambda x: x is None,
        )
        check_conditionals(ready, target.of_one_chain())
        check_rounding(ready, target)
        return ready

    def init(self, target: Posterior, key: Array, position: Position) -> GibbsState:
        """Start at a position."""
        return GibbsState(position)

    def step(self, target: Posterior, key: Array, state: GibbsState) -> tuple[GibbsState, Info]:
        """One sweep: every layer from its conditional, then the gauge moves."""
        weights = self.matrices(state.position)
        key_layers, key_gauge = jax.random.split(key)
        noise = target.unflat(jax.random.normal(key_layers, (target.model.num_parameters,)))
        above, below = suffixes(weights), None
        for layer, layer_noise in enumerate(self.matrices(noise)):
            mean, scale, left, right = self._given(target, layer, below, above[layer])
            weights[layer] = left @ (mean + scale * layer_noise) @ right.T
            below = weights[layer] if below is None else weights[layer] @ below
        accepted = jnp.ones(())
        if len(weights) > 1 and self.gauge_moves:
            weights, accepted = self._gauge(target, key_gauge, weights)
        position = {n: w.reshape(jnp.shape(state.position[n])) for n, w in zip(self.layers, weights, strict=True)}
        info = {"num_gradients": jnp.asarray(float(target.model.num_rows * len(weights))), "acceptance_rate": accepted}
        return GibbsState(position), info

    def matrices(self, position: Position) -> list[Array]:
        """Layers as matrices, from input to output."""
        return [jnp.atleast_2d(position[name]) for name in self.layers]

    def conditional(self, target: Posterior, weights: list[Array], layer: int) -> tuple[Array, Array, Array, Array]:
        """Mean and scale of a layer in the eigenbases of A'A (left) and ZZ' (right), and those bases."""
        below = None
        for matrix in weights[:layer]:
            below = matrix if below is None else matrix @ below
        return self._given(target, layer, below, suffixes(weights)[layer])

    def _given(
        self, target: Posterior, layer: int, below: Array | None, above: Array | None
    ) -> tuple[Array, Array, Array, Array]:
        """The conditional from the products of the layers below and above; None for no layers.

        From singular vectors: A'A of a deep network has a condition number beyond that of the machine.
        """
        assert self.inputs_root is not None  # by prepare
        assert self.inputs_basis is not None
        assert self.cross_moment is not None
        precision = target.inverse_temperature / self.noise**2
        if above is None:
            left = outputs = jnp.eye(len(self.cross_moment))
        else:
            left = right_vectors(above)
            outputs = above @ left
        if below is None:
            right = inputs = self.inputs_basis
        else:
            right = left_vectors(below @ self.inputs_root.T)
            inputs = below.T @ right
        linear = precision * outputs.T @ (self.cross_moment @ inputs)
        total = precision * jnp.outer(jnp.sum(outputs**2, axis=0), jnp.sum((self.inputs_root @ inputs) ** 2, axis=0))
        if target.center is not None:
            linear = linear + target.localization * left.T @ self.matrices(target.center)[layer] @ right
        total = total + self.prior_scale[layer] ** -2 + target.localization
        return linear / total, 1 / jnp.sqrt(total), left, right

    def _gauge(self, target: Posterior, key: Array, weights: list[Array]) -> tuple[list[Array], Array]:
        """Gauge moves between neighbouring layers. All their random numbers at once: each call takes long to compile."""
        widths = np.array([len(matrix) for matrix in weights[:-1]])
        moves, numbers = self.gauge_moves, PROPOSALS * widths
        bases = jax.random.normal(key, (moves, np.sum(widths**2)))
        normals, uniforms = (
            draw(jax.random.fold_in(key, i + 1), (moves, np.sum(numbers)))
            for i, draw in enumerate((jax.random.normal, jax.random.uniform))
        )
        bases = jnp.split(bases, np.cumsum(widths**2)[:-1], axis=1)
        normals, uniforms = (jnp.split(x, np.cumsum(numbers)[:-1], axis=1) for x in (normals, uniforms))
        accepted = []
        for layer, width in enumerate(widths):
            draws = (
                bases[layer].reshape(moves, width, width),
                normals[layer].reshape(moves, PROPOSALS, width),
                uniforms[layer].reshape(moves, PROPOSALS, width),
            )
            pair, accepts = jax.lax.scan(
                partial(self._rescale, target, layer), (weights[layer], weights[layer + 1]), draws
            )
            weights[layer], weights[layer + 1] = pair
            accepted.append(jnp.mean(accepts))
        return weights, jnp.mean(jnp.stack(accepted))

    def _rescale(self, target: Posterior, layer: int, pair: tuple[Array, Array], draws: Any) -> tuple[tuple, Array]:
        """G = Q e^s Q', with Q uniform on the orthogonal group and the s of its columns moved at once."""
        lower, upper = pair
        normal, normals, uniforms = draws
        basis = eigenvectors(normal + normal.T)  # uniform
        rows, columns = basis.T @ lower, (upper @ basis).T
        a, b = (
            (self.prior_scale[which] ** -2 + target.localization) * jnp.sum(x**2, axis=1)
            for which, x in ((layer, rows), (layer + 1, columns))
        )
        c = d = jnp.zeros(len(lower))
        if target.center is not None:
            below, above = self.matrices(target.center)[layer : layer + 2]
            c = target.localization * jnp.sum(rows * (basis.T @ below), axis=1)
            d = target.localization * jnp.sum(columns * (above @ basis).T, axis=1)
        s, accepted = log_scales(normals, uniforms, a, b, c, d, lower.shape[1] - upper.shape[0])
        lower = lower + basis @ (jnp.expm1(s)[:, None] * rows)
        upper = upper + (jnp.expm1(-s)[:, None] * columns).T @ basis.T
        return (lower, upper), jnp.mean(accepted)

    @property
    def settings(self) -> dict[str, Any]:
        """Layers, noise and prior."""
        return {
            "layers": list(self.layers),
            "noise": float(self.noise),
            "prior_scale": self.prior_scale.tolist(),
            "gauge_moves": self.gauge_moves,
        }


def suffixes(matrices: list[Array]) -> list[Array | None]:
    """Products W_L ... W_{l+1} of the layers above each layer l; None above the last."""
    found: list[Array | None] = [None]
    for matrix in reversed(matrices[1:]):
        found.append(matrix if found[-1] is None else found[-1] @ matrix)
    return found[::-1]


def log_scales(
    normals: Float[Array, "proposals width"],
    uniforms: Float[Array, "proposals width"],
    a: Array,
    b: Array,
    c: Array,
    d: Array,
    excess: int,
) -> tuple[Float[Array, " width"], Float[Array, "proposals width"]]:
    r"""Move every s from 0, leaving the law of density exp(-(a e^{2s} + b e^{-2s})/2 + c e^s + d e^{-s} + excess s) as it is.

    Metropolis proposals come in turn from a normal at the mode for c = d = 0, :math:`a e^{2s} - b e^{-2s} = excess`, and
    from one at the present s, both of the width there, :math:`(4 excess^2 + 16 ab)^{-1/4}`.
    """
    root = jnp.sqrt(excess**2 + 4 * a * b)
    mode = 0.5 * jnp.log(jnp.where(excess < 0, 2 * b / (root - excess), (root + excess) / (2 * a)))
    width = 1 / jnp.sqrt(2 * root)

    def log_density(s):
        return -0.5 * (a * jnp.exp(2 * s) + b * jnp.exp(-2 * s)) + c * jnp.exp(s) + d * jnp.exp(-s) + excess * s

    def move(s, draws):
        local, normal, uniform = draws
        proposed = jnp.where(local, s, mode) + width * normal
        log_ratio = log_density(proposed) - log_density(s)
        log_ratio += jnp.where(local, 0.0, (normal**2 - ((s - mode) / width) ** 2) / 2)
        accepted = jnp.log(uniform) < log_ratio
        return jnp.where(accepted, proposed, s), accepted

    return jax.lax.scan(move, jnp.zeros_like(a), (jnp.arange(len(normals)) % 2 == 1, normals, uniforms))
