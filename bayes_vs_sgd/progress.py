"""A progress line on standard error: live on a terminal, a plain line now and then elsewhere."""

import sys
import time

import numpy as np
from rich.console import Console
from rich.live import Live

PLAIN_SECONDS = 10.0


class Progress:
    """Show loss, speed, chains lost and time left of one run; ``quiet`` shows nothing."""

    def __init__(self, title: str, num_steps: int, quiet: bool = False):
        self.title, self.num_steps = title, num_steps
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, transient=True) if self.console.is_terminal and not quiet else None
        self.printed = time.monotonic()
        self.first = None

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *exception):
        if self.live:
            self.live.stop()

    def update(self, step: int, num_chains: int, losses: np.ndarray, lost_at_step: np.ndarray) -> None:
        """Report that all chains have reached a step, with the mean loss of those that are not lost."""
        lost = int(np.sum(lost_at_step >= 0))
        loss = float(np.mean(losses[np.isfinite(losses)])) if np.any(np.isfinite(losses)) else float("nan")
        now = time.monotonic()
        line = f"{self.title}: step {step:,} of {self.num_steps:,}, loss {loss:.6g}"
        if self.first is None:  # the time so far is that of compiling
            self.first = (step, now)
        elif step > self.first[0] and now > self.first[1]:
            speed = (step - self.first[0]) / (now - self.first[1])
            line += f", {speed * num_chains:,.3g} chain-steps/s, {(self.num_steps - step) / speed:.0f} s left"
        line += f", {lost} chains lost" if lost else ""
        if self.live:
            self.live.update(line)
        elif not self.quiet and (now - self.printed > PLAIN_SECONDS):
            self.printed = now
            print(line, file=sys.stderr, flush=True)
