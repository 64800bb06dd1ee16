"""Experiments on what a second look at the same samples buys: shrunk, with the claim of each."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import mirage
from mirage import figures
from mirage.config import compose_config
from mirage.figures.learning_curves import direction_cosines

pytestmark = pytest.mark.slow


def run(name, *overrides):
    overrides = (f"+experiment={name}", *overrides, "runtime.progress=false")
    results = mirage.simulate(mirage.compose(*overrides))
    assert not results.diverged.any()
    figure = figures.draw(results, compose_config(overrides).figure)
    assert all(axes.get_xlabel() for axes in figure.axes)
    plt.close(figure)
    return results


def by_direction(results):
    """Medians over seeds of the best cosine with each direction, (algorithm, ..., step, k)."""
    medians = direction_cosines(results).median("seed")
    single = [k for k in medians.dims if medians.sizes[k] == 1 and k != "direction"]
    return medians.squeeze(single, drop=True).transpose("algorithm", ..., "step", "direction")


@pytest.mark.optimised
def test_extragradient_learns_he3_and_he4_and_sgd_does_not():
    results = run("repetita_iuvant", "d=512", "seeds=6")
    last = by_direction(results).isel(step=-1, direction=0)
    once, twice = last.values
    assert (twice > 0.6).all()
    assert (once < 0.3).all()


@pytest.mark.optimised
def test_repetition_of_any_kind_leaves_the_equator():
    results = run("repeated_data", "d=128", "alpha=200", "seeds=6")
    curves = by_direction(results).isel(direction=0)
    assert curves.sizes["algorithm"] == 5
    last = curves.isel(step=-1).values
    assert last[0] < 0.3
    assert (last[1:] > 0.8).all()


@pytest.mark.optimised
def test_the_staircase_is_climbed_with_and_without_repetition():
    last = by_direction(run("staircase_sgd", "d=48", "seeds=4")).isel(step=-1)
    assert (last.isel(direction=0) > 0.9).all()
    assert (last.isel(direction=[1, 2]) > 0.35).all()


@pytest.mark.optimised
def test_the_first_step_of_the_grand_staircase_needs_repetition():
    small = ("d=256", "alpha=500", "seeds=6", "algorithm.step_size=0.02")
    results = run("grand_staircase_sgd", *small)
    once, twice = by_direction(results).isel(step=-1, direction=0).values
    assert twice > 0.9
    assert once < 0.6


@pytest.mark.optimised
def test_directions_are_learnt_in_their_order():
    results = run("directions_in_order", "d=64", "seeds=8")
    cosines = direction_cosines(results).median("seed").squeeze()
    first = [int(np.argmax(cosines.isel(direction=k).values > 0.5)) for k in range(3)]
    assert 0 < first[0] < first[1] < first[2]


@pytest.mark.optimised
def test_parity_of_three_escapes_with_and_without_repetition():
    results = run("hard_parity", "d=[24,48]", "seeds=12", "n=600000")
    median = results.escape_samples.median("seed").squeeze().transpose("algorithm", "d")
    assert np.isfinite(median).all()
    # The power is 2 for d → ∞; that of two small d has an error.
    growth = np.log2(median.isel(d=1) / median.isel(d=0))
    assert ((growth > 1) & (growth < 3.5)).all()
