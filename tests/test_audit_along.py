"""The Langevin audit at the checkpoints of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.along import optimizer_of
from bayes_vs_sgd.assumptions.isotropy import isotropy
from bayes_vs_sgd.assumptions.local import local
from bayes_vs_sgd.report.audits_along import audit_along_figure, audit_along_page, audit_along_table, cell, sentence
from bayes_vs_sgd.settings import AuditSettings

THREE = AuditSettings(num_checkpoints=3, learning_rate=0.3)
HADAMARD = {"isotropic": True, "covariance": (2.0,) * 2, "num_examples": 64, "prior_scale": 30.0}


def recorded(model, dynamics, folder=None, start=3.0):
    """A run of five draws from one point."""
    initial = {name: np.full((2, *shape), start) for name, shape in model.latents}
    return bvs.simulate(
        dynamics, bvs.Posterior(model), key=0, num_chains=2, num_steps=20, num_draws=5, initial=initial,
        record_positions=True, folder=folder, progress=False,
    )  # fmt: skip


@pytest.mark.exact
def test_noise_that_shrinks_on_the_way_to_a_minimum(load, x64):
    """Hadamard inputs x at the distance v: H = 2 everywhere, C = 2 + those of (x x' - 2) v, isotropic at the end alone."""
    model, eta = load("linear_regression", **HADAMARD), 0.1
    tree = recorded(model, bvs.SGD(eta, 4))
    found = bvs.audit_along(model, tree, settings=THREE)
    assert [place.step for place in found.places] == [4, 12, 20]
    assert found.settings == bvs.SGD(eta, 4).settings  # of the run, not of the settings
    for place, draw in zip(found.places, (0, 2, 4), strict=True):
        by = {a.name: a for a in place.assumptions}
        w = np.asarray(tree["posterior"]["w"].values[0, draw])
        x, y = (np.asarray(model.data[k], float) for k in "xy")
        rows = x * (x @ w - y)[:, None]
        noise = np.linalg.eigvalsh(np.cov(rows, rowvar=False, bias=True))
        assert by["isotropy"].value == pytest.approx(noise.std() / noise.mean())
        assert by["small learning rate"].value == pytest.approx(2 * eta)
        assert by["non-degeneracy"].holds
        assert place.loss == pytest.approx(np.mean((x @ w - y) ** 2) / 2 + np.log(2 * np.pi) / 2)
        assert "prior" not in by


@pytest.mark.exact
def test_positions_from_elsewhere_are_audited_for_the_optimiser_of_the_settings(load, x64, tmp_path):
    model = load("linear_regression", **HADAMARD)
    values = np.random.default_rng(0).normal(size=(1, 4, 2))
    xr.Dataset({"w": (("chain", "draw", "d"), values)}).to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    found = bvs.audit_along(model, tmp_path / "w.nc", settings=THREE)
    assert [place.step for place in found.places] == [1, 3, 4]
    last = {a.name: a.value for a in found.places[-1].assumptions}
    assert last["small learning rate"] == pytest.approx(0.6)
    place = local(bvs.Posterior(model), bvs.Minibatch(batch_size=8), {"w": jnp.asarray(values[0, -1])})
    assert last["isotropy"] == pytest.approx(isotropy(place).value)


@pytest.mark.smoke
def test_a_table_a_figure_and_a_page(load):
    model = load("deep_linear", widths=(2, 2, 2), spectrum=(1.0,), num_examples=20)
    found = bvs.audit_along(model, recorded(model, bvs.SGD(0.01, 4), start=0.5), settings=THREE)
    described = {"path": "m.py", "num_parameters": 8, "num_examples": 20, "config": {}}
    page = audit_along_page(found, model, described, "command")
    assert sentence(found) in page
    assert all(a.name in page for a in found.places[0].assumptions)
    assert len(audit_along_table(found).rows) == 3
    assert cell(found.places[0].assumptions[0])
    assert audit_along_figure(found).axes
    assert jax.tree.leaves(found.to_json())


@pytest.mark.exact
def test_an_optimiser_without_noise_is_refused(load):
    model = load("linear_regression", **HADAMARD)
    with pytest.raises(bvs.InputError, match="give an optimiser with noise"):
        bvs.audit_along(model, recorded(model, bvs.SGD(0.1, 4)), bvs.GradientDescent(0.1), THREE)
    assert optimizer_of(recorded(model, bvs.GradientDescent(0.1))) is None
    adam = bvs.Adam(0.01, 4, sampling="shuffled", objective="posterior")
    assert optimizer_of(recorded(model, adam)).settings == adam.settings
