"""The page is one file that needs nothing else, and reads on a phone and on a wide screen."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.control import Control, run_control
from bayes_vs_sgd.comparison.spectrum import spectrum_at_minimum
from bayes_vs_sgd.estimate import with_error
from bayes_vs_sgd.load import build_controls, build_model, load_module
from bayes_vs_sgd.report import page
from bayes_vs_sgd.report.figures import spectrum_figure
from bayes_vs_sgd.report.laws import density_figure
from bayes_vs_sgd.settings import Compare
from bayes_vs_sgd.verbs import describe_model

pytestmark = pytest.mark.smoke
SMALL = Compare(dynamics=("sgld", "sgd"), num_seeds=200, num_steps=40, max_seconds=0)
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
    module = load_module(Path(__file__).parents[1] / path)
    config = module.Config(num_examples=50, num_held_out=20)
    study = bvs.Study(build_model(module, config), SMALL, progress=False)
    comparisons = [replace(c, spectrum=spectrum_at_minimum(study, c.dynamics)) for c in study.run()]
    one_layer = run_control(study, "one layer", build_controls(module, config)["one layer"])
    return study, comparisons, one_layer


@pytest.fixture(scope="module")
def html(found):
    study, comparisons, one_layer = found
    return page.comparison_page(comparisons, study, describe_model(study.model), "bayes-vs-sgd x", controls=[one_layer])


def test_the_page_is_one_small_file_with_everything_described(html):
    assert len(html.encode()) < 2 * 2**20
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html.replace("xlink:href", "href"))
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    figures = html.count("<svg ")
    # spectra by network; effects, densities by dynamics; margins, kinds of function; distributions, paths by observable
    assert figures == 2 + 2 + 2 + 2 + 6 + 6
    assert html.count('<svg role="img" aria-label="') == figures
    assert len(set(re.findall(r'<clipPath id="(\w+)"', html))) > 0
    assert page.INK not in html


def test_the_page_says_what_became_of_the_control_and_of_predictions(found, html):
    control = found[2]
    assert [s.dynamics for s in control.spectra] == ["sgld", "sgd"]
    assert control.comparison.objective == "posterior"
    assert "Control, one layer, SGD with the prior" in html
    assert "Prediction of new examples" in html
    assert json.loads(json.dumps(control.to_json(), allow_nan=False))["comparison"]["verdicts"]["off_data"] is None


def test_where_an_exact_density_is_known_it_is_drawn():
    """The dotted line is a density: it integrates to one, and is that of the mode's exact normal law."""
    model = bvs.load_model(Path(__file__).parents[1] / "models" / "linear_regression.py")
    target = bvs.Posterior(model, 0.1)
    settings = {"num_chains": 4, "num_draws": 200, "num_warmup": 5, "progress": False}
    draws = bvs.simulate(model.exact_sampler, target, key=0, **settings)
    figure = density_figure("sgd", draws, draws, ["mode_1", "loss"], target)
    with_line, without = figure.axes
    assert [len(axes.lines) for axes in (with_line, without)] == [3, 2]
    x, density = with_line.lines[-1].get_data()
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-6)
    exact = model.densities["mode_1"](target, x)
    np.testing.assert_allclose(density, exact, rtol=0.05, atol=0.02 * exact.max())  # what lies outside the axis
    assert not plt.get_fignums()


def test_of_a_model_of_which_nothing_is_known_there_is_a_page_too(found):
    """Nor need temperatures be positive, or predictions finite, or a control possible."""
    study, comparisons, _ = found
    unknown = bvs.Study(study.model.at(study.model.optimum), SMALL, progress=False)
    unknown.trees = study.trees
    spectrum = comparisons[1].spectrum
    cold = replace(spectrum, temperatures=-spectrum.temperatures, slope=None, slope_error=None)
    infinite = {"value": -np.inf, "standard_error": np.nan}
    broken = dict.fromkeys(comparisons[1].held_out, infinite) | {"num_examples": 20}
    worst = replace(comparisons[1], spectrum=cold, held_out=broken)
    control = Control("nothing", [], None, "it cannot be built")
    html = page.comparison_page([worst], unknown, describe_model(unknown.model), "bayes-vs-sgd x", controls=[control])
    assert "Control, nothing: it cannot be built." in html
    assert '<td class="n">unresolved</td>' in html
    assert json.loads(json.dumps(worst.to_json(), allow_nan=False))["held_out"]["single"]["value"] is None


def test_a_comparison_shows_itself_in_a_notebook(found):
    shown = found[1][1]._repr_html_()
    assert shown.count("<svg ") == 2
    assert f"SGD: {found[1][1].verdict}" in shown


def test_the_answer_is_a_sentence(found):
    comparisons = found[1]
    verdicts = [replace(c, verdict=v) for c, v in zip(comparisons, ("match", "mismatch"), strict=True)]
    expected = "The law of Langevin (Bayes) is the tempered posterior within the margins; the law of SGD is not."
    assert page.sentence(verdicts) == expected
    alone = page.sentence([replace(comparisons[1], verdict="mismatch")])
    assert alone == "The law of SGD is not the tempered posterior."


def test_an_interrupted_page_says_what_is_missing(found):
    study, comparisons, _ = found
    about = (study, describe_model(study.model), "bayes-vs-sgd x")
    some = page.comparison_page(comparisons[:1], *about, ["sgd", "adam"])
    assert "Not looked at yet: sgd, adam" in some
    nothing = page.comparison_page([], *about, ["sgld", "sgd", "adam"])
    assert "Interrupted before the first comparison" in nothing


def test_a_verdict_is_kept_when_its_spectrum_is_interrupted(found, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    study = found[0]
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


@pytest.fixture(scope="module")
def estimates(found):
    """Pages of a learning coefficient, of a free energy, and of both along a run."""
    study = found[0]
    model, about = study.model, (describe_model(study.model), "bayes-vs-sgd x")
    target = bvs.Posterior(model, 0.2, localization=10.0)
    shared = {"key": 0, "num_draws": 50, "progress": False}
    tree = bvs.simulate(model.exact_sampler, target, num_chains=4, num_warmup=10, **shared)
    estimate = bvs.learning_coefficient(tree, target)
    free = bvs.free_energy(model, num_particles=50, num_moves=1, num_replicates=2)
    descent = bvs.GradientDescent(0.1)
    run = bvs.simulate(descent, target, num_chains=2, num_steps=50, record_positions=True, **shared)
    along = bvs.along_training(run, target, num_checkpoints=3, num_draws=30, progress=False)
    pages = {
        "llc": page.llc_page(estimate, tree, target, *about),
        "free energy": page.free_energy_page(free, model, *about),
    }
    return estimate, free, pages | {"along": page.along_page(along, target, *about)}


def test_the_pages_of_estimates(estimates):
    estimate, free, pages = estimates
    title = f"Learning coefficient {with_error(estimate.value, estimate.standard_error)}"
    assert title in pages["llc"]
    assert ("Not to be trusted" in pages["llc"]) == (not estimate.trusted)
    assert f"{estimate.value:.4g}" in estimate._repr_html_()
    assert str(free.log_evidence) in pages["free energy"]
    assert str(free.log_evidence) in free._repr_html_()
    for row in ("thermodynamic integration", "WBIC", "multiplicity", "singular fluctuation", "WAIC"):
        assert f"<th>{row}" in pages["free energy"]
    assert "a triangle stands for a value below the axis" in pages["along"]
    assert not jax.config.read("jax_enable_x64")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)")
@pytest.mark.parametrize(
    ("verb", "width"), [("compare", 400), ("compare", 1600), ("llc", 400), ("free energy", 400), ("along", 400)]
)
def test_a_browser_fetches_nothing_and_shows_every_figure(html, estimates, verb, width, tmp_path):
    """In a frame of that width, since Chromium's own windows are never narrower than 500 pixels."""
    html = html if verb == "compare" else estimates[2][verb]
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
