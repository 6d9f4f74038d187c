"""Small runs that several tests look at: a tiny network under five dynamics."""

from pathlib import Path

import numpy as np

import bayes_vs_sgd as bvs

MODEL = Path(__file__).parents[1] / "models" / "deep_linear.py"
SMALL = {"widths": (2, 2, 2), "spectrum": (1.0,), "num_examples": 20, "noise": 1.0}
WANTED = {"num_chains": 3, "observables": ["loss", "layer_norms"], "record_positions": True, "progress": False}
DYNAMICS = {
    "sgd": (bvs.SGD(0.02, batch_size=4), {"num_draws": 20, "num_steps": 140}),
    "shuffled": (bvs.SGD(0.02, batch_size=3, sampling="shuffled", momentum=0.9), {"num_draws": 20, "num_steps": 140}),
    "sgld": (bvs.SGLD(1e-3), {"num_draws": 20, "num_steps": 140, "num_warmup": 15}),
    "adam": (bvs.Adam(0.01, batch_size=4), {"num_draws": 20, "num_steps": 140}),
    "nuts": (bvs.NUTS(max_num_doublings=4), {"num_draws": 20, "num_steps": 60, "num_warmup": 120}),
}


def assert_same(first, second):
    """Draws, statistics, coordinates and final positions are equal to the last bit."""
    for group in ("posterior", "sample_stats", "final_position"):
        one, two = first[group].to_dataset(), second[group].to_dataset()
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=f"{group}/{name}", strict=True)


def run(name, target, **changes):
    dynamics, settings = DYNAMICS[name]
    return bvs.simulate(dynamics, target, **({"key": 1} | WANTED | settings | changes))
