"""Shrunken runs of the newer experiments, and tests of what they are made of."""

import equinox as eqx
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from test_algorithms import problem_of, trained

import mirage
from mirage import figures
from mirage.activations import Quadratic as Square
from mirage.algorithms import GdAndPowerIteration, LayerwiseGd, PowerIteration
from mirage.analysis.parting import parting
from mirage.analysis.stopping import best_steps, root_log_prefactor
from mirage.designs import Deferred, Dense
from mirage.network import TwoLayer

matplotlib.use("Agg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "weight_decay"), [(Dense(), 0.5), (Deferred(), 0.2)], ids=["dense", "deferred"]
)
def test_gd_stays_with_power_iteration_while_it_is_small_and_leaves_when_not(design, weight_decay):
    algorithm = GdAndPowerIteration(steps=6, step_size=2.0, weight_decay=weight_decay)

    def distance(start):  # an array: compiled once for both
        norm = jnp.asarray(start, jnp.float32)
        network = eqx.tree_at(lambda n: n.initial_norm, TwoLayer(), norm)
        problem, memory = problem_of(design, n=1500, d=80, network=network)
        return trained(algorithm, problem, memory)["trajectory"]["distance"]

    near, far = distance(1e-6), distance(3.0)
    assert near[0] == far[0] == 0
    assert (near < 1e-4).all()
    assert far[-1] > 0.3


@pytest.mark.slow
def test_the_two_are_those_that_run_alone():
    """On a stored matrix: W and P, and so their distance, are those of either algorithm."""
    network = TwoLayer(initial_norm=0.3)
    problem, memory = problem_of(Dense(), n=700, d=30, network=network, activation=Square())
    settings = {"steps": 4, "step_size": 0.7, "weight_decay": 0.3, "centred": False}
    both = trained(GdAndPowerIteration(**settings), problem, memory)
    w = trained(LayerwiseGd(**settings), problem, memory)["weights"]
    p = trained(PowerIteration(**settings), problem, memory)["weights"]
    np.testing.assert_allclose(both["weights"], w, rtol=1e-4, atol=1e-6)
    expected = np.linalg.norm(w - p) / np.linalg.norm(p)
    assert both["trajectory"]["distance"][-1] == pytest.approx(expected, rel=1e-3)
    assert expected > 0.01


def test_it_asks_what_both_ask_and_refuses_what_both_refuse():
    algorithm, network = GdAndPowerIteration(steps=5), TwoLayer(width=6)
    assert algorithm.queries(network, 2) == (60, 60)
    for key, value in {"steps": -1, "step_size": 0.0, "weight_decay": -1.0}.items():
        with pytest.raises(ValueError, match=rf"algorithm\.{key}={value}"):
            GdAndPowerIteration(**{key: value})


def test_the_parting_norm_is_interpolated():
    """D = N² / 10 parts from 0.1 at N = 1, whatever the steps are."""
    norm = np.array([[0.1, 0.5, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]])
    neurons = np.stack([norm, norm / 2], axis=-1)
    dims = ("seed", "step")
    dataset = xr.Dataset(
        {
            "distance_trajectory": (dims, norm**2 / 10),
            "norm_trajectory": ((*dims, "neuron"), neurons),
        }
    )
    found = parting(dataset, threshold=0.1).parting_norm
    np.testing.assert_allclose(found, [1.0, np.nan], rtol=1e-12)


def test_the_best_step_is_the_argmax_of_the_median_with_its_spread():
    rng = np.random.default_rng(0)
    curve = 1 - (np.arange(9) - 5) ** 2 / 50
    noise = np.array([1e-3, 0.1])[:, None, None] * rng.normal(size=(2, 20, 9))
    dataset = xr.Dataset(
        {"subspace_cosine_trajectory": (("d", "seed", "step"), curve + noise)},
        coords={"d": [100, 200], "step": np.arange(9)},
    )
    found = best_steps(dataset)
    assert int(found.best_step[0]) == 5
    assert (int(found.best_step_low[0]), int(found.best_step_high[0])) == (5, 5)
    assert float(found.best_value[0]) == pytest.approx(1, abs=2e-3)
    assert found.best_step_low[1] <= found.best_step[1] <= found.best_step_high[1]
    assert found.best_step_low[1] < found.best_step_high[1]
    lost = dataset.assign(
        subspace_cosine_trajectory=dataset.subspace_cosine_trajectory.where(dataset.step != 5)
    )
    assert int(best_steps(lost).best_step[0]) in (4, 6)


def test_the_fitted_prefactor_is_the_one_of_an_exact_law():
    d = np.array([50, 400, 3200])
    law = xr.DataArray(1.7 * np.sqrt(np.log(d)), coords={"d": d}, dims="d")
    assert float(root_log_prefactor(law)) == pytest.approx(1.7)


SMALL = {
    "gd_vs_power_iteration": [
        "d=40",
        "seeds=3",
        "algorithm.steps=20",
        "vary.algorithm.weight_decay=[0,0.25]",
        "vary.network.initial_norm=[1e-2,1e-1]",
    ],
    "stopping_time": [
        "d=[60,120]",
        "seeds=4",
        "algorithm.steps=8",
        "vary.target.condition_number=[1,3]",
    ],
    "universality": ["d=40", "alpha=[2,20]", "seeds=3", "compare.inputs=[gaussian,uniform]"],
}


@pytest.fixture(scope="module")
def results():
    return {
        name: mirage.simulate(mirage.compose(f"+experiment={name}", *overrides))
        for name, overrides in SMALL.items()
    }


def lines_of(figure):
    return {line.get_label(): line for axes in figure.axes for line in axes.lines}


@pytest.mark.slow
def test_gd_parts_from_power_iteration_at_a_norm_of_order_one(results):
    dataset = results["gd_vs_power_iteration"]
    norm = parting(dataset).parting_norm
    assert norm.notnull().all()
    assert ((norm > 0.1) & (norm < 1)).all()
    figure = figures.draw(dataset, "gd_vs_power_iteration")
    assert len(figure.axes) == 4
    line = lines_of(figure)[r"$\varepsilon_0 = 10^{-2}$"]
    assert len(line.get_xdata()) > 3
    assert line.get_ydata()[-1] > 0.3
    plt.close("all")


@pytest.mark.slow
def test_too_many_steps_collapse_where_one_direction_is_stronger(results):
    dataset = results["stopping_time"]
    median = dataset.subspace_cosine_trajectory.median("seed")
    one, three = median.sel(condition_number=1), median.sel(condition_number=3)
    assert (one.sel(step=8) > 0.6).all()
    assert (three.sel(step=8) == 0).all()
    assert (three.max("step") > three.isel(step=0) + 0.1).all()
    figure = figures.draw(dataset, "stopping_time")
    assert len(figure.axes) == 3
    assert any("prefactor fitted" in label for label in lines_of(figure))
    plt.close("all")


@pytest.mark.slow
def test_recovery_from_other_inputs_is_drawn_beside_the_gaussian_curve(results):
    dataset = results["universality"]
    median = dataset.cos_best.median("seed").squeeze()
    assert (median.sel(alpha=20) > median.sel(alpha=2)).all()
    figure = figures.draw(dataset, "universality")
    gaussian = lines_of(figure)["gaussian (theory's inputs)"]
    np.testing.assert_allclose(gaussian.get_ydata(), median.sel(inputs="gaussian"), rtol=1e-6)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["gaussian (theory's inputs)", "uniform"]
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_figure_does_not_need_every_dimension(name, results):
    dataset = results[name]
    dataset = dataset.isel({dim: 0 for dim in dataset.dims if dim in ("initial_norm", "inputs")})
    dataset = dataset.drop_vars(["initial_norm", "inputs"], errors="ignore")
    figures.draw(dataset, name)
    plt.close("all")
