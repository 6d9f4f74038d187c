"""Where descent on diagonal linear networks ends: by gradient flow, and exactly at any step size."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.optimize import linprog

from ..dynamics import SGD, GradientDescent, Minibatch
from ..model import Model
from ..posterior import Posterior
from ..simulate import simulate
from ..theory.diagonal_networks import flow_limit, gains, interpolator, small_step_scale
from .chains import ends
from .claim import Reading, claim


def diagonal_network(inputs, labels, map_of):
    """Model y = beta x + N(0, 1) with beta a function of (u, v); the loss is 1/(2n) sum of squares."""

    def program(x, y=None):
        prior = dist.Normal(0, 1).expand((x.shape[1],)).to_event(1)
        u, v = numpyro.sample("u", prior), numpyro.sample("v", prior)
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ map_of(u, v), 1), obs=y)

    return Model(program, data={"x": inputs, "y": labels})


def product(u, v):
    """Beta = u * v."""
    return u * v


def difference(u, v):
    """Beta = u^2 - v^2."""
    return u**2 - v**2


@claim(
    "G5",
    "Gradient flow on u^2 - v^2 from u = v = alpha ends at 2 alpha^2 sinh(X' nu): smallest l2 norm for large alpha, smallest "
    "l1 norm for small",
    "after Woodworth et al. (COLT 2020), derived again",
)
def hyperentropy(seed: int) -> list[Reading]:
    """Gradient descent of the library, extrapolated to learning rate 0; the mistakes are the l1 limit and alpha^(1/2)."""
    rng = np.random.default_rng([seed, 5])
    readings = []
    with jax.enable_x64(True):
        problems = [
            (np.array([[1.0, 2.0, -0.5]]), np.array([1.5]), (0.01, 0.1, 1.0, 10.0)),
            (np.linalg.qr(rng.normal(size=(6, 2)))[0].T, rng.normal(size=2), (0.1, 0.4, 3.0)),
        ]
        for x, y, scales in problems:
            smallest = minimal_l1(x, y)
            for scale, beta in zip(scales, descent_limits(x, y, np.array(scales), seed), strict=True):
                limit = flow_limit(x, y, scale)
                wrong = flow_limit(x, y, np.sqrt(scale)) if scale < 1 else smallest
                tolerance, which = 2e-5 * np.max(np.abs(limit)), np.argmax(np.abs(limit - smallest))
                name = f"alpha = {scale:g}, {len(y)} examples of {x.shape[1]} coordinates"
                readings.append(
                    Reading(f"coordinate {which}, {name}", limit[which], beta[which], 0.0, tolerance, smallest[which])
                )
                right, found, other = (float(np.sum(np.abs(values))) for values in (limit, beta, wrong))
                readings.append(Reading(f"l1 norm, {name}", right, found, 0.0, x.shape[1] * tolerance, other))
    return readings


def descent_limits(x, y, scales, seed):
    """Where gradient descent from each alpha ends, extrapolated to learning rate 0 from three rates."""
    curvature = [
        4 / len(y) * np.linalg.norm(x, 2) ** 2 * np.max(np.hypot(flow_limit(x, y, a), 2 * a**2)) for a in scales
    ]
    rates = np.concatenate([0.02 / np.array(curvature) / part for part in (1, 2, 4)])
    start = np.tile(scales, 3)[:, None] * np.ones((1, x.shape[1]))
    end = ends(GradientDescent(rates), diagonal_network(x, y, difference), {"u": start, "v": start}, seed, 200_000)
    coarse, middle, fine = np.split(difference(end["u"], end["v"]), 3)
    return (8 * fine - 6 * middle + coarse) / 3


def minimal_l1(x, y):
    """The map of smallest l1 norm that fits, by SciPy's linear programming."""
    d = x.shape[1]
    found = linprog(np.ones(2 * d), A_eq=np.hstack([x, -x]), b_eq=y, bounds=(0, None))
    return found.x[:d] - found.x[d:]


@claim(
    "G6",
    "Descent and SGD with any steps on u * v end at the map that the gains of the path and the labels fix: exactly",
    "after Even, Pesme, Gunasekar and Flammarion (2023), derived again",
)
def any_step(seed: int) -> list[Reading]:
    """SGD and gradient descent of the library, the gradients from its recorded positions and the examples that it drew.

    The gains are those of all steps; that the steps lie in the span of the examples, and the map fits, is what predicts the
    end. The mistake is the average over small steps, in which residuals and inputs are independent; without noise, the flow.
    """
    rng = np.random.default_rng([seed, 6])
    readings = []
    with jax.enable_x64(True):
        for n, d, stochastic in [(4, 8, True), (4, 8, False), (3, 10, True)]:
            # Examples orthogonal and of squared length 8: all rates are stable, and converge in the steps there are.
            x, teacher = np.sqrt(8) * np.linalg.qr(rng.normal(size=(d, n)))[0].T, np.r_[1.0, -0.5, np.zeros(d - 2)]
            rates = (0.02, 0.06, 0.1) if stochastic else (0.05, 0.15)
            readings += path_readings(x, x @ teacher, np.array(rates), stochastic, seed)
    return readings


def path_readings(x, y, rates, stochastic, seed, scale=0.3, num_steps=20_000):
    """Norm of the map at the end of each chain, one for each learning rate."""
    n, d = x.shape
    dynamics = SGD(rates, batch_size=1) if stochastic else GradientDescent(rates)
    start = {"u": np.full((len(rates), d), np.sqrt(2) * scale), "v": np.zeros((len(rates), d))}
    tree = simulate(
        dynamics,
        Posterior(diagonal_network(x, y, product)),
        key=seed,
        num_chains=len(rates),
        num_draws=num_steps,
        num_steps=num_steps,
        initial=start,
        observables=["loss"],
        record_positions=True,
        progress=False,
    )
    readings = []
    for chain, rate in enumerate(rates):
        path = np.prod([np.vstack([start[k][chain], np.asarray(tree["posterior"][k])[chain]]) for k in "uv"], axis=0)
        residuals = path[:-1] @ x.T - y
        if stochastic:
            rows = drawn_rows(n, chain, num_steps, seed)
            gradients = x[rows] * np.take_along_axis(residuals, rows[:, None], axis=1)
        else:
            gradients = residuals @ x / n
        predicted = interpolator(x, y, *gains(gradients, rate, scale))
        integral = rate * np.sum(residuals**2) / (2 * n)
        average = small_step_scale(x, rate, integral, scale) if stochastic else scale
        wrong = interpolator(x, y, average, average)
        norms = [float(np.sum(np.abs(values))) for values in (predicted, path[-1], wrong)]
        name = f"l1 norm, rate {rate:g}, {n} examples of {d} coordinates, {'SGD' if stochastic else 'gradient descent'}"
        readings.append(Reading(name, norms[0], norms[1], 0.0, 1e-8, norms[2]))
    return readings


def drawn_rows(n, chain, num_steps, seed):
    """Examples that the chain drew at each step, from the key of the step."""
    key = jax.random.fold_in(jax.random.key(seed), chain)
    draw = jax.vmap(lambda step: Minibatch(batch_size=1).draw(n, jax.random.fold_in(key, step), ())[0][0])
    return np.asarray(draw(jnp.arange(num_steps)))
