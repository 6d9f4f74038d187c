"""Teachers of deep linear networks are called what they are: ranks of the layers, and what is proven of the local value."""

import warnings

import numpy as np
import pytest
from conftest import MODELS
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.load import load_module
from bayes_vs_sgd.theory.linear_networks import learning_coefficient, local_lower_bound, product_ranks

pytestmark = pytest.mark.exact
deep_linear = load_module(MODELS / "deep_linear.py")


def truths(widths, weights):
    """Truths of a teacher, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = deep_linear.truths(deep_linear.Config(widths=widths), weights)
    return {name: truth.value for name, truth in found.items()}, [str(w.message) for w in said]


def layer(width_out, width_in, *positions):
    found = np.zeros((width_out, width_in))
    for row, column in positions:
        found[row, column] = 1
    return found


def test_two_layers_have_their_local_value():
    found, said = truths((3, 3, 3), [np.eye(3), layer(3, 3, (0, 0))])
    assert found == {
        "global_learning_coefficient": 4,
        "lower_bound": 4.5,
        "learning_coefficient": 4.5,
        "multiplicity": 1,
    }
    assert "is 4.5, the global one 4" in said[0]
    found, _ = truths((5, 2, 3), [layer(2, 5, (0, 0)), layer(3, 2, (0, 0), (1, 1))])
    assert (found["learning_coefficient"], found["global_learning_coefficient"]) == (5.5, 4.5)


def test_more_layers_have_a_proven_bound():
    weights = [np.eye(3), layer(3, 3, (0, 0)), np.eye(3)]
    found, said = truths((3, 3, 3, 3), weights)
    assert found == {"global_learning_coefficient": 4, "lower_bound": 4.5}
    assert "at least 4.5, the global one 4" in said[0]


def test_minimal_layers_have_the_closed_form():
    assert truths((3, 3, 3), [layer(3, 3, (0, 0))] * 2) == ({"learning_coefficient": 4, "multiplicity": 1}, [])


def test_unseen_inputs_are_no_part_of_it(load):
    """They change neither loss nor learning coefficient."""
    for unseen in (0, 2):
        with pytest.warns(UserWarning, match=r"is 4\.5, the global one 4"):
            model = load("deep_linear", widths=(3, 3, 3), spectrum=(1.0,), layer_ranks=(3, 1), unseen_inputs=unseen)
        assert model.truth["lower_bound"].value == 4.5


def test_a_product_that_vanishes_up_to_rounding_has_rank_zero(load):
    """Two layers of rank 2 of width 4 whose product is 1e-16: the local value 6 is the bound."""
    with pytest.warns(UserWarning, match="map's rank 0"):
        model = load("deep_linear", widths=(4, 4, 4), spectrum=(), layer_ranks=(2, 2), unseen_inputs=0)
    weights = [np.asarray(model.optimum[name], float) for name in ("W1", "W2")]
    assert 0 < np.abs(weights[1] @ weights[0]).max() < 1e-6
    assert model.truth["learning_coefficient"].value == model.truth["lower_bound"].value == 6


def test_ranks_of_a_deep_product():
    """Twenty layers of rank 7 of 9: the product's smallest singular values are below rounding."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(9, 7)) @ rng.normal(size=(7, 9)) for _ in range(20)]
    assert product_ranks(weights) == [9] + [7] * 20
    product = np.linalg.multi_dot(weights[::-1])
    assert np.linalg.matrix_rank(product) < 7


@pytest.mark.law
def test_random_teachers_are_cut_half_the_time():
    """Xavier variance where a layer is whole; each of three layers is cut with probability 1/2 to a uniform rank in 0 ... 4."""
    rng = np.random.default_rng(0)
    config = deep_linear.Config(widths=(4, 6, 6, 4), teacher="random")
    full, ranks, squares = [], [], []
    for _ in range(3000):
        weights = deep_linear.random_teacher(config, rng)
        found = [product_ranks([w])[-1] for w in weights]
        assert product_ranks(weights)[-1] == min(found)
        full.append(found[0] == 4)
        ranks.append(found[0])
        squares.append(np.mean(weights[0] ** 2) if found[0] == 4 else 0.2)
    values = np.stack([full, ranks, squares], axis=1)
    assert_mean(values, expected=[0.6, 3.0, 0.2], detects=[0.1, 0.3, 0.02])
    with planted_bug():  # a uniform rank in 1 ... 4
        assert_mean(values, expected=[0.625, 3.25, 0.2], detects=[0.1, 0.3, 0.02])


def test_random_teachers_are_seldom_minimal():
    """As the public benchmarks draw them, a quarter is provably above the closed form (the notes: 24 to 27 %)."""
    rng = np.random.default_rng(0)
    above = []
    for _ in range(200):
        widths = tuple(int(w) for w in rng.integers(5, 51, rng.integers(3, 7)))
        weights = deep_linear.random_teacher(deep_linear.Config(widths=widths, teacher="random"), rng)
        above.append(local_lower_bound(weights) > learning_coefficient(widths, product_ranks(weights)[-1]).value)
    assert 0.15 < np.mean(above) < 0.35


def test_a_random_teacher_makes_a_model(load):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(
            "deep_linear", teacher="random", widths=(4, 4, 4), inputs="uniform", noise_free=True, unseen_inputs=0
        )
    weights = [np.asarray(model.optimum[name], float) for name in ("W1", "W2")]
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    np.testing.assert_allclose(y, x @ (weights[1] @ weights[0]).T, atol=1e-4)
    assert model.truth["learning_coefficient"].value >= 4


@pytest.mark.parametrize(
    ("config", "message"),
    [({"teacher": "cruel"}, "balanced or random"), ({"teacher": "random", "layer_ranks": (3, 3)}, "are drawn")],
)
def test_impossible_teachers_are_refused(load, config, message):
    with pytest.raises(bvs.InputError, match=message):
        load("deep_linear", **config)
