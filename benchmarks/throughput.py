"""Speed of the one loop beside a bare one, and of the exact samplers, on deep linear networks.

    python benchmarks/throughput.py --json throughput.json

Three questions, in two tables:

- chain-steps per second of SGD and SGLD, from tiny networks in many chains to a million weights in four;
- the same SGD update as a hand-written ``vmap`` and ``scan`` (what one would write without the library), and the ratio;
- effective sample size per second of NUTS and of exact block Gibbs on one tempered, localised posterior.

Compile time is the wall time of a first call less that of a second, both short; run time is a long call after them. A
scan has its length compiled in, so the bare loop's calls are all long.
The persistent compile cache is off here, so that a first call does compile.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import bayes_vs_sgd as bvs

MODEL_FILE = Path(__file__).parents[1] / "models" / "deep_linear.py"
START_SCALE = 0.01
"""Every chain starts at the optimum plus normal noise of this scale, where no step size below diverges."""
SHORT_STEPS = 20
"""Steps of the two short calls that give the compile time."""
POSTERIOR_DRAWS = {"NUTS": (100, 200), "Gibbs": (200, 4_000)}
"""Warm-up and draws of each chain."""


@dataclass(frozen=True)
class Case:
    """A network, an ensemble, and steps that take some seconds (of SGLD fewer: a normal for each weight costs more)."""

    name: str
    config: dict[str, Any]
    num_chains: int
    batch_size: int
    num_steps: int
    num_langevin_steps: int
    learning_rate: float


SMALL = {"widths": (4, 10, 10, 10, 4), "spectrum": (100.0, 90.0, 80.0, 70.0), "num_examples": 20, "noise": 1.0}
MIDDLE = {"widths": (16,) * 4, "spectrum": (4.0, 3.0, 2.0, 1.0), "num_examples": 10_000, "inputs": "gaussian"}
LARGE = {"widths": (512,) * 5, "spectrum": (1.0,) * 64, "num_examples": 2_000}

CASES = [  # chains, batch, steps, steps of SGLD, learning rate
    Case("4-10-10-10-4", SMALL, 1000, 1, 6_000, 800, 1e-5),
    Case("16-16-16-16", MIDDLE, 4, 32, 40_000, 24_000, 1e-3),
    Case("16-16-16-16", MIDDLE, 256, 32, 900, 600, 1e-3),
    Case("512 x 5", LARGE, 4, 512, 60, 30, 1e-3),
]


def main() -> None:
    """Run all cases, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description="Speed of simulate beside a bare loop, and of NUTS beside Gibbs.")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of steps and draws")
    arguments = parser.parse_args()

    jax.config.update("jax_enable_compilation_cache", False)
    steps_rows = [row for case in CASES for row in measure_steps(scaled(case, arguments.scale))]
    print_table(steps_rows, "Chain-steps per second")
    posterior_rows = measure_posterior(arguments.scale)
    print_table(posterior_rows, "Effective draws per second: 16-16-16-16, n = 10,000, beta = 1/log n, localization 1")

    if arguments.json:
        found = {"machine": machine(), "scale": arguments.scale, "steps": steps_rows, "posterior": posterior_rows}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def scaled(case: Case, scale: float) -> Case:
    """Return the case with other numbers of steps."""
    steps = {name: max(SHORT_STEPS, round(getattr(case, name) * scale)) for name in ("num_steps", "num_langevin_steps")}
    return replace(case, **steps)


def load(config: dict[str, Any]) -> bvs.Model:
    """Deep linear network without unseen inputs."""
    return bvs.load_model(MODEL_FILE, unseen_inputs=0, **config)


def measure_steps(case: Case) -> list[dict[str, Any]]:
    """SGD, its bare peer and SGLD on one network."""
    model = load(case.config)
    target = bvs.Posterior(model, inverse_temperature=1 / np.log(model.num_examples), localization=1.0)
    sgd = bvs.SGD(learning_rate=case.learning_rate, batch_size=case.batch_size)
    sgld = bvs.SGLD(step_size=case.learning_rate / float(target.scale), batch_size=case.batch_size)

    def simulate(dynamics: bvs.Dynamics):
        def call(seed: int, num_steps: int) -> None:
            tree = bvs.simulate(
                dynamics,
                target,
                key=seed,
                num_chains=case.num_chains,
                num_draws=2,
                num_steps=num_steps,
                initial="optimum",
                initial_scale=START_SCALE,
                observables=["loss"],
                progress=False,
            )
            refuse_lost(tree["final_position"]["lost_at_step"].values >= 0, case)

        return call

    ours = timed(case, "SGD", simulate(sgd), case.num_steps, SHORT_STEPS)
    bare = timed(case, "SGD, bare", bare_sgd(case, model), case.num_steps, case.num_steps)
    ours["ours_over_bare"] = ours["chain_steps_per_second"] / bare["chain_steps_per_second"]
    return [ours, bare, timed(case, "SGLD", simulate(sgld), case.num_langevin_steps, SHORT_STEPS)]


def bare_sgd(case: Case, model: bvs.Model):
    """Return the same update written by hand: scan over steps, vmap over chains, nothing recorded."""
    x, y, noise = model.data["x"], model.data["y"], model.facts["config"]["noise"]
    names = [name for name, _ in model.latents]

    def batch_loss(position, rows):
        hidden = x[rows]
        for name in names:
            hidden = hidden @ position[name].T
        return jnp.mean(jnp.sum((y[rows] - hidden) ** 2, axis=1)) / (2 * noise**2)

    @jax.jit
    def run(keys, positions, steps):
        def one_chain(key, position):
            def step(position, index):
                rows = jax.random.randint(jax.random.fold_in(key, index), (case.batch_size,), 0, x.shape[0])
                gradient = jax.grad(batch_loss)(position, rows)
                return jax.tree.map(lambda w, g: w - case.learning_rate * g, position, gradient), None

            return jax.lax.scan(step, position, steps)[0]

        return jax.vmap(one_chain)(keys, positions)

    def call(seed: int, num_steps: int) -> None:
        keys = jax.random.split(jax.random.key(seed), case.num_chains)
        positions = {
            name: w + START_SCALE * jax.random.normal(jax.random.key(seed + 1), (case.num_chains, *w.shape))
            for name, w in model.optimum.items()
        }
        positions = jax.block_until_ready(run(keys, positions, jnp.arange(num_steps)))
        refuse_lost(~np.isfinite(np.asarray(positions[names[0]])).all(axis=(1, 2)), case)

    return call


def refuse_lost(lost: np.ndarray, case: Case) -> None:
    """Stop where chains are lost: the speed of a diverged run means nothing."""
    if lost.any():
        raise SystemExit(f"{case.name}: {lost.sum()} of {case.num_chains} chains were lost: lower the learning rate")


def timed(case: Case, name: str, call, num_steps: int, short: int) -> dict[str, Any]:
    """Time two short calls and a long one; the second is the long one where they are of one length."""
    first, second = seconds(call, 0, short), seconds(call, 1, short)
    run = second if short == num_steps else seconds(call, 2, num_steps)
    return {
        "network": case.name,
        "dynamics": name,
        "num_chains": case.num_chains,
        "batch_size": case.batch_size,
        "num_steps": num_steps,
        "compile_seconds": first - second,
        "run_seconds": run,
        "chain_steps_per_second": case.num_chains * num_steps / run,
    }


def measure_posterior(scale: float) -> list[dict[str, Any]]:
    """NUTS and Gibbs: warm-up and draws timed apart, by extending a stored run of one draw."""
    model = load(MIDDLE)
    target = bvs.Posterior(model, inverse_temperature=1 / np.log(model.num_examples), localization=1.0)
    rows = []
    for name, dynamics in {"NUTS": bvs.NUTS(), "Gibbs": model.exact_sampler}.items():
        num_warmup, num_draws = (max(20, round(count * scale)) for count in POSTERIOR_DRAWS[name])

        def call(seed: int, num_draws: int, folder: str, dynamics=dynamics, num_warmup=num_warmup):
            return bvs.simulate(
                dynamics,
                target,
                key=seed,
                num_chains=4,
                num_draws=num_draws,
                num_warmup=num_warmup,
                initial="optimum",
                initial_scale=START_SCALE,
                observables=["loss", "total_norm"],
                folder=folder,
                progress=False,
            )

        with tempfile.TemporaryDirectory() as scratch:
            first = seconds(call, 0, 1, f"{scratch}/first")
            warmup = seconds(call, 1, 1, f"{scratch}/second")
            started = time.perf_counter()
            draws = call(1, num_draws, f"{scratch}/second")["posterior"].to_dataset().load()
            run = time.perf_counter() - started
        ess = {v: float(arviz_stats.ess(draws[v].values, chain_axis=0, draw_axis=1)) for v in ("loss", "total_norm")}
        rows.append(
            {
                "dynamics": name,
                "num_chains": 4,
                "num_warmup": num_warmup,
                "num_draws": num_draws,
                "compile_seconds": first - warmup,
                "warmup_seconds": warmup,
                "run_seconds": run,
                **{f"ess_{v}": value for v, value in ess.items()},
                **{f"ess_{v}_per_second": value / run for v, value in ess.items()},
            }
        )
    return rows


def seconds(call, *arguments: Any) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """Return what the numbers depend on, beside the load of the moment."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """Print rows; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*[name.replace("_", " ") for name in columns], title=title)
    for row in rows:
        cells = [row.get(name, "") for name in columns]
        table.add_row(*[f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in cells])
    Console(width=max(80, 16 * len(columns))).print(table)


if __name__ == "__main__":
    main()
