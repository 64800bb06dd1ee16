"""Analyses find what was planted in synthetic curves."""

import numpy as np
import pytest
import xarray as xr

from mirage.analysis.compute import cost_to_reach, reached
from mirage.analysis.finite_size import collapse_quality, crossing_of, finite_size


def planted(alpha_c=7.0, nu=1.6, shift=0.0, seeds=40, root_seed=0):
    """1/(1 + e^{−x}), x = (α − α_c − shift log d) d^{1/ν}/20, with independent noise."""
    rng = np.random.default_rng(root_seed)
    d, alpha = np.array([50, 100, 200, 400]), np.linspace(4, 10, 13)
    centre = alpha_c + shift * np.log(d / 50)
    x = (alpha - centre[:, None]) * d[:, None] ** (1 / nu) / 20
    y = 1 / (1 + np.exp(-x))
    values = y[..., None] + 0.1 * rng.standard_normal((*y.shape, seeds))
    coords = {"d": d, "alpha": alpha, "seed": np.arange(seeds)}
    return xr.DataArray(values, dims=("d", "alpha", "seed"), coords=coords)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_threshold_and_exponent_are_recovered_within_their_errors(statistic):
    found = finite_size(planted(), statistic=statistic, samples=60)
    assert found.crosses.all()
    np.testing.assert_allclose(found.crossing, 7.0, atol=float(3 * found.crossing_error.max()))
    for name, value in (("alpha_c", 7.0), ("alpha_c_crossings", 7.0), ("nu", 1.6)):
        error = float(found[f"{name}_error"])
        assert 0 < error < 0.1 * value, name
        assert abs(float(found[name]) - value) < 3 * error, name
    assert 0.3 < float(found.quality) < 3


def test_the_errors_of_the_threshold_are_those_of_repetition():
    found = [finite_size(planted(root_seed=s, seeds=20), samples=40) for s in range(12)]
    spread = np.std([float(f.alpha_c) for f in found])
    error = np.mean([float(f.alpha_c_error) for f in found])
    assert 0.5 < error / spread < 2


def test_curves_that_shift_with_d_are_reported_as_not_crossing():
    found = finite_size(planted(shift=1.2, nu=1.6), samples=30)
    assert not found.crosses.any()
    for name in ("crossing", "alpha_c", "alpha_c_crossings", "nu", "alpha_c_error", "quality"):
        assert np.isnan(found[name]).all(), name


def test_cells_that_diverged_and_a_single_dimension_raise_nothing():
    values = planted(seeds=5)
    values[0, 3, :] = np.nan
    values[1, 2, 1] = np.nan
    finite_size(values, samples=5)
    assert finite_size(values.isel(d=[1]), samples=5).sizes["pair"] == 0


def test_collapse_is_worse_away_from_the_planted_values():
    values = planted()
    y, d, alpha = values.mean("seed").values, values.d.values.astype(float), values.alpha.values
    error = np.full_like(y, 0.1 / np.sqrt(40))
    at = lambda a, nu: collapse_quality(d, alpha, y, error, alpha_c=a, nu=nu)  # noqa: E731
    assert at(7.0, 1.6) < 2
    assert min(at(7.5, 1.6), at(6.5, 1.6), at(7.0, 3.0), at(7.0, 1.0)) > 5
    # From a threshold below all α no curve spans another once d^{1/ν} sets them far apart.
    assert at(3.0, 0.01) == np.inf


def test_a_crossing_is_interpolated_and_noise_beside_it_does_not_move_it():
    alpha = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert crossing_of(alpha, np.array([-4.0, 0.1, -1.0, 3.0, 2.0])) == pytest.approx(3.25)
    assert np.isnan(crossing_of(alpha, np.array([-4.0, -3.0, -2.0, -1.0, -0.5])))


def costs(power=2.0, seeds=31, noise=0.02):
    """cos_best crosses 0.8 at flops = 50 d^power, gradient evaluations = 50 d^(power − 1)."""
    rng = np.random.default_rng(0)
    d, alpha = np.array([100, 200, 400]), np.geomspace(1, 100, 25)
    flops = 10 * d[:, None] ** power * alpha
    y = 0.8 + 0.3 * np.tanh(np.log(flops / (50.0 * d[:, None] ** power)))
    values = np.stack([y, y - 2])[..., None] + noise * rng.standard_normal((2, *y.shape, seeds))
    both = (("loss", "d", "alpha"), np.stack([flops, flops]))
    return xr.Dataset(
        {
            "cos_best": (("loss", "d", "alpha", "seed"), values),
            "flops": both,
            "gradient_evaluations": (both[0], both[1] / d[:, None]),
        },
        coords={"loss": ["huber", "mse"], "d": d, "alpha": alpha, "seed": np.arange(seeds)},
    )


def test_cost_to_reach_a_level_and_its_power_of_d_are_recovered():
    found = cost_to_reach(costs(), samples=60)
    one = found.sel(loss="huber")
    np.testing.assert_allclose(one.flops, 50 * found.d**2.0, rtol=0.05)
    assert (one.flops_low < one.flops).all()
    assert (one.flops < one.flops_high).all()
    assert (one.flops_high < 1.2 * one.flops_low).all()
    assert 0 < one.flops_slope_error < 0.1
    assert abs(one.flops_slope - 2) < 3 * one.flops_slope_error
    assert abs(one.gradient_evaluations_slope - 1) < 3 * one.gradient_evaluations_slope_error
    assert abs(float(cost_to_reach(costs(3.0), samples=3).flops_slope[0]) - 3) < 0.1


def test_a_level_that_is_never_reached_is_nan():
    never = cost_to_reach(costs(), samples=5).sel(loss="mse")
    for name in ("flops", "flops_low", "flops_slope", "flops_slope_error", "gradient_evaluations"):
        assert np.isnan(never[name]).all(), name


def test_reaching_is_for_good_and_interpolated_in_the_logarithm():
    cost = np.array([1.0, 10.0, 100.0, 1000.0])
    assert reached(cost, np.array([0.0, 1.0, 0.5, 1.0]), 0.75) == pytest.approx(10**2.5)
    assert np.isnan(reached(cost, np.array([0.0, 0.1, 1.0, 0.5]), 0.75))
    assert np.isnan(reached(cost, np.array([0.8, 0.9, 1.0, 1.0]), 0.75))
