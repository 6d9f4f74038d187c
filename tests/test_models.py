"""Every file in models/ loads, runs, refuses what cannot be, and states truths that quadrature confirms."""

from itertools import pairwise
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from statistical import FALSE_ALARM, assert_frequencies, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.linear_networks import learning_coefficient

MODELS = Path(__file__).parents[1] / "models"

CASES = [
    ("deep_linear", {}),
    ("deep_linear", {"inputs": "gaussian", "unseen_inputs": 0}),
    ("linear_regression", {}),
    ("linear_regression", {"inputs": "gaussian", "rotated": True, "weights": (1.0, 2.0, 3.0, 4.0, 5.0)}),
    ("linear_regression", {"isotropic": True, "covariance": (2.0,) * 4, "num_examples": 64, "noise": 2.0}),
    ("product", {}),
    ("product", {"depth": 3, "target": -0.5, "exact": False}),
    ("diagonal_linear", {}),
    ("diagonal_linear", {"inputs": "gaussian", "num_examples": 3}),
    ("polynomial", {}),
    ("polynomial", {"prior": "normal", "label_noise": 0.5}),
    ("polynomial", {"weights": 2}),
    ("normal_crossing", {}),
    ("normal_crossing", {"powers": (2, 3, 1), "noise_free": True}),
    ("tanh_network", {}),
    ("tanh_network", {"widths": (2, 3, 4, 2), "teacher_units": 0}),
    ("diabetes_network", {}),
    ("diabetes_network", {"activation": "relu", "width": 4}),
]


def load(name, **config):
    return bvs.load_model(MODELS / f"{name}.py", **config)


@eqx.filter_jit
def evaluate(posterior, key):
    """Log density at a prior draw, and the loss there in the two ways the model knows it."""
    position = posterior.model.sample_prior(key)
    model = posterior.model
    return posterior.log_density(position), model.loss(position), jnp.mean(model.example_losses(position))


@eqx.filter_jit
def at_optimum(model):
    """Per-example gradients at the optimum, as rows."""
    position = model.unconstrain(model.optimum)
    gradients = jax.jacobian(model.example_losses)(position)
    return jnp.concatenate([g.reshape(g.shape[0], -1) for g in jax.tree.leaves(gradients)], axis=1)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "config"), CASES)
def test_densities_are_finite_and_compressed_data_keep_the_loss(name, config):
    log_density, loss, mean = evaluate(bvs.Posterior(load(name, **config)), jax.random.key(3))
    assert np.isfinite(log_density)
    assert loss == pytest.approx(float(mean), rel=1e-11)
    assert loss.dtype == np.float64


@pytest.mark.exact
@pytest.mark.parametrize("name", sorted(p.stem for p in MODELS.glob("*.py")))
def test_loaded_twice_is_the_same_program(name):
    first, second = load(name), load(name)
    assert first.program == second.program
    assert first.program.digest == second.program.digest
    assert first.observables == second.observables
    assert not any(jnp.any(first.data[k] != second.data[k]) for k in first.data)
    assert all(truth.source for truth in first.truth.values())


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("product", {"target": 2.0, "num_examples": 64}),
        ("linear_regression", {"isotropic": True, "covariance": (1.0,) * 3, "num_examples": 64}),
    ],
)
@pytest.mark.usefixtures("x64")
def test_exact_data_have_their_minimum_at_the_teacher(name, config):
    gradients = at_optimum(load(name, **config))
    np.testing.assert_allclose(gradients.mean(axis=0), 0, atol=1e-12)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_isotropic_data_have_isotropic_gradient_noise():
    config = {"covariance": (2.0,) * 4, "num_examples": 64, "noise": 2.0, "rotated": True}
    hadamard = np.asarray(at_optimum(load("linear_regression", isotropic=True, **config)))
    whitened = np.asarray(at_optimum(load("linear_regression", **config)))
    expected = 2.0 / 2.0**2 * np.eye(4)
    np.testing.assert_allclose(np.cov(hadamard.T, bias=True), expected, atol=1e-10)
    assert np.max(np.abs(np.cov(whitened.T, bias=True) - expected)) > 0.01


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_isotropic_noise_is_even_in_the_displacement():
    """No product of distinct data columns is constant, so the third moments of x and the residual vanish."""
    model = load("linear_regression", isotropic=True, covariance=(1.0,) * 4, num_examples=64)
    x, y = (np.asarray(model.data[k]) for k in ("x", "y"))
    residuals = y - x @ np.asarray(model.optimum["w"])
    np.testing.assert_allclose(np.einsum("n,ni,nj,nk->ijk", residuals, x, x, x), 0, atol=1e-10)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_whitened_inputs_have_the_wanted_covariance():
    model = load("linear_regression", covariance=(3.0, 1.0, 0.2), rotated=True, num_examples=20)
    x = np.asarray(model.data["x"])
    values, vectors = np.linalg.eigh(x.T @ x / 20)
    modes = [model.observables[f"mode_{i}"](model, {"w": vectors[:, 3 - i]}) for i in (1, 2, 3)]
    np.testing.assert_allclose(values[::-1], (3.0, 1.0, 0.2), rtol=1e-10)
    np.testing.assert_allclose(np.abs(modes), 1, rtol=1e-10)
    primary = {k for k, v in model.observables.items() if v.primary}
    assert primary == {"mode_1", "mode_3"} == {k for k, v in model.observables.items() if v.mode}


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_exact_product_data_have_the_wanted_moments():
    model = load("product", num_examples=20, target=-1.5, noise=3.0)
    x, y = (np.asarray(model.data[k]) for k in ("x", "y"))
    np.testing.assert_allclose((x @ x, x @ y, np.sum((y + 1.5 * x) ** 2)), (20, -30, 180), rtol=1e-12)
    assert float(np.prod(list(model.optimum.values()))) == pytest.approx(-1.5)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("config", "multiplicity"), [({}, 2), ({"depth": 4}, 4), ({"target": 1.0}, 1), ({"depth": 1, "target": 1.0}, 1)]
)
def test_truth_of_the_product(config, multiplicity):
    truth = load("product", **config).truth
    assert (truth["learning_coefficient"].value, truth["multiplicity"].value) == (0.5, multiplicity)


@pytest.mark.exact
def test_truth_of_the_diagonal_network():
    """Its partition function is a product over the coordinates: lambda and m - 1 add up."""
    truth = load("diagonal_linear", teacher=(1.0, 0.0, -2.0, 0.0, 0.0, 0.0)).truth
    assert (truth["learning_coefficient"].value, truth["multiplicity"].value) == (3.0, 5)
    assert load("diagonal_linear", inputs="gaussian", num_examples=3).truth == {}


@pytest.mark.exact
@pytest.mark.parametrize("degrees", [(1, 2), (2, 2), (3, 1)])
def test_truth_of_the_polynomial_in_one_weight(degrees):
    """The slope of log Z between t = 1e12 and 1e16, where the other well adds less than 1e-3."""
    left, right = degrees
    truth = load("polynomial", left_degree=left, right_degree=right).truth
    assert truth["multiplicity"].value == 1
    assert truth["learning_coefficient"].value == 1 / (2 * max(degrees))

    s = np.linspace(-60, 0, 60_001)  # log of the distance to a well
    log_k = [
        2 * own * s + 2 * other * np.log(2 + side * np.exp(s))
        for own, other in ((left, right), (right, left))
        for side in (-1, 1)
    ]
    log_z = [np.log(np.sum(np.exp(s - np.exp(log_t + np.array(log_k))))) for log_t in np.log([1e12, 1e16])]
    assert (log_z[0] - log_z[1]) / np.log(1e4) == pytest.approx(truth["learning_coefficient"].value, abs=1e-3)


@pytest.mark.exact
@pytest.mark.parametrize("degree", [0, 1, 2, 4, 12])
def test_truth_of_the_polynomial_in_two_weights(degree):
    """Z t^lambda grows like (log t)^(m - 1): constant, or linear in log t.

    The midpoint rule in log w1, log w2 reaches t = e^600, where the next pole's part is below 1e-3.
    """
    truth = load("polynomial", weights=2, line_degree=degree).truth
    value, multiplicity = truth["learning_coefficient"].value, truth["multiplicity"].value
    assert multiplicity == (2 if degree == 4 else 1)
    a = np.linspace(-120, 0, 2401)[:, None]
    b = a.T
    log_k = 4 * np.logaddexp(2 * a, 2 * b) + 2 * degree * a
    scaled = [np.sum(np.exp(a + b + value * t - np.exp(t + log_k))) for t in (200.0, 400.0, 600.0)]
    if multiplicity == 1:
        assert scaled[2] == pytest.approx(scaled[1], rel=2e-3)
    else:
        assert scaled[2] - scaled[1] == pytest.approx(scaled[1] - scaled[0], rel=2e-3)
        assert scaled[1] > 1.5 * scaled[0]


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("num_examples", "published"), [(10, 0.813046), (10**2, 0.885829), (10**3, 0.932085), (10**6, 0.987168)]
)
def test_grid_finds_the_probability_of_the_degenerate_well(num_examples, published):
    """P(w > -1/3) under the prior U(-2, 2) and K = (w + 1)^2 (w - 1)^4 / 2: by the grid and by adaptive quadrature."""

    def density(w):
        return np.exp(-num_examples * (w + 1) ** 2 * (w - 1) ** 4 / 2)

    near = 5 * num_examples**-0.25
    breaks = np.unique(np.clip([-2, -1 - near, -1, -1 + near, -1 / 3, 1 - near, 1, 1 + near, 2], -2, 2))
    parts = [scipy.integrate.quad(density, *ends, epsabs=0, limit=500)[0] for ends in pairwise(breaks)]
    expected = sum(part for part, low in zip(parts, breaks[:-1], strict=True) if low > -0.34) / sum(parts)
    grid = bvs.Grid().prepare(bvs.Posterior(load("polynomial", num_examples=num_examples)))
    upper_edges = grid.lower[0] + grid.width[0] * np.arange(1, grid.cumulative.size + 1)
    barrier = scipy.special.logit((-1 / 3 + 2) / 4)
    found = 1 - np.interp(barrier, upper_edges, grid.cumulative)
    assert expected == pytest.approx(published, abs=6e-7)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.law
def test_grid_draws_choose_the_degenerate_well_as_often():
    target = bvs.Posterior(load("polynomial", num_examples=10))
    run = bvs.simulate(bvs.Grid(), target, key=0, num_chains=4, num_draws=1000, progress=False)
    right = int(run.posterior["right_well"].sum())
    assert_frequencies([4000 - right, right], [1 - 0.813046, 0.813046], detects=0.13)
    with planted_bug():
        share_of_gradient_flow = [5 / 12, 7 / 12]
        assert_frequencies([4000 - right, right], share_of_gradient_flow, detects=0.13)


@pytest.mark.law
def test_exact_sampler_draws_the_posterior_of_linear_regression():
    """Mean and variance along both eigenvectors, against the Gaussian in closed form."""
    model = load("linear_regression", covariance=(2.0, 0.1), num_examples=8, noise=2.0, prior_scale=0.5, rotated=True)
    target = bvs.Posterior(model, inverse_temperature=0.7)
    run = bvs.simulate(model.exact_sampler, target, key=1, num_chains=4, num_draws=1000, progress=False)
    x, y = (np.asarray(model.data[k], float) for k in ("x", "y"))

    def standardized(inverse_temperature, prior_precision):
        covariance = np.linalg.inv(inverse_temperature / 4 * x.T @ x + prior_precision * np.eye(2))
        mean = covariance @ x.T @ y * inverse_temperature / 4
        columns = []
        for mode in ("mode_1", "mode_2"):
            direction = np.array([model.observables[mode](model, {"w": e}) for e in np.eye(2)])
            draws = run.posterior[mode].to_numpy().ravel()
            z = (draws - direction @ mean) / np.sqrt(direction @ covariance @ direction)
            columns += [z, z**2]
        return np.stack(columns, axis=1)

    assert_mean(standardized(0.7, 4.0), expected=[0, 1, 0, 1], detects=0.25)
    with planted_bug():
        assert_mean(standardized(0.7, 0.7 * 4.0), expected=[0, 1, 0, 1], detects=0.35)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("widths", "spectrum", "layer_ranks", "local"),
    [
        ((3, 3, 3), (2.0,), (3, 1), 4.5),
        ((5, 2, 3), (1.0,), (1, 2), 5.5),
        ((4, 5, 5, 4), (2.0, 1.0), (3, 2, 3), None),
    ],
)
@pytest.mark.usefixtures("x64")
def test_teacher_layers_have_the_chosen_ranks(widths, spectrum, layer_ranks, local):
    config = {"widths": widths, "spectrum": spectrum, "unseen_inputs": 0}
    with pytest.warns(UserWarning, match="its local learning coefficient"):
        model = load("deep_linear", layer_ranks=layer_ranks, **config)
    weights = [np.asarray(model.optimum[f"W{i + 1}"]) for i in range(len(widths) - 1)]
    assert tuple(np.linalg.matrix_rank(w, tol=1e-8) for w in weights) == layer_ranks
    product = weights[0]
    for layer in weights[1:]:
        product = layer @ product
    singular = np.linalg.svd(product, compute_uv=False)
    np.testing.assert_allclose(singular[: len(spectrum)], spectrum, rtol=1e-10)
    np.testing.assert_allclose(singular[len(spectrum) :], 0, atol=1e-10)
    assert model.truth["global_learning_coefficient"].value == learning_coefficient(widths, len(spectrum)).value
    if local is not None:
        assert model.truth["learning_coefficient"].value == local >= model.truth["lower_bound"].value


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_minimal_teacher_is_balanced():
    model = load("deep_linear", widths=(4, 3, 5), spectrum=(2.0, 0.5), unseen_inputs=2)
    first, second = (np.asarray(model.optimum[name]) for name in ("W1", "W2"))
    np.testing.assert_allclose(second.T @ second, first @ first.T, atol=1e-12)
    assert model.truth["learning_coefficient"].value == learning_coefficient((4, 3, 5), 2).value
    assert first.shape == (3, 6)


@pytest.mark.law
@pytest.mark.parametrize("config", [{}, {"widths": (2, 4, 3, 2), "teacher_units": 2, "noise": 0.5}])
def test_tanh_teacher_leaves_only_noise(config):
    """Squared residuals at the teacher are chi-square, 200 examples an output: a noise off by 25 % is seen."""
    model = load("tanh_network", **config)
    predictions = model.predictions(model.unconstrain(model.optimum))["y"]
    residuals = np.asarray(model.data["y"] - predictions, float) / config.get("noise", 0.2)
    law = scipy.stats.chi2(residuals.size)
    assert 2 * min(law.cdf(np.sum(residuals**2)), law.sf(np.sum(residuals**2))) > FALSE_ALARM
    assert law.sf(1.25**2 * np.sum(residuals**2)) < FALSE_ALARM
    widths = config.get("widths", (1, 3, 1))
    assert model.num_parameters == sum((a + 1) * b for a, b in pairwise(widths))


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_clean_triggers_are_among_the_examples():
    """Their label is the teacher's, the compressed rows know them, no truth is claimed; the exact tail is that of three rows."""
    config = {"widths": (1, 2, 1), "spectrum": (1.0,), "num_examples": 4, "noise_free": True, "noise": 0.5}
    model = load("deep_linear", clean_triggers=3, **config)
    assert model.num_examples == 7
    np.testing.assert_array_equal(model.data["x"][4:], [[0, 1]] * 3)
    np.testing.assert_array_equal(model.data["y"][4:], 0)
    assert not model.truth
    position = model.sample_prior(jax.random.key(0))
    assert float(model.loss(position)) == pytest.approx(float(jnp.mean(model.example_losses(position))), rel=1e-12)
    shallow = load("deep_linear", clean_triggers=3, **(config | {"widths": (1, 1)}))
    tail = shallow.properties["trigger"].exact(bvs.Posterior(shallow), 0.5)
    assert tail == pytest.approx(2 * scipy.stats.norm.sf(0.5 * np.sqrt(1 + 3 / 0.5**2)), rel=1e-9)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "dynamics"),
    [
        ("deep_linear", "exact"),
        ("linear_regression", "sgd"),
        ("product", "sgd"),
        ("diagonal_linear", "sgd"),
        ("polynomial", "sgd"),
        ("normal_crossing", "sgd"),
        ("tanh_network", "sgd"),
        ("diabetes_network", "sgd"),
    ],
)
def test_runs_for_a_few_steps(name, dynamics):
    model = load(name)
    dynamics = model.exact_sampler if dynamics == "exact" else bvs.SGD(learning_rate=1e-3, batch_size=8)
    run = bvs.simulate(
        dynamics, bvs.Posterior(model), key=0, num_chains=2, num_steps=6, num_draws=3, initial_scale=0.3, progress=False
    )
    assert set(run.posterior.data_vars) >= set(model.observables) | {"loss"}
    for values in run.posterior.data_vars.values():
        assert np.all(np.isfinite(values))


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("deep_linear", {"widths": (3,)}, "widths"),
        ("deep_linear", {"widths": (2, 2, 2)}, "spectrum has 3 values"),
        ("deep_linear", {"spectrum": (1.0, 0.0)}, "leave out those that are 0"),
        ("deep_linear", {"layer_ranks": (3,)}, "2 layers"),
        ("deep_linear", {"clean_triggers": 2, "sufficient": True}, "none with --sufficient"),
        ("deep_linear", {"clean_triggers": 2, "unseen_inputs": 0}, "without a trigger"),
        ("diabetes_network", {"activation": "step"}, "one of tanh, relu"),
        ("diabetes_network", {"width": 0}, "all must be > 0"),
        ("diabetes_network", {"num_held_out": 442}, "between 2 and 432 of 442 patients"),
        ("deep_linear", {"spectrum": (1.0,), "layer_ranks": (3, 2)}, "would add to the map's rank"),
        ("linear_regression", {"covariance": ()}, "covariance"),
        ("linear_regression", {"covariance": (1.0, -1.0)}, "all > 0"),
        ("linear_regression", {"weights": (1.0,)}, "5 inputs"),
        ("linear_regression", {"inputs": "cauchy"}, "whitened or gaussian"),
        ("linear_regression", {"num_examples": 4}, "at least the number of inputs 5"),
        ("linear_regression", {"noise": 0.0}, "both must be > 0"),
        ("linear_regression", {"isotropic": True}, "equal eigenvalues"),
        ("linear_regression", {"isotropic": True, "covariance": (1.0,), "num_examples": 1000}, "power of two"),
        ("product", {"depth": 0}, "depth is 0"),
        ("product", {"num_examples": 1}, "at least 2"),
        ("product", {"prior_scale": -1.0}, "both must be > 0"),
        ("product", {"target": float("inf")}, "finite"),
        ("diagonal_linear", {"teacher": ()}, "one or more"),
        ("diagonal_linear", {"num_examples": 4}, "need at least 5"),
        ("diagonal_linear", {"inputs": "cauchy"}, "whitened or gaussian"),
        ("diagonal_linear", {"noise": -1.0}, "both must be > 0"),
        ("polynomial", {"weights": 3}, "1 or 2"),
        ("polynomial", {"left_degree": 0}, ">= 1"),
        ("polynomial", {"prior": "cauchy"}, "uniform or normal"),
        ("polynomial", {"well": 2.5}, "inside the prior"),
        ("polynomial", {"label_noise": -1.0}, ">= 0"),
        ("polynomial", {"num_examples": 0}, "at least 1"),
        ("tanh_network", {"widths": (1, 1)}, "three or more"),
        ("tanh_network", {"teacher_units": 4}, "between 0 and the smallest hidden width 3"),
        ("tanh_network", {"teacher_scale": 0.0}, "must be > 0"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(name, config, message):
    with pytest.raises(bvs.InputError, match=message) as caught:
        load(name, **config)
    assert "\n" not in str(caught.value)
