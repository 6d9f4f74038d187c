"""Label noise in linear networks: the determinant, Ito's drift and balancedness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ..dynamics import SGD, SGLD, GradientDescent, LabelNoise
from ..model import Model
from ..posterior import Posterior
from ..results import final_positions
from ..simulate import simulate
from ..theory import label_noise as theory
from .chains import ends
from .claim import Reading, claim, mean, ratio

AFTER_RICHARDSON = 0.02
"""Relative: what a finite learning rate leaves of the stochastic equation's law after extrapolation in the rate."""
MANY, KURTOSIS = 2000, 3 - 1 / 16
"""Chains where the spread between them is measured; kurtosis of the label noise, the counts of 32 bits."""


def two_layers(x, y, hidden):
    """Model y = x W1' W2' + N(0, 1), its loss 1/(2n) sum of squares, with the squared norms of layers and imbalance."""

    def program(x, y=None):
        lower = numpyro.sample("W1", dist.Normal(0, 1).expand((hidden, x.shape[1])).to_event(2))
        upper = numpyro.sample("W2", dist.Normal(0, 1).expand((outputs, hidden)).to_event(2))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ jnp.transpose(lower) @ jnp.transpose(upper), 1).to_event(1), obs=y)

    outputs = np.shape(y)[1]
    measured: dict[str, Any] = {"norm_imbalance": lambda model, values: jnp.sum(imbalance(values) ** 2)}
    for name in ("W1", "W2"):
        measured[f"norm_{name}"] = lambda model, values, name=name: jnp.sum(values[name] ** 2)
    return Model(program, data={"x": x, "y": y}, observables=measured)


def at_two_rates(statistic, model, start, rate, noise, time, seed, num_chains=100):
    """Statistic of the layers after a time of label-noise SGD, at the rate and at half of it with eta zeta^2 the same.

    One value for each chain at either, of which twice the second less the first is extrapolated to rate 0. Without noise it is
    gradient descent.
    """
    found = []
    for eta in (rate, rate / 2):
        dynamics = SGD(eta, sampling=LabelNoise(np.sqrt(noise / eta))) if noise else GradientDescent(eta)
        found.append(statistic(ends(dynamics, model, start, seed, round(time / eta), num_chains)))
    return found


@claim(
    "G1",
    "Gradient steps shrink the determinant of a two-layer linear network by a product over the residuals' singular values, "
    "on every path; label noise makes it fall exponentially in time",
    "after Varre, Sagitova and Flammarion (NeurIPS 2024), derived again",
)
def determinant(seed: int) -> list[Reading]:
    """The identity on a path of gradient descent and of label noise; the rate in the limit of small steps."""
    rng, readings = np.random.default_rng([seed, 1]), []
    settings = [(20, 5, 2, 10, 0.002, 20.0, 1000), (12, 3, 3, 7, 0.02, 1.0, 400), (9, 2, 4, 6, 0.05, 0.0, 300)]
    with jax.enable_x64(True):
        for n, p, k, hidden, rate, variance, steps in settings:
            x, start, labels = scaled_problem(rng, n, p, k, hidden)
            change, residuals = determinant_path(x, labels, start, rate, variance, steps, jax.random.key(seed))
            name = f"log det of {p}-{hidden}-{k}, rate {rate:g}, label variance {variance:g}"
            readings.append(Reading(name, theory.log_determinant_change(residuals, rate), change, 0.0, 1e-9, 0.0))
        for n, p, k, hidden, rate, variance, time in [(20, 5, 2, 10, 0.002, 20.0, 2.0), (12, 3, 3, 7, 0.002, 8.0, 1.5)]:
            x, start, labels = scaled_problem(rng, n, p, k, hidden)
            layers = {"W1": start[:, :p], "W2": start[:, p:].T}
            # The library's loss is a mean over examples: inputs and labels times sqrt(n) make it the sum.
            model = two_layers(np.sqrt(n) * x, np.sqrt(n) * labels, hidden)
            whole, half = at_two_rates(log_determinant, model, layers, rate, n * rate * variance, time, seed)
            change = 2 * half - whole - log_determinant(layers)
            predicted = theory.log_determinant_rate(x, k, rate, variance) * time
            name = f"log det of {p}-{hidden}-{k} after time {time:g}, rate x label variance {rate * variance:g}"
            readings.append(mean(name, predicted, change, AFTER_RICHARDSON * abs(predicted), predicted / 2))
    return readings


def scaled_problem(rng, n, p, k, hidden):
    """Inputs with k tr(X'X) = 4.868, a normal start [W1' W2] and labels of a normal map."""
    x = rng.normal(size=(n, p))
    x *= np.sqrt(4.868 / k / np.sum(x**2))
    return x, rng.normal(size=(hidden, p + k)), x @ rng.normal(size=(p, k))


def log_determinant(layers):
    """Of Theta' Theta, Theta = [W_1' W_2], from the layers W1 (l by p) and W2 (k by l) of any number of chains."""
    theta = np.concatenate([layers["W1"], np.swapaxes(layers["W2"], -1, -2)], axis=-1)
    return np.linalg.slogdet(np.swapaxes(theta, -1, -2) @ theta)[1]


def determinant_path(x, labels, start, rate, variance, steps, key):
    """Gradient descent on 1/2 norm(Y - X W_1 W_2)^2 by autodiff: change of log det, and the residuals R_t."""
    x, p = jnp.asarray(x), x.shape[1]

    def loss(theta, noisy):
        return jnp.sum((noisy - x @ theta[:, :p].T @ theta[:, p:]) ** 2) / 2

    def step(theta, key):
        noisy = labels + jnp.sqrt(variance) * jax.random.normal(key, labels.shape)
        residual = x.T @ (noisy - x @ theta[:, :p].T @ theta[:, p:])
        return theta - rate * jax.grad(loss)(theta, noisy), residual

    end, residuals = jax.jit(lambda t, k: jax.lax.scan(step, t, k))(jnp.asarray(start), jax.random.split(key, steps))
    first, last = (log_determinant({"W1": t[:, :p], "W2": t[:, p:].T}) for t in (start, np.asarray(end)))
    return float(last - first), np.asarray(residuals)


@claim(
    "G3",
    "Under du = g v dB, dv = g u dB the logarithms of u + v and u - v fall at the rate g^2 / 2 in Ito's sense, that of SGD's "
    "steps, and not at all in Stratonovich's",
    "derived",
    absolute=0.03,
)
def ito_drift(seed: int) -> list[Reading]:
    """Euler's scheme and Heun's, g B taken off: its mean is 0, and it is nearly all that fluctuates.

    Their own biases are 3/4 and 3/8 of g^4 h t to leading order, and the tolerance.
    """
    readings = []
    for number, (strength, time) in enumerate([(1.0, 4.0), (1.5, 1.0)]):
        length, keys = 0.004 / strength**2, jax.random.split(jax.random.key(seed), 2)
        for convention, other, key in zip(("ito", "stratonovich"), ("stratonovich", "ito"), keys, strict=True):
            with jax.enable_x64(True):  # u - v may be as small as exp(-20) of u + v
                key = jax.random.fold_in(key, number)
                drawn = pair_logarithms(key, strength, length, convention == "ito", round(time / length))
            right, wrong = (theory.log_drift(strength, kind) * time for kind in (convention, other))
            for sign, values in zip("+-", np.asarray(drawn), strict=True):
                name = f"log |u {sign} v| after time {time:g}, g = {strength:g}, {convention}"
                readings.append(mean(name, right, values, 0.75 * strength**4 * length * time, wrong))
    return readings


@jax.jit
def pair_logarithms(key, strength, length, euler, steps):
    """Changes of log |u + v| - g B and log |u - v| + g B from u = 1, v = 0.3, in 20,000 paths of Euler's or Heun's scheme."""

    def step(i, state):
        pair, total = state
        noise = strength * jnp.sqrt(length) * jax.random.normal(jax.random.fold_in(key, i), total.shape)
        first = noise * pair[::-1]
        return pair + jnp.where(euler, first, noise / 2 * (pair + pair + first)[::-1]), total + noise

    start = jnp.tile(jnp.array([[1.0], [0.3]]), (1, 20_000))
    (u, v), total = jax.lax.fori_loop(0, steps, step, (start, jnp.zeros(20_000)))
    logs = jnp.log(jnp.abs(jnp.stack([u + v, u - v]))) - jnp.log(jnp.array([[1.3], [0.7]]))
    return logs - jnp.stack([total, -total])


@claim(
    "G4",
    "Label noise balances the layers: W_2'W_2 - W_1 W_1' decays as exp(-c d t) in a square network, alike on every path, and in "
    "any other the norms of the layers come to the ratio of inputs and outputs; descent keeps the imbalance, and Langevin "
    "dynamics spreads it",
    "derived",
)
def balance(seed: int) -> list[Reading]:
    """The same statistic of label-noise SGD, of gradient descent and of Langevin dynamics, whose laws are three.

    Those of the first two are extrapolated in the learning rate; norms are averaged over the second half of a run.
    """
    rng, readings, rate = np.random.default_rng([seed, 4]), [], 0.004
    with jax.enable_x64(True):
        for width, hidden, noise, time, num_chains in [(3, 4, 0.4, 2.0, 100), (1, 1, 0.5, 1.6, MANY)]:
            x = np.sqrt(width) * np.eye(width)
            start = {"W1": 0.7 * rng.normal(size=(hidden, width)), "W2": 0.7 * rng.normal(size=(width, hidden))}
            model = two_layers(x, x @ (np.eye(width) + 0.3 * rng.normal(size=(width, width))), hidden)
            before = imbalance(start)
            predicted = np.sum(theory.balancedness(before, noise, width, time) * before) / np.sum(before**2)

            def kept(layers, before=before):
                return np.sum(imbalance(layers) * before, axis=(-1, -2)) / np.sum(before**2)

            name = f"imbalance kept after c d t = {noise * width * time:g}, width {width}"
            whole, half = at_two_rates(kept, model, start, rate, width * noise, time, seed, num_chains)
            readings.append(mean(name, predicted, 2 * half - whole, AFTER_RICHARDSON * predicted, 1.0))
            if width == 1:
                readings += spread_by_label_noise(whole, half, noise**2 * rate * time)
            whole, half = at_two_rates(kept, model, start, rate, 0.0, time, seed, 1)
            name = f"imbalance kept by gradient descent after time {time:g}, width {width}"
            readings.append(Reading(name, 1.0, (2 * half - whole)[0], 0.0, AFTER_RICHARDSON, predicted))
            readings.append(spread_by_langevin(model, start, seed))
        for inputs, outputs, hidden in [(6, 2, 3), (2, 5, 4)]:
            readings.append(norm_ratio(rng, seed, inputs, outputs, hidden))
    return readings


def spread_by_label_noise(whole, half, noise):
    """Variance between chains of log D of one weight a layer, from what is kept of D at a learning rate and at half of it.

    A step multiplies D by 1 - eta^2 e^2 with an error e that is mostly label noise, of variance c / eta. So the variance is that
    of the squares, (kurtosis - 1) c^2 eta t, and vanishes with eta: D has no martingale part, of which the variance would stay.
    The tolerance is that of a finite learning rate, 5 %.
    """
    squares = [(np.log(values) - np.mean(np.log(values))) ** 2 for values in (whole, half)]
    predicted = (KURTOSIS - 1) * noise
    name = "variance of log D between chains, width 1"
    return [
        mean(name, predicted, squares[0], 0.05 * predicted, 0.0),
        ratio(f"{name}, at half the learning rate over it", 0.5, squares[1], squares[0], 0.025, 1.0),
    ]


def spread_by_langevin(model, start, seed, step=0.001, scale=10.0, num_steps=100):
    """Growth of norm(D)^2 in Langevin dynamics, over that by its noise, 4 (h + 1) int norm(W)^2 dt; by descent it is 0.

    W is both layers, h the hidden units. The normal prior takes 4 int norm(D)^2 dt, and makes the mean of D decay as exp(-2 t):
    tr(D(0) D), of known mean, is a control variate. The tolerance is the length of a step in the time of the loss.
    """
    names = ("norm_W1", "norm_W2", "norm_imbalance")
    tree = simulate(
        SGLD(step),
        Posterior(model, scale / model.num_examples),
        key=seed,
        num_chains=MANY,
        num_draws=num_steps,
        initial={name: np.broadcast_to(value, (MANY, *value.shape)) for name, value in start.items()},
        observables=list(names),
        progress=False,
    )
    (hidden, width), before = start["W1"].shape, imbalance(start)
    first = (np.sum(start["W1"] ** 2), np.sum(start["W2"] ** 2), np.sum(before**2))
    lower, upper, squares = (
        np.insert(np.asarray(tree["posterior"][name]), 0, value, axis=1)
        for name, value in zip(names, first, strict=True)
    )
    product = np.sum(imbalance(final_positions(tree)[0]) * before, axis=(-1, -2))
    kept = product - np.exp(-2 * step * num_steps) * first[2]
    grown = squares[:, -1] - squares[:, 0] + 4 * step * np.sum(squares[:, :-1], axis=1) - 2 * kept
    by_noise = 4 * (hidden + 1) * step * np.sum((lower + upper)[:, :-1], axis=1)
    name = f"spread of the imbalance by Langevin dynamics over that of its noise, {width}-{hidden}-{width}"
    return ratio(name, 1.0, grown, by_noise, scale * step, 0.0)


def imbalance(layers):
    """W_2'W_2 - W_1 W_1' of any number of chains."""
    lower, upper = layers["W1"], layers["W2"]
    return np.swapaxes(upper, -1, -2) @ upper - lower @ np.swapaxes(lower, -1, -2)


def norm_ratio(rng, seed, inputs, outputs, hidden, rate=0.005, noise=0.3, num_chains=100):
    """Ratio of the layers' mean squared norms; the tolerance is that of a finite learning rate, 5 %."""
    x = np.sqrt(inputs) * np.eye(inputs)
    teacher = rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
    tree = simulate(
        SGD(rate, sampling=LabelNoise(np.sqrt(inputs * noise / rate))),
        Posterior(two_layers(x, x @ teacher, hidden)),
        key=seed,
        num_chains=num_chains,
        num_draws=200,
        num_steps=10_000,
        initial_scale=0.5,
        observables=["norm_W1", "norm_W2"],
        progress=False,
    )
    lower, upper = (np.asarray(tree["posterior"][f"norm_W{i}"])[:, 100:].mean(axis=1) for i in (1, 2))
    predicted = theory.stationary_norm_ratio(inputs, outputs)
    name = f"norm(W1)^2 / norm(W2)^2, {inputs} inputs and {outputs} outputs"
    return ratio(name, predicted, lower, upper, 0.05 * predicted, 1.0)
