"""A mode of a linear network under SGD: covariance of its gradient, where that peaks, and the law it ends up in."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ..curvature import example_gradients
from ..dynamics import SGD, LabelNoise
from ..model import Model
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.modes import boltzmann_mode, gradient_covariance, largest_label_noise, noise_peak, stationary_mode
from .claim import Reading, claim, mean, squared_deviations

AFTER_CORLOUER = "the setting of Corlouer, Semler, Strang and Gietelink Oldenziel (arXiv:2604.06366), derived again"


def chain(depth, x, y):
    """Model y = w_1 ... w_L x + N(0, 1), with the product as an observable."""
    sites = [f"w{i + 1}" for i in range(depth)]

    def program(x, y=None):
        product = 1.0
        for name in sites:
            product = product * numpyro.sample(name, dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(product * x, 1), obs=y)

    recorded = {"product": lambda model, values: product_of(values)}
    return Model(program, data={"x": x, "y": y}, observables=recorded)


def product_of(values):
    """The singular value of a chain."""
    return jnp.prod(jnp.stack(list(values.values())))


@claim(
    "M1",
    "The gradient of one example has the covariance (E E')_ik d_jl + E_il E_kj + sigma^2 d_ik d_jl with normal inputs",
    AFTER_CORLOUER,
)
def one_example(seed: int) -> list[Reading]:
    """Gradients of the library's example losses by autodiff; the mistake forgets the term E_il E_kj."""
    rng = np.random.default_rng([seed, 1])
    readings = []
    wide, tall = np.array([[0.8, -0.5, 0.3], [0.4, 0.9, -0.2]]), np.array([[1.0, 0.3], [-0.6, 0.7], [0.5, 0.2]])
    for error, noise, entries in [(wide, 0.5, "0011 0110 0000"), (tall, 0.0, "0110 0121 2020")]:
        outputs, inputs = error.shape

        def program(x, y=None, shape=error.shape):
            w = numpyro.sample("W", dist.Normal(0, 1).expand(shape).to_event(2))
            with numpyro.plate("examples", x.shape[0]):
                numpyro.sample("y", dist.Normal(x @ jnp.transpose(w), 1).to_event(1), obs=y)

        x, teacher = rng.normal(size=(100_000, inputs)), rng.normal(size=error.shape)
        y = x @ teacher.T + noise * rng.normal(size=(len(x), outputs))
        drawn = example_gradients(Model(program, data={"x": x, "y": y}), {"W": jnp.asarray(teacher + error)})
        centred = np.asarray(drawn, float).reshape(-1, *error.shape) - error  # the mean gradient is E
        covariance = gradient_covariance(error, noise)
        forgotten = covariance - np.einsum("il,kj->ijkl", error, error)
        left, singular, right = np.linalg.svd(error)
        aligned = np.einsum("nij,i,j->n", centred, left[:, 0], right[0]) ** 2
        of_mode = singular[0] ** 2 + noise**2
        name = f"{outputs} outputs, {inputs} inputs"
        readings.append(mean(f"variance along a mode, {name}", of_mode + singular[0] ** 2, aligned, 0.0, of_mode))
        for entry in entries.split():
            i, j, k, m = map(int, entry)
            products = centred[:, i, j] * centred[:, k, m]
            label = f"covariance of g_{i}{j} and g_{k}{m}, {name}"
            readings.append(mean(label, covariance[i, j, k, m], products, 0.0, forgotten[i, j, k, m]))
    return readings


@claim(
    "M2",
    "The noise of a mode's gradient is largest before the mode is learned, at a place that depends on the depth and on whether "
    "weights or their product is watched; label noise moves the peak up and in the end removes it",
    AFTER_CORLOUER,
)
def peak_of_noise(seed: int) -> list[Reading]:
    """Variance over examples of the library's gradients on chains of weights, at singular values up to the target."""
    rng = np.random.default_rng([seed, 2])
    readings = []
    with jax.enable_x64(True):
        for depth in (2, 3, 4):
            for space, other in (("weights", "product"), ("product", "weights")):
                for target, share in ((1.0, 0.0), (1.0, 0.6), (1.7, 0.9), (1.7, 1.1)):
                    noise = share * largest_label_noise(depth, target, space)
                    grid, curves = noise_curves(rng, depth, target, noise, space)
                    predicted = noise_peak(depth, target, noise, space)
                    name = f"{space}, depth {depth}, s* {target:g}, label noise {noise:.3g}"
                    if share < 0.9:
                        peaks = [peak(grid, curve) for curve in curves]
                        wrong = noise_peak(depth, target, 0.0, other if share == 0 else space)
                        name, right, wrong = f"place of the peak, {name}", predicted or np.nan, wrong or np.nan
                        readings.append(mean(name, right, peaks, 1e-4, wrong))
                    else:
                        found = np.sum(np.diff(np.sign(np.diff(curves.mean(axis=0)))) < 0)
                        count = float(predicted is not None)
                        readings.append(Reading(f"number of peaks, {name}", count, float(found), 0.0, 0.0, 1 - count))
    return readings


def noise_curves(rng, depth, target, noise, space, num_sets=40, num_examples=1000):
    """Singular values up to the target, and the variance of a step of the weights or of their product in each set of data."""
    x = rng.normal(size=(num_sets, num_examples))
    y = target * x + noise * rng.normal(size=x.shape)
    grid = np.linspace(0, target, 202)[1:-1]
    curves = variances(chain(depth, x[0], y[0]), space, *map(jnp.asarray, (x, y, grid)))
    return grid, np.asarray(curves)


@eqx.filter_jit
def variances(model, space, x, y, grid):
    """Variance over the examples, for each set of data and singular value."""

    def variance(x, y, value):
        weights = {name: value ** (1 / len(model.latents)) for name, _ in model.latents}
        gradients = jax.jacfwd(lambda w: model.losses_on(w, {"x": x, "y": y}))(weights)
        if space == "weights":
            return jnp.var(gradients["w1"])
        slopes = jax.grad(product_of)(weights)
        return jnp.var(sum(slopes[name] * gradients[name] for name in weights))

    return jax.lax.map(lambda pair: jax.vmap(lambda value: variance(pair[0], pair[1], value))(grid), (x, y))


def peak(grid, curve):
    """Place of the first local maximum, by the parabola through three points; the grid's step squared bounds its error."""
    at = 1 + int(np.argmax(np.diff(np.sign(np.diff(curve))) < 0))
    slope, bend = (curve[at + 1] - curve[at - 1]) / 2, curve[at + 1] - 2 * curve[at] + curve[at - 1]
    return grid[at] - slope / bend * (grid[1] - grid[0])


@claim(
    "M3",
    "Without label noise a mode ends at its target; with it, in a Gamma law for two layers and in another, that never collapses, "
    "for more: not in the Gaussian one of noise frozen at the target",
    AFTER_CORLOUER,
)
def end_of_mode(seed: int) -> list[Reading]:
    """SGD and label-noise SGD of the library on chains; the tolerance is that of a finite learning rate, 5 %."""
    rng = np.random.default_rng([seed, 3])
    readings, rate, count = [], 0.005, 4
    with jax.enable_x64(True):
        for depth, target, noise in [(2, 1.0, 0.4), (2, 0.7, 0.3), (3, 1.0, 0.3)]:
            x = np.ones(count)
            dynamics = SGD(rate, sampling=LabelNoise(np.sqrt(count * noise / rate)))
            drawn = final_products(dynamics, chain(depth, x, target * x), target, seed, 200, 100, (30, 40))
            law, frozen = stationary_mode(depth, target, noise), boltzmann_mode(depth, target, noise)
            name = f"depth {depth}, s* {target:g}, c {noise:g}"
            first, second = drawn.mean(axis=1), np.mean(drawn**2, axis=1)
            variance = squared_deviations(first, second)
            readings.append(mean(f"E s, {name}", law.mean, first, 0.05 * law.mean, frozen.mean))
            readings.append(mean(f"Var s, {name}", law.variance, variance, 0.05 * law.variance, frozen.variance))
        for depth, target in [(2, 1.3), (3, 0.8)]:
            x = rng.normal(size=20)
            drawn = final_products(SGD(0.02, batch_size=1), chain(depth, x, target * x), target, seed, 100, 1, (99, 1))
            width = 1 / np.sqrt(np.sum(x**2))  # of the posterior at temperature 1
            error = np.sqrt(np.mean((drawn - target) ** 2))
            name = f"distance to s* {target:g} without label noise, depth {depth}"
            readings.append(Reading(name, stationary_mode(depth, target, 0.0).variance, float(error), 0.0, 1e-6, width))
    return readings


def final_products(dynamics, model, target, seed, num_chains, num_draws, times):
    """Products at draws of the second of two times, from equal weights near the target."""
    rate = float(dynamics.step_time)
    warmup, steps = (round(time / rate) for time in times)
    start = np.full(num_chains, (0.8 * target) ** (1 / len(model.latents)))
    tree = simulate(
        dynamics,
        Posterior(model),
        key=seed,
        num_chains=num_chains,
        num_draws=num_draws,
        num_steps=steps,
        num_warmup=warmup,
        initial={name: start for name, _ in model.latents},
        observables=["product"],
        progress=False,
    )
    return np.asarray(tree["posterior"]["product"])
