"""Tuning picks the planted best on seeds that are not reported, and refuses bad input."""

import json

import numpy as np
import pytest

import mirage
from mirage.experiments.experiment import RESERVED_SEEDS
from mirage.experiments.simulate import run_grid
from mirage.experiments.tune import Grid
from mirage.experiments.tuning import TuningError, tuned

SMALL = (
    "+experiment=huber_vs_mse",
    "d=[20]",
    "alpha=[20]",
    "seeds=3",
    "algorithm.readout_steps=5",
    "runtime.progress=false",
    "+tune=grid",
    "tune.measure=cos_best",
)


def recorded(experiment):
    """The experiments that tuning runs, and the experiment it returns."""
    ran = []

    def run(one):
        ran.append(one)
        return run_grid(one)

    return ran, tuned(experiment, run)


@pytest.mark.slow
def test_a_planted_best_is_found_recorded_and_used():
    tries = "tune.settings={algorithm:{step_size:[1.0e-6,2.0,1.0e6]},loss:{delta:[1.0,1.0e-3]}}"
    experiment = mirage.compose(*SMALL, tries)
    results = mirage.simulate(experiment)
    found = json.loads(results.attrs["tuned"])
    assert found == {
        "mse": {"algorithm.step_size": 2.0},
        "huber": {"algorithm.step_size": 2.0, "loss.delta": 1.0},
    }
    fixed = mirage.compose(*SMALL[:-2], "algorithm.step_size=2", "loss.delta=1")
    np.testing.assert_array_equal(mirage.simulate(fixed).cos_best, results.cos_best)


def test_candidates_run_on_reserved_seeds_each_option_apart():
    tries = "tune.settings={loss:{delta:[0.5,1.0]}}"
    ran, best = recorded(mirage.compose(*SMALL, tries, "tune.seeds=2"))
    (trial,) = ran
    seeds = trial.first_seed + np.arange(trial.seeds)
    assert trial.seeds == 2
    assert (seeds >= RESERVED_SEEDS).all()
    assert (seeds < 2**32).all()
    assert best.first_seed + best.seeds <= RESERVED_SEEDS
    assert len(trial.setups()) == 3  # huber twice, and mse, which has no delta, once
    assert best.tuned[("mse",)] == {}
    assert set(best.tuned[("huber",)]) == {"loss.delta"}
    assert best.setups()["huber",].loss.delta == best.tuned[("huber",)]["loss.delta"]


@pytest.mark.slow
def test_within_narrows_what_is_tuned_and_not_what_is_run():
    experiment = mirage.compose(
        *SMALL,
        "alpha=[5,20]",
        "vary.network.width=[2,4]",
        "tune.settings={algorithm:{step_size:[1,2]}}",
        "tune.within={alpha:[20],width:[4]}",
    )
    trial = None

    def run(one):
        nonlocal trial
        trial = one
        return run_grid(one)

    best = tuned(experiment, run)
    assert trial.alpha == (20,)
    assert trial.vary == {"network.width": [4]}
    assert best.alpha == (5, 20)
    assert best.vary == {"network.width": [2, 4]}


@pytest.mark.slow
def test_what_is_tuned_apart_has_a_best_of_its_own():
    experiment = mirage.compose(
        *SMALL,
        "compare.loss=[mse]",
        "vary.algorithm.steps=[1,40]",
        "tune.settings={algorithm:{step_size:[0.05,1.0e+6]}}",
        "tune.apart=[steps]",
        "target=quadratic",
        "activation=quadratic",
    )
    # One step does the more the larger it is; forty of such a size explode.
    best = tuned(experiment, run_grid)
    sizes = {names: s["algorithm.step_size"] for names, s in best.tuned.items()}
    assert sizes == {("mse", 1): 1e6, ("mse", 40): 0.05}
    chosen = {names[-1]: setup.algorithm.step_size for names, setup in best.setups().items()}
    assert chosen == {1: 1e6, 40: 0.05}


def test_settings_and_limits_given_in_the_shell_replace_those_of_an_experiment():
    experiment = mirage.compose(
        "+experiment=error_vs_width_and_samples",
        "tune.settings={network:{initial_norm:[0.1,1.0]}}",
        "tune.within={d:[100]}",
    )
    assert experiment.tune.settings == (("network.initial_norm", (0.1, 1.0)),)
    assert experiment.tune.within == (("d", (100,)),)


def test_scores_count_diverged_cells_first():
    error = Grid(settings={"loss": {"delta": [1]}})
    good, worse = np.full((2, 3), 1.0), np.full((2, 3), 2.0)
    assert error.score(good) < error.score(worse)
    half = np.array([[0.1, 0.1, 0.1], [np.nan, np.nan, 0.1]])
    assert error.score(worse) < error.score(half) < error.score(np.full((2, 3), np.nan))
    cosine = Grid(settings={"loss": {"delta": [1]}}, measure="cos_best")
    assert cosine.score(worse) < cosine.score(good)


def test_that_every_candidate_diverged_is_said():
    tries = "tune.settings={algorithm:{step_size:[1.0e37,1.0e38]}}"
    experiment = mirage.compose(*SMALL, "compare.loss=[mse]", "activation=quadratic", tries)
    with pytest.raises(TuningError, match=r"tune.settings: every candidate diverged for mse"):
        mirage.simulate(experiment)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tune.settings={loss:{gamma:[1.0]}}", "tune.settings.loss.gamma=[1.0]: no option has"),
        ("tune.settings={loss:{delta:[]}}", "tune.settings.loss.delta=[]: expected"),
        ("tune.settings={los:{delta:[1.0]}}", "tune.settings.los.delta=[1.0]: expected a group"),
        ("tune.settings={loss:{delta:[-1.0]}}", "loss.delta=-1.0"),
        ("tune.settings={loss:{delta:[a]}}", "tune.settings.loss.delta='a'"),
        ("tune.settings={}", "tune.settings=()"),
        ("tune.settings=3", "tune.settings"),
        ("tune.measure=colour", "tune.measure='colour': expected one of cos_best"),
        ("tune.seeds=0", "tune.seeds=0"),
        ("tune.within={width:[4]}", "tune.within='width': expected one of d, alpha"),
        ("tune.apart=[width]", "tune.apart='width': expected varied settings, of which there are"),
        ("tune.within={alpha:[7]}", "tune.within.alpha=[7]: expected some of [20]"),
        ("vary.loss.delta=[1.0,2.0]", "tune.settings.loss.delta=[1.0, 2.0]: this setting is"),
    ],
)
def test_bad_input_is_refused_with_the_key(override, words):
    tries = [] if "tune.settings" in override else ["tune.settings={loss:{delta:[1.0,2.0]}}"]
    with pytest.raises(mirage.ConfigError) as error:
        mirage.compose(*SMALL, "compare.loss=[huber]", *tries, override)
    assert words in str(error.value)


def test_settings_that_were_not_given_are_asked_for():
    with pytest.raises(mirage.ConfigError, match=r"tune.settings"):
        mirage.compose(*SMALL)


def test_a_measure_that_the_algorithm_does_not_have_is_refused():
    tries = "tune.settings={loss:{delta:[1.0,2.0]}}"
    small = [s for s in SMALL if "readout" not in s]
    experiment = mirage.compose(
        *small, "algorithm=power_iteration", tries, "tune.measure=test_error"
    )
    with pytest.raises(ValueError, match=r"tune.measure='test_error'"):
        mirage.simulate(experiment)
