"""Noise and laws of one mode against quadrature over the inputs, SciPy's integrator and a search for the peak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize_scalar

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.modes import chain
from bayes_vs_sgd.dynamics.words import near_normals
from bayes_vs_sgd.theory import modes

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(6)  # exact up to the eleventh power
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@pytest.mark.exact
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_gradient_covariance_by_quadrature(noise):
    """Over two inputs and the noise of two labels; without E_il E_kj it would be off."""
    error = np.array([[0.8, -0.5], [0.3, 1.1]])
    grid = np.stack(np.meshgrid(*[NODES] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    weights = np.prod(np.stack(np.meshgrid(*[WEIGHTS] * 4, indexing="ij"), axis=-1), axis=-1).ravel()
    gradients = np.einsum("ni,nj->nij", grid[:, :2] @ error.T - noise * grid[:, 2:], grid[:, :2])
    centred = gradients - np.einsum("n,nij->ij", weights, gradients)
    expected = np.einsum("n,nij,nkl->ijkl", weights, centred, centred)
    np.testing.assert_allclose(modes.gradient_covariance(error, noise), expected, atol=1e-12)


@pytest.mark.exact
def test_noise_of_a_mode_is_the_chain_rules():
    """Each weight's gradient is the map's times w^(L-1); the product moves by L w^(L-1) times that."""
    depth, s, target, noise = 3, 0.6, 1.1, 0.4
    of_map = modes.gradient_covariance(np.array([[s - target]]), noise).item()
    slope = s ** ((depth - 1) / depth)
    assert modes.mode_noise(s, depth, target, noise) == pytest.approx(slope**2 * of_map)
    assert modes.mode_noise(s, depth, target, noise, "product") == pytest.approx(depth**2 * slope**4 * of_map)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("space", "expected"), [("weights", (1 / 3, 2 / 5, 3 / 7)), ("product", (1 / 2, 4 / 7, 3 / 5))]
)
def test_peaks_of_the_notes(space, expected):
    np.testing.assert_allclose([2 * p for p in expected], [modes.noise_peak(d, 2.0, space=space) for d in (2, 3, 4)])


@pytest.mark.exact
@pytest.mark.parametrize("space", ["weights", "product"])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_peak_by_search(space, depth, share):
    """The largest value up to the minimum that follows; none with more noise than the largest."""
    target = 1.3
    noise = share * modes.largest_label_noise(depth, target, space)
    found = modes.noise_peak(depth, target, noise, space)
    other = 2 * (target * (1 - 1 / (2 + _power(depth, space)))) - found  # the roots have this mean
    search = minimize_scalar(
        lambda s: -modes.mode_noise(s, depth, target, noise, space),
        bounds=(1e-6, other),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert found == pytest.approx(search.x, abs=1e-6)
    beyond = 1.01 * modes.largest_label_noise(depth, target, space)
    assert modes.noise_peak(depth, target, beyond, space) is None
    assert np.all(np.diff(modes.mode_noise(np.linspace(0.01, 2, 2000), depth, target, beyond, space)) > 0)


def _power(depth, space):
    return (2 if space == "weights" else 4) * (1 - 1 / depth)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("depth", "times"), [(2, (2.2976, 3.4534, 4.6051)), (3, (3.7680, 9.1447, 20.693)), (4, (4.6834, 15.529, 49.729))]
)
def test_learning_times_of_the_notes(depth, times):
    found = [modes.learning_time(depth, 1.0, start, 0.5) for start in (1e-2, 1e-3, 1e-4)]
    np.testing.assert_allclose(found, times, rtol=3e-5)


@pytest.mark.exact
@pytest.mark.parametrize(("start", "end"), [(0.05, 1.2), (3.0, 1.6)])
def test_learning_time_of_the_flow_of_weights(start, end):
    """Three equal weights by SciPy's integrator, from below and from above the target."""
    time = modes.learning_time(3, 1.5, start, end)
    found = solve_ivp(lambda t, w: w**2 * (1.5 - w**3), (0, time), [start ** (1 / 3)], rtol=1e-10, atol=1e-12)
    assert found.y[0, -1] ** 3 == pytest.approx(end, rel=1e-7)


@pytest.mark.exact
def test_which_law():
    assert modes.stationary_mode(4, 0.7, 0.0) == ("point", 0.7, 0.0)
    assert modes.stationary_mode(2, 0.3, 0.8) == ("collapsed", 0.0, 0.0)
    law, mean, variance = modes.stationary_mode(2, 1.0, 0.8)
    assert (law, mean, variance) == ("gamma", pytest.approx(0.6), pytest.approx(0.48))
    law, mean, variance = modes.stationary_mode(3, 0.3, 0.8)

    def density(w):
        return w**-4.0 * np.exp(-(2 / 0.8) * (0.3 / w + w**2 / 2))

    mass, first, second = (quad(lambda w, p=p: w**p * density(w), 1e-3, 8, limit=200)[0] for p in (0, 3, 6))
    assert (law, mean) == ("deep", pytest.approx(first / mass, rel=1e-7))
    assert variance == pytest.approx(second / mass - (first / mass) ** 2, rel=1e-7)


@pytest.mark.exact
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_weak_noise_is_boltzmann(depth):
    """The variances agree to first order in c."""
    exact, frozen = modes.stationary_mode(depth, 1.4, 1e-5), modes.boltzmann_mode(depth, 1.4, 1e-5)
    assert exact.variance == pytest.approx(frozen.variance, rel=1e-4)
    assert (
        abs(modes.stationary_mode(depth, 1.4, 0.5).variance / modes.boltzmann_mode(depth, 1.4, 0.5).variance - 1) > 0.1
    )


@pytest.mark.exact
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modes.noise_peak(1, 1.0), "give 2 or more layers"),
        (lambda: modes.noise_peak(2, 1.0, space="function"), "one of weights, product"),
        (lambda: modes.noise_peak(2, -1.0), "singular value > 0"),
        (lambda: modes.stationary_mode(2, 0.0, 0.1), "target > 0"),
        (lambda: modes.learning_time(2, 1.0, 0.5, 0.2), "no flow from 0.5 to 0.2"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(bvs.InputError, match=message):
        call()


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [2, 3])
def test_the_label_noise_flow_of_a_chain_is_the_equation_of_its_mode(depth):
    """One Brownian motion for all weights, mean(x z) sqrt(n): equal weights stay equal, and steps of eta/m are known."""
    eta, deviation, target, w, substeps = 0.1, 2.0, 1.5, 0.7, 3
    x = np.array([1.0, -1.0, 1.0, 1.0])
    model, key, number = chain(depth, x, target * x), jax.random.key(7), len(x)
    position = {name: jnp.asarray(w) for name, _ in model.latents}
    flow = bvs.StochasticGradientFlow(eta, bvs.LabelNoise(deviation), substeps)
    state = flow.step(bvs.Posterior(model), key, flow.init(bvs.Posterior(model), key, position))[0]
    h, c = eta / substeps, eta * deviation**2 / number
    for index in range(substeps):
        normal = np.asarray(near_normals(jax.random.fold_in(key, index), number)) @ x / number**0.5
        w += h * w ** (depth - 1) * (target - w**depth) + (c * h) ** 0.5 * w ** (depth - 1) * normal
    np.testing.assert_allclose(list(state.position.values()), w, rtol=1e-12)
