"""A run on disk: a manifest and immutable segments, each written whole or not at all.

    run/manifest.json                          what runs: model, dynamics, target, seed, versions
    run/draws-00000000-00000100-<sha>.nc       draws 0..99, an ArviZ DataTree in NetCDF
    run/state-000000005000-<sha>.npz           all the next step needs, after step 5000

A file is written under a temporary name, flushed and renamed; its name carries the digest of its content. So a run that
is killed at any moment continues from its last whole segment, and damage is seen.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import InputError

SEGMENT = re.compile(r"draws-(\d+)-(\d+)-([0-9a-f]+)\.nc")
STATE = re.compile(r"state-(\d+)-([0-9a-f]+)\.npz")


class Store:
    """A run folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def open(self, manifest: dict[str, Any]) -> None:
        """Start a run here, or check that the one here is the same."""
        path = self.folder / "manifest.json"
        if path.exists():
            found = self.manifest()
            for name in sorted({*found, *manifest} - {"goal"}):
                if found.get(name) != manifest.get(name):
                    raise InputError(
                        f"run folder {self.folder} holds another run: its {name} is {_short(found.get(name))}, this run's "
                        f"is {_short(manifest.get(name))}; give another folder, or the settings it was made with"
                    )
            return
        if self.folder.exists() and any(p.suffix != ".partial" for p in self.folder.iterdir()):
            raise InputError(f"{self.folder} is not empty and holds no run: give a fresh folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.folder}: {error.strerror}") from error
        self._write("manifest.json", json.dumps(manifest, indent=1).encode())

    def manifest(self) -> dict[str, Any]:
        """What runs here."""
        path = self.folder / "manifest.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise InputError(f"{self.folder} holds no run: it has no manifest.json") from None
        except (ValueError, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}): the folder is damaged") from error

    def save(self, step: int, leaves: list[np.ndarray], first: int, last: int, tree: xr.DataTree | None) -> None:
        """Store the state after a step, then the draws that led to it, then drop older states."""
        from io import BytesIO

        buffer = BytesIO()
        arrays: dict[str, Any] = {f"leaf_{i}": leaf for i, leaf in enumerate(leaves)}
        np.savez(buffer, **arrays)
        kept = self._write(f"state-{step:012d}-{{digest}}.npz", buffer.getvalue())
        if tree is not None:
            self._write(f"draws-{first:08d}-{last:08d}-{{digest}}.nc", bytes(tree.to_netcdf(engine="h5netcdf")))
        for name in self._names(STATE):
            if name != kept:
                (self.folder / name).unlink()

    def state(self, num_warmup: int, thinning: int) -> tuple[int, list[np.ndarray]] | None:
        """Return the last step whose draws are all stored, with its state; None for a run that has not begun."""
        num_draws = self.segments()[-1][1] if self.segments() else 0
        for name in reversed(self._names(STATE)):
            step = int(name.split("-")[1])
            if (step - num_warmup) // thinning <= num_draws:
                with np.load(self._checked(name)) as archive:
                    return step, [archive[f"leaf_{i}"] for i in range(len(archive.files))]
        return None

    def segments(self) -> list[tuple[int, int, str]]:
        """First draw, end and name of each segment, in order."""
        found = sorted((int(m[1]), int(m[2]), m[0]) for m in map(SEGMENT.fullmatch, self._names(SEGMENT)) if m)
        for (_, end, _), (first, _, name) in zip([(0, 0, ""), *found], found, strict=False):
            if first != end:
                raise InputError(f"run folder {self.folder} lacks draws {end} to {first} before {name}: it is damaged")
        return found

    def read(self) -> list[xr.DataTree]:
        """Open the segments lazily after checking each."""
        return [xr.open_datatree(self._checked(name), engine="h5netcdf") for _, _, name in self.segments()]

    def _names(self, pattern: re.Pattern) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if pattern.fullmatch(p.name))

    def _checked(self, name: str) -> Path:
        path = self.folder / name
        digest = path.stem.rsplit("-", 1)[1]
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != digest:
            raise InputError(f"{path} is damaged (its content does not match the digest in its name): remove this run")
        return path

    def _write(self, name: str, content: bytes) -> str:
        name = name.format(digest=hashlib.sha256(content).hexdigest()[:16])
        temporary = self.folder / f".{name}.partial"
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.folder / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(
                f"cannot write {self.folder / name}: {error.strerror}; what was stored before is whole, continue with "
                "--resume when there is room"
            ) from error
        return name


def write_file(path: str | Path, content: str) -> None:
    """Write a text file whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
