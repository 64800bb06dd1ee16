"""The grid: which cells, the same bits wherever they are run, what is stored."""

import functools
import json
import os
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from tables import SLOW_BUT_DENSE, label

import mirage
from mirage import Experiment, simulate
from mirage.algorithms import Amp, LayerwiseGd, PowerIteration
from mirage.designs import Deferred, Dense
from mirage.experiments import store
from mirage.experiments.experiment import sample_size
from mirage.experiments.families import families
from mirage.losses import Huber, LogCosh, Mse
from mirage.measures import Measure, cos_best
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Hermite, Parity

LOSSES = {"mse": Mse(), "huber": Huber()}
SHORT = LayerwiseGd(steps=5, readout_steps=5)
TRAINED = ("cos_best_trajectory", "overlap_trajectory", "norm", "readout", "test_error")


def run(**changes):
    settings = {"d": [40], "alpha": [8.0], "seeds": 3, "algorithm": SHORT, "loss": LOSSES}
    settings["design"] = Dense()
    return simulate(Experiment(**{**settings, **changes}))


@given(st.integers(1, 10_000), st.integers(1, 100_000))
def test_alpha_times_d_is_floored_as_the_decimals_say(d, hundredths):
    alpha = hundredths / 100
    assert sample_size("alpha", alpha, d) == Fraction(hundredths, 100) * d // 1
    assert sample_size("alpha", 2.3, 200) == 460
    assert sample_size("n", d, 7) == d


@given(st.integers(2, 1000), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_d_to_the_exponent_is_floored_without_float_error(d, exponent):
    exact = int(np.floor(np.longdouble(d) ** np.longdouble(exponent) + np.longdouble(1e-6)))
    assert sample_size("exponent", exponent, d) == exact
    assert sample_size("exponent", 1.5, 100) == 1000


def assert_same_bits(a: xr.Dataset, b: xr.Dataset, **where):
    for name in TRAINED:
        assert np.array_equal(a[name].sel(where), b[name].sel(where)), name


DENSE = {"d": [100, 120], "alpha": [5.0, 10.0, 20.3], "seeds": 4}
DENSE |= {"algorithm": LayerwiseGd(steps=20, readout_steps=20)}
DEFERRED = {"d": [100], "alpha": [9.0, 30.0], "seeds": 3, "loss": {"mse": Mse()}}
DEFERRED |= {"design": Deferred(), "algorithm": LayerwiseGd(steps=10, readout_steps=20)}


@pytest.fixture(scope="module")
def whole():
    return functools.cache(lambda name: run(**(DENSE if name == "dense" else DEFERRED)))


def late(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.bits
@pytest.mark.parametrize(
    ("base", "other"),
    [
        (DENSE, {"d": [120], "alpha": [10.0, 40.0], "seeds": 3}),
        (DENSE, {"d": [120], "alpha": [10.0], "seeds": 1, "loss": {"mse": Mse()}}),
        late(DENSE, {"d": [120], "alpha": [10.0], "loss": {"log_cosh": LogCosh(), **LOSSES}}),
        late(DENSE, {"d": [100], "alpha": [5.0], "save_weights": True}),
        late(DEFERRED, {"alpha": [9.0, 70.0], "seeds": 2}),
    ],
    ids=["grid", "one loss", "more losses", "one block", "deferred"],
)
def test_a_cell_has_the_same_bits_in_any_other_grid(whole, base, other):
    """For MSE, whose dynamics amplify rounding: nothing but the same bits would agree."""
    part = run(**{**base, **other})
    where = {"loss": "mse", "d": int(part.d[0]), "alpha": float(part.alpha[0])}
    a, b = whole(base.get("design", Dense()).name()).sel(where), part.sel(where)
    for name in TRAINED:
        assert np.array_equal(a[name][: part.sizes["seed"]], b[name]), name


@pytest.mark.slow
@pytest.mark.bits
def test_chunks_of_seeds_do_not_change_a_bit():
    whole, chunked = (run(d=[100], seeds=5, runtime=Default(memory=m)) for m in (None, "16 MB"))
    chunks = [json.loads(r.attrs["plan"])["chunks"][0]["seeds"] for r in (whole, chunked)]
    assert chunks[0] > chunks[1]
    assert_same_bits(whole, chunked)


@pytest.mark.slow
def test_two_devices_agree_with_one_to_rounding():
    one, two = (
        run(d=[100], alpha=[10.0], seeds=4, runtime=Default(devices=k), loss=Huber())
        for k in (1, 2)
    )
    assert json.loads(two.attrs["plan"])["devices"] == 2
    np.testing.assert_allclose(one.cos_best, two.cos_best, atol=1e-4)
    assert not np.array_equal(one.cos_best[..., 0], one.cos_best[..., 1])


@pytest.mark.slow
def test_seeds_side_by_side_agree_with_seeds_in_turn_to_rounding():
    in_turn, together = (
        run(d=[60], alpha=[10.0], seeds=4, runtime=Default(seeds_at_once=k), loss=Huber())
        for k in (1, 2)
    )
    np.testing.assert_allclose(in_turn.cos_best, together.cos_best, atol=1e-4)


@pytest.mark.slow
def test_seeds_root_seeds_and_dimensions_draw_different_numbers():
    a = run(d=[40, 41], loss=Huber())
    b = run(d=[40, 41], loss=Huber(), root_seed=1)
    values = np.concatenate([a.cos_best.values.ravel(), b.cos_best.values.ravel()])
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("design", SLOW_BUT_DENSE, ids=label)
def test_one_compilation_serves_every_sample_size(design):
    """One a (d, design) for drawing, one for training, whatever the losses and numbers."""
    dimensions = [40, 50] if design.memoryless else [40]
    results = run(d=dimensions, alpha=[6.0, 7.0, 8.0, 9.0], design=design, seeds=4)
    counted = json.loads(results.attrs["compilations"])
    assert counted == {"draw": len(dimensions), "train": len(dimensions)}


def test_results_are_labelled_and_measures_follow_from_the_order_parameters():
    results = run(save_weights=True, alpha=[8.0, 9.5])
    assert results.cos_best.dims == ("loss", "d", "alpha", "seed")
    assert results.cos_best_trajectory.dims == ("loss", "d", "alpha", "seed", "step")
    assert results.overlap.dims[-2:] == ("neuron", "direction")
    assert results.sizes["step"] == SHORT.steps + 1
    assert list(results.loss.values) == ["mse", "huber"]
    assert list(results.n.values.ravel()) == [320, 380]
    assert set(results.design.values.ravel()) == {"dense"}
    weights = results.weights.values
    np.testing.assert_allclose(results.overlap, weights[..., :2], rtol=1e-6)
    norm = np.linalg.norm(weights, axis=-1)
    np.testing.assert_allclose(results.norm, norm, rtol=1e-5)
    np.testing.assert_allclose(
        results.cos_best, cos_best(results.overlap.values, results.norm.values), rtol=1e-6
    )
    assert np.array_equal(results.cos_best, results.cos_best_trajectory[..., -1])
    for variable in results.variables.values():
        assert {"long_name", "units"} <= set(variable.attrs)


@pytest.mark.bits
def test_a_cell_that_diverges_is_flagged_and_its_neighbours_are_untouched():
    wild = LayerwiseGd(steps=5, readout_steps=5, step_size=1e25)
    results = run(algorithm={"tame": SHORT, "wild": wild}, loss=Mse(), target=Hermite(noise=1.0))
    assert results.diverged.sel(algorithm="wild").all()
    assert results.cos_best.sel(algorithm="wild").isnull().all()
    assert results.test_error.sel(algorithm="wild").isnull().all()
    alone = run(loss=Mse(), target=Hermite(noise=1.0))
    assert not results.diverged.sel(algorithm="tame").any()
    assert np.array_equal(results.cos_best.sel(algorithm="tame"), alone.cos_best)


@pytest.mark.slow
def test_options_of_different_shapes_are_compared_side_by_side():
    results = run(
        loss=Huber(),
        network={"four": TwoLayer(), "six": TwoLayer(width=6)},
        algorithm={"gd": SHORT, "power": PowerIteration(steps=3)},
    )
    assert results.cos_best.dims[:2] == ("network", "algorithm")
    assert results.norm.sel(network="four").isnull().sum("neuron").max() == 2
    assert results.cos_best.notnull().all()
    assert results.test_error.sel(algorithm="power").isnull().all()
    assert results.test_error.sel(algorithm="gd").notnull().all()


@pytest.mark.slow
def test_each_design_is_recorded_and_both_see_one_signal():
    results = run(design={"dense": Dense(), "deferred": Deferred()}, loss=Huber(), alpha=[30.0])
    assert list(results.design.values.ravel()) == ["dense", "deferred"]
    assert (results.cos_best > 0.3).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": [1]}, "d=1: expected at least the target's rank, 2"),
        ({"d": []}, "d="),
        ({"d": [3.5]}, "d="),
        ({"d": ["x"]}, "d="),
        ({"d": [50, 50]}, "twice"),
        ({"alpha": [1e-6]}, "alpha=1e-06 at d=40: gives n=0"),
        ({"alpha": [-1.0]}, "alpha="),
        ({"alpha": None}, "exactly one of alpha, exponent, n or a search; got none"),
        ({"n": 10}, "got alpha and n"),
        ({"alpha": [1e9]}, "more than 2"),
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": 2.5}, "seeds=2.5"),
        ({"root_seed": -1}, "root_seed=-1"),
        ({"root_seed": 2**32}, "root_seed"),
        ({"loss": {}}, "loss="),
        ({"loss": "huber"}, "expected a Loss"),
        ({"design": Deferred(), "algorithm": LayerwiseGd(steps=50)}, "query columns"),
        (
            {"runtime": Default(memory="10 KB", devices=2)},
            "raise it, or take runtime.devices=1 or design=streamed",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_with_the_key(changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_results_survive_the_disk(tmp_path):
    results = run(loss=Huber(), d=[40])
    path = mirage.save(results, tmp_path / "a" / "b")
    xr.testing.assert_identical(mirage.load(path), results)
    xr.testing.assert_identical(mirage.load(tmp_path), results)
    assert [p.name for p in path.parent.iterdir()] == ["results.nc"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    results = run(loss=Huber())
    mirage.save(results, tmp_path)

    def half(self, path, **_):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", half)
    with pytest.raises(OSError, match="No space"):
        mirage.save(results, tmp_path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [store.FILE]
    xr.testing.assert_identical(mirage.load(tmp_path), results)


@pytest.mark.slow
def test_runs_of_a_grid_load_as_one_dataset(tmp_path):
    parts = {}
    for d in (40, 50):
        for loss, function in LOSSES.items():
            parts[loss, d] = run(d=[d], alpha=[8.0, 9.0], loss=function)
            mirage.save(parts[loss, d], tmp_path / f"{d}_{loss}")
    loaded = mirage.load(tmp_path)
    assert loaded.cos_best.sizes == {"loss": 2, "d": 2, "alpha": 2, "seed": 3}
    for (loss, d), part in parts.items():
        for name in TRAINED:
            own = loaded[name].sel(loss=loss, d=[d])
            assert np.array_equal(own.transpose(*part[name].dims), part[name]), name


class LargestOverlap(Measure):
    """Largest |M|, to a power.

    Of the target's directions alone.
    """

    power: int = 1

    def __call__(self, *, overlap, gram, target):
        assert overlap.shape[1:] == (gram.shape[1], target.rank)
        return np.abs(overlap).max(axis=(1, 2)) ** self.power


class Shapeless(Measure):
    """Not one number a cell."""

    def __call__(self, *, overlap, gram, target):
        return gram


def test_a_measure_of_ones_own_stands_beside_the_others():
    results = run(loss=Huber(), measures=[LargestOverlap(power=2)])
    expected = np.abs(results.overlap).max(["neuron", "direction"]) ** 2
    np.testing.assert_allclose(results.largest_overlap, expected, rtol=1e-6)
    assert results.largest_overlap.attrs["long_name"] == "Largest |M|, to a power"
    # What diverges is missing, as in any other.
    wild = run(loss=Mse(), measures=[LargestOverlap()], algorithm=LayerwiseGd(step_size=1e30))
    assert wild.diverged.all()
    assert wild.largest_overlap.isnull().all()
    with pytest.raises(ValueError, match=r"the shape of shapeless=.*: expected one number a cell"):
        run(loss=Huber(), measures=[Shapeless()])
    with pytest.raises(ValueError, match="measures=3: expected a list of Measures"):
        run(loss=Huber(), measures=[3])


def cells(losses, d, *, cos=0.5):
    """A result as a grid leaves it: `n` has no loss, one loss alone is no dimension."""
    coords = {"d": d, "alpha": [2.0], "seed": [0, 1], "loss": losses}
    axes = ("loss", "d", "alpha", "seed") if isinstance(losses, list) else ("d", "alpha", "seed")
    shape = [len(coords[axis]) for axis in axes]
    return xr.Dataset(
        {
            "cos_best": (axes, np.full(shape, cos, np.float32)),
            "diverged": (axes, np.zeros(shape, bool)),
            "design": (axes[:-1], np.full(shape[:-1], "dense")),
            "n": (("d", "alpha"), 2 * np.array([d]).T),
        },
        coords=coords,
    )


@pytest.mark.parametrize("d", [[20, 30], [30, 40], [50]])
def test_combined_is_an_outer_join(tmp_path, d):
    """As xarray's own, which takes a time that grows with the square of the runs."""
    first, second = cells(["mse", "huber"], [20, 30]), cells(["mse"], d)
    slow = xr.merge([first, second], join="outer", compat="no_conflicts")
    store.save(first, tmp_path / "a")
    store.save(cells("mse", d), tmp_path / "b")
    both = store.load(tmp_path)
    assert set(both.data_vars) == set(slow.data_vars)
    for name in ("cos_best", "n"):
        assert np.abs(both[name] - slow[name]).fillna(0).max() == 0
        assert int(both[name].notnull().sum()) >= int(slow[name].notnull().sum())
    assert both.diverged.dtype == bool
    assert not both.diverged.any()
    known = both.cos_best.notnull().any("seed")
    assert (both.design.where(known, "dense") == "dense").all()
    assert (both.design.where(~known, "") == "").all()
    store.save(cells("mse", [20], cos=0.6), tmp_path / "c")
    with pytest.raises(ValueError, match="they differ in cos_best"):
        store.load(tmp_path)


def test_what_was_gathered_is_read_while_nothing_is_newer(tmp_path, monkeypatch):
    for d in (20, 30):
        store.save(cells("mse", [d]), tmp_path / str(d))
    plain = store.load(tmp_path)
    store.gather(tmp_path)
    with monkeypatch.context() as patch:
        patch.delattr(store, "combined")
        found = store.load(tmp_path)
    assert found.equals(plain)
    assert "gathered" not in found.attrs
    store.save(cells("mse", [40]), tmp_path / "40")
    assert store.load(tmp_path).sizes["d"] == 3
    store.gather(tmp_path)
    changed = store.save(cells("mse", [40], cos=0.7), tmp_path / "40")
    os.utime(changed, ns=(2**61, 2**61))
    assert store.load(tmp_path).cos_best.max() == np.float32(0.7)


def test_runs_that_contradict_each_other_are_refused(tmp_path):
    for seed in (0, 1):
        mirage.save(run(loss=Huber(), root_seed=seed), tmp_path / str(seed))
    with pytest.raises(ValueError, match="different numbers for the same cell"):
        mirage.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"results\.nc"):
        mirage.load(tmp_path / "nothing")


@pytest.mark.slow
def test_what_an_algorithm_has_no_use_for_costs_nothing():
    """AMP knows no loss: one run is the result of all of them."""
    experiment = Experiment(
        target=Parity(),
        loss=LOSSES,
        algorithm={"power_iteration": PowerIteration(steps=1), "amp": Amp(steps=1, start="random")},
        vary={"network.width": [4, 6]},
        d=[20],
        alpha=3.0,
        seeds=1,
        runtime=Default(progress=False),
    )
    groups = families(experiment.setups())
    names = {family.setup.algorithm.name(): family.names for family in groups}
    (amp,) = names["amp"]
    assert len(amp) == 2 * len(LOSSES)
    assert [len(one) for one in names["power_iteration"]] == [1] * len(LOSSES)
    overlap = simulate(experiment).overlap.sel(algorithm="amp").dropna("neuron", how="all")
    first = overlap.isel(loss=0, width=0)
    assert first.notnull().any()
    np.testing.assert_array_equal(overlap, np.broadcast_to(first, overlap.shape))


def test_setups_that_differ_in_numbers_and_losses_alone_are_one_family():
    experiment = Experiment(
        d=[40],
        alpha=9.0,
        loss={**LOSSES, "wide": Huber(delta=2.0)},
        network={"four": TwoLayer(), "six": TwoLayer(width=6)},
        vary={"algorithm.step_size": [1.0, 2.0]},
    )
    groups = families(experiment.setups())
    assert [len(family.setups) for family in groups] == [6, 6]


def test_runs_that_differ_in_a_setting_load_along_it(tmp_path):
    for place, delta in enumerate((0.5, 2.0)):
        config = {
            "loss": {"name": "huber", "delta": delta},
            "algorithm": {"name": "layerwise_gd", "steps": 3},
            "runtime": {"name": "default", "memory": f"{place} GB"},
        }
        results = xr.Dataset(
            {"cos_best": (("d", "seed"), np.full((1, 2), delta))},
            coords={"d": [20], "seed": [0, 1], "loss": "huber"},
            attrs={"config": json.dumps(config)},
        )
        store.save(results, tmp_path / str(place))
    both = store.load(tmp_path)
    assert dict(both.cos_best.sizes) == {"delta": 2, "d": 1, "seed": 2}
    assert both.delta.attrs["long_name"] == "loss.delta"
    np.testing.assert_array_equal(both.cos_best.isel(d=0, seed=0), both.delta)
