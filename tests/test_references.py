"""NUTS and Gibbs agree on E[n beta L], layer norms and imbalance, over depths, inverse temperatures, localisations."""

import jax
import numpy as np
import pytest
from scipy import stats
from statistical import chain_mean

import bayes_vs_sgd as bvs

Z = stats.norm.isf(1e-6 / 2)
CASES = {
    "two layers": ({"widths": (3, 3, 3), "spectrum": (2.0, 1.0, 0.4)}, 0.3, 0.0),
    "rank one": ({"widths": (3, 2, 3), "spectrum": (1.5,), "unseen_inputs": 0}, 0.1, 0.0),
    "three layers": ({"widths": (2, 3, 3, 2), "spectrum": (1.0, 0.5)}, 0.2, 0.0),
    "localised": ({"widths": (3, 3, 3), "spectrum": (2.0, 1.0)}, 0.15, 1.0),
    "tightly localised": ({"widths": (2, 2, 2, 2), "spectrum": (1.0,), "unseen_inputs": 0}, 1.0, 30.0),
    "bottleneck, uniform inputs": ({"widths": (4, 2, 3), "spectrum": (1.0, 0.5), "inputs": "gaussian"}, 0.05, 0.1),
}


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_nuts_agrees_with_gibbs(load, case):
    """Each of about 20 comparisons a case at a false alarm rate of 1e-6."""
    config, beta, localization = CASES[case]
    target = bvs.Posterior(load("deep_linear", **config), beta, localization)
    with jax.enable_x64(True):
        target = bvs.Posterior(load("deep_linear", **config), beta, localization)
        gibbs = bvs.simulate(
            target.model.exact_sampler, target, key=1, num_chains=8, num_draws=4000, num_warmup=500, progress=False
        )
        nuts = bvs.simulate(
            bvs.NUTS(target_acceptance_rate=0.9),
            target,
            key=2,
            num_chains=8,
            num_draws=1000,
            num_warmup=500,
            progress=False,
        )
    for name in ("loss", "layer_norms", "imbalance", "singular_values"):
        (mean, error), (mean_0, error_0) = chain_mean(nuts, name), chain_mean(gibbs, name)
        z = (mean - mean_0) / np.hypot(error, error_0)
        assert np.all(np.abs(z) < Z), (name, z)
