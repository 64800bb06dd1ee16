"""Figures of AMP: curves of state evolution, thresholds, classes of seeds."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.legend import Legend

from mirage import figures
from mirage.figures.amp_transition import amp_transition, classes, largest
from mirage.figures.networks_vs_amp import networks_vs_amp
from mirage.figures.state_evolution import state_evolution
from mirage.figures.thresholds import alike, diagonal

matplotlib.use("Agg")

STARTS = ["uninformed", "informed"]
BOUNDS = {"alpha_c": 0.6, "alpha_it": 1.0, "alpha_alg": 1.4}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def staircase(alpha, alpha_it=1.0, alpha_alg=1.4, suffix="", axis="alpha"):
    """Curves like those of h1² + sign(h1h2h3): direction 1 jumps, 2 and 3 follow together."""
    alpha = np.asarray(alpha, float)
    smooth = np.clip(0.7 * (alpha - 0.6), 0, 1)
    first = np.stack([np.where(alpha > end, 1.0, smooth) for end in (alpha_alg, alpha_it)], axis=1)
    others = np.repeat(np.clip(0.3 * (alpha - 2.4), 0, 1)[:, None], 2, axis=1)
    overlap = np.zeros((len(alpha), 2, 3, 3))
    overlap[..., 0, 0], overlap[..., 1, 1], overlap[..., 2, 2] = first, others, others + 1e-8
    error = 3 - 2 * first - others
    theory = {
        "overlap": ((axis, "start", "direction", "direction_2"), overlap),
        "generalisation_error": ((axis, "start"), error),
        "overlap_bayes": ((axis, "direction", "direction_2"), overlap[:, 1]),
        "generalisation_error_bayes": (axis, error[:, 1]),
    }
    coords = {axis: alpha, "start": STARTS, "direction": range(3), "direction_2": range(3)}
    return xr.Dataset({f"{name}{suffix}": value for name, value in theory.items()}, coords)


@pytest.fixture
def theory():
    return staircase(np.linspace(0.4, 5, 24)).assign(BOUNDS)


@pytest.fixture
def simulated():
    """Five values of alpha, eight seeds: two find one direction fewer, one diverges at the end."""
    alpha = np.array([0.5, 0.8, 1.2, 2.6, 4.0])
    rng = np.random.default_rng(0)
    truth = staircase(alpha)
    q = truth.overlap.sel(start="uninformed").values
    overlap = q[None, :, None] + 0.02 * rng.standard_normal((1, 5, 8, 3, 3))
    overlap[..., 1, 1] *= -1  # a sign is nothing
    rank = np.tile([0.0, 0, 1, 3, 3], (8, 1)).T[None]
    rank[:, 2:, :2] -= 1
    overlap[:, 2:, :2] *= 0.5
    rank[:, -1, -1] = overlap[:, -1, -1] = np.nan
    error = truth.generalisation_error.sel(start="uninformed").values[None, :, None]
    dims = ("d", "alpha", "seed")
    cells = xr.Dataset(
        {
            "overlap_aligned": ((*dims, "neuron", "direction"), overlap),
            "rank_found": (dims, rank),
            "generalisation_error": (dims, error + 0.05 * rng.standard_normal((1, 5, 8))),
            "diverged": (dims, np.isnan(rank)),
        },
        {"d": [500], "alpha": alpha, "seed": range(8), "neuron": range(3), "target": "staircase"},
    )
    predicted = staircase(np.geomspace(0.1, 100, 61), suffix="_predicted", axis="alpha_theory")
    return xr.merge([cells, predicted]).assign(BOUNDS)


def words(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def legends(axes):
    found = [one for one in axes.get_children() if isinstance(one, Legend)]
    return [text.get_text() for one in found for text in one.get_texts()]


def verticals(axes):
    lines = [np.asarray(line.get_xdata()) for line in axes.lines]
    return sorted(x[0] for x in lines if len(x) == 2 and x[0] == x[1])


def curves(axes):
    return [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 2]


def test_directions_that_are_alike_are_one_curve(theory):
    assert alike(theory) == [[0], [1, 2]]
    left, right = state_evolution(theory).axes
    assert len(curves(left)) == 2 * (2 + 1)
    assert len(curves(right)) == 2 + 1
    assert {"direction 1", "directions 2 and 3", "Bayes-optimal"} <= set(legend(right))


def test_solid_from_no_knowledge_dashed_informed_dotted_bayes(theory):
    _, right = state_evolution(theory).axes
    for name, style in (("uninformed", "-"), ("informed", "--")):
        line = next(one for one in curves(right) if one.get_linestyle() == style)
        np.testing.assert_array_equal(line.get_ydata(), theory.generalisation_error.sel(start=name))
    best = next(one for one in curves(right) if one.get_linestyle() == ":")
    np.testing.assert_array_equal(best.get_ydata(), theory.generalisation_error_bayes)
    assert best.get_linewidth() > 3


def test_thresholds_are_lines_and_the_hard_phase_is_shaded(theory):
    for axes in state_evolution(theory).axes:
        assert verticals(axes) == [0.6, 1.0, 1.4]
        assert sum("alpha" in word for word in words(axes)) == 3
        assert "hard" in words(axes)
        (phase,) = axes.patches
        assert phase.get_x() == 1.0
        assert phase.get_width() == pytest.approx(0.4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_line_where_there_is_no_threshold(theory, value):
    none = theory.assign(alpha_c=value, alpha_it=np.nan, alpha_alg=value)
    for axes in state_evolution(none).axes:
        assert verticals(axes) == []
        assert len(axes.patches) == 0
        assert "hard" not in words(axes)


def test_a_hard_phase_without_end_reaches_the_right_of_the_axis(theory):
    axes = state_evolution(theory.assign(alpha_alg=np.inf)).axes[0]
    (phase,) = axes.patches
    assert phase.get_x() + phase.get_width() == pytest.approx(5.0)
    assert verticals(axes) == [0.6, 1.0]


def test_thresholds_that_coincide_share_a_label(theory):
    axes = state_evolution(theory.assign(alpha_alg=2.0, alpha_c=2.0)).axes[0]
    assert sum(" = " in word for word in words(axes)) == 1


def test_any_variable_of_theory_may_be_absent(theory):
    for name in theory.data_vars:
        assert len(state_evolution(theory.drop_vars(name)).axes) == 2


def test_a_row_a_target_of_any_rank(theory):
    parity = theory.isel(direction=slice(0, 2), direction_2=slice(0, 2))
    both = xr.concat(
        [theory, parity], "target", join="outer", coords="minimal", compat="override"
    ).assign_coords(target=["staircase", "parity"])
    axes = state_evolution(both).axes
    assert len(axes) == 4
    assert [a.get_title("left") for a in axes[::2]] == ["staircase", "parity"]
    assert "direction 2" in legend(axes[3])


def test_filled_markers_are_the_largest_class_by_mean_and_standard_error(simulated):
    figure = amp_transition(simulated)
    left = figure.axes[0]
    kinds = classes(simulated.isel(d=0))
    values = abs(diagonal(simulated.overlap_aligned, "neuron")).isel(d=0)
    pairs = values.isel(direction=[1, 2]).mean("direction").values
    expected = []
    for kind, value in zip(kinds.values, pairs, strict=True):
        chosen = value[kind == largest(kind)]
        expected.append((chosen.mean(), chosen.std(ddof=1) / np.sqrt(len(chosen))))
    points, _, (errors,) = left.containers[1]
    np.testing.assert_allclose(points.get_ydata().astype(float), [mean for mean, _ in expected])
    lengths = [(end[1] - start[1]) / 2 for start, end in errors.get_segments()]
    np.testing.assert_allclose(lengths, [error for _, error in expected])
    hollow = [line for line in left.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 2 * 3  # two groups of directions at the last three alpha


def test_bars_are_the_shares_of_the_classes(simulated):
    figure = amp_transition(simulated)
    below = figure.axes[2]
    assert below.get_xlim() == figure.axes[0].get_xlim()
    names = [container.get_label() for container in below.containers]
    assert names == ["rank 0", "rank 1", "rank 2", "rank 3", "diverged"]
    shares = np.array([[bar.get_height() for bar in one] for one in below.containers])
    np.testing.assert_allclose(shares.sum(0), 1)
    np.testing.assert_allclose(shares[:, 2], [0.25, 0.75, 0, 0, 0])
    np.testing.assert_allclose(shares[:, 4], [0, 0, 0.25, 0.625, 0.125])


def test_of_equal_classes_the_higher_counts_and_none_where_all_diverged():
    assert largest(np.array([0.0, 0, 2, 2, -1])) == 2
    assert largest(np.array([1.0, 1, 2, -1, -1, -1])) == 1
    assert np.isnan(largest(np.array([-1.0, -1])))


def test_cells_that_did_not_run_are_in_no_class(simulated):
    cells = simulated.isel(d=0)
    cells["rank_found"][0, 0] = np.nan
    assert np.isnan(classes(cells)[0, 0])
    assert classes(cells)[4, 7] == -1
    assert classes(cells.drop_vars("diverged"))[0, 0] == -1
    assert set(classes(cells.drop_vars("rank_found")).values.ravel()) == {0, -1}


def test_theory_beside_cells_is_drawn_where_the_cells_are(simulated):
    left, right = amp_transition(simulated).axes[:2]
    assert left.get_title("left") == "staircase, d = 500, 8 seeds"
    assert left.get_xlim() == pytest.approx((0.36, 4.14))
    assert verticals(left) == [0.6, 1.0, 1.4]
    assert max(np.max(line.get_xdata()) for line in curves(right)) < 5
    assert {"directions 2 and 3", "largest class, mean ± s.e."} <= set(legends(right))


def test_any_variable_of_a_simulation_may_be_absent(simulated):
    for name in simulated.data_vars:
        assert len(amp_transition(simulated.drop_vars(name)).axes) == 3
    alone = simulated[["overlap_aligned", "rank_found"]]
    left, right = amp_transition(alone).axes[:2]
    assert len(left.containers) == 3
    assert "direction 3" in legends(right)


def test_points_where_every_seed_diverged_are_left_out(simulated):
    lost = simulated.copy(deep=True)
    lost["diverged"][:, 0] = True
    lost["rank_found"][:, 0] = lost["overlap_aligned"][:, 0] = np.nan
    points = amp_transition(lost).axes[0].containers[0][0]
    assert list(points.get_xdata()) == [0.8, 1.2, 2.6, 4.0]


def test_compared_algorithms_have_a_marker_and_a_bar_panel_each(simulated):
    cells = [name for name, value in simulated.data_vars.items() if "seed" in value.dims]
    both = xr.concat(
        [simulated, simulated], "algorithm", data_vars=cells, coords="minimal", compat="override"
    ).assign_coords(algorithm=["amp", "amp(start=random)"])
    axes = amp_transition(both).axes
    assert len(axes) == 4
    assert [a.get_title("left") for a in axes[2:]] == ["amp, d = 500", "amp(start=random), d = 500"]
    assert len({container[0].get_marker() for container in axes[0].containers}) == 2
    assert "amp(start=random), d = 500" in legends(axes[1])


def test_a_row_of_cells_a_target_of_any_rank(simulated):
    small = dict.fromkeys(("neuron", "direction", "direction_2"), slice(0, 1))
    both = xr.concat(
        [simulated, simulated.isel(small)],
        "target",
        data_vars="all",
        join="outer",
        coords="minimal",
        compat="override",
    ).assign_coords(target=["staircase", "phase_retrieval"])
    axes = amp_transition(both).axes
    assert [a.get_title("left") for a in (axes[0], axes[3])] == [
        "staircase, d = 500, 8 seeds",
        "phase retrieval, d = 500, 8 seeds",
    ]
    assert [len(a.containers) for a in (axes[0], axes[3])] == [2, 1]


def test_one_alpha_one_seed_and_no_prediction_are_enough(simulated):
    one = simulated.isel(alpha=[2], seed=[3])
    unknown = {
        name: one[name] * np.nan for name in one.data_vars if "alpha_theory" in one[name].dims
    }
    bounds = dict.fromkeys(BOUNDS, np.nan)
    left, right = amp_transition(one.assign(unknown).assign(bounds)).axes[:2]
    assert len(left.containers) == 3  # without theory every direction by itself
    assert len(right.containers) == 1


def test_without_cells_the_figure_says_so(theory):
    with pytest.raises(ValueError, match="expected simulated cells"):
        amp_transition(theory)


def test_both_are_found_by_name_and_written(theory, simulated, tmp_path):
    figures.write(figures.draw(theory, "state_evolution"), tmp_path, "state_evolution")
    figures.write(figures.draw(simulated, "amp_transition"), tmp_path, "amp_transition")
    assert len(list(tmp_path.iterdir())) == 4


def test_directions_that_are_found_later_have_lines_of_their_own(theory):
    found = ("direction", [0.6, 2.4, 2.4])
    figure = state_evolution(theory.assign(alpha_found=found))
    assert r"$\alpha_{2,3}$" in words(figure.axes[0])
    none = state_evolution(theory.assign(alpha_found=("direction", [0.6, 0.6, np.inf])))
    assert not any("alpha_{" in word for word in words(none.axes[0]))


@pytest.fixture
def beside(simulated):
    """Layer-wise GD with two losses and AMP, which has no use for the loss."""
    rng = np.random.default_rng(1)
    cells = simulated[["generalisation_error"]].squeeze("d").expand_dims(d=[500])
    shape = (2, 2, *cells.generalisation_error.shape)
    cosine, amp = rng.uniform(size=shape), rng.uniform(size=shape[2:])
    cosine[:, 1] = amp
    error, best = 2 * cosine, np.full(shape, np.nan)
    error[:, 1] = np.nan
    best[:, 1] = 3 * amp
    dims = ("loss", "algorithm", "d", "alpha", "seed")
    names = {"cos_best": cosine, "test_error": error, "generalisation_error": best}
    cells = xr.Dataset(
        {name: (dims, values) for name, values in names.items()},
        {"loss": ["mse", "huber"], "algorithm": ["layerwise_gd", "amp"]},
    ).assign_coords({dim: cells[dim] for dim in dims[2:]})
    predicted = [name for name in simulated if str(name).endswith("_predicted")]
    return xr.merge([cells, simulated[predicted]]).assign(BOUNDS)


def test_networks_stand_beside_amp_and_theory(beside):
    figure = networks_vs_amp(beside)
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    for loss in ("mse", "huber"):
        median = beside.cos_best.sel(loss=loss, algorithm="layerwise_gd").median("seed").squeeze()
        np.testing.assert_allclose(lines[f"{loss}, layerwise gd, d = 500"].get_ydata(), median)
    # AMP is the same for both losses: one curve.
    assert sum("amp" in label for label in lines) == 1
    q = beside.overlap_predicted.sel(start="uninformed").values[:, [0, 1, 2], [0, 1, 2]]
    np.testing.assert_allclose(lines["AMP, d → ∞"].get_ydata(), np.sqrt(q.max(axis=1)), atol=1e-6)
    errors = {line.get_label(): line for line in right.lines}
    median = beside.generalisation_error.sel(loss="mse", algorithm="amp").median("seed").squeeze()
    np.testing.assert_allclose(errors["amp, d = 500"].get_ydata(), median)


def test_networks_vs_amp_needs_cells_along_alpha(theory):
    with pytest.raises(ValueError, match="expected simulated cells along alpha"):
        networks_vs_amp(theory)
