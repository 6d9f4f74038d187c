"""The page is one file that needs nothing else, and reads on a phone and on a wide screen."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape

import jax
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.spectrum import spectrum_at_minimum
from bayes_vs_sgd.jobs import describe_model
from bayes_vs_sgd.report import page
from bayes_vs_sgd.report.figures import spectrum_figure
from bayes_vs_sgd.settings import Compare

pytestmark = pytest.mark.smoke
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PROBE = """<script>
const sizes = [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect());
parent.document.body.textContent = JSON.stringify({
  width: innerWidth, page: document.documentElement.scrollWidth,
  fetched: performance.getEntriesByType('resource').length,
  figures: sizes.map(s => [s.left, s.right, s.height])});
</script>"""


@pytest.fixture(scope="module")
def found():
    """A study of two dynamics on a small network, with their spectra."""
    path = "models/deep_linear.py"
    model = bvs.load_model(page.Path(__file__).parents[1] / path, num_examples=50)
    settings = Compare(dynamics=("sgld", "sgd"), num_seeds=200, num_steps=40, max_seconds=0)
    study = bvs.Study(model, settings, progress=False)
    comparisons = [replace(c, spectrum=spectrum_at_minimum(study, c.dynamics)) for c in study.run()]
    return study, comparisons


@pytest.fixture(scope="module")
def html(found):
    study, comparisons = found
    return page.comparison_page(
        comparisons, study.trees, describe_model(study.model), study.model.truth, "bayes-vs-sgd x"
    )


def test_the_page_is_one_small_file_with_everything_described(html):
    assert len(html.encode()) < 2 * 2**20
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html.replace("xlink:href", "href"))
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    figures = html.count("<svg ")
    assert figures >= 1 + 2 + 6
    assert html.count('<svg role="img" aria-label="') == figures
    assert len(set(re.findall(r'<clipPath id="(\w+)"', html))) > 0
    assert page.INK not in html


def test_a_comparison_shows_itself_in_a_notebook(found):
    shown = found[1][1]._repr_html_()
    assert shown.count("<svg ") == 2
    assert f"SGD: {found[1][1].verdict}" in shown


def test_the_answer_is_a_sentence(found):
    _, comparisons = found
    verdicts = [replace(c, verdict=v) for c, v in zip(comparisons, ("match", "mismatch"), strict=True)]
    expected = "The law of Langevin (Bayes) is the tempered posterior within the margins; the law of SGD is not."
    assert page.sentence(verdicts) == expected
    alone = page.sentence([replace(comparisons[1], verdict="mismatch")])
    assert alone == "The law of SGD is not the tempered posterior."


def test_an_interrupted_page_says_what_is_missing(found):
    study, comparisons = found
    about = (describe_model(study.model), study.model.truth, "bayes-vs-sgd x")
    some = page.comparison_page(comparisons[:1], {"sgld": study.trees["sgld"]}, *about, ["sgd", "adam"])
    assert "Interrupted: sgd, adam not compared yet" in some
    nothing = page.comparison_page([], {}, *about, ["sgld", "sgd", "adam"])
    assert "Interrupted before the first comparison" in nothing


def test_a_verdict_is_kept_when_its_spectrum_is_interrupted(found, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    study, _ = found
    settings = replace(study.settings, dynamics=("sgld",), max_seconds=100)
    again = bvs.Study(study.model, settings, progress=False)
    monkeypatch.setattr(bvs.Study, "spectrum", interrupt)
    comparisons = again.run()
    assert next(comparisons).dynamics == "sgld"
    with pytest.raises(KeyboardInterrupt):
        next(comparisons)


def test_a_figure_is_plain_matplotlib_and_needs_no_font(found):
    figure = spectrum_figure({"network": [c.spectrum for c in found[1]]})
    assert isinstance(figure, Figure)
    with matplotlib.rc_context({"font.family": "a font that is not here", "font.sans-serif": []}):
        assert "</svg>" in page.svg(figure, "temperatures")


def test_the_page_of_a_learning_coefficient(found):
    study, _ = found
    target = bvs.Posterior(study.model, 0.2)
    tree = bvs.simulate(
        study.model.exact_sampler, target, key=0, num_chains=4, num_draws=50, num_warmup=10, progress=False
    )
    estimate = bvs.learning_coefficient(tree, target)
    written = page.llc_page(estimate, tree, target, describe_model(study.model), "LinearNetworkGibbs", "bayes-vs-sgd x")
    assert f"Learning coefficient {estimate.value:.4g}" in written
    assert ("Not to be trusted" in written) == (not estimate.trusted)
    assert np.isfinite(estimate.value)
    assert f"{estimate.value:.4g}" in estimate._repr_html_()
    assert not jax.config.read("jax_enable_x64")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [400, 1600])
def test_a_browser_fetches_nothing_and_shows_every_figure(html, width, tmp_path):
    """In a frame of that width, since Chromium's own windows are never narrower than 500 pixels."""
    inside = escape(html.replace("</body>", PROBE + "</body>"))
    frame = f'<body style="margin:0"><iframe style="border:0" width="{width}" height="900" srcdoc="{inside}"></iframe></body>'
    (tmp_path / "page.html").write_text(frame)
    address = f"file://{tmp_path}/page.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1700,1000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(re.sub(r"<[^>]*>", "", done.stdout))
    assert len(seen["figures"]) == html.count("<svg ")
    assert "CONSOLE" not in done.stderr
    assert seen["width"] == width
    assert seen["fetched"] == 0
    assert seen["page"] <= seen["width"]
    for left, right, height in seen["figures"]:
        assert 0 <= left < right <= seen["width"]
        assert right - left > 250
        assert height > 80
