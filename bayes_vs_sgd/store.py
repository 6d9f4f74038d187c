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
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import InputError

SEGMENT = re.compile(r"draws-(\d+)-(\d+)-([0-9a-f]+)\.nc")
DRAWN = ("posterior", "sample_stats")
"""Groups with draws, which grow; a merged segment also holds the final positions."""
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

    def state(self, draws_by: Callable[[int], int]) -> tuple[int, list[np.ndarray]] | None:
        """Return the last step whose draws are all stored, with its state; None for a run that has not begun."""
        num_draws = self.segments()[-1][1] if self.segments() else 0
        for name in reversed(self._names(STATE)):
            step = int(name.split("-")[1])
            if draws_by(step) <= num_draws:
                with np.load(self._checked(name)) as archive:
                    return step, [archive[f"leaf_{i}"] for i in range(len(archive.files))]
        return None

    def segments(self) -> list[tuple[int, int, str]]:
        """First draw, end and name of each segment, in order; those that a merged one holds are passed over."""
        found = [(int(m[1]), int(m[2]), m[0]) for m in map(SEGMENT.fullmatch, self._names(SEGMENT)) if m]
        kept, done = [], 0
        for first, end, name in sorted(found, key=lambda segment: (segment[0], -segment[1])):
            if end <= done:
                continue
            if first != done:
                raise InputError(f"run folder {self.folder} lacks draws {done} to {first} before {name}: it is damaged")
            kept.append((first, end, name))
            done = end
        return kept

    def read(self) -> xr.DataTree:
        """Open the draws lazily, after checking each segment; several are joined by dask."""
        names = [name for _, _, name in self.segments()]
        paths = [self._checked(name) for name in names]
        if len(paths) == 1:
            return xr.open_datatree(paths[0], engine="h5netcdf")
        parts = [xr.open_datatree(path, engine="h5netcdf", chunks={}) for path in paths]
        how: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
        groups = {g: xr.concat([p[g].to_dataset() for p in parts], dim="draw", **how) for g in DRAWN}
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = {"manifest": parts[0].attrs["manifest"]}
        return tree

    def merge(self, tree: xr.DataTree) -> xr.DataTree:
        """Make one file of a whole tree, which takes the place of the segments, and open it."""
        temporary = self.folder / ".merged.partial"
        try:
            tree.to_netcdf(temporary, engine="h5netcdf")
            with open(temporary, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
                os.fsync(file.fileno())
            name = f"draws-{0:08d}-{tree['posterior'].sizes['draw']:08d}-{digest}.nc"
            temporary.rename(self.folder / name)
        except OSError as error:
            raise self._not_written(temporary, "draws-*.nc", error) from error
        tree.close()
        for other in self._names(SEGMENT):
            if other != name:
                (self.folder / other).unlink()
        return xr.open_datatree(self.folder / name, engine="h5netcdf")

    def _names(self, pattern: re.Pattern) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if pattern.fullmatch(p.name))

    def _checked(self, name: str) -> Path:
        path = self.folder / name
        digest = path.stem.rsplit("-", 1)[1]
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if found != digest:
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
            raise self._not_written(temporary, name, error) from error
        return name

    def _not_written(self, temporary: Path, name: str, error: OSError) -> InputError:
        temporary.unlink(missing_ok=True)
        return InputError(
            f"cannot write {self.folder / name}: {error.strerror or error}; what was stored before is whole, continue with "
            "--resume when there is room"
        )


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        if isinstance(content, str):
            temporary.write_text(content)
        else:
            temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def remembered_json(path: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds; where there is none, what is made now and written there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(make(), indent=1))
    return json.loads(path.read_text())


def remembered(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays and numbers of an .npz file, which are made and written where it is not there yet."""
    if path.is_file():
        with np.load(path) as stored:
            return {name: stored[name] if stored[name].ndim else float(stored[name]) for name in stored}
    found = dict(make())
    write_arrays(path, found)
    return found


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz file whole or not at all, in a folder that is made if it is not there."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
