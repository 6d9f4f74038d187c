"""Every claim holds, and every measurement tells its prediction from a mistake."""

import json
import math

import pytest
from markupsafe import escape

import bayes_vs_sgd as bvs
from bayes_vs_sgd import cli
from bayes_vs_sgd.claims import CLAIMS, Measured, Reading, chosen
from bayes_vs_sgd.report.claims import claims_figure, claims_page, sentence


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("id", CLAIMS)
def test_a_claim_holds(id):
    found = Measured(CLAIMS[id], CLAIMS[id].measure(0), 0.0)
    assert found.verdict == "holds", [(r, r.verdict) for r in found.readings if r.verdict != "holds"]
    assert any(not math.isnan(r.mistake) for r in found.readings)
    for r in found.readings if sharp(found.claim) else ():
        low, high = r.interval
        assert (high - low) / 2 < 2 * (found.claim.absolute + found.claim.relative * abs(r.predicted)), r


def sharp(claim):
    """Whether a claim says how precise its intervals are: about the tolerance of its row, here up to twice that."""
    return claim.absolute > 0 or claim.relative > 0


@pytest.mark.exact
def test_the_claims_that_are_to_be_sharp_say_how_sharp():
    assert {id for id in CLAIMS if sharp(CLAIMS[id])} >= {"C6", "D1", "F1", "F2", "F3", "G3"}


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
def test_the_command_line_lists_and_measures(capsys, tmp_path):
    assert cli.run(["claims", "--json", "-"]) == 0
    assert [c["id"] for c in json.loads(capsys.readouterr().out)] == [c.id for c in chosen([])]
    assert cli.run(["claims", "--run", "M1", "--out", str(tmp_path / "run"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "run" / "claims.json").read_text()) == found
    page = (tmp_path / "run" / "claims.html").read_text()
    assert escape(CLAIMS["M1"].statement) in page
    assert all(escape(entry["reading"]) in page for entry in found)
    assert {entry["verdict"] for entry in found} == {"holds"}
    assert {"id", "statement", "source", "predicted", "measured", "interval", "verdict"} <= set(found[0])
    assert cli.run(["claims", "--run", "nothing"]) == 2
    assert "unknown claim" in capsys.readouterr().err


@pytest.mark.exact
def test_the_figure_and_the_sentence_of_readings():
    """A reading of nothing and one of a prediction of 0 have no ratio; far ones are at the end."""
    good, bad = Reading("a", 2.0, 2.02, 0.01, 0.0, 1.5), Reading("b", 1.0, 9.0, 0.1)
    odd = [Reading("lost", 1.0, math.nan), Reading("none", 0.0, 0.0, 0.0, 0.1)]
    found = [Measured(CLAIMS["M1"], [good], 1.0), Measured(CLAIMS["C1"], [good, bad, *odd], 1.0)]
    axes = claims_figure(found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["M1", "C1"]
    marks = [line.get_xdata()[0] for line in axes.lines[1:] if len(line.get_xdata()) == 1]
    assert marks == pytest.approx([1.01, 0.75, 1.01, 0.75, 1.3])
    assert sentence(found) == "1 of 2 claims hold; C1 fails"
    assert "There was no time for D1" in claims_page(found, ["D1"], "command")
