"""Closed forms for deep linear networks agree with published tables, brute force and the Jacobian of the product."""

import itertools
import math

import numpy as np
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.linear_networks import (
    hessian_eigenvalues,
    learning_coefficient,
    local_lower_bound,
    local_two_layers,
)

pytestmark = pytest.mark.exact


def textbook(widths, rank):
    """Aoyagi's theorem in its set form: the one set of excess widths that meets three inequalities, found by trial."""
    excess = [w - rank for w in widths]
    found = set()
    for size in range(2, len(excess) + 1):
        for chosen in itertools.combinations(range(len(excess)), size):
            inside = [excess[i] for i in chosen]
            outside = [m for i, m in enumerate(excess) if i not in chosen]
            count, total = size - 1, sum(inside)
            if outside and not (max(inside) < min(outside) and total < count * min(outside)):
                continue
            if total < count * max(inside):
                continue
            part = math.ceil(total / count)
            larger = total - (part - 1) * count
            value = (rank * (widths[0] + widths[-1]) - rank**2) / 2 + larger * (count - larger) / (4 * count)
            value -= count * (count - 1) / 4 * (total / count) ** 2
            value += sum(a * b for a, b in itertools.combinations(inside, 2)) / 2
            found.add((round(value, 9), larger * (count - larger) + 1))
    assert len(found) == 1, (widths, rank, found)
    return found.pop()


@pytest.mark.parametrize(("longest", "largest"), [(3, 6), (4, 5), (5, 4)])
def test_greedy_form_equals_the_set_form(longest, largest):
    for widths in itertools.product(range(1, largest + 1), repeat=longest):
        for rank in range(min(widths) + 1):
            assert learning_coefficient(widths, rank) == pytest.approx(textbook(widths, rank), abs=1e-9), (widths, rank)


@pytest.mark.parametrize(
    ("widths", "rank", "value", "multiplicity"),
    [
        ((3, 3, 3), 1, 4, 1),
        ((4, 4, 4, 4), 2, 7.5, 3),
        ((10, 10, 10), 0, 37.5, 1),
        ((5, 8, 3, 7), 2, 11.5, 1),
        ((100,) * 4, 50, 4583.5, 3),
        ((1, 1, 1), 0, 0.5, 2),
        ((1, 1, 1, 1), 0, 0.5, 3),
        ((3, 3, 3), 0, 3.5, 2),
        ((16,) * 4, 4, 104, 1),
        ((512,) * 5, 64, 93440, 1),
        ((2, 2, 2), 0, 1.5, 1),
        ((2, 2, 2), 1, 2, 2),
        ((2, 2, 2), 2, 2, 1),
        ((3, 3, 3), 2, 4.5, 2),
        ((3, 3, 3), 3, 4.5, 1),
        ((3, 3, 3, 3), 0, 3, 1),
        ((3, 3, 3, 3), 1, 4, 3),
        ((3, 3, 3, 3), 2, 4.5, 3),
        ((3, 3, 3, 3), 3, 4.5, 1),
        ((5, 2, 5), 0, 4.5, None),
        ((5, 2, 5), 1, 6.5, 2),
        ((5, 2, 5), 2, 8, 1),
        *(((4, 10, 10, 10, 4), rank, 8, None) for rank in range(5)),
    ],
)
def test_published_values(widths, rank, value, multiplicity):
    found = learning_coefficient(widths, rank)
    assert found.value == value
    assert multiplicity is None or found.multiplicity == multiplicity


@pytest.mark.parametrize(("widths", "rank"), [((3,), 0), ((3, 0), 0), ((3, 2), 3), ((3, 2), -1)])
def test_impossible_widths_are_refused(widths, rank):
    with pytest.raises(bvs.InputError, match="widths"):
        learning_coefficient(widths, rank)


@pytest.mark.parametrize(
    ("widths", "rank", "layer_ranks", "local", "overall"),
    [((3, 3, 3), 1, (3, 1), 4.5, 4.0), ((5, 2, 3), 1, (1, 2), 5.5, 4.5)],
)
def test_local_values_of_two_layers(widths, rank, layer_ranks, local, overall):
    assert local_two_layers(widths, rank, layer_ranks).value == local
    assert learning_coefficient(widths, rank).value == overall


def test_minimal_layer_ranks_give_the_global_value():
    for widths in itertools.product(range(1, 6), repeat=3):
        for rank in range(min(widths) + 1):
            assert local_two_layers(widths, rank, (rank, rank)) == learning_coefficient(widths, rank), (widths, rank)


def test_local_value_is_never_below_the_bound_nor_the_global_one():
    for widths in itertools.product(range(1, 5), repeat=3):
        for rank in range(min(widths) + 1):
            first, middle, last = (w - rank for w in widths)
            for lower, upper in itertools.product(range(first + 1), range(last + 1)):
                if lower + upper > middle:
                    continue
                weights = split_teacher(widths, rank, lower, upper)
                local = local_two_layers(widths, rank, (rank + lower, rank + upper)).value
                assert local >= local_lower_bound(weights)
                assert local >= learning_coefficient(widths, rank).value


def test_impossible_layer_ranks_are_refused():
    with pytest.raises(bvs.InputError, match="layer ranks"):
        local_two_layers((3, 3, 3), 1, (3, 3))


def test_lower_bound_is_half_the_rank_of_the_jacobian():
    rng = np.random.default_rng(0)
    for _ in range(60):
        widths = rng.integers(1, 6, size=rng.integers(2, 6))
        weights = []
        for into, out in itertools.pairwise(widths):
            rank = rng.integers(0, min(into, out) + 1)
            weights.append(rng.normal(size=(out, rank)) @ rng.normal(size=(rank, into)))
        assert local_lower_bound(weights) == np.linalg.matrix_rank(jacobian(weights), tol=1e-8) / 2


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (2, (6, 5, 5, 4, 3.5, 3.5, 2.5, 2.5, 1)),
        (
            3,
            (12.980246, 10.148518, 10.148518, 7.559526, 6.033970, 6.033970, 3.916692, 3.916692, 1.190551),
        ),
    ],
)
def test_hessian_eigenvalues_published(depth, expected):
    np.testing.assert_allclose(hessian_eigenvalues((3, 2, 0.5), depth), expected, atol=5e-7)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_hessian_eigenvalues_are_those_of_the_hessian(depth):
    """At a minimum the Hessian is J'J; a balanced one has all layers equal to the root of the singular values."""
    singular = np.array([3.0, 2.0, 0.5])
    rng = np.random.default_rng(1)
    bases = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(depth + 1)]
    weights = [up @ np.diag(singular ** (1 / depth)) @ low.T for low, up in itertools.pairwise(bases)]
    j = jacobian(weights)
    found = np.linalg.eigvalsh(j @ j.T)[::-1]
    np.testing.assert_allclose(hessian_eigenvalues(singular, depth), found, rtol=1e-12)
    assert found.size == 9
    if depth == 4:
        assert found[0] == pytest.approx(20.784610, abs=5e-7)


def jacobian(weights):
    """Differential of W_L ... W_1, entries of the product by entries of all layers (row-major)."""
    blocks = []
    for i in range(len(weights)):
        above = np.eye(weights[-1].shape[0])
        for matrix in reversed(weights[i + 1 :]):
            above = above @ matrix
        below = np.eye(weights[0].shape[1])
        for matrix in weights[:i]:
            below = matrix @ below
        blocks.append(np.kron(above, below.T))
    return np.hstack(blocks)


def split_teacher(widths, rank, lower, upper):
    """Two layers with a product of the given rank and excess ranks that cancel."""
    first, second = np.zeros((widths[1], widths[0])), np.zeros((widths[2], widths[1]))
    for i in range(rank + lower):
        first[i, i] = 1
    for i in range(rank):
        second[i, i] = 1
    for i in range(upper):
        second[rank + i, rank + lower + i] = 1
    assert np.linalg.matrix_rank(second @ first) == rank
    return [first, second]
