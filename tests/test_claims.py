"""Every claim holds, and every measurement tells its prediction from a mistake."""

import json
import math

import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd import cli
from bayes_vs_sgd.claims import CLAIMS, Measured, Reading, chosen


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("id", CLAIMS)
def test_a_claim_holds(id):
    found = Measured(CLAIMS[id], CLAIMS[id].measure(0), 0.0)
    assert found.verdict == "holds", [(r, r.verdict) for r in found.readings if r.verdict != "holds"]
    assert any(not math.isnan(r.mistake) for r in found.readings)


@pytest.mark.exact
def test_a_reading_holds_where_it_allows_the_prediction_and_not_the_mistake():
    cases = {"holds": (1.0, 1.05, 0.02, 0.0, 2.0), "fails": (1.0, 1.5, 0.02, 0.1, 2.0)}
    cases |= {"undecided": (1.0, 1.05, 0.02, 0.0, 1.1)}
    for verdict, (predicted, measured, error, tolerance, mistake) in cases.items():
        assert Reading("x", predicted, measured, error, tolerance, mistake).verdict == verdict
    assert Reading("lost", 1.0, math.nan).verdict == "fails"


@pytest.mark.exact
def test_claims_are_chosen_by_id_or_family():
    assert [c.id for c in chosen(["C2", "E"])] == ["C2", "E1"]
    assert len(chosen([])) == len(CLAIMS)
    with pytest.raises(bvs.InputError, match="unknown claim 'C22': did you mean 'C2'"):
        chosen(["C22"])


@pytest.mark.smoke
def test_the_command_line_lists_and_measures(capsys):
    assert cli.run(["claims", "--json", "-"]) == 0
    assert [c["id"] for c in json.loads(capsys.readouterr().out)] == [c.id for c in chosen([])]
    assert cli.run(["claims", "--run", "M1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["verdict"] for entry in found} == {"holds"}
    assert {"id", "statement", "source", "predicted", "measured", "interval", "verdict"} <= set(found[0])
    assert cli.run(["claims", "--run", "nothing"]) == 2
    assert "unknown claim" in capsys.readouterr().err
