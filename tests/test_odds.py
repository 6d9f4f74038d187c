"""SGD against Bayes on a property: exact laws at two initial scales, a matched control, and how often intervals hold."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logit
from statistical import FALSE_ALARM, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.estimate import binomial_interval, log_odds_ratio
from bayes_vs_sgd.robustness.course import Stage, decided
from bayes_vs_sgd.robustness.methods import Part
from bayes_vs_sgd.robustness.odds import Odds, loss_gap
from bayes_vs_sgd.robustness.particles import log_interval
from bayes_vs_sgd.theory.rare_events import fitted_exceedance, flow_exceedance

AGAINST = {"law": "sgd", "against": "posterior"}
Z = float(stats.norm.ppf(0.975))


@pytest.mark.law
@pytest.mark.parametrize(
    ("initial_scale", "threshold", "count", "ratio"),
    [(0.5, 1.0, 40_000, -0.2), pytest.param(1.0, 3.0, 200_000, 0.085, marks=pytest.mark.slow)],
)
def test_flow_from_the_prior_is_told_from_the_posterior(initial_scale, threshold, count, ratio, load, x64):
    """Runs that start at the prior and fit exactly: both probabilities are known, and close; so is their log odds ratio."""
    fitted = {"widths": (1, 4, 1), "num_examples": 16, "spectrum": (1.0,), "noise": 0.2, "noise_free": True}
    model = load("deep_linear", prior_scale=initial_scale, num_held_out=2, **fitted)
    settings = {"learning_rate": 0.02 * 0.2**2, "num_steps": 242, "initial_scale": 1.0, "num_seeds": count}
    found = bvs.robustness(model, "trigger", threshold, num_particles=count // 8, **AGAINST, **settings)
    assert found.trusted, found.warnings
    odds = found.against
    assert odds is not None
    assert odds.log_odds_ratio is not None
    assert odds.exact is not None
    assert "no noise" in odds.temperature
    assert odds.inverse_temperature == 1
    flow, bayes = flow_exceedance(threshold, 4, 1.0, initial_scale), odds.exact
    assert bayes == pytest.approx(fitted_exceedance(threshold, 4, prior_scale=initial_scale), rel=0.01)
    for seen, known in ((found, flow), (odds, bayes)):
        error = (logit(seen.interval[1]) - logit(seen.interval[0])) / (2 * Z)
        assert_mean(logit(seen.probability), error, expected=logit(known), detects=abs(ratio))
    error = (odds.log_odds_interval[1] - odds.log_odds_interval[0]) / (2 * Z)
    assert_mean(odds.log_odds_ratio, error, expected=logit(flow) - logit(bayes), detects=abs(ratio))
    with planted_bug():  # the odds the other way round; and one law in the place of the other
        assert_mean(odds.log_odds_ratio, error, expected=logit(bayes) - logit(flow), detects=abs(ratio))
    with planted_bug():
        assert_mean(odds.log_odds_ratio, error, expected=0.0, detects=abs(ratio))
    assert odds.apart
    assert "told apart" in odds.in_words()
    start, *_, end = odds.along
    assert (start.step, end.step, end.probability) == (0, 242, found.probability)
    assert len(odds.along) == 1 + 22  # the largest number up to 40 that divides the steps
    assert 0 < odds.decided < 242
    at_prior = stats.chi2(4).expect(lambda r: 2 * stats.norm.cdf(-threshold / (initial_scale**2 * np.sqrt(r))))
    error = np.sqrt(at_prior * (1 - at_prior) / count)
    assert_mean(start.probability, error, expected=at_prior, detects=0.015)


@cache
def scalar():
    """One weight and labels of size 1 at one input: SGD's law is a normal one, the posterior at 1 / variance - 1 = n beta."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w * x, 1), obs=y)

    def exact(law, threshold):
        if not isinstance(law, bvs.Posterior):
            return None
        return float(2 * stats.norm.sf(threshold * np.sqrt(1 + float(law.scale))))

    data = {"x": np.ones(64), "y": np.tile([1.0, -1.0], 32)}
    item = bvs.Property(lambda model, values: jnp.abs(values["w"]), exact)
    return bvs.Model(program, data, optimum={"w": 0.0}, properties={"size": item})


RATE, BATCH = 0.1, 8
VARIANCE = RATE / (BATCH * (2 - RATE))
"""Of w' = w - eta (w - mean of B labels of variance 1), exactly."""
RUNS = {"learning_rate": RATE, "batch_size": BATCH, "num_steps": 200, "num_seeds": 4000, "initial_scale": 1.0}
FAR = float(np.sqrt(3 * VARIANCE))
"""Where the labels' kurtosis does not move the tail: the third Hermite polynomial vanishes."""


@pytest.mark.law
@pytest.mark.parametrize("temperature", ["fitted", "loss"])
def test_at_the_matched_temperature_the_odds_agree(temperature, x64):
    found = bvs.robustness(scalar(), threshold=FAR, temperature=temperature, **AGAINST, **RUNS)
    odds = found.against
    assert odds is not None
    assert odds.log_odds_ratio is not None
    assert odds.exact is not None
    assert odds.inverse_temperature_error is not None
    known, beta_error = (1 / VARIANCE - 1) / 64, odds.inverse_temperature_error
    assert_mean(odds.inverse_temperature, beta_error, expected=known, detects=0.6)
    with planted_bug():  # the posterior as it is, at beta 1
        assert_mean(odds.inverse_temperature, beta_error, expected=1.0, detects=0.6)
    error = (odds.log_odds_interval[1] - odds.log_odds_interval[0]) / (2 * Z)
    assert odds.temperature_shift is not None
    assert_mean(odds.log_odds_ratio, np.hypot(error, odds.temperature_shift), expected=0.0, detects=0.8)
    one = logit(scalar().properties["size"].exact(bvs.Posterior(scalar(), 1.0), FAR))
    with planted_bug():
        assert_mean(logit(found.probability) - one, error, expected=0.0, detects=0.8)
    step = beta_error * 1e-3
    ends = [
        scalar().properties["size"].exact(bvs.Posterior(scalar(), odds.inverse_temperature + s), FAR)
        for s in (-step, step)
    ]
    assert odds.temperature_shift / beta_error == pytest.approx(-np.subtract(*logit(ends[::-1])) / (2 * step), rel=0.2)


@pytest.mark.exact
def test_other_temperatures(x64):
    """That of theory is 1/T0 = 2B/eta, also where the fit is no temperature; a given one is used as it is."""
    few = RUNS | {"num_seeds": 20, "num_steps": 8}
    found = bvs.robustness(scalar(), threshold=FAR, temperature="theory", **AGAINST, **few)
    assert found.against is not None
    assert found.against.inverse_temperature == pytest.approx(2 * BATCH / RATE / 64, rel=1e-3)
    found = bvs.robustness(scalar(), threshold=FAR, inverse_temperature=0.5, **AGAINST, **few)
    assert found.against is not None
    assert (found.against.inverse_temperature, found.against.temperature) == (0.5, "given")
    assert found.against.temperature_shift is None
    wide = few | {"initial_scale": 3.0, "num_seeds": 200}
    found = bvs.robustness(
        scalar(), threshold=FAR, **AGAINST, **wide
    )  # still wider than the prior: no beta >= 0 is so wide
    assert found.against is not None
    assert found.against.temperature.startswith("theory")
    assert any("no temperature" in warning for warning in found.warnings)
    assert not found.trusted


@pytest.mark.exact
def test_what_an_error_of_the_temperature_does(x64):
    """The derivative of the log odds ratio against that of the closed form, by Student's test over sixteen parts."""
    target = bvs.Posterior(scalar(), 2.0)
    draws = np.random.default_rng(0).normal(size=(16, 2000, 1)) / np.sqrt(1 + float(target.scale))
    slopes = [loss_gap(target, [Part(v, np.full(2000, 1 / 2000), np.abs(v[:, 0]) > 0.15)]) for v in draws]
    ends = [scalar().properties["size"].exact(bvs.Posterior(scalar(), 2.0 + s), 0.15) for s in (-1e-4, 1e-4)]
    slope = -np.subtract(*logit(ends[::-1])) / 2e-4
    assert_mean(slopes, expected=slope, detects=0.5)
    with planted_bug():  # of the odds of the posterior, not of those over them
        assert_mean(slopes, expected=-slope, detects=0.5)
    assert loss_gap(target, [Part(draws[0], np.full(2000, 1 / 2000), np.zeros(2000, bool))]) is None


@pytest.mark.exact
@pytest.mark.parametrize("sizes", [(20, 20), (40, 60), (50, 200)])
def test_the_interval_holds_the_log_odds_ratio_nineteen_times_in_twenty(sizes):
    """Coverage summed over all pairs of counts, none by chance; without the first law's error it is too low."""
    seen = [[(x / n, binomial_interval(x / n, n)) for x in range(n + 1)] for n in sizes]

    def coverage(pairs, probabilities):
        truth = float(np.subtract(*logit(probabilities)))
        low, high = np.array([[log_odds_ratio(*a, *b)[1] for b in pairs[1]] for a in pairs[0]]).transpose(2, 0, 1)
        masses = [stats.binom.pmf(np.arange(n + 1), n, p) for n, p in zip(sizes, probabilities, strict=True)]
        return masses[0] @ ((low <= truth) & (truth <= high)) @ masses[1]

    for pair in ((0.5, 0.5), (0.1, 0.3), (0.05, 0.05), (0.01, 0.2), (0.9, 0.02)):
        assert coverage(seen, pair) >= 0.95, pair
    careless = [[(p, (p, p)) for p, _ in seen[0]], seen[1]]
    assert coverage(careless, (0.1, 0.3)) < 0.95


@pytest.mark.law
def test_the_interval_holds_with_replicates_of_particles():
    """2,000 times 200 runs against eight replicates: no more misses than one in twenty may make; more without their error."""
    rng, first, second, spread = np.random.default_rng(0), 0.1, 0.01, 0.5
    truth, misses = float(logit(first) - logit(second)), np.zeros(2)
    for _ in range(2000):
        share = rng.binomial(200, first) / 200
        replicates = second * rng.gamma(1 / spread**2, spread**2, size=8)
        mean = float(replicates.mean())
        for column, interval in enumerate((log_interval(replicates.tolist()), (mean, mean))):
            low, high = log_odds_ratio(share, binomial_interval(share, 200), mean, interval)[1]
            misses[column] += not low <= truth <= high
    most = stats.binom.isf(FALSE_ALARM, 2000, 0.05)
    assert misses[0] <= most < misses[1]


@pytest.mark.exact
def test_what_was_never_seen_leaves_one_bound():
    never, some, always = ((p, binomial_interval(p, 100)) for p in (0.0, 0.1, 1.0))
    value, (low, high) = log_odds_ratio(*never, *some)
    assert (value, low) == (None, -np.inf)
    assert high == pytest.approx(logit(1 - 0.025**0.01) - logit(some[1][0]))
    assert log_odds_ratio(*some, *never) == (None, (pytest.approx(-high), np.inf))
    assert log_odds_ratio(*never, *never) == (None, (-np.inf, np.inf))
    assert log_odds_ratio(*always, *some)[1][1] == np.inf
    words = [made(None, bounds).ratio_in_words() for bounds in ((low, high), (-high, np.inf), (-np.inf, np.inf))]
    assert "at most" in words[0]
    assert "at least" in words[1]
    assert "Nothing is known" in words[2]
    assert "nan" not in "".join(words)


def made(ratio, bounds):
    """Odds with nothing in them but these."""
    stages = [Stage(step, 0.5, (0.4, 0.6), 1.0) for step in (0, 1)]
    return Odds("posterior", 0.1, (0.0, 0.2), None, "", 1.0, None, "", ratio, bounds, None, False, stages, 0, [])


@pytest.mark.exact
def test_when_an_event_is_decided():
    def stages(*values):
        return [Stage(10 * i, v, (v - 0.05, v + 0.05), 1.0) for i, v in enumerate(values)]

    assert decided(stages(0.5, 0.32, 0.1, 0.28, 0.31, 0.3)) == 30  # not at 10, since it leaves again
    assert decided(stages(0.3, 0.31, 0.3)) == 0
    assert decided(stages(0.1, 0.2, 0.3)) == 20


@pytest.mark.exact
def test_what_was_never_seen_is_said(x64):
    """No run can come as far as most of the prior is."""
    few = RUNS | {"num_seeds": 50, "num_steps": 4, "initial_scale": 1e-3, "num_replicates": 2}
    found = bvs.robustness(scalar(), threshold=0.45, inverse_temperature=0.0, **AGAINST, **few)
    odds = found.against
    assert odds is not None
    assert found.probability == 0
    assert odds.log_odds_ratio is None
    assert "one-sided bound" in odds.in_words()
    assert "When the event is decided is not seen: of these runs none ended with it." in odds.in_words()
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["against"]["log_odds_interval"][0] is None
    assert any("never reached" in warning for warning in found.warnings)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"law": "posterior"}, "law is 'posterior' against the posterior: give --law sgd"),
        ({"against": "prior"}, "against is 'prior': it must be posterior"),
        ({"temperature": "hot"}, "temperature is 'hot': it must be fitted, theory or loss"),
        ({"num_checkpoints": 1}, "num_checkpoints is 1: it must be at least 2"),
        ({"objective": "posterior"}, "give --inverse-temperature"),
        ({"influence": True}, "influence is of the posterior"),
    ],
)
def test_what_cannot_be_is_refused(settings, message, x64):
    with pytest.raises(bvs.InputError, match=message):
        bvs.robustness(scalar(), threshold=1.0, **(AGAINST | settings))


@pytest.mark.smoke
def test_the_verb_writes_its_answer_and_its_page(tmp_path, monkeypatch):
    from bayes_vs_sgd.cli import run

    monkeypatch.chdir(tmp_path)
    model = str(Path(__file__).parents[1] / "models" / "product.py")
    job = ["robustness", model, "--property", "size", "--threshold", "0.02", "--law", "sgd", "--against", "posterior"]
    job += ["--num-seeds", "200", "--num-steps", "40", "--num-checkpoints", "10"]
    precision = jax.config.read("jax_enable_x64")
    try:
        assert run([*job, "--out", "run", "--json", "answer.json"]) == 0
        assert run([*job, "--resume", "run", "--json", "again.json"]) == 0
    finally:
        jax.config.update("jax_enable_x64", precision)
    answer, again = (json.loads(Path(name).read_text()) for name in ("answer.json", "again.json"))
    assert again | {"seconds": 0} == answer | {"seconds": 0}
    assert [stage["step"] for stage in answer["against"]["along"]] == [0, *range(4, 41, 4)]
    page = Path("run/robustness.html").read_text()
    assert "SGD against Bayes" in page
    assert page.count('<svg role="img" aria-label="') == 2
