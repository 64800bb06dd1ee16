"""Experiments of several parts, escape times, and the experiments on gradient dynamics, shrunk."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import mirage
from mirage import figures
from mirage.analysis.escape import escape_exponents, steps_to, straight_in_log_d
from mirage.config import ConfigError, compose_config
from mirage.measures import escape

matplotlib.use("Agg")
SHORT = ("algorithm=power_iteration", "algorithm.steps=3", "seeds=2", "runtime.progress=false")


def test_parts_are_the_config_with_some_keys_changed():
    parts = mirage.compose(
        "parts.small={d:[30],loss:{delta:2.0}}", "parts.other={loss:{name:mse},d:[40,50]}", *SHORT
    )
    assert list(parts) == ["small", "other"]
    assert parts["small"].dimensions == (30,)
    assert parts["small"].loss.delta == 2.0
    assert parts["other"].loss.name() == "mse"
    assert parts["other"].dimensions == (40, 50)


@pytest.mark.bits
def test_parts_are_joined_along_a_dimension_of_their_own():
    overrides = ("parts.a={d:[30],n:200}", "parts.b={d:[40],n:300}", "alpha=null", *SHORT)
    parts = mirage.compose(*overrides)
    results = mirage.simulate(parts)
    assert results.cos_best.dims == ("part", "d", "seed")
    assert float(results.n.sel(part="b")) == 300
    assert results.cos_best.sel(part="a", d=40).isnull().all()
    alone = mirage.simulate(parts["b"])
    assert np.array_equal(results.cos_best.sel(part="b", d=40), alone.cos_best.squeeze())
    assert len(json.loads(results.attrs["plan"])) == 2
    assert results.attrs["wall_time_s"] > 0
    assert results.part.attrs["long_name"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parts.a={dd:3}", "parts.a.dd: unknown key"),
        ("parts.a=3", "parts.a=3: expected keys of the config to change"),
        ("parts.a={d:-3}", "parts.a: d=-3"),
    ],
)
def test_a_mistake_in_a_part_names_it(override, message):
    with pytest.raises(ConfigError, match=message):
        mirage.compose(override, *SHORT)


def test_escape_is_interpolated_between_saves():
    samples = np.array([[0.0, 10, 100, 1000]] * 4)
    cosine = np.array(
        [[0.1, 0.2, 0.4, 0.6], [0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.9], [0.1, np.nan, 0.9, 0.9]]
    )
    found = escape(samples, cosine, 0.5)
    np.testing.assert_allclose(found, [10**2.5, np.inf, 0, np.nan])


def test_exponents_of_exact_laws():
    """n = 3 d^1.5, and n = d (2 + 5 log d), with seeds about the median."""
    d = np.array([100, 1000, 10000])
    spread = np.exp(np.linspace(-0.5, 0.5, 41))
    power = xr.DataArray(3 * d[:, None] ** 1.5 * spread, dims=("d", "seed"), coords={"d": d})
    found = escape_exponents(power)
    assert float(found.exponent) == pytest.approx(1.5, abs=1e-12)
    assert 0 < float(found.exponent_error) < 0.1
    flat = np.ones(41)
    logarithmic = power.copy(data=(d * (2 + 5 * np.log(d)))[:, None] * flat)
    assert float(escape_exponents(logarithmic).log_slope) == pytest.approx(5, abs=1e-9)
    never = power.where(power.d < 5000, np.inf)
    assert float(escape_exponents(never).exponent) == pytest.approx(1.5, abs=1e-12)


def test_steps_to_a_level_and_their_line_in_log_d():
    curve = xr.DataArray(
        [[0.0, 0.2, 0.4, 0.8], [0.0, 0.1, 0.2, 0.3], [0.7, 0.8, 0.9, 1.0], [0.0, np.nan, 1, 1]],
        dims=("seed", "step"),
    )
    np.testing.assert_allclose(steps_to(curve, level=0.6), [2.5, np.inf, 0, np.nan])
    d = np.array([10, 100, 1000])
    steps = xr.DataArray(
        (1 + 2 * np.log(d))[:, None] + np.linspace(-0.1, 0.1, 11)[None],
        dims=("d", "seed"),
        coords={"d": d},
    )
    found = straight_in_log_d(steps)
    assert float(found.slope) == pytest.approx(2, abs=1e-9)
    assert float(found.offset) == pytest.approx(1, abs=1e-9)
    assert float(found.slope_error) > 0


SMALL = {
    "information_exponent": (
        "seeds=4",
        "algorithm.saves=60",
        "parts.degree_1={d:[100,400],n:6000,target:{terms:[[1.0,[1]]]}}",
        "parts.degree_2={d:[100],n:20000,target:{terms:[[1.0,[2]]]}}",
        "~parts.degree_3",
        "~parts.degree_4",
    ),
    "reusing_batch": ("d=200", "seeds=8"),
    "reusing_batch_dmft": ("d=200", "seeds=4", "algorithm.steps=3"),
    "log_d_steps": ("d=[60,200]", "seeds=3", "algorithm.steps=25", "alpha=20"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_experiment_runs_and_draws_its_figure(name):
    overrides = (f"+experiment={name}", *SMALL[name], "runtime.progress=false")
    results = mirage.simulate(mirage.compose(*overrides))
    assert not results.diverged.any()
    figure = figures.draw(results, compose_config(overrides).figure)
    assert all(axes.get_xlabel() for axes in figure.axes)
    if name == "information_exponent":
        escaped = results.escape_samples.sel(part="degree_1", d=[100, 400])
        predicted = results.escape_samples_predicted.sel(part="degree_1", d=[100, 400])
        assert np.isfinite(escaped).all()
        assert (abs(np.log(escaped.median("seed") / predicted)) < 0.7).all()
    elif name == "log_d_steps":
        assert np.isfinite(steps_to(results.cos_best_trajectory, level=0.5)).any("seed").all()
    plt.close(figure)
