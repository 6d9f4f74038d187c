"""Stochastic collapse: multiplicative noise in a quartic well, a tanh neuron, and modes of two and of more layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ..dynamics import SGD, LabelNoise
from ..model import Model
from ..theory.collapse import DeepModeLaw, critical_noise, growth_rate, neuron_exponents, square_law
from .chains import ends
from .claim import Reading, claim, mean, ratio, squared_deviations

NUM_CHAINS, STEP, SHORT_STEP = 1000, 0.005, 0.001
"""Paths of a stochastic equation, and time steps of Euler's scheme: in the stationary law, and for growth rates."""


@jax.jit
def weight_pair(key, target, noise, start, length, burn, keep):
    """Euler's scheme of du = (s* - uv) v dt + sqrt(c) v dB, dv = (s* - uv) u dt + sqrt(c) u dB (Ito).

    A step multiplies u + v by 1 + m and u - v by 1 - m, of which the logarithms are kept. With u = v it is theta in the quartic
    well with mu = s* and zeta^2 = c. Returns the change of log |u + v|, and averages of uv and (uv)^2 after ``burn`` steps.
    """

    def step(i, state):
        logs, moments = state
        product = (jnp.exp(2 * logs[0]) - jnp.exp(2 * logs[1])) / 4
        normal = jax.random.normal(jax.random.fold_in(key, i), product.shape)
        move = length * (target - product) + jnp.sqrt(noise * length) * normal
        logs += jnp.log(jnp.abs(1 + jnp.stack([move, -move])))
        return logs, moments + jnp.where(i < burn, 0.0, jnp.stack([product, product**2]) / keep)

    logs = jnp.log(jnp.abs(jnp.array([start[0] + start[1], start[0] - start[1]])))[:, None] + jnp.zeros((2, NUM_CHAINS))
    end, moments = jax.lax.fori_loop(0, burn + keep, step, (logs, jnp.zeros((2, NUM_CHAINS))))
    return end[0] - logs[0], *moments


def products(key, target, noise, start, times):
    """Averages of uv and of its square in each path over the second of two times."""
    burn, keep = (round(time / STEP) for time in times)
    return np.asarray(weight_pair(key, target, noise, jnp.asarray(start), STEP, burn, keep)[1:], float)


def stationary_bias(target, noise, length):
    """What Euler's scheme adds to the mean and the variance of s = uv, to first order in its step.

    From E log |1 + m| = 0 and E s ((1 + m)^2 - 1) = 0 in the stationary law, expanded to second order in the step.
    """
    first, second, third = (square_law(target, np.sqrt(noise)).moment(k) for k in (1, 2, 3))
    of_mean = -length * (noise * target / 2 + noise**2 / 8)
    return of_mean, (1.5 * noise - target) * of_mean + length / 2 * (target**2 * first - 2 * target * second + third)


def growth_bias(drift, noise, length):
    """What a step multiplying by 1 + length drift + sqrt(length noise) z adds to the rate drift - noise / 2, to first order."""
    return length * (-(drift**2) / 2 + drift * noise - 0.75 * noise**2)


def growth_reading(key, name, drift, noise, time, mistake):
    """Reading of the rate of log |w| from a start so near 0 that the loss is quadratic."""
    start, steps = jnp.array([1e-9, 0.4e-9]), round(time / SHORT_STEP)
    drawn = np.asarray(weight_pair(key, drift, noise, start, SHORT_STEP, steps, 0)[0], float) / time
    return mean(name, growth_rate(drift, np.sqrt(noise)), drawn, abs(growth_bias(drift, noise, SHORT_STEP)), mistake)


@claim(
    "H1",
    "In the well d theta = (mu theta - theta^3) dt + zeta theta dB all is lost at 0 where zeta^2 > 2 mu; else theta^2 has mean "
    "mu - zeta^2 / 2",
    "after Chen, Kunin, Yamamura and Ganguli (NeurIPS 2023), derived again",
)
def quartic_well(seed: int) -> list[Reading]:
    """Euler's scheme of theta; the tolerance is its bias. The mistake puts zeta^2 > mu for the threshold."""
    readings, keys = [], jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), 6)
    settings = [(1.5, 0.5, (20, 30)), (1.5, 1.0, (30, 40)), (0.8, 0.9, (50, 60))]
    for key, (mu, zeta, times) in zip(keys, settings, strict=False):
        square, _ = products(key, mu, zeta**2, (np.sqrt(mu), np.sqrt(mu)), times)
        right, wrong = square_law(mu, zeta).mean(), max(mu - zeta**2, 0)
        name, bias = f"E theta^2, mu {mu:g}, zeta {zeta:g}", stationary_bias(mu, zeta**2, STEP)[0]
        readings.append(mean(name, right, square, abs(bias), wrong))
    for key, (mu, zeta, time) in zip(keys[3:], [(1.5, 2.5, 5), (0.5, 1.3, 10), (0.5, 0.8, 10)], strict=True):
        kind = "falls" if zeta > critical_noise(mu) else "grows"
        name = f"rate of log theta near 0, mu {mu:g}, zeta {zeta:g}: it {kind}"
        readings.append(growth_reading(key, name, mu, zeta**2, time, mu - zeta**2))
    return readings


@claim(
    "H2",
    "Near 0 a tanh neuron's w_1 + w_2 and w_1 - w_2 grow or die at rates in which label noise counts against the correlation "
    "of inputs and labels: strong noise kills the neuron",
    "after Chen, Kunin, Yamamura and Ganguli (NeurIPS 2023), derived again",
)
def neuron(seed: int) -> list[Reading]:
    """Label-noise SGD of the library from weights of 1e-6; the tolerance is the first order in the learning rate."""
    rng, readings = np.random.default_rng([seed, 2]), []
    rate, time, num_chains = 0.01, 6.0, 4000

    def program(x, y=None):
        first, second = (numpyro.sample(name, dist.Normal(0, 1)) for name in ("w1", "w2"))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(second * jnp.tanh(first * x), 1), obs=y)

    with jax.enable_x64(True):
        for m, share in [(5, 0.7), (5, 1.5), (1, 1.2)]:  # share of the threshold of the noise's variance
            x, y = rng.normal(size=(2, m))
            x /= np.sqrt(np.mean(x**2))
            y *= 0.5 / np.mean(x * y)
            noise = np.sqrt(share * 2 * m * 0.5 / rate)
            dynamics, model = SGD(rate, sampling=LabelNoise(noise)), Model(program, data={"x": x, "y": y})
            end = ends(dynamics, model, {"w1": 1e-6, "w2": 0.3e-6}, seed, round(time / rate), num_chains)
            right = neuron_exponents(x, y, rate, noise, batch_size=m)
            # Forgetting that a full batch averages the noise of its labels; with one example, Ito's term.
            wrong = neuron_exponents(x, y, rate, noise) if m > 1 else neuron_exponents(x, y, rate, 0.0)
            for sign, before, predicted, mistake in zip((1, -1), (1.3e-6, 0.7e-6), right, wrong, strict=True):
                growth = np.log(np.abs(end["w1"] + sign * end["w2"]) / before) / time
                name = f"rate of log |w1 {'+' if sign > 0 else '-'} w2|, {m} examples, {share:g} of the threshold"
                bias = growth_bias(sign * 0.5, rate * noise**2 / m, rate)
                readings.append(mean(name, predicted, growth, abs(bias), mistake))
    return readings


@claim(
    "H3",
    "The singular value of two layers under label noise has a Gamma law of shape s*/c - 1/2 and scale c: its mean is s* less "
    "c/2, and nothing is left where s* < c/2",
    "after Chen, Kunin, Yamamura and Ganguli (NeurIPS 2023), derived again",
)
def gamma_mode(seed: int) -> list[Reading]:
    """Two unequal weights, averaged once they are balanced; the mistake is Stratonovich's law, Gamma(s*/c, c)."""
    readings, keys = [], jax.random.split(jax.random.fold_in(jax.random.key(seed), 3), 5)
    for key, (target, noise) in zip(keys, [(1.0, 0.2), (1.0, 0.8), (0.6, 0.5)], strict=False):
        first, second = products(key, target, noise, (1.2, 0.5), (40, 60))
        law, biases = square_law(target, np.sqrt(noise)), np.abs(stationary_bias(target, noise, STEP))
        name = f"s* {target:g}, c {noise:g}"
        readings.append(mean(f"E s, {name}", law.mean(), first, biases[0], target))
        variance = squared_deviations(first, second)
        readings.append(mean(f"Var s, {name}", law.var(), variance, biases[1], noise * target))
    for key, (target, noise) in zip(keys[3:], [(0.3, 0.8), (0.3, 0.4)], strict=True):
        name = f"rate of log w near 0, s* {target:g}, c {noise:g}"
        readings.append(growth_reading(key, name, target, noise, 10, target))
    return readings


@claim(
    "H4",
    "A mode of three or more layers never collapses under label noise: the law of its weight vanishes at 0 for any s* > 0",
    "derived",
)
def deep_mode(seed: int) -> list[Reading]:
    """Euler's scheme, its step h the relative tolerance: the weak error is of first order, with a factor below 1/2 here.

    The mistakes are Stratonovich's law, which is this one times w^{L-1}, and collapse.
    """
    readings, keys = [], jax.random.split(jax.random.fold_in(jax.random.key(seed), 4), 2)
    for key, (depth, target, noise) in zip(keys, [(3, 0.3, 0.8), (4, 0.5, 0.6)], strict=True):
        law, name = DeepModeLaw(depth, target, noise), f"depth {depth}, s* {target:g}, c {noise:g}"
        drawn = deep_weight(key, depth, target, noise, law.quantile(0.5), STEP, round(40 / STEP), round(60 / STEP))
        times, weight, below, lost = np.asarray(drawn, float)
        first, wrong = law.moment(), law.moment(depth) / law.moment(depth - 1)
        readings += [
            ratio(f"E w, {name}", first, weight, times, STEP * first, wrong),
            ratio(f"share below the median, {name}", 0.5, below, times, STEP, 1.0),
            ratio(f"share below 0.001, {name}", 0.0, lost, times, 1e-6, 1.0),
        ]
    return readings


@partial(jax.jit, static_argnums=1)
def deep_weight(key, depth, target, noise, median, length, burn, keep):
    """Times spent, and the integrals over them of w and of whether it is below the median and below 0.001.

    A step of dw = w^{L-1} (s* - w^L) dt + sqrt(c) w^{L-1} dB lasts h / (w^{L-2} (1 + w^L)): short where drift and noise are
    strong, long near 0, where the weight is slow.
    """

    def step(i, state):
        w, sums = state
        inner = w ** (depth - 2)
        time = length / (inner * (1 + w**depth))
        seen = jnp.stack([jnp.ones_like(w), w, w < median, w < 1e-3])
        noises = jnp.sqrt(noise * time) * jax.random.normal(jax.random.fold_in(key, i), w.shape)
        moved = w * jnp.abs(1 + inner * ((target - w**depth) * time + noises))
        return moved, sums + jnp.where(i < burn, 0.0, seen * time / keep)

    start = jnp.full(NUM_CHAINS, median), jnp.zeros((4, NUM_CHAINS))
    return jax.lax.fori_loop(0, burn + keep, step, start)[1]
