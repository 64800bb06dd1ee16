"""The experiments on finite size, compute, width and samples, shrunk, with their figures."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import mirage
from mirage import figures
from mirage.config import compose_config

matplotlib.use("Agg")
SMALL = {
    "finite_size": ("d=[20,40]", "alpha=[2,8,20]", "seeds=6", "algorithm.steps=10"),
    "compute": ("d=[20,40]", "alpha=[2,10,40]", "seeds=4", "compare.loss=[huber]"),
    "error_vs_width_and_samples": (
        "d=[20]",
        "alpha=[5,40]",
        "seeds=2",
        "vary.network.width=[4,8]",
        "algorithm.readout_steps=50",
        "tune.settings={algorithm:{step_size:[0.5,2.0]}}",
        "tune.seeds=1",
        "tune.within={alpha:[5]}",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_experiment_runs_and_draws_its_figure(name):
    overrides = (f"+experiment={name}", *SMALL[name], "runtime.progress=false")
    config = compose_config(overrides)
    results = mirage.simulate(mirage.compose(*overrides))
    assert not results.diverged.any()
    figure = figures.draw(results, config.figure)
    assert all(axis.get_xlabel() for axis in figure.axes)
    if name == "finite_size":
        # More samples a dimension, a better direction, at every d.
        assert (np.diff(results.cos_best.mean("seed")) > 0).all()
    elif name == "compute":
        drawn = figure.axes[1].lines[1].get_xdata()
        np.testing.assert_allclose(drawn, results.flops.squeeze().sel(d=40))
    else:
        assert results.sizes["width"] == 2
        assert np.isfinite(results.test_error).all()
        assert figure.axes[0].get_xscale() == "log"
    plt.close(figure)
