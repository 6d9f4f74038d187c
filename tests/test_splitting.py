"""Rare events of training by splitting, against a law that is known by its start and one that is known by its noise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.robustness.splitting import next_level
from bayes_vs_sgd.theory.rare_events import flow_exceedance

RATE, BATCH, STEPS = 0.1, 8, 100
MANY = {"law": "sgd", "num_replicates": 16, "num_particles": 250, "num_moves": 4, "max_seconds": 600.0}


def labels():
    """One weight, and labels of +-1 at one input: from zero SGD ends at a weighted sum of fair signs."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w * x, 1), obs=y)

    data = {"x": np.ones(64), "y": np.tile([1.0, -1.0], 32)}
    return bvs.Model(program, data, optimum={"w": 0.0}, properties={"size": lambda model, values: jnp.abs(values["w"])})


def two_sided_tail(threshold):
    """P(|w| > c), w = sum_k eta (1 - eta)^k mean of B signs, by Gil-Pelaez' inversion of prod_k cos(t a_k / B)^B."""
    t = np.linspace(0, 400, 400_001)[1:]
    characteristic = np.ones_like(t)
    for k in range(STEPS):
        characteristic *= np.cos(t * RATE * (1 - RATE) ** k / BATCH) ** BATCH
    return 1 - 2 / np.pi * np.trapezoid(np.append(threshold, characteristic * np.sin(t * threshold) / t), dx=t[0])


@pytest.mark.law
def test_a_rare_end_of_noisy_training(x64):
    """Known by its noise alone, at 1e-5, by Student's test over sixteen replicates; planted: three times as likely."""
    settings = {"learning_rate": RATE, "batch_size": BATCH, "num_steps": STEPS, "num_seeds": 1000}
    found = bvs.robustness(labels(), "size", 0.33, initial_scale=1e-6, **settings, **MANY)
    assert found.method == "splitting"
    assert found.trusted, found.warnings
    exact = two_sided_tail(0.33)
    values = np.array(found.replicates["twice_the_moves"]) / exact
    assert_mean(values, expected=1.0, detects=1.5)
    with planted_bug():
        assert_mean(values, expected=3.0, detects=1.5)
    curve = found.survival
    for row in zip(curve.thresholds, curve.probabilities, curve.standard_errors, strict=True):
        if (known := two_sided_tail(row[0])) > 1e-3:
            assert_mean(row[1] / known, row[2] / known, expected=1.0, detects=0.8)
    assert all(abs(member.values["w"]) > 0.33 for member in found.members)


@pytest.mark.law
@pytest.mark.slow
def test_a_rare_end_of_training_without_noise(load, x64):
    """Gradient flow from the prior, known by its start alone, at 1e-3; planted: three times the probability."""
    fitted = {"widths": (1, 4, 1), "num_examples": 16, "spectrum": (1.0,), "noise": 0.2, "noise_free": True}
    model = load("deep_linear", prior_scale=0.5, num_held_out=2, **fitted)
    settings = {"learning_rate": 0.02 * 0.2**2, "num_steps": 242, "initial_scale": 1.0, "num_seeds": 500}
    found = bvs.robustness(model, "trigger", 2.2, **settings, **MANY)
    assert found.method == "splitting"
    assert found.trusted, found.warnings
    values = np.array(found.replicates["twice_the_moves"]) / flow_exceedance(2.2, 4, 1.0, 0.5)
    assert_mean(values, expected=1.0, detects=1.5)
    with planted_bug():
        assert_mean(values, expected=3.0, detects=1.5)


@pytest.mark.law
def test_what_training_never_does(x64, tmp_path):
    """The sum of all signs is the largest end there is; and a run that was killed goes on with what the folder holds."""
    settings = {"learning_rate": RATE, "batch_size": BATCH, "num_steps": 4, "num_seeds": 100, "initial_scale": 1e-6}
    few = MANY | {"num_replicates": 4, "num_particles": 100, "folder": tmp_path}
    found = bvs.robustness(labels(), "size", 0.5, **settings, **few)
    assert found.probability == 0
    assert found.log10_probability is None
    assert any("never reached" in warning for warning in found.warnings)
    kept = sorted((tmp_path / "particles").iterdir())
    assert len(kept) == 2 * 4
    for lost in kept[1::3]:
        lost.unlink()
    jax.clear_caches()
    again = bvs.robustness(labels(), "size", 0.5, **settings, **few)
    assert again.replicates == found.replicates
    assert sorted((tmp_path / "particles").iterdir()) == kept
    (number,) = tmp_path.glob("num_runs-*.json")  # as many as were timed at first, however fast it is to read them
    number.write_text("123")
    assert bvs.robustness(labels(), "size", 0.5, **settings, **few).settings["num_runs"] == 123


@pytest.mark.exact
def test_levels():
    assert next_level(np.arange(8.0)) == 5
    assert next_level(np.array([0.0, 1, 1, 1, 1, 1, 1, 1])) == 0
    assert next_level(np.ones(8)) == np.inf
    assert next_level(np.array([-np.inf] * 7 + [1.0])) == -np.inf
