"""Entropy production from trajectories, on linear processes whose law at a finite learning rate is known."""

import numpy as np
import pytest
import scipy.stats
from statistical import FALSE_ALARM, assert_mean, planted_bug

from bayes_vs_sgd.assumptions import production
from bayes_vs_sgd.theory.quadratic import continuous_covariance, production_rate, stationary_covariance

ETA, NUM_CHAINS, NUM_STEPS = 0.05, 100, 64
PLANE = np.diag([1.0, 3.0]), np.array([[1.0, 0.5], [0.5, 1.0]])
"""Produces 1/3 where steps are small (claim C5), of tr H = 4."""
SPACE = np.diag([1.0, 2.0, 3.0]), np.array([[1.0, 0.3, 0.0], [0.3, 1.0, 0.3], [0.0, 0.3, 1.0]])
REVERSIBLE = np.diag([1.0, 2.0, 3.0]), np.diag([1.0, 2.0, 0.5])


def exact(hessian, noise, eta=ETA):
    """Of SGD on a quadratic, at its own covariance."""
    law, step = stationary_covariance(hessian, noise, eta), np.eye(len(hessian)) - eta * hessian
    return float(np.sum(production.relative_current(np.stack([law, step @ law, law])) ** 2))


def paths(case, seed, num_chains=NUM_CHAINS):
    """Stationary positions of SGD on a quadratic."""
    (hessian, noise), rng = case, np.random.default_rng(seed)
    root, x = np.linalg.cholesky(noise).T, rng.normal(size=(num_chains, len(hessian)))
    walked = [x @ np.linalg.cholesky(stationary_covariance(hessian, noise, ETA)).T]
    for _ in range(NUM_STEPS - 1):
        walked.append(walked[-1] - ETA * walked[-1] @ hessian + ETA * rng.normal(size=x.shape) @ root)
    return np.stack(walked, axis=1)


def estimates(case, number=200):
    """Of as many independent ensembles."""
    axes = np.eye(len(case[0]))
    return [production.entropy_production(paths(case, seed), axes, seed) for seed in range(number)]


@pytest.mark.exact
@pytest.mark.parametrize("case", [PLANE, SPACE])
def test_it_is_that_of_the_equation_where_steps_are_small(case):
    hessian, noise = case
    known = production_rate(hessian, continuous_covariance(hessian, noise, 1.0), noise / 2) / np.trace(hessian)
    assert exact(hessian, noise, 1e-6) == pytest.approx(known, rel=1e-4)
    if case is PLANE:
        assert known == pytest.approx(1 / 12)


@pytest.mark.exact
@pytest.mark.parametrize("eta", [0.05, 0.3])
def test_a_reversible_chain_produces_none_at_any_learning_rate(eta):
    """The formula of the equation itself would give tr K eta K / 2 and more."""
    assert exact(*REVERSIBLE, eta) < 1e-20


@pytest.mark.exact
def test_a_part_of_the_directions_bounds_it_from_below():
    """In its own unit, and so times the share of the rates."""
    hessian, noise = SPACE
    law, step = stationary_covariance(hessian, noise, ETA), np.eye(3) - ETA * hessian
    for axes in (np.eye(3)[:, :2], np.linalg.qr(np.arange(6.0).reshape(3, 2) ** 2 + 1)[0]):
        means = np.stack([axes.T @ m @ axes for m in (law, step @ law, law)])
        unit = np.trace(np.linalg.solve(means[0], (means[0] - means[1] @ np.linalg.solve(means[0], means[1].T)) / 2))
        whole = np.trace(np.linalg.solve(law, (law - step @ law @ step.T) / 2))
        assert unit * np.sum(production.relative_current(means) ** 2) < whole * exact(hessian, noise)


@pytest.mark.law
@pytest.mark.parametrize(("case", "detects"), [(PLANE, 0.02), (SPACE, 0.01)])
def test_the_mean_is_the_exact_one(case, detects):
    """Planted: detailed balance."""
    values = [a.value for a in estimates(case)]
    assert_mean(values, expected=exact(*case), detects=detects)
    with planted_bug():
        assert_mean(values, expected=0.0, detects=detects)


@pytest.mark.law
def test_what_is_positive_by_chance_is_taken_off():
    """Planted: the square of the measured current as it is."""
    assert_mean([a.value for a in estimates(REVERSIBLE)], expected=0.0, detects=0.005)
    sums = [production.moments(paths(REVERSIBLE, seed)).mean(axis=0) for seed in range(200)]
    with planted_bug():
        assert_mean(
            [np.sum(production.relative_current(m) ** 2) for m in sums],
            expected=0.0, detects=0.005,
        )  # fmt: skip


@pytest.mark.law
@pytest.mark.parametrize("case", [PLANE, SPACE, REVERSIBLE])
def test_its_interval_covers(case, monkeypatch):
    """Planted: half the confidence, where one pair of directions makes the interval no wider than it has to be."""
    expected, number = exact(*case), 200

    def assert_covers():
        missed = sum(not a.interval[0] <= expected <= a.interval[1] for a in estimates(case, number))
        limit = scipy.stats.binom(number, 0.05).isf(FALSE_ALARM)
        if missed > limit:
            raise AssertionError(f"{missed} of {number} differ from {expected}: chance allows {limit}")

    assert_covers()
    if case is PLANE:
        monkeypatch.setattr(production, "CONFIDENCE", 0.5)
        with planted_bug():
            assert_covers()


@pytest.mark.law
def test_currents_are_told_from_none():
    """With 2,000 chains, of a rate of 0.09 and of none; with 100 chains none is not shown."""
    assert production.entropy_production(paths(PLANE, 0, 2000), np.eye(2)).holds is False
    assert production.entropy_production(paths(REVERSIBLE, 0, 2000), np.eye(3)).holds
    assert production.entropy_production(paths(REVERSIBLE, 0, 20), np.eye(3)).holds is None


@pytest.mark.exact
def test_where_nothing_moves_there_is_nothing_to_measure():
    still = np.zeros((100, 8, 2))
    found = production.entropy_production(still, np.eye(2))
    assert found.holds is None
    assert found.note == "the run does not move in one of them"
