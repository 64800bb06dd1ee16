"""Bayes-AMP and its linearisation against state evolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mirage
from mirage import Experiment, simulate
from mirage.algorithms import Amp, LinearisedAmp
from mirage.channels.overlaps import overlap_matrix
from mirage.channels.registry import channel_of
from mirage.designs import Deferred, Dense
from mirage.runtime import Default
from mirage.symmetries import found_rank
from mirage.targets import Expression, Parity, PhaseRetrieval, SingleIndex
from mirage.theory.state_evolution import trajectory


def run(target, algorithm, *, d, alpha, seeds, design=None):
    return simulate(
        Experiment(
            target=target,
            algorithm=algorithm,
            design=design or Dense(),
            d=[d],
            alpha=alpha,
            seeds=seeds,
            runtime=Default(progress=False),
        )
    )


def evolved(target, alpha, start, steps):
    with jax.enable_x64(True):
        start = jnp.asarray(start * np.eye(target.rank))
        return np.asarray(trajectory(channel_of(target), alpha=alpha, start=start, steps=steps))


def scores_of_trajectory(results, q):
    """Distances of the mean diagonal overlap from Q, step by step, in standard errors."""
    m = results.overlap_trajectory.values[0, 0]  # seed, step, r, r
    diagonal = np.diagonal(m, axis1=-2, axis2=-1).mean(axis=-1)
    error = diagonal.std(axis=0, ddof=1) / np.sqrt(len(diagonal))
    return (diagonal.mean(axis=0) - np.diagonal(q, axis1=1, axis2=2).mean(axis=1)) / error


@pytest.mark.parametrize("design", [Dense(), pytest.param(Deferred(), marks=pytest.mark.slow)])
def test_amp_follows_state_evolution_at_moderate_size(design):
    algorithm = Amp(start="informed", start_overlap=0.5, steps=6, tolerance=0.0)
    results = run(Parity(), algorithm, d=600, alpha=4.0, seeds=12, design=design)
    scores = scores_of_trajectory(results, evolved(Parity(), 4.0, 0.5, 6))
    assert np.abs(scores).max() < 4  # seven comparisons
    # Nishimori: the length of the estimate is its overlap, and what is left is C.
    gram, overlap = results.gram.values[0, 0], results.overlap.values[0, 0]
    np.testing.assert_allclose(gram, overlap, atol=0.15)
    np.testing.assert_allclose(np.eye(2) - gram, results.covariance.values[0, 0], atol=0.12)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("target", "alpha", "start"),
    [
        (Parity(), 3.0, 0.5),
        (PhaseRetrieval(), 1.0, 0.3),
        (SingleIndex(noise=0.2), 1.0, 0.2),
    ],
    ids=str,
)
def test_amp_follows_state_evolution_at_d_2000(target, alpha, start):
    steps = 10
    algorithm = Amp(start="informed", start_overlap=start, steps=steps, tolerance=0.0)
    results = run(target, algorithm, d=2000, alpha=alpha, seeds=16)
    scores = scores_of_trajectory(results, evolved(target, alpha, start, steps))
    assert np.abs(scores).max() < 3.9  # three sigma, for eleven comparisons
    # Nishimori: E[ĥ h] = E[ĥ²], each direction within three standard errors.
    gap, error = nishimori_gap(results)
    assert (np.abs(gap) < 3 * error).all()


def nishimori_gap(results):
    """E[ĥ²] − E[ĥ h] of every direction, a mean over seeds with its standard error."""
    gram, overlap = (results[k].values.squeeze((0, 1)) for k in ("gram", "overlap"))
    gap = np.einsum("skk->sk", gram - overlap)
    return gap.mean(axis=0), gap.std(axis=0, ddof=1) / np.sqrt(len(gap))


@pytest.mark.slow
@pytest.mark.optimised
def test_what_a_growing_overlap_amplifies_of_the_finite_size_vanishes_as_1_over_d():
    """Between E[ĥ h] and E[ĥ²] stands a term of order 1/d, which grows with the overlaps."""
    steps = 10
    algorithm = Amp(start="informed", start_overlap=0.2, steps=steps, tolerance=0.0)
    small, large = (
        run(Parity(), algorithm, d=d, alpha=4.0, seeds=seeds)
        for d, seeds in ((500, 64), (2000, 16))
    )
    scores = scores_of_trajectory(large, evolved(Parity(), 4.0, 0.2, steps))
    assert np.abs(scores).max() < 3.9  # as above
    (coarse, coarse_error), (fine, fine_error) = nishimori_gap(small), nishimori_gap(large)
    assert (coarse > 5 * coarse_error).all()  # it is there
    assert (np.abs(fine) < coarse / 4 + 3 * np.hypot(fine_error, coarse_error / 4)).all()


@pytest.mark.slow
@pytest.mark.optimised
def test_a_spectral_start_ends_in_the_right_class():
    results = run(Parity(), Amp(damping=0.3), d=2000, alpha=4.0, seeds=20)
    assert not results.diverged.any()
    assert (results.rank_found == 2).sum() >= 19
    good = results.rank_found.values[0, 0] == 2
    m = results.overlap_aligned.values[0, 0][good]
    overlap = np.diagonal(m, axis1=-2, axis2=-1).mean(axis=1)
    error = overlap.std(ddof=1) / np.sqrt(good.sum())
    assert overlap.mean() == pytest.approx(0.64384, abs=4 * error + 0.01)
    error = results.generalisation_error.values[0, 0][good].mean()
    with jax.enable_x64(True):
        information = jax.jit(channel_of(Parity()).information)(0.64384 * jnp.eye(2))
    assert error == pytest.approx(1 - float(information.square), abs=0.03)


@pytest.mark.slow
@pytest.mark.optimised
def test_damping_leaves_the_fixed_point_where_it_is():
    overlaps = []
    for damping in (0.0, 0.4):
        algorithm = Amp(start="informed", damping=damping, tolerance=1e-6)
        results = run(Parity(), algorithm, d=400, alpha=6.0, seeds=2)
        overlaps.append(results.overlap_aligned.values)
        assert not results.diverged.any()
    np.testing.assert_allclose(overlaps[0], overlaps[1], atol=2e-3)


def test_it_stops_when_it_has_settled():
    results = run(SingleIndex(), Amp(start="informed"), d=100, alpha=3.0, seeds=2)
    assert (results.steps_taken < 30).all()
    final = results.overlap_trajectory.isel(step=-1)
    np.testing.assert_array_equal(final, results.overlap)
    # A monotone link without noise: h is known, and so U from n > d samples.
    assert (np.abs(results.overlap) > 0.99).all()


@pytest.mark.slow
@pytest.mark.optimised
def test_the_linearised_iteration_grows_and_finds_as_its_state_evolution_says():
    """With λ = α E[G²] = α/alpha_c it grows by λ and its cosine is √((λ − 1)/(λ + E[G³]/E[G²])).

    Ω = m h + s ξ gives m ← α E[G²] m and s² ← α (m² E[G² (1 + G)] + s² E[G²]), as
    E[h² | y] = 1 + G; for h² there is G = y − 1, so that E[G²] = 2 and E[G³] = 8.
    """
    alphas = [0.25, 2.0, 4.0]
    results = run(PhaseRetrieval(), LinearisedAmp(steps=30), d=1000, alpha=alphas, seeds=6)
    growth = results.growth_trajectory.isel(step=-1, neuron=0).median("seed").values[0]
    found = results.cos_best.mean("seed").values[0]
    assert growth[0] < 1
    assert found[0] < 0.3
    for k in (1, 2):
        rate = 2 * alphas[k]
        assert growth[k] == pytest.approx(rate, rel=0.1)
        assert found[k] == pytest.approx(np.sqrt((rate - 1) / (rate + 4)), abs=0.04)


@pytest.mark.slow
def test_seeds_that_diverge_are_flagged_and_the_others_kept():
    results = run(Parity(), Amp(start="random", steps=60), d=120, alpha=[2.0, 7.0], seeds=6)
    lost = results.diverged.values[0]
    assert not lost[0].any()
    assert lost[1].any()
    assert np.isnan(results.overlap_aligned.values[0, 1][lost[1]]).all()
    assert np.isnan(results.rank_found.values[0, 1][lost[1]]).all()
    assert np.isfinite(results.overlap.values[0, 0]).all()


@pytest.mark.slow
def test_a_target_of_a_users_own_works_with_noise():
    target = Expression("h**2*exp(-h**2/4)", noise=0.1)
    results = run(
        target, Amp(start="informed", start_overlap=[0.6], steps=4), d=60, alpha=8.0, seeds=2
    )
    assert np.isfinite(results.overlap).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"damping": 1.0}, "damping"),
        ({"damping": -0.1}, "damping"),
        ({"start": "warm"}, "spectral, random, informed"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"start_length": 0.0}, "start_length"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Amp(**settings)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[0.5, 0.6], [0.6, 0.5]], "positive semi-definite"),
        ([0.5, -0.1], "positive semi-definite"),
        (1.0, "below 1"),
        ([[0.5, 0.1], [0.2, 0.5]], "symmetric"),
        ([0.1, 0.2, 0.3], "2 numbers"),
        ("high", "one number"),
    ],
    ids=str,
)
def test_starts_that_are_no_overlaps_are_refused(value, words):
    with pytest.raises(ValueError, match=words):
        overlap_matrix(value, 2, key="algorithm.start_overlap")
    with pytest.raises(ValueError, match="start_overlap"):
        run(Parity(), Amp(start="informed", start_overlap=value), d=20, alpha=2.0, seeds=1)


def test_found_rank_counts_directions():
    assert found_rank(np.diag([0.9, 0.05]), threshold=0.1) == 1


SMALL = ["d=[20]", "seeds=2", "algorithm.steps=3"]
STAIRCASE = ["alpha=[1.0]", "theory=state_evolution", "theory.start=uninformed"]


# Where directions are found: π²/4 (parity), 1/2 (h²), 0.575 (h1 of the staircase); 0 is before the
# first alpha, inf after the last.
PARITY, SQUARE = [np.pi**2 / 4] * 2, [0.5]


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("name", "overrides", "alpha_found"),
    [
        ("parity_transition", ["alpha=[2,3]"], PARITY),
        ("phase_retrieval", ["alpha=[0.4,1.2]"], SQUARE),
        ("staircase_hierarchy", STAIRCASE, [0, np.inf, np.inf]),
        ("grand_staircase_amp", STAIRCASE, [0, np.inf, np.inf]),
        ("state_evolution", ["alpha=[2,3]"], PARITY),
        ("networks_vs_amp", ["alpha=[0.4,3]", "target.terms=[[1,[2]]]"], SQUARE),
    ],
)
def test_experiments_run_and_draw_their_figures(name, overrides, alpha_found, tmp_path):
    small = SMALL[:2] if name == "networks_vs_amp" else SMALL
    experiment = mirage.compose(f"+experiment={name}", *small, *overrides)
    results = mirage.simulate(experiment)
    np.testing.assert_allclose(results.alpha_found.values.ravel(), alpha_found, atol=2e-3)
    figure = name if name in mirage.figures.FIGURES else "amp_transition"
    assert mirage.figures.draw(results, figure).axes
    mirage.save(results, tmp_path)
    assert mirage.load(tmp_path).identical(results)
