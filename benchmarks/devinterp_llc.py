"""Learning coefficients by this library beside devinterp's, on the same deep linear network.

    python benchmarks/devinterp_llc.py --json devinterp_llc.json

Both run SGLD on one target: same data, labels without noise, start at the teacher, minibatches of 512, localization 1,
n beta = n / log n, 4 chains, the same numbers of steps and of recorded draws. Their learning rate is twice our step
size (``bvs.SGLD``). The prior is so wide (precision 1e-6 beside the localization's 1) that devinterp goes without.

devinterp is run by its high-level ``devinterp.slt.llc.llc``. Since version 2 that takes token sequences alone, so an
example is the sequence (row, 0) and ``loss_fn`` looks the row up. What would slow it down is left out: no observables,
one batch for the initial loss (which is zero here), a plain torch data set that hands out batches of rows, and the
better of several numbers of threads.

The exact value at finite n is that of block Gibbs, and errors are relative to it. R-hat and ESS (ArviZ, rank-normalised,
bulk) are of n beta L after the burn-in: the full loss for ours, the minibatch's for devinterp, which records no other.

Time to an accuracy is the time after which the estimate (first third of the draws so far dropped) stays within 5 % of
the exact value to the end of the run: crossing it on the way elsewhere does not count. Ours includes compilation, with
the persistent cache off. Imports count for neither.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import arviz_stats
import jax
import numpy as np
import torch
from devinterp.slt.llc import llc
from rich.console import Console
from rich.table import Table

import bayes_vs_sgd as bvs

MODEL_FILE = Path(__file__).parents[1] / "models" / "deep_linear.py"
NUM_CHAINS, BATCH_SIZE, LOCALIZATION, PRIOR_SCALE = 4, 512, 1.0, 1000.0
TARGET_ERROR = 0.05
LEARNING_RATES = (3e-6, 1e-5, 3e-5, 1e-4)
"""devinterp's, in the search for the shortest time to the target error; ours take half of them as step size."""


@dataclass(frozen=True)
class Case:
    """A network and its budget: steps of SGLD, sweeps of Gibbs, each as burn-in and draws."""

    name: str
    config: dict[str, Any]
    learning_rate: float
    steps: tuple[int, int]
    sweeps: tuple[int, int]
    reference_sweeps: tuple[int, int]
    gibbs_chains: int
    repeats: int


SMALL = Case(
    name="16-16-16-16",
    config={"widths": (16,) * 4, "spectrum": (1.0,) * 4},
    learning_rate=1e-4,
    steps=(500, 1000),
    sweeps=(100, 400),
    reference_sweeps=(500, 20_000),
    gibbs_chains=4,
    repeats=5,
)
LARGE = Case(
    name="512 x 5",
    config={"widths": (512,) * 5, "spectrum": (1.0,) * 64},
    learning_rate=1e-6,
    steps=(0, 20),
    sweeps=(30, 10),
    reference_sweeps=(40, 20),
    gibbs_chains=2,
    repeats=3,
)


def main() -> None:
    """Run all, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description="Learning coefficients beside devinterp's: speed, error, diagnostics.")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of steps and sweeps")
    parser.add_argument("--torch-threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--small", action="store_true", help="16-16-16-16 alone")
    arguments = parser.parse_args()

    jax.config.update("jax_enable_compilation_cache", False)
    load_before, started = os.getloadavg(), time.perf_counter()
    found: dict[str, Any] = {"speed": [], "ratios": [], "time_to_accuracy": []}
    for case in (SMALL,) if arguments.small else (SMALL, LARGE):
        problem = Problem(case, arguments.scale)
        rows, ratios, threads = measure_speed(problem, arguments.torch_threads)
        found["speed"] += rows
        found["ratios"].append(ratios)
        print_table(rows, f"{case.name}: exact value at this n {problem.exact:,.5g} +- {problem.exact_error:.2g}")
        if case is SMALL:
            found["time_to_accuracy"] = rows = measure_accuracy(problem, threads)
            print_table(rows, f"{case.name}: seconds to an error below {TARGET_ERROR:.0%} that lasts")
    print_table(found["ratios"], "Our SGLD's steps per second over devinterp's")
    if arguments.json:
        load = {"load_before": load_before, "load_after": os.getloadavg(), "seconds": time.perf_counter() - started}
        found = {"machine": machine() | load, "scale": arguments.scale} | found
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


class Problem:
    """One target in both libraries, its exact value, and the budgets."""

    def __init__(self, case: Case, scale: float):
        self.case, self.scale = case, scale
        self.model = bvs.load_model(
            MODEL_FILE,
            inputs="gaussian",
            num_examples=10_000,
            noise=1.0,
            noise_free=True,
            prior_scale=PRIOR_SCALE,
            unseen_inputs=0,
            **case.config,
        )
        size = self.model.num_examples
        self.target = bvs.Posterior(self.model, inverse_temperature=1 / np.log(size), localization=LOCALIZATION)
        self.scaled = float(self.target.scale)
        self.minimum = float(self.model.loss(self.model.unconstrain(self.model.optimum)))

        self.x, self.y = (torch.tensor(np.asarray(self.model.data[name]), dtype=torch.float32) for name in "xy")
        weights = [
            torch.tensor(np.asarray(self.model.optimum[name]), dtype=torch.float32) for name, _ in self.model.latents
        ]
        self.network = torch.nn.Sequential(*[torch.nn.Linear(*w.shape[::-1], bias=False) for w in weights])
        for layer, weight in zip(self.network, weights, strict=True):
            layer.weight.data = weight
        self.rows = Rows(size)

        draws, _ = self.ours(self.model.exact_sampler, 0, case.reference_sweeps, case.gibbs_chains)
        self.exact, self.exact_error = float(draws.mean()), standard_error(draws)

    def budget(self, counts: tuple[int, int]) -> tuple[int, int]:
        """Burn-in and draws, scaled."""
        return round(counts[0] * self.scale), max(round(counts[1] * self.scale), 8)

    def ours(self, dynamics: bvs.Dynamics, seed: int, counts: tuple[int, int], num_chains: int = NUM_CHAINS):
        """Draws (chain, draw) of n beta (L - minimum) after the burn-in, and seconds."""
        num_warmup, num_draws = self.budget(counts)
        started = time.perf_counter()
        tree = bvs.simulate(
            dynamics,
            self.target,
            key=seed,
            num_chains=num_chains,
            num_draws=num_draws,
            num_warmup=num_warmup,
            initial="optimum",
            observables=["loss"],
            progress=False,
        )
        draws = self.scaled * (tree["posterior"]["loss"].values.astype(float) - self.minimum)
        return draws, time.perf_counter() - started

    def theirs(self, learning_rate: float, seed: int, counts: tuple[int, int], num_threads: int):
        """Draws after the burn-in, seconds, and the value and spread that devinterp itself reports."""
        num_burnin, num_draws = self.budget(counts)
        torch.set_num_threads(num_threads)
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            report = llc(
                self.network,
                self.rows,
                {},
                lr=learning_rate,
                n_beta=self.scaled,
                loss_fn=self.loss,
                num_chains=NUM_CHAINS,
                num_draws=num_draws,
                num_burnin_steps=num_burnin,
                batch_size=BATCH_SIZE,
                localization=LOCALIZATION,
                num_init_loss_batches=1,
                match_sampling_input_ids_across_chains=False,
                init_seed=seed,
                device="cpu",
                output_path=f"{scratch}/samples.zarr",
            ).load()
            seconds = time.perf_counter() - started
        draws = self.scaled * (report.loss_trace.values.astype(float) - float(report.init_loss))
        return draws[:, num_burnin:], seconds, float(report.llc_mean), float(report.llc_std)

    def loss(self, network: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """Loss of each example, by the row that its first token names."""
        rows = tokens[:, 0]
        return 0.5 * ((network(self.x[rows]) - self.y[rows]) ** 2).sum(1, keepdim=True)


class Rows(torch.utils.data.Dataset):
    """Token sequences (row, 0), handed out a batch at a time."""

    def __init__(self, size: int):
        self.tokens = torch.stack([torch.arange(size), torch.zeros(size, dtype=torch.long)], dim=1)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index]}

    def __getitems__(self, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        return [{"input_ids": tokens} for tokens in self.tokens[indices]]


def measure_speed(problem: Problem, threads: list[int]) -> tuple[list[dict], dict, int]:
    """Both at the same steps, in turns, the best of the repeats; and exact Gibbs, once compiled."""
    case, counts = problem.case, problem.case.steps
    chain_steps = NUM_CHAINS * sum(problem.budget(counts))
    samplers = {
        "SGLD, minibatch": bvs.SGLD(step_size=case.learning_rate / 2, batch_size=BATCH_SIZE),
        "SGLD, all data compressed": bvs.SGLD(step_size=case.learning_rate / 2),
    }
    first = {name: problem.ours(sampler, 0, counts)[1] for name, sampler in samplers.items()}
    best: dict[Any, float] = {}
    draws: dict[Any, np.ndarray] = {}
    reported = (np.nan, np.nan)
    for seed in range(1, case.repeats + 1):
        for name, sampler in samplers.items():
            draws[name], seconds = problem.ours(sampler, seed, counts)
            best[name] = min(best.get(name, np.inf), seconds)
        for number in threads:
            draws[number], seconds, *reported = problem.theirs(case.learning_rate, seed, counts, number)
            best[number] = min(best.get(number, np.inf), seconds)
    fastest = min(threads, key=best.__getitem__)

    rows = []
    for name in samplers:
        speeds = {"run_seconds": best[name], "steps_per_second": chain_steps / best[name]}
        compiled = {"first_seconds": first[name], "with_compilation": chain_steps / first[name]}
        rows.append({"system": f"ours: {name}"} | speeds | compiled | quality(problem, draws[name]))
    for number in threads:
        speeds = {"run_seconds": best[number], "steps_per_second": chain_steps / best[number]}
        compiled = {"first_seconds": best[number], "with_compilation": chain_steps / best[number]}
        rows.append({"system": f"devinterp, threads {number}"} | speeds | compiled | quality(problem, draws[number]))
    own = {"estimate": reported[0], "error": reported[0] / problem.exact - 1, "spread_over_chains": reported[1]}
    rows.append({"system": "devinterp, as reported (burn-in kept)"} | own)
    rows.append(measure_gibbs(problem))
    ratios = {"network": case.name}
    for name in samplers:
        ratios[name] = best[fastest] / best[name]
        ratios[f"{name}, with compilation"] = best[fastest] / first[name]
    return rows, ratios, fastest


def measure_gibbs(problem: Problem) -> dict[str, Any]:
    """Exact sampler on a budget of some seconds, its first call compiled."""
    case = problem.case
    jax.clear_caches()
    sampler = problem.model.exact_sampler
    _, first = problem.ours(sampler, 1, case.sweeps, case.gibbs_chains)
    draws, seconds = problem.ours(sampler, 2, case.sweeps, case.gibbs_chains)
    sweeps = case.gibbs_chains * sum(problem.budget(case.sweeps))
    speeds = {"run_seconds": seconds, "steps_per_second": sweeps / seconds}
    compiled = {"first_seconds": first, "with_compilation": sweeps / first}
    return {"system": "ours: exact Gibbs (sweeps)"} | speeds | compiled | quality(problem, draws)


def measure_accuracy(problem: Problem, threads: int) -> list[dict[str, Any]]:
    """Time to the target error: Gibbs, our SGLD and devinterp's at several step sizes, the latter of four runs' budget."""
    rows = []

    def add(system: str, run, **details) -> None:
        (first_draws, first, *_), (draws, seconds, *_) = run(11), run(12)
        compilation = max(first - seconds, 0.0) if system.startswith("ours") else 0.0
        reached = [steps_to_error(d, problem.exact) for d in (first_draws, draws)]
        late = None if None in reached else max(reached)
        rows.append(
            {
                "system": system,
                **details,
                "steps": draws.shape[1],
                "seconds": seconds + compilation,
                "error_at_end": max((estimate(d) / problem.exact - 1 for d in (first_draws, draws)), key=abs),
                "steps_to_target": late,
                "seconds_to_target": None if late is None else compilation + seconds * late / draws.shape[1],
            }
        )

    jax.clear_caches()
    add("ours: exact Gibbs", lambda seed: problem.ours(problem.model.exact_sampler, seed, (0, 500)))
    for learning_rate in LEARNING_RATES:
        sampler = bvs.SGLD(step_size=learning_rate / 2)
        jax.clear_caches()
        add(
            "ours: SGLD, all data compressed",
            lambda seed, sampler=sampler: problem.ours(sampler, seed, (0, 60_000)),
            learning_rate=learning_rate,
        )
    for learning_rate in LEARNING_RATES:
        add(
            "devinterp",
            lambda seed, rate=learning_rate: problem.theirs(rate, seed, (0, 6_000), threads),
            learning_rate=learning_rate,
        )
    return rows


def estimate(draws: np.ndarray) -> float:
    """Mean over chains and draws without the first third."""
    return float(draws[:, draws.shape[1] // 3 :].mean())


def steps_to_error(draws: np.ndarray, exact: float) -> int | None:
    """Draws after which the estimate stays within the target error to the end; None where it ends outside."""
    lengths = np.unique(np.linspace(3, draws.shape[1], 200).astype(int))
    off = [not abs(estimate(draws[:, :length]) / exact - 1) < TARGET_ERROR for length in lengths]
    if off[-1]:
        return None
    return int(lengths[np.max(np.nonzero(off)[0]) + 1]) if any(off) else int(lengths[0])


def quality(problem: Problem, draws: np.ndarray) -> dict[str, float]:
    """Estimate, its standard error, diagnostics, relative error."""
    return {
        "estimate": float(draws.mean()),
        "standard_error": standard_error(draws),
        "r_hat": float(arviz_stats.rhat(draws, chain_axis=0, draw_axis=1)),
        "bulk_ess": float(arviz_stats.ess(draws, chain_axis=0, draw_axis=1)),
        "error": float(draws.mean()) / problem.exact - 1,
    }


def standard_error(draws: np.ndarray) -> float:
    """Monte Carlo standard error of the mean."""
    return float(arviz_stats.mcse(draws, chain_axis=0, draw_axis=1, method="mean"))


def machine() -> dict[str, Any]:
    """Return what the numbers depend on, beside the load of the moment."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch", "devinterp")}
    return {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()} | versions


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
