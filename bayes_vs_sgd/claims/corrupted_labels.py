"""SGD as gradient descent on corrupted labels: one step of the library's SGD, its value and its law."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from ..dynamics import SGD, Minibatch
from ..model import Model
from ..theory.label_noise import corrupted_label_covariance, corrupted_label_energy, plateau_covariance
from .chains import ends
from .claim import Reading, claim, mean


@claim(
    "G2",
    "SGD is gradient descent on labels corrupted in proportion to the residuals: each step exactly, and in covariance",
    "after Andriushchenko, Varre, Pillaud-Vivien and Flammarion (ICML 2023), with the factors derived again",
)
def corrupted_labels(seed: int) -> list[Reading]:
    """One step of the library's SGD on a tanh network, from one place: its value, and its law over many chains."""
    with jax.enable_x64(True):
        rng = np.random.default_rng([seed, 2])
        return [
            reading
            for n, batch_size, plateau in [(7, 1, False), (20, 3, False), (7, 1, True), (20, 3, True)]
            for reading in corrupted_step(rng, seed, n, batch_size, plateau)
        ]


def tanh_program(x, y=None):
    """Two tanh units and two inputs."""
    lower = numpyro.sample("V", dist.Normal(0, 1).expand((2, 2)).to_event(2))
    upper = numpyro.sample("a", dist.Normal(0, 1).expand((2,)).to_event(1))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ jnp.transpose(lower)) @ upper, 1), obs=y)


def corrupted_step(rng, seed, n, batch_size, plateau, rate=0.1, num_chains=20_000):
    """Readings of one step; on a ``plateau`` the labels are such that all residuals have one size."""
    x, labels = rng.normal(size=(n, 2)), rng.normal(size=n)
    position = {"V": rng.normal(size=(2, 2)), "a": rng.normal(size=2)}
    flat, unravel = ravel_pytree({k: jnp.asarray(v) for k, v in position.items()})

    def outputs(vector):
        values = unravel(vector)
        return jnp.tanh(jnp.asarray(x) @ values["V"].T) @ values["a"]

    if plateau:
        labels = np.asarray(outputs(flat)) + 0.8 * np.sign(labels)
    residuals, features = np.asarray(outputs(flat)) - labels, np.asarray(jax.jacobian(outputs)(flat))
    gradient, loss = residuals @ features / n, np.mean(residuals**2) / 2
    model = Model(tanh_program, data={"x": x, "y": labels})
    moved = ends(SGD(rate, batch_size=batch_size), model, position, seed, 1, num_chains)
    moved = np.concatenate([moved["V"].reshape(num_chains, 4), moved["a"]], axis=1)  # in the order of ``flat``
    drawn = (np.asarray(flat) - moved) / rate - gradient
    square, name = np.sum(drawn**2, axis=1), f"{n} examples, batches of {batch_size}"
    if plateau:
        even = plateau_covariance(features, gradient, loss, batch_size)
        wrong = loss * np.sum(features**2) / batch_size  # sqrt(eta delta) Phi' dB
        return [mean(f"variance of the gradient on a plateau, {name}", np.trace(even), square, 0.0, wrong)]
    variance = np.trace(features.T @ corrupted_label_covariance(residuals, batch_size) @ features) / n**2
    counts = example_counts(n, batch_size, seed)
    corrupted, halfway = residuals * (1 - n / batch_size * counts), residuals * (1 - counts)
    along = rng.normal(size=flat.size)
    step, wrong = (along @ features.T @ (residuals - c) / n for c in (corrupted, halfway))
    taken = along @ np.asarray(flat - moved[0]) / rate
    readings = [
        Reading(f"one step along a direction, {name}", step, float(taken), 0.0, 1e-10, wrong),
        mean(f"variance of the gradient, {name}", variance, square, 0.0, n / 2 * variance),
    ]
    if batch_size == 1:
        every = residuals * (1 - n * np.eye(n))  # one row for each example that may be drawn
        energy = float(np.mean(np.sum(every**2, axis=1)))
        for is_mean, value in ((True, loss), (False, n * loss)):
            right, wrong = (corrupted_label_energy(value, n, kind) for kind in (is_mean, not is_mean))
            kind = "mean" if is_mean else "summed"
            readings.append(Reading(f"E norm(xi)^2 by the {kind} loss, {name}", right, energy, 0.0, 1e-10, wrong))
    return readings


def example_counts(n, batch_size, seed):
    """How often the first step of chain 0 drew each example."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), 0)
    rows, _ = Minibatch(batch_size=batch_size).draw(n, key, ())
    return np.bincount(np.asarray(rows), minlength=n)
