"""Large steps of SGD on a diagonal linear network: the loss stays on a plateau while the map becomes sparse."""

import jax
import numpy as np

from ..dynamics import SGD, GradientDescent
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.diagonal_networks import expected_shrinkage
from .chains import ends
from .claim import Reading, claim, mean
from .diagonal_networks import diagonal_network, product

SCALE, NUM_STEPS = 0.1, 20_000
"""alpha of the start, and steps on the plateau."""
SHARES, REPEATS = (1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4), 6
"""Learning rates, in units of the edge of stability of one example at the sparse map, and chains of each."""
WATCHED, NUM_WATCHED, NUM_EARLY, CHUNK = 1.2, 24, 2000, 200
"""Learning rate, chains and first steps in which the fall is watched step by step, and steps whose mean is taken at a time."""
NEAR = 0.05
"""How near to the sparsest map the end is: the loss falls with what it kills, so that some of it is left."""


@claim(
    "G7",
    "While large steps of SGD hold the loss on a plateau, what the labels do not need shrinks at a rate in proportion to the "
    "loss, until the map is as sparse as the teacher; gradient descent keeps it all",
    "after Andriushchenko, Varre, Pillaud-Vivien and Flammarion (ICML 2023); the rate derived",
)
def sparsification(seed: int) -> list[Reading]:
    """SGD of the library at the largest learning rate at which no run is lost, then at a quarter of it until it fits.

    The fall of log |u^2 - v^2| off the teacher's support is held against its mean over the examples that might be drawn. The
    mistakes: that of u + v or u - v alone; where gradient descent ends.
    """
    rng, readings = np.random.default_rng([seed, 7]), []
    with jax.enable_x64(True):
        for n, d, support in ((40, 100, 4), (40, 80, 3)):
            # Examples orthogonal and of squared length d.
            x = np.sqrt(d) * np.linalg.qr(rng.normal(size=(d, n)))[0].T
            teacher = np.r_[np.ones(support), np.zeros(d - support)]
            start = {"u": np.full(d, np.sqrt(2) * SCALE), "v": np.zeros(d)}
            setting = x, teacher, 1 / np.max(x**2 @ teacher), start, diagonal_network(x, x @ teacher, product), seed
            readings += [fall(*setting), sparsity(*setting)]
    return readings


def fall(x, teacher, edge, start, model, seed):
    """Change of the mean of log |u^2 - v^2| over coordinates that the teacher does not have."""
    rate, d = WATCHED * edge, len(teacher)
    tree = simulate(
        SGD(rate, batch_size=1),
        Posterior(model),
        key=seed,
        num_chains=NUM_WATCHED,
        num_draws=NUM_EARLY,
        num_steps=NUM_EARLY,
        initial={name: np.tile(value, (NUM_WATCHED, 1)) for name, value in start.items()},
        observables=["loss"],
        record_positions=True,
        progress=False,
    )
    u, v = (np.asarray(tree["posterior"][name]) for name in "uv")
    off = teacher == 0
    logs = np.log(np.abs(u[:, -1] ** 2 - v[:, -1] ** 2) / (2 * SCALE**2))
    expected = expected_shrinkage(x, -x @ teacher, rate)[off].mean()  # of the step from the start, where beta is 0
    for first in range(0, NUM_EARLY - 1, CHUNK):
        places = slice(first, min(first + CHUNK, NUM_EARLY - 1))
        changes = expected_shrinkage(x, (u * v)[:, places] @ x.T - x @ teacher, rate)
        expected = expected + changes[..., off].mean(axis=-1).sum(axis=1)
    gone = logs[:, off].mean(axis=1)
    error = float(np.std(gone - expected, ddof=1) / np.sqrt(NUM_WATCHED))
    name = f"fall of log |u^2 - v^2|, {len(x)} examples of {d} coordinates, rate {rate:.3g}"
    return Reading(name, float(np.mean(expected)), float(gone.mean()), error, 0.0, float(np.mean(expected)) / 2)


def sparsity(x, teacher, edge, start, model, seed):
    """The l1 norm of the map at the end, over the teacher's."""
    rates = edge * np.repeat(SHARES, REPEATS)
    many = {name: np.tile(value, (len(rates), 1)) for name, value in start.items()}
    late = ends(SGD(rates, batch_size=1), model, many, seed, NUM_STEPS)
    late = {name: value.reshape(len(SHARES), REPEATS, -1) for name, value in late.items()}
    kept = np.flatnonzero(np.all(np.isfinite(late["u"]), axis=(1, 2)))
    if not kept.size:
        return Reading("learning rates at which no run is lost", 1.0, np.nan)
    at = kept[-1]
    fitted = ends(
        SGD(edge * SHARES[at] / 4, batch_size=1), model, {k: v[at] for k, v in late.items()}, seed, NUM_STEPS // 4
    )
    descent = ends(GradientDescent(0.05), model, start, seed, NUM_STEPS, num_chains=1)
    found, other = (np.sum(np.abs(product(end["u"], end["v"])), axis=1) / np.sum(teacher) for end in (fitted, descent))
    name = f"l1 norm over the teacher's, {len(x)} examples of {len(teacher)} coordinates, rate {edge * SHARES[at]:.3g}"
    return mean(name, 1.0, found, NEAR, other[0])
