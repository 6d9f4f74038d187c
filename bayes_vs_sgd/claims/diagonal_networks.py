"""Where descent on diagonal linear networks ends: by gradient flow, and exactly at any step size."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.integrate import solve_ivp
from scipy.optimize import linprog

from ..dynamics import SGD, GradientDescent, Minibatch
from ..model import Model
from ..posterior import Posterior
from ..results import final_positions
from ..simulate import simulate
from ..theory.diagonal_networks import flow_limit, gains, interpolator, small_step_scale
from .chains import ends
from .claim import Reading, claim, mean

SCALE = 0.3
"""alpha of the start u = sqrt(2) alpha, v = 0, whose map is 0."""


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
    "Descent and SGD with any steps on u * v end at the map that the gains of the path and the labels fix: exactly; the average "
    "over small steps misses a part of the shift by noise that small steps do not make small",
    "after Even, Pesme, Gunasekar and Flammarion (2023), derived again; the average after Pesme et al. (2021)",
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
            if stochastic:
                readings.append(error_of_the_average(x, x @ teacher, seed))
    return readings


def path_readings(x, y, rates, stochastic, seed, num_steps=10_000):
    """The map at the end of each chain, one for each learning rate: its l1 norm, and how far it is from the one predicted."""
    n, d = x.shape
    dynamics = SGD(rates, batch_size=1) if stochastic else GradientDescent(rates)
    start = {"u": np.full((len(rates), d), np.sqrt(2) * SCALE), "v": np.zeros((len(rates), d))}
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
        predicted, end = interpolator(x, y, *gains(gradients, rate, SCALE)), path[-1]
        integral = rate * np.sum(residuals**2) / (2 * n)
        average = small_step_scale(x, rate, integral, SCALE) if stochastic else SCALE
        wrong = interpolator(x, y, average, average)
        name = f"rate {rate:g}, {n} examples of {d} coordinates, {'SGD' if stochastic else 'gradient descent'}"
        norms = [float(np.sum(np.abs(values))) for values in (predicted, end, wrong)]
        readings.append(Reading(f"l1 norm, {name}", norms[0], norms[1], 0.0, 1e-8, norms[2]))
        distances = [float(np.linalg.norm(predicted - values)) for values in (end, wrong)]
        readings.append(Reading(f"distance from the map predicted, {name}", 0.0, distances[0], 0.0, 1e-8, distances[1]))
    return readings


def error_of_the_average(x, y, seed, rate=0.002, time=60.0, num_chains=32):
    """How far the average is from where SGD ends, over how far the flow's limit is: one path's mean, extrapolated to rate 0.

    The mistake is an average that is right for small steps.
    """
    n, d = x.shape
    model, flow, shares = diagonal_network(x, y, product), interpolator(x, y, SCALE, SCALE), []
    start = {"u": np.full((num_chains, d), np.sqrt(2) * SCALE), "v": np.zeros((num_chains, d))}
    for eta in (rate, rate / 2):
        num_steps = round(time / eta)
        tree = simulate(
            SGD(eta, batch_size=1), Posterior(model), key=seed, num_chains=num_chains, num_draws=num_steps,
            num_steps=num_steps, initial=start, observables=["loss"], progress=False,
        )  # fmt: skip
        losses = np.asarray(tree["posterior"]["loss"]) - np.log(2 * np.pi) / 2
        integrals = eta * (np.mean(y**2) / 2 + np.sum(losses[:, :-1], axis=1))
        scales = [small_step_scale(x, eta, integral, SCALE) for integral in integrals]
        found = final_positions(tree)[0]
        ends_and_scales = zip(found["u"] * found["v"], scales, strict=True)
        shares.append(np.array([missed(end, interpolator(x, y, a, a), flow) for end, a in ends_and_scales]))
    name = f"part of the shift that the average misses as rates go to 0, {n} examples of {d} coordinates"
    return mean(name, missed_by_small_steps(x, y, time), 2 * shares[1] - shares[0], mistake=0.0)


def missed(end, average, flow):
    """Distance of the average from where SGD ends, over that of where the flow ends."""
    return float(np.linalg.norm(end - average) / np.linalg.norm(end - flow))


def missed_by_small_steps(x, y, time, rate=1e-4):
    r"""That part in the limit of small steps: (2/n) int L dt sum_i x_ij^2 stands for int sum_i r_i^2 x_ij^2 dt / n.

    The latter is what the gains of a path are to first order in the rate, with the flow's residuals r.
    """
    n, d = x.shape

    def slope(_, state):
        u, v = state[:d], state[d : 2 * d]
        residuals = x @ (u * v) - y
        pull = x.T @ residuals / n
        return np.concatenate([-pull * v, -pull * u, residuals**2])

    start = np.concatenate([np.full(d, np.sqrt(2) * SCALE), np.zeros(d + n)])
    squares = solve_ivp(slope, (0, time), start, rtol=1e-9, atol=1e-12).y[2 * d :, -1]
    scale = SCALE * np.exp(-rate * squares @ x**2 / (2 * n))
    average = small_step_scale(x, rate, np.sum(squares) / (2 * n), SCALE)
    return missed(*(interpolator(x, y, a, a) for a in (scale, average, SCALE)))


def drawn_rows(n, chain, num_steps, seed):
    """Examples that the chain drew at each step, from the key of the step."""
    key = jax.random.fold_in(jax.random.key(seed), chain)
    draw = jax.vmap(lambda step: Minibatch(batch_size=1).draw(n, jax.random.fold_in(key, step), ())[0][0])
    return np.asarray(draw(jnp.arange(num_steps)))
