"""The notebooks run from top to bottom, and were committed as they ran."""

import json
from pathlib import Path

import jax
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "analyses").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.smoke
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_was_executed_in_order_without_an_error(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    assert path.stat().st_size < 2**20


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in code_cells(path):
        exec("".join(cell["source"]), names)
    verdicts = {name: c.verdict for name, c in names["found"].items()}
    assert verdicts["sgd"] == "mismatch"
    assert verdicts["sgld"] in ("match", "inconclusive")  # at 500 tested seeds a match is not always resolved
    assert not jax.config.read("jax_enable_x64")
