"""Trajectories made elsewhere are read as if they had been run here."""

import numpy as np
import pytest
import xarray as xr

import bayes_vs_sgd as bvs
from bayes_vs_sgd.given import read_positions


@pytest.fixture(scope="module")
def made(tiny):
    """A run with its positions, whose model's own values differ from the unconstrained ones in nothing."""
    target = bvs.Posterior(tiny, 0.5)
    settings = {
        "key": 0,
        "num_chains": 120,
        "num_steps": 40,
        "num_draws": 8,
        "record_positions": True,
        "progress": False,
    }
    return target, bvs.simulate(bvs.SGD(0.02, 4), target, **settings)


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["tree", "dataset", "file", "arrays"])
def test_they_give_the_same_observables_and_the_same_comparison(kind, made, tmp_path):
    target, tree = made
    sites = tree["posterior"].to_dataset()[["W1", "W2"]]
    if kind == "file":
        xr.DataTree.from_dict({"posterior": sites}).to_netcdf(tmp_path / "elsewhere.nc", engine="h5netcdf")
    positions = {
        "tree": lambda: xr.DataTree.from_dict({"posterior": sites}),
        "dataset": lambda: sites,
        "file": lambda: xr.open_datatree(tmp_path / "elsewhere.nc", engine="h5netcdf"),
        "arrays": lambda: {name: sites[name].values for name in sites},
    }[kind]()
    given = bvs.from_positions(positions, target, "elsewhere")
    for name in ("loss", "total_norm", "imbalance", "prediction_unseen"):
        np.testing.assert_allclose(given["posterior"][name], tree["posterior"][name], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(given["final_position"]["W1"], tree["final_position"]["W1"])
    if kind == "arrays":
        reference = bvs.simulate(
            target.model.exact_sampler, target, key=1, num_chains=8, num_draws=200, num_warmup=50, progress=False
        )
        one, two = bvs.compare(given, reference, target), bvs.compare(tree, reference, target)
        assert (one.verdicts, one.stationary) == (two.verdicts, two.stationary)
        assert one.settings == {"source": "elsewhere"}


@pytest.mark.exact
def test_a_chain_that_is_not_finite_is_lost(made):
    target, tree = made
    values = {name: tree["posterior"][name].values.copy() for name in ("W1", "W2")}
    values["W2"][3, -1] = np.nan
    lost = bvs.from_positions(values, target)["final_position"]["lost_at_step"].values
    assert np.flatnonzero(lost >= 0).tolist() == [3]


@pytest.mark.exact
@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_files_of_old_and_new_netcdf_with_other_variables_are_read(engine, made, tmp_path):
    target, tree = made
    sites = tree["posterior"].to_dataset()[["W1", "W2"]].assign(learning_rate=0.02)
    sites.to_netcdf(tmp_path / "elsewhere.nc", engine=engine)
    given = bvs.from_positions(read_positions(tmp_path / "elsewhere.nc"), target)
    np.testing.assert_array_equal(given["final_position"]["W1"], tree["final_position"]["W1"])


@pytest.mark.exact
def test_a_chain_whose_loss_is_not_finite_is_lost(made):
    target, tree = made
    values = {name: tree["posterior"][name].values.copy() for name in ("W1", "W2")}
    values["W2"][5] = 1e30
    lost = bvs.from_positions(values, target)["final_position"]["lost_at_step"].values
    assert np.flatnonzero(lost >= 0).tolist() == [5]


@pytest.mark.exact
def test_names_and_shapes_that_cannot_be_are_refused(made):
    target, tree = made
    values = {name: tree["posterior"][name].values for name in ("W1", "W2")}
    with pytest.raises(bvs.InputError, match=r"positions lack \['W2'\]"):
        bvs.from_positions({"W1": values["W1"]}, target)
    with pytest.raises(
        bvs.InputError, match=r"'W1' have shape \(120, 8, 6\): the program's site is \(chain, draw, 2, 3\)"
    ):
        bvs.from_positions(values | {"W1": values["W1"].reshape(120, 8, 6)}, target)
    unnamed = xr.Dataset({k: (tuple(f"{k}_{i}" for i in range(4)), v) for k, v in values.items()})
    with pytest.raises(bvs.InputError, match="chain and draw are needed"):
        bvs.from_positions(unnamed, target)
    with pytest.raises(bvs.InputError, match="the same chains and draws"):
        bvs.from_positions(values | {"W2": values["W2"][:, :3]}, target)
