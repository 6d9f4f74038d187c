"""A run in small segments, for the tests that kill it: python killed_run.py DYNAMICS FOLDER."""

import sys
from pathlib import Path

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cache import enable_cache
from bayes_vs_sgd.simulate import Pace

DYNAMICS = {
    "nuts": (bvs.NUTS(max_num_doublings=4), {"num_warmup": 120, "num_draws": 60}),
    "sgd": (bvs.SGD(0.02, batch_size=4, sampling="shuffled", momentum=0.9), {"num_draws": 40, "num_steps": 280}),
}


def main(name: str, folder: str) -> None:
    """Run to the end, or continue."""
    enable_cache()
    Pace.length = lambda *args: 5
    path = Path(__file__).parents[1] / "models" / "deep_linear.py"
    model = bvs.load_model(path, widths=(2, 2, 2), spectrum=(1.0,), num_examples=20, noise=1.0)
    dynamics, settings = DYNAMICS[name]
    settings = settings | {"num_chains": 3, "observables": ["loss"], "record_positions": True, "progress": False}
    bvs.simulate(dynamics, bvs.Posterior(model), key=5, folder=folder, **settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
