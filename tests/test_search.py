"""Searches: against thresholds that are known, and for what they say when there is none."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mirage
from mirage import Experiment, simulate
from mirage import command_line as main
from mirage.algorithms import FullBatchGd, PowerIteration
from mirage.analysis.minimal_samples import theorem_samples, trend
from mirage.designs import Dense
from mirage.experiments.search import Bisection, Evaluations, bisect, crossings
from mirage.losses import Mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Quadratic


def run(option, error, *, seeds=25, d=10**6, threshold=1.0, spread=0.05):
    """Bisect on a made-up measure: each seed's error is `error(x)` with a threshold of its own."""
    shifts = spread * np.random.default_rng(0).normal(size=seeds)
    calls = []

    def evaluate(value):
        calls.append(value)
        return error(option.scale(value) - shifts)

    size = {"exponent": lambda v: int(d**v), "alpha": lambda v: int(v * d), "n": int}[option.over]
    found = bisect(option, threshold, Evaluations(evaluate, size), 0)
    return found, shifts, calls


@settings(max_examples=30)
@given(st.floats(1.05, 1.95), st.sampled_from([0.1, 0.01, 0.001]))
def test_the_threshold_is_found_to_its_tolerance(threshold, tolerance):
    option = Bisection(low=1.0, high=2.0, tolerance=tolerance, at_most=1.0)
    found, shifts, calls = run(option, lambda x: np.exp(20 * (threshold - x)))
    truth = threshold + np.median(shifts)
    assert found.status in ("found", "below" if truth < 1 else "found")
    assert -1e-9 <= found.value - truth <= tolerance + 1e-9 or found.status == "below"
    assert found.low <= found.value <= found.high
    assert found.monotone
    assert len(set(calls)) == len(calls)


def test_a_measure_to_be_reached_is_searched_on_a_logarithmic_scale():
    option = Bisection(over="n", low=10, high=1e5, tolerance=0.02, at_most=None, at_least=0.9)
    found, shifts, _ = run(option, lambda x: x - np.log(700) + 0.9, threshold=0.9)
    truth = 700 * np.exp(np.median(shifts))
    assert 1 <= found.value / truth < 1.0202
    assert found.status == "found"


@pytest.mark.slow
def test_the_interval_covers_the_median_as_often_as_it_says():
    """Coverage of the true median over 200 searches of 15 seeds: 95 % within five sigma."""
    rng, option = np.random.default_rng(1), Bisection(tolerance=0.002, at_most=1.0)
    covered = 0
    for repetition in range(200):
        shifts = 1.5 + 0.05 * rng.normal(size=15)
        size = lambda v: int(10 ** (9 * v))  # noqa: E731
        trial = Evaluations(lambda v, s=shifts: np.exp(s - v), size)
        found = bisect(option, 1.0, trial, repetition)
        covered += found.low <= 1.5 <= found.high
    # The bootstrap of a median of 15 is known to be off by a per cent or two.
    assert abs(covered / 200 - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 200)


def test_a_bracket_that_does_not_bracket_says_so():
    option = Bisection(low=1.0, high=1.5, at_most=1.0)
    never, _, calls = run(option, lambda x: np.exp(20 * (3.0 - x)))
    assert never.status == "not reached"
    assert np.isnan(never.value)
    assert np.isinf(never.high)
    assert max(calls) == 1.5
    assert len(calls) == option.strides + 1
    always, _, calls = run(option, lambda x: np.exp(20 * (0.1 - x)))
    assert (always.status, always.value, calls) == ("below", 1.0, [1.0])


def test_a_criterion_that_is_not_monotone_is_reported_and_ends():
    option = Bisection(low=1.0, high=2.0, at_most=1.0, strides=16)

    def bump(x):
        return np.where((x > 1.64) & (x < 1.74), 5.0, np.exp(8 * (1.58 - x)))

    found, _, calls = run(option, bump, spread=0.03)
    assert not found.monotone
    assert found.status == "found"
    assert len(calls) < 60


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, np.inf, np.nan]), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
    st.booleans(),
)
def test_the_quantile_is_an_observed_value_and_nan_fails(values, quantile, at_most):
    bound = {"at_most": 1.0} if at_most else {"at_most": (), "at_least": 1.0}
    option, sign = Bisection(quantile=quantile, **bound), 1 if at_most else -1
    worst = np.where(np.isnan(values), np.inf, sign * np.array(values))
    expected = np.quantile(worst, quantile, method="higher") <= sign
    assert option.holds(np.array(values), 1.0) == expected


def test_half_of_the_seeds_nan_fail_the_criterion_and_less_than_half_do_not():
    option = Bisection(at_most=1.0)
    assert not option.holds(np.array([0.1, 0.2, np.nan, np.nan]), 1.0)
    assert option.holds(np.array([0.1, 0.2, 0.3, np.nan, np.nan]), 1.0)
    reach = Bisection(at_most=None, at_least=0.5)
    assert not reach.holds(np.array([np.nan, np.nan, 0.9, 0.9]), 0.5)
    assert reach.holds(np.array([np.nan, 0.9, 0.9]), 0.5)


def test_no_two_sizes_of_equal_n_are_tried():
    option = Bisection(over="n", low=3, high=9, tolerance=1e-6, at_most=1.0)
    found, _, calls = run(option, lambda x: np.exp(50 * (np.log(5.5) - x)), spread=0.0)
    assert int(found.value) == 6
    assert len({int(v) for v in calls}) == len(calls)


def test_crossings_of_one_seed_are_its_own():
    option = Bisection(at_most=1.0)
    values = np.array([[2.0], [2.0], [0.5], [0.1]])
    assert set(crossings(option, 1.0, values, 0)) == {2}
    assert set(crossings(option, 0.05, values, 0)) == {4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at_most": -0.1}, "search.at_most"),
        ({"at_most": [1.0, 0]}, "search.at_most.*positive"),
        ({"at_most": [1.0, 1.0]}, "twice"),
        ({"at_most": None}, "at_most or at_least"),
        ({"at_most": 1.0, "at_least": 1.0}, "not both"),
        ({"at_most": 1.0, "measure": "nothing"}, "search.measure='nothing': expected one of cos_b"),
        ({"at_most": 1.0, "over": "beta"}, "exponent, alpha, n"),
        ({"at_most": 1.0, "low": 2.0, "high": 1.5}, "search.high=1.5"),
        ({"at_most": 1.0, "tolerance": 0.0}, "search.tolerance"),
        ({"at_most": 1.0, "quantile": 1.0}, "search.quantile"),
        ({"at_most": 1.0, "strides": 0}, "search.strides"),
    ],
    ids=str,
)
def test_a_search_that_makes_no_sense_is_refused_with_the_key(settings, message):
    with pytest.raises(ValueError, match=message):
        Bisection(**settings)


SMALL = {
    "target": Quadratic(),
    "loss": Mse(),
    "activation": mirage.compose("activation=quadratic").activation,
    "algorithm": FullBatchGd(steps=150, step_size=0.03, intercept_step_size=1.0),
    "network": TwoLayer(),
    "d": [14, 20],
    "seeds": 4,
    "search": Bisection(low=1.0, high=2.2, tolerance=0.05, at_most=[4.0, 0.5]),
    "design": Dense(),
}


@pytest.fixture(scope="module")
def searched():
    return simulate(Experiment(**SMALL))


def test_a_search_gives_thresholds_intervals_samples_and_what_it_tried(searched):
    assert searched.exponent_min.dims == ("epsilon", "d")
    for end in ("exponent_min_low", "exponent_min_high", "status", "monotone", "n"):
        assert searched[end].dims == ("epsilon", "d")
    good = searched.status == "found"
    assert good.any()
    floor = np.floor(searched.d.values**searched.exponent_min.values + 1e-9)
    np.testing.assert_array_equal(searched.n.where(good), np.where(good, floor, np.nan))
    assert searched.test_error.dims == ("d", "trial", "seed")
    # The criterion holds where it says, by the numbers kept of every trial.
    for (row, column), value in np.ndenumerate(searched.exponent_min.values):
        tried = searched.exponent_tried.values[column]
        median = np.nanmax(
            np.quantile(searched.test_error.values[column], 0.5, axis=-1, method="higher"),
            where=tried == value,
            initial=-np.inf,
        )
        assert median <= searched.epsilon.values[row]
    assert json.loads(searched.attrs["compilations"]) == {"draw": 2, "train": 2}
    assert "median of test_error" in searched.attrs["criterion"]


def test_a_search_finds_the_same_in_chunks_and_for_one_threshold_alone(searched):
    alone = simulate(
        Experiment(
            **{
                **SMALL,
                "d": [20],
                "search": Bisection(low=1.0, high=2.2, tolerance=0.05, at_most=0.5),
                "runtime": Default(memory="1.05 MB", devices=2),
            }
        )
    )
    assert json.loads(alone.attrs["plan"])["chunks"][0]["seeds"] < 4
    assert float(alone.exponent_min[0, 0]) == float(searched.exponent_min.sel(epsilon=0.5, d=20))


def test_a_measure_that_the_algorithm_does_not_give_is_refused():
    experiment = Experiment(**{**SMALL, "algorithm": PowerIteration(steps=2), "d": [10]})
    with pytest.raises(ValueError, match="power_iteration does not give it; expected one of cos_"):
        simulate(experiment)


def test_a_search_and_a_grid_exclude_each_other():
    with pytest.raises(ValueError, match="got exponent and search"):
        Experiment(**SMALL, exponent=1.5)


def test_the_trend_is_the_slope_that_the_points_were_made_with(searched):
    d = np.array([50, 100, 200, 400])
    noise = np.random.default_rng(3).normal(size=(200, 4)) * 0.02
    value = 1.5 - 0.1 * np.log(d) + noise
    made = searched[["exponent_min"]].isel(epsilon=0, d=0, drop=True).drop_vars("exponent_min")
    for end, shift in (("", 0), ("_low", -1), ("_high", 1)):
        made[f"exponent_min{end}"] = (("try", "d"), value + shift * 1.959964 * 0.02)
    made = made.assign_coords(d=d).assign_attrs(confidence=0.95)
    slopes = trend(made)
    score = (slopes.slope + 0.1) / slopes.slope_error
    assert abs(float(score.mean())) < 5 / np.sqrt(200)
    assert abs(float(score.std()) - 1) < 5 / np.sqrt(400)


def test_the_samples_of_the_theorem():
    assert float(theorem_samples(100, 1, 1.0)) == pytest.approx(100 * np.log(100) + 100**2)
    assert float(theorem_samples(100, 2, 2.0)) == pytest.approx(
        100 * np.log(100) * 4 * 16 + 100**1.5 * 4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minimal_samples", "minimal_samples_vs_steps"])
def test_the_experiments_run_and_draw_their_figures(name):
    small = {
        "minimal_samples": ["algorithm.steps=30", "d=[10,12,14]"],
        "minimal_samples_vs_steps": ["vary.algorithm.steps=[1,3]", "d=[10,12]"],
    }
    experiment = mirage.compose(
        f"+experiment={name}", *small[name], "seeds=3", "search.tolerance=0.2", "design=dense"
    )
    results = simulate(experiment)
    figure = mirage.figures.draw(results, name)
    assert figure.axes[0].get_lines()
    assert set(results.status.values.ravel()) <= {"found", "not reached", "below"}
    assert main.summary(results).count("[") or (results.status != "found").all()
