"""Figures show the medians and bands that the data has."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from mirage import figures
from mirage.figures.recovery import recovery

matplotlib.use("Agg")


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(2, 3, 4, 10))
    values[0, 0, 1] = np.nan  # a point where every seed diverged
    values[1, 2, 3, :4] = np.nan
    coords = {"loss": ["mse", "huber"], "d": [200, 300, 500], "alpha": [2, 4, 8, 16]}
    dims = ("loss", "d", "alpha", "seed")
    return xr.Dataset({"cos_best": (dims, values)}, coords={**coords, "seed": range(10)})


def test_curves_are_medians_with_the_30th_to_70th_percentile_band(dataset):
    axes = recovery(dataset).axes[0]
    assert len(axes.lines) == 6
    line = next(one for one in axes.lines if one.get_label() == "huber, d = 500")
    values = dataset.cos_best.sel(loss="huber", d=500).values
    np.testing.assert_allclose(line.get_ydata(), np.nanmedian(values, axis=-1))
    np.testing.assert_allclose(line.get_xdata(), [2, 4, 8, 16])
    band = axes.collections[axes.lines.index(line)].get_paths()[0].vertices[:, 1]
    low, high = np.nanquantile(values, [0.3, 0.7], axis=-1)
    assert {*np.round(low, 6), *np.round(high, 6)} <= set(np.round(band, 6))
    plt.close("all")


def test_points_where_every_seed_diverged_are_left_out(dataset):
    axes = recovery(dataset).axes[0]
    line = next(one for one in axes.lines if one.get_label() == "mse, d = 200")
    assert list(line.get_xdata()) == [2, 8, 16]
    plt.close("all")


def test_one_hue_a_loss_and_one_shade_a_dimension(dataset):
    lines = recovery(dataset).axes[0].lines
    colours = {line.get_label(): matplotlib.colors.to_rgb(line.get_color()) for line in lines}
    assert len(set(colours.values())) == 6
    blue = [c[2] > c[0] for name, c in colours.items() if name.startswith("mse")]
    orange = [c[0] > c[2] for name, c in colours.items() if name.startswith("huber")]
    assert all(blue)
    assert all(orange)
    plt.close("all")


def test_figures_are_found_by_name_and_written_as_png_and_pdf(dataset, tmp_path):
    paths = figures.write(figures.draw(dataset, "recovery"), tmp_path, "name")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["name.pdf", "name.png"]
    assert all(p.stat().st_size > 1000 for p in paths)
    with pytest.raises(ValueError, match=r"expected one of .*recovery"):
        figures.draw(dataset, "nothing")
    plt.close("all")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('(dataset):\n return 1 + "a"', r"TypeError: unsupported .*\(test_figures\.py, line 2\)"),
        ("(dataset):\n return dataset.x", r"AttributeError: .*'x' \(test_figures\.py, line 2\)"),
        ("(dataset, more):\n pass", r"TypeError: .*'more' \(test_figures\.py, line 1\)"),
        ("(dataset):\n pass", "returned None, not a Figure"),
    ],
)
def test_a_figure_of_ones_own_that_cannot_be_drawn_says_why(dataset, monkeypatch, body, reason):
    names = {"__name__": "own"}
    exec(compile(f"def own{body}", __file__, "exec"), names)
    monkeypatch.setitem(figures.FIGURES, "own", names["own"])
    with pytest.raises(ValueError, match=f"figure='?own'?: .*{reason}"):
        figures.draw(dataset, "own")
