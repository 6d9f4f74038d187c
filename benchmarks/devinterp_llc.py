"""Learning coefficients by this library beside devinterp's, on the same deep linear network.

    python benchmarks/devinterp_llc.py --json devinterp_llc.json

Both run SGLD on one target: same data, labels without noise, start at the teacher, minibatches of 512, localization 1,
n beta = n / log n, 4 chains, the same numbers of steps and of recorded draws. Their learning rate is twice our step
size (``bvs.SGLD``). The prior is so wide (precision 1e-6 beside the localization's 1) that devinterp goes without.

devinterp is run by its high-level ``devinterp.slt.llc.llc``. Since version 2 that takes token sequences alone, so an
example is the sequence (row, 0) and ``loss_fn`` looks the row up. What would slow it down is left out: no observables,
one batch for the initial loss (which is zero here), a plain torch data set that hands out batches of rows, and the
better of several numbers of threads.

The value at finite n is that of a long run of block Gibbs in float64, and errors are relative to it. On 512 x 5 the speed
alone is compared: after so few steps neither estimate means anything. R-hat and ESS (ArviZ, rank-normalised,
bulk) are of n beta L after the burn-in: the full loss for ours, the minibatch's for devinterp, which records no other.

Time to an accuracy is the time after which the estimate (first third of the draws so far dropped) stays within 5 % of
that value to the end of the run: crossing it on the way elsewhere does not count. devinterp's runs end where ours of
the same step size still climb, so that it may be credited with a crossing that a longer run would undo. Ours includes
compilation, with the persistent cache off. Imports count for neither.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from functools import partial
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
from bayes_vs_sgd.cli import prepare_jax

MODEL_FILE = Path(__file__).parents[1] / "models" / "deep_linear.py"
NUM_CHAINS, BATCH_SIZE, LOCALIZATION, PRIOR_SCALE = 4, 512, 1.0, 1000.0
TARGET_ERROR = 0.05
LEARNING_RATES = (3e-6, 1e-5, 3e-5, 1e-4)
"""devinterp's, in the search for the shortest time to the target error; ours take half of them as step size."""


@dataclass(frozen=True)
class Case:
    """A network, the steps of SGLD as burn-in and draws, and how many steps make a draw."""

    name: str
    config: dict[str, Any]
    learning_rate: float
    steps: tuple[int, int]
    thinning: int
    repeats: int


SMALL = Case("16-16-16-16", {"widths": (16,) * 4, "spectrum": (1.0,) * 4}, 1e-4, (500, 1000), 1, 5)
LARGE = Case("512 x 5", {"widths": (512,) * 5, "spectrum": (1.0,) * 64}, 1e-6, (0, 100), 50, 3)
REFERENCE_SWEEPS, GIBBS_SWEEPS = (500, 20_000), (50, 450)
OUR_STEPS, THEIR_STEPS = 60_000, 6_000
"""Of each chain, in the search for the shortest time: some tens of seconds for either."""


def main() -> None:
    """Run all, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description="Learning coefficients beside devinterp's: speed, error, diagnostics.")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of steps and sweeps")
    parser.add_argument("--torch-threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--networks", nargs="+", choices=("small", "large"), default=["small", "large"])
    arguments = parser.parse_args()
    prepare_jax()  # chains on all cores, as the command line does

    jax.config.update("jax_enable_compilation_cache", False)
    load_before, started = os.getloadavg(), time.perf_counter()
    found: dict[str, Any] = {"speed": [], "ratios": [], "time_to_accuracy": []}
    for case in [{"small": SMALL, "large": LARGE}[name] for name in arguments.networks]:
        problem = Problem(case, arguments.scale)
        long_run = problem.solve() if case is SMALL else (None, None)
        rows, ratios, threads = measure_speed(problem, arguments.torch_threads)
        found["speed"] += rows
        found["ratios"] += ratios
        print_table(
            rows, case.name + (f": {long_run[0]:.2f} +- {long_run[1]:.2f} by a long Gibbs run" if long_run[0] else "")
        )
        if case is SMALL:
            found |= {"long_gibbs_run": long_run[0], "long_gibbs_run_error": long_run[1]}
            found["time_to_accuracy"] = rows = measure_accuracy(problem, threads)
            print_table(rows, f"{case.name}: seconds to an error below {TARGET_ERROR:.0%} that lasts")
    print_table(found["ratios"], "Our SGLD's steps per second over devinterp's")
    if arguments.json:
        load = {"load_before": load_before, "load_after": os.getloadavg(), "seconds": time.perf_counter() - started}
        found = {"machine": machine() | load, "scale": arguments.scale} | found
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


class Problem:
    """One target in both libraries, its value by a long Gibbs run, and the budgets."""

    def __init__(self, case: Case, scale: float):
        self.case, self.scale = case, scale
        self.model, self.target = self.build()
        self.scaled = float(self.target.scale)
        self.long_run: float | None = None

        self.x, self.y = (torch.tensor(np.asarray(self.model.data[name]), dtype=torch.float32) for name in "xy")
        weights = [
            torch.tensor(np.asarray(self.model.optimum[name]), dtype=torch.float32) for name, _ in self.model.latents
        ]
        self.network = torch.nn.Sequential(*[torch.nn.Linear(*w.shape[::-1], bias=False) for w in weights])
        for layer, weight in zip(self.network, weights, strict=True):
            layer.weight.data = weight
        self.rows = Rows(self.model.num_examples)

    def build(self) -> tuple[bvs.Model, bvs.Posterior]:
        """Model and target in the precision of the moment."""
        model = bvs.load_model(
            MODEL_FILE,
            inputs="gaussian",
            num_examples=10_000,
            noise=1.0,
            noise_free=True,
            prior_scale=PRIOR_SCALE,
            unseen_inputs=0,
            **self.case.config,
        )
        return model, bvs.Posterior(model, 1 / np.log(model.num_examples), LOCALIZATION)

    def solve(self) -> tuple[float, float]:
        """E[n beta (L - minimum)] at this n by a long Gibbs run, and its standard error."""
        draws, _ = self.by_gibbs(0, REFERENCE_SWEEPS)
        self.long_run = float(draws.mean())
        return self.long_run, standard_error(draws)

    def by_gibbs(self, seed: int, counts: tuple[int, int]) -> tuple[np.ndarray, float]:
        """As ``ours``, by the exact sampler, which refuses to work in single precision here."""
        with jax.enable_x64(True):
            _, target = self.build()
            return self.ours(target.model.exact_sampler, seed, counts, target=target)

    def budget(self, counts: tuple[int, int]) -> tuple[int, int]:
        """Burn-in and draws, scaled."""
        return round(counts[0] * self.scale), max(round(counts[1] * self.scale), 20)

    def ours(
        self,
        dynamics: bvs.Dynamics,
        seed: int,
        counts: tuple[int, int],
        thinning: int = 1,
        target: bvs.Posterior | None = None,
    ) -> tuple[np.ndarray, float]:
        """Draws (chain, draw) of n beta (L - minimum) after the burn-in, and seconds."""
        num_warmup, num_steps = self.budget(counts)
        target = target or self.target
        started = time.perf_counter()
        tree = bvs.simulate(
            dynamics,
            target,
            key=seed,
            num_chains=NUM_CHAINS,
            num_draws=num_steps // thinning,
            num_steps=num_steps,
            num_warmup=num_warmup,
            initial="optimum",
            observables=["loss"],
            progress=False,
        )
        losses, seconds = tree["posterior"]["loss"].values.astype(float), time.perf_counter() - started
        minimum = target.model.loss(target.model.unconstrain(target.model.optimum))  # with the losses' own rounding
        return self.scaled * (losses - float(minimum)), seconds

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


def measure_speed(problem: Problem, threads: list[int]) -> tuple[list[dict], list[dict], int]:
    """Both at the same steps, in turns, the best of the repeats."""
    case, counts = problem.case, problem.case.steps
    chain_steps = NUM_CHAINS * sum(problem.budget(counts))
    samplers = {"SGLD, minibatch": bvs.SGLD(step_size=case.learning_rate / 2, batch_size=BATCH_SIZE)}
    if case is SMALL:  # where compressed data are fewer rows than a minibatch
        samplers["SGLD, all data compressed"] = bvs.SGLD(step_size=case.learning_rate / 2)
    first = {name: problem.ours(sampler, 0, counts, case.thinning)[1] for name, sampler in samplers.items()}
    best: dict[Any, float] = {}
    draws: dict[Any, np.ndarray] = {}
    reported = (np.nan, np.nan)
    for seed in range(1, case.repeats + 1):
        for name, sampler in samplers.items():
            draws[name], seconds = problem.ours(sampler, seed, counts, case.thinning)
            best[name] = min(best.get(name, np.inf), seconds)
        for number in threads:
            draws[number], seconds, *reported = problem.theirs(case.learning_rate, seed, counts, number)
            best[number] = min(best.get(number, np.inf), seconds)
    fastest = min(threads, key=best.__getitem__)

    rows, ratios = [], []
    for name, seconds in best.items():
        ours = name in samplers
        row = {
            "network": case.name,
            "system": f"ours: {name}" if ours else f"devinterp, threads: {name}",
            "first_seconds": first.get(name, seconds),
            "seconds": seconds,
            "steps_per_second": chain_steps / seconds,
            "steps_per_second_with_compilation": chain_steps / first.get(name, seconds),
        }
        rows.append(row | quality(problem, draws[name]))
        if ours:
            ratio = {"network": case.name, "ours": name, "ratio": best[fastest] / seconds}
            ratios.append(ratio | {"ratio_with_compilation": best[fastest] / first[name]})
    if problem.long_run is not None:
        own = {"estimate": reported[0], "spread_over_chains": reported[1], "error": reported[0] / problem.long_run - 1}
        rows.append({"network": case.name, "system": "devinterp, as reported (burn-in kept)"} | own)
        jax.clear_caches()
        _, compiled = problem.by_gibbs(0, GIBBS_SWEEPS)
        found, seconds = problem.by_gibbs(1, GIBBS_SWEEPS)
        row = {"network": case.name, "system": "ours: block Gibbs (its steps: sweeps)"}
        sweeps = NUM_CHAINS * sum(problem.budget(GIBBS_SWEEPS))
        row |= {"first_seconds": compiled, "seconds": seconds, "steps_per_second": sweeps / seconds}
        row["steps_per_second_with_compilation"] = sweeps / compiled
        rows.append(row | quality(problem, found))
    return rows, ratios, fastest


def measure_accuracy(problem: Problem, threads: int) -> list[dict[str, Any]]:
    """Time to the target error of Gibbs, and of both SGLDs at several step sizes; the later of two runs each."""
    rows = []

    def add(system: str, learning_rate: float | None, compilation: float, run) -> None:
        runs = [run(seed)[:2] for seed in (11, 12)]
        reached = [steps_to_error(draws, problem.long_run) for draws, _ in runs]
        num_steps, seconds = runs[0][0].shape[1], min(seconds for _, seconds in runs)
        late = None if None in reached else max(reached)
        rows.append(
            {
                "system": system,
                "learning_rate": learning_rate,
                "steps": num_steps,
                "compilation": compilation,
                "seconds": compilation + seconds,
                "error_at_end": max((estimate(draws) / problem.long_run - 1 for draws, _ in runs), key=abs),
                "steps_to_target": late,
                "seconds_to_target": None if late is None else compilation + seconds * late / num_steps,
            }
        )

    def compilation(run) -> float:
        """Wall time of a first short run less that of a second one."""
        jax.clear_caches()
        first, second = (run(seed, (0, 20))[1] for seed in (0, 1))
        return first - second

    add("ours: block Gibbs", None, compilation(problem.by_gibbs), lambda seed: problem.by_gibbs(seed, (0, 500)))
    once = compilation(partial(problem.ours, bvs.SGLD(step_size=1e-5)))
    for rate in LEARNING_RATES:
        sgld = bvs.SGLD(step_size=rate / 2)
        run = partial(problem.ours, sgld, counts=(0, OUR_STEPS))
        add("ours: SGLD, all data compressed", rate, once, lambda seed, run=run: run(seed=seed))
    for rate in LEARNING_RATES:
        run = partial(problem.theirs, rate, counts=(0, THEIR_STEPS), num_threads=threads)
        add("devinterp", rate, 0.0, lambda seed, run=run: run(seed=seed))
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
    """Estimate, its standard error, diagnostics, relative error; the last value alone where there is nothing to compare."""
    if problem.long_run is None:
        return {"last_value": float(draws[:, -1].mean())}
    return {
        "estimate": float(draws.mean()),
        "standard_error": standard_error(draws),
        "r_hat": float(arviz_stats.rhat(draws, chain_axis=0, draw_axis=1)),
        "bulk_ess": float(arviz_stats.ess(draws, chain_axis=0, draw_axis=1)),
        "error": float(draws.mean()) / problem.long_run - 1,
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
        cells = ["" if row.get(name) is None else row[name] for name in columns]
        table.add_row(*[f"{cell:,.4g}" if isinstance(cell, float) else str(cell) for cell in cells])
    Console(width=max(80, 16 * len(columns))).print(table)


if __name__ == "__main__":
    main()
