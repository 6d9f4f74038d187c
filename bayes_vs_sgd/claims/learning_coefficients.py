"""The learning coefficient of linear networks: what the loss of exact posterior draws says of it."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ..dynamics import LinearNetworkGibbs
from ..model import Model
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.linear_networks import learning_coefficient
from .claim import Reading, claim, mean

SCALE = 1e6
"""The smaller n beta; the other is its square."""
REMAINDER = 4 / (2 * np.log(SCALE) ** 2)
"""Of the extrapolation where m > 1: c / 2 log(n beta)^2, with the constant c of log(n beta) + c below 4 for normal priors."""
NETWORKS = (
    ((2, 2, 2), (0, 1, 2), 48),
    ((3, 2, 4), (0, 1), 48),
    ((4, 10, 10, 10, 4), (0, 3), 10),
    ((1, 1, 1), (0,), 48),
)
"""Widths, ranks of the teacher, and chains."""
CONSTANTS: dict[tuple[tuple[int, ...], int], float] = {
    ((1, 1, 1), 0): 3 * np.log(2) - np.euler_gamma,
    ((3, 2, 4), 0): np.log(2) - np.euler_gamma - 2,
}
"""Of log(n beta) + c in the evidence E det(1 + n beta W_1 W_1')^(-outputs/2), where the eigenvalues' law makes it an integral."""


@claim(
    "C8",
    "n beta E[L - L*] tends to Aoyagi's learning coefficient, by (m - 1) / log(n beta) of its multiplicity m: less than half the "
    "weights, more than half the codimension of the minima, and the same for every rank where the hidden layers are wide",
    "Aoyagi, Neural Networks 172 (2024) 106132, Theorem 1",
)
def of_linear_networks(seed: int) -> list[Reading]:
    r"""Exact Gibbs on whitened inputs without label noise at n beta = 10^6 and 10^12, the draws' random numbers in common.

    E[n beta (L - L*)] = lambda - (m - 1) / (log(n beta) + c) + ..., of which twice the value at the square less the value itself
    removes the second term, whatever m. Their difference gives m - 1 where c is known; elsewhere a c between -4 and 4 would leave
    it uncertain by a half. The mistake is half the rank of the differential of the map at a generic minimum, which is what
    Laplace's method gives, or half the weights where that is right; and m = 1.
    """
    readings = []
    with jax.enable_x64(True):
        for widths, ranks, num_chains in NETWORKS:
            for rank in ranks:
                known = learning_coefficient(widths, rank)
                cold, hot = (excess_loss(widths, rank, scale, num_chains, seed) for scale in (SCALE**2, SCALE))
                half = rank * (widths[0] + widths[-1] - rank) / 2
                if half == known.value:
                    half = sum(a * b for a, b in pairwise(widths)) / 2
                name = f"of {'-'.join(map(str, widths))} at rank {rank}"
                tolerance = REMAINDER if known.multiplicity > 1 else 0.0
                readings.append(mean(f"lambda {name}", known.value, 2 * cold - hot, tolerance, half))
                if (constant := CONSTANTS.get((widths, rank))) is not None:
                    warm, cool = (np.log(scale) + constant for scale in (SCALE, SCALE**2))
                    drawn = (cold - hot) / (1 / warm - 1 / cool)
                    readings.append(mean(f"m - 1 {name}", known.multiplicity - 1, drawn, mistake=0.0))
    return readings


def excess_loss(widths: tuple[int, ...], rank: int, scale: float, num_chains: int, seed: int) -> np.ndarray:
    """Mean of n beta (L - L*) along each chain of the posterior of a network whose teacher is an identity of a rank."""
    pairs = list(zip(widths[1:], widths, strict=False))
    layers = tuple(f"W{i + 1}" for i in range(len(pairs)))

    def program(x, y=None):
        outputs = x
        for name, shape in zip(layers, pairs, strict=True):
            outputs = outputs @ jnp.transpose(numpyro.sample(name, dist.Normal(0, 1).expand(shape).to_event(2)))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(outputs, 1).to_event(1), obs=y)

    optimum = {name: np.eye(*shape) * (np.arange(shape[1]) < rank) for name, shape in zip(layers, pairs, strict=True)}
    count = widths[0]
    inputs = np.sqrt(count) * np.eye(count)
    labels = inputs[:, : widths[-1]] if widths[-1] <= count else np.pad(inputs, ((0, 0), (0, widths[-1] - count)))
    model = Model(program, {"x": inputs, "y": labels * (np.arange(widths[-1]) < rank)}, optimum=optimum)
    tree = simulate(
        LinearNetworkGibbs(layers, 1.0, 1.0), Posterior(model, scale / count), key=seed, num_chains=num_chains,
        num_draws=500, num_warmup=200, initial="optimum", observables=["loss"], progress=False,
    )  # fmt: skip
    least = widths[-1] * np.log(2 * np.pi) / 2
    return scale * (np.asarray(tree["posterior"]["loss"].values) - least).mean(axis=1)
