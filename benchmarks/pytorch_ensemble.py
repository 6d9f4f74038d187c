"""An ensemble of SGD runs beside PyTorch: a plain training loop, and ``torch.func`` vmapped over the ensemble.

    python benchmarks/pytorch_ensemble.py --json pytorch_ensemble.json

One thousand runs of a deep linear network 4-10-10-10-4 with batches of one, in the same script, on the same data, with the same
update: before anything is timed, one step from the same weights on the same example must agree in all three.
Speeds are chain-steps per second without compilation: the plain loop's of one run, since a loop over runs is as fast.
Needs the extra ``devinterp``, which has PyTorch.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.func import functional_call, grad, vmap

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cli import prepare_jax

MODEL_FILE = Path(__file__).parents[1] / "models" / "deep_linear.py"
CONFIG = {
    "widths": (4, 10, 10, 10, 4),
    "spectrum": (2.0, 1.5, 1.0, 0.5),
    "num_examples": 20,
    "noise": 1.0,
    "unseen_inputs": 0,
}
RATE, CHAINS, SECONDS, REPEATS = 1e-3, 1000, 3.0, 5


def main() -> None:
    """Time the three, print and write the ratios."""
    parser = argparse.ArgumentParser(description="SGD ensembles beside PyTorch.")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="wall time of each repeat, about")
    arguments = parser.parse_args()
    prepare_jax()  # chains on all cores
    model = bvs.load_model(MODEL_FILE, **CONFIG)
    x, y = (torch.tensor(np.array(model.data[name]), dtype=torch.float32) for name in "xy")
    layers = [np.asarray(v, np.float32) for v in layers_of(model)]
    agree(model, x, y, layers)
    speeds = {
        "PyTorch, plain loop": rate(lambda n: plain(x, y, layers, n), 1, arguments.seconds),
        "PyTorch, torch.func.vmap": rate(lambda n: vmapped(x, y, layers, n), CHAINS, arguments.seconds),
        "bayes_vs_sgd": rate(lambda n: ours(model, n), CHAINS, arguments.seconds),
    }
    best = speeds["bayes_vs_sgd"][0]
    table = Table(box=None)
    for head in ("", "chain-steps/s, median", "lowest", "highest", "ours over it"):
        table.add_column(head, justify="left" if not head else "right")
    for name, (median, low, high) in speeds.items():
        table.add_row(name, f"{median:,.0f}", f"{low:,.0f}", f"{high:,.0f}", f"{best / median:,.1f}")
    Console(width=110).print(table)
    if arguments.json:
        found = {name: dict(zip(("median", "lowest", "highest"), speed, strict=True)) for name, speed in speeds.items()}
        ratios = {name: best / speed[0] for name, speed in speeds.items()}
        about = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
        about |= {"torch": torch.__version__, "jax": jax.__version__, "chains": CHAINS, "network": CONFIG["widths"]}
        content = {"chain_steps_per_second": found, "ours_over": ratios, "about": about}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def layers_of(model: bvs.Model) -> list:
    """Weights to start from: a prior draw times a tenth, in order."""
    position = model.constrain(model.sample_prior(jax.random.key(0)))
    return [0.1 * position[f"W{i + 1}"] for i in range(len(position))]


def network(layers: list[np.ndarray]) -> torch.nn.Sequential:
    """The same network in PyTorch."""
    parts = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False) for w in layers]
    with torch.no_grad():
        for part, w in zip(parts, layers, strict=True):
            part.weight.copy_(torch.tensor(w))
    return torch.nn.Sequential(*parts)


def plain(x: torch.Tensor, y: torch.Tensor, layers: list[np.ndarray], num_steps: int, row: int | None = None) -> list:
    """As one writes it: a loop with ``torch.optim.SGD``."""
    net = network(layers)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    for _ in range(num_steps):
        i = torch.randint(len(x), (1,)) if row is None else torch.tensor([row])
        optimizer.zero_grad()
        loss = 0.5 * torch.sum((net(x[i]) - y[i]) ** 2, dim=1).mean()
        loss.backward()
        optimizer.step()
    return [p.detach().numpy() for p in net.parameters()]


def vmapped(x: torch.Tensor, y: torch.Tensor, layers: list[np.ndarray], num_steps: int, row: int | None = None) -> list:
    """As one writes it for an ensemble: gradients of all runs by one vmap."""
    net = network(layers)
    chains = CHAINS if row is None else 1
    weights = {name: p.detach().expand(chains, *p.shape).clone() for name, p in net.named_parameters()}

    def loss(weights, x, y):
        return 0.5 * torch.sum((functional_call(net, weights, (x[None],))[0] - y) ** 2)

    gradients = vmap(grad(loss))
    for _ in range(num_steps):
        i = torch.randint(len(x), (chains,)) if row is None else torch.tensor([row])
        found = gradients(weights, x[i], y[i])
        with torch.no_grad():
            weights = {name: w - RATE * found[name] for name, w in weights.items()}
    return [w[0].numpy() for w in weights.values()]


def ours(model: bvs.Model, num_steps: int) -> None:
    """By ``simulate``, with nothing recorded but the loss at the end."""
    bvs.simulate(
        bvs.SGD(RATE, 1), bvs.Posterior(model), key=0, num_chains=CHAINS, num_steps=num_steps, num_draws=1,
        initial_scale=0.1, observables=["loss"], progress=False,
    )  # fmt: skip


def agree(model: bvs.Model, x: torch.Tensor, y: torch.Tensor, layers: list[np.ndarray]) -> None:
    """One step on the first example from the same weights."""
    position = {f"W{i + 1}": jnp.asarray(w) for i, w in enumerate(layers)}
    gradient = jax.grad(lambda p: jnp.mean(model.example_losses(p, jnp.asarray([0]))))(position)
    stepped = [np.asarray(position[name] - RATE * gradient[name]) for name in position]
    for other in (plain(x, y, layers, 1, row=0), vmapped(x, y, layers, 1, row=0)):
        for a, b in zip(stepped, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def rate(run: Callable[[int], object], chains: int, seconds: float) -> tuple[float, float, float]:
    """Chain-steps per second of repeats of about so many seconds: median, lowest, highest."""

    def timed(num_steps: int) -> float:
        started = time.perf_counter()
        run(num_steps)
        return time.perf_counter() - started

    timed(20)  # compiles
    num_steps = 20
    while (took := timed(num_steps)) < seconds / 4:
        num_steps *= 2
    num_steps = max(round(num_steps * seconds / took), 1)
    speeds = sorted(num_steps * chains / timed(num_steps) for _ in range(REPEATS))
    return speeds[REPEATS // 2], speeds[0], speeds[-1]


if __name__ == "__main__":
    main()
