"""Targets of many features: the law of their labels, learning curves, spectra, two stages."""

import itertools
import logging

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats
from tables import label

import mirage
from mirage import Experiment, figures, simulate
from mirage.activations import Relu
from mirage.algorithms import FullSpectrum, Spectral, TwoStage
from mirage.algorithms.bulk import bulk_edge
from mirage.channels.additive_labels import additive_labels, feature_law, is_additive
from mirage.channels.preprocessing import slope_of
from mirage.config.composition import compose_config
from mirage.designs import Deferred, Dense, Rows, Streamed
from mirage.experiments.hierarchy_predictions import ScalingLaws
from mirage.gaussian import line_rule
from mirage.losses import Preprocessed
from mirage.measures import weighted_mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Committee, Hermite, Hierarchical, Parity, SingleIndex, Staircase
from mirage.theory.scaling_laws import (
    feature_overlaps,
    feature_thresholds,
    local_slope,
    optimal_thresholds,
    rate,
    readout_risk,
)

QUIET = Default(progress=False)
ALPHAS = np.geomspace(10, 1e4, 61)


def law_of(target, loss=None):
    return feature_law(additive_labels(target), slope_of(loss or Preprocessed()))


@pytest.mark.parametrize(
    "target",
    [
        Hierarchical(features=2, link="h", strengths=[0.6, 0.8]),
        Hierarchical(features=3, link=["h", "He2(h)", "abs(h)"], noise=0.3),
        Hierarchical(features=3, link=["h", "He2(h)", "tanh(h)"]),
        Committee(rank=3),
        Hermite(),
        SingleIndex(noise=0.5),
    ],
    ids=label,
)
def test_moments_of_labels_are_those_of_samples(target):
    """E[T], E[T (h_k² − 1)] and E[T h_j h_k] of three functions of the label, within 4.5 sigma."""
    labels = additive_labels(target)
    rng = np.random.default_rng(3)
    h = rng.standard_normal((400_000, target.rank))
    with jax.enable_x64(True):
        y = np.asarray(target.draw(jax.random.key(0), jnp.asarray(h)))
    assert labels.probability.sum() == pytest.approx(1, abs=1e-9)
    for function in (np.tanh, np.cos, lambda y: y / (1 + np.abs(y))):
        t, grid = function(y), function(labels.labels)
        pairs = [(t, grid @ labels.probability)]
        pairs += [(t * (h[:, k] ** 2 - 1), grid @ labels.own[k]) for k in range(target.rank)]
        for j, k in itertools.combinations(range(target.rank), 2):
            values = (labels.pairs or {}).get((j, k), 0 * grid)  # none: it is zero
            pairs.append((t * h[:, j] * h[:, k], grid @ values))
        for sampled, exact in pairs:
            sigma = sampled.std() / np.sqrt(len(sampled))
            assert abs(sampled.mean() - exact) < 4.5 * sigma + 1e-6


def test_a_gaussian_label_has_its_density():
    labels = additive_labels(Hierarchical(features=1, link="h"))
    step = labels.labels[1] - labels.labels[0]
    near = np.abs(labels.labels) < 5
    y = labels.labels[near]
    np.testing.assert_allclose(labels.probability[near] / step, stats.norm.pdf(y), atol=2e-4)
    np.testing.assert_allclose(
        labels.own[0, near] / step, (y**2 - 1) * stats.norm.pdf(y), atol=2e-3
    )
    assert labels.pairs is None


def test_what_is_not_such_a_sum_is_refused():
    assert is_additive(Committee(rank=3))
    assert not is_additive(Parity())
    with pytest.raises(ValueError, match="not a sum of functions of one direction"):
        additive_labels(Staircase())
    with pytest.raises(ValueError, match="30 directions and links that are not even"):
        additive_labels(Hierarchical(features=30, link="h"))


def test_the_published_curve():
    """MSE_γ, and how many features are out, at γ = 1.3 for ten features of degrees 2 and 4."""
    target, law = Hierarchical(), law_of(Hierarchical())
    alpha = np.array([2, 13.7, 93.3, 336, 638])
    overlap = feature_overlaps(law, alpha)
    error = weighted_mse(target.amplitudes(), overlap)
    np.testing.assert_allclose(error[[1, 2, 4]], [0.239, 0.0498, 0.0075], rtol=0.011)
    assert (overlap > 0).sum(axis=1).tolist() == [1, 3, 7, 10, 10]
    slope = np.polyfit(np.log(ALPHAS[:41]), np.log(_error(target, ALPHAS[:41])), 1)[0]
    assert slope == pytest.approx(-0.91, abs=0.005)


def _error(target, alpha):
    return weighted_mse(target.amplitudes(), feature_overlaps(law_of(target), alpha))


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(("gamma", "counts"), [(1.3, (10, 40, 100)), (2.0, (5, 20, 40))])
def test_the_slope_tends_to_the_law_as_features_get_many(gamma, counts):
    """The steepest part first: with more features the slope in a decade far out rises towards
    −1 + 1/(2γ), and it never gets flatter than that.
    """
    decade = ALPHAS[40:]
    slopes = []
    for count in counts:
        error = _error(Hierarchical(features=count, gamma=gamma), decade)
        slopes.append(np.polyfit(np.log(decade), np.log(error), 1)[0])
    assert np.diff(slopes).min() > -1e-6
    assert slopes[0] < rate(gamma) - 0.15
    assert rate(gamma) - 0.08 < slopes[-1] < rate(gamma)
    thresholds = feature_thresholds(law_of(Hierarchical(features=counts[-1], gamma=gamma)))
    k = np.arange(10, 21)
    power = np.polyfit(np.log(k), np.log(thresholds[k - 1]), 1)[0]
    assert power == pytest.approx(2 * gamma, abs=0.1)


def test_all_features_found_the_error_falls_as_one_over_n():
    alpha = np.geomspace(3e3, 1e5, 20)
    slope = local_slope(alpha, _error(Hierarchical(), alpha))
    np.testing.assert_allclose(slope[1:-1], -1, atol=0.01)


def test_with_noise_the_posterior_sees_feature_k_at_k_to_the_two_gamma():
    found = optimal_thresholds(Hierarchical(features=8, noise=0.5))
    power = np.diff(np.log(found)) / np.diff(np.log(np.arange(1, 9)))
    assert power[-1] == pytest.approx(2.6, abs=0.06)
    # What is seen of the first feature cannot be less than the spectral estimator sees of it.
    assert found[0] < feature_thresholds(law_of(Hierarchical(features=8, noise=0.5)))[0]
    single = optimal_thresholds(Hierarchical(features=1, link="He2(h)"))
    assert single == pytest.approx([0.5], rel=2e-2)


def test_the_risk_of_a_readout_by_its_own_integral():
    """One direction u seen as v with u·v = √q: E(g(u·x) − E[g(u·x) | v·x])² by quadrature."""
    target, overlap = Hierarchical(features=1, link="tanh(h) + He2(h)/2"), np.array([[0.0], [0.6]])
    x, w = line_rule(160)
    both = np.sqrt(0.6) * x[:, None] + np.sqrt(0.4) * x
    g = np.tanh(both) + (both**2 - 1) / 2
    mean = g @ w
    expected = [w @ (g**2 @ w) - (w @ mean) ** 2, w @ (((g - mean[:, None]) ** 2) @ w)]
    np.testing.assert_allclose(readout_risk(target, overlap), expected, atol=1e-6)


def test_directions_tied_by_labels_are_seen_together():
    """Two equal linear features are one: only their sum has an eigenvector."""
    target = Hierarchical(features=2, link="h", strengths=[1.0, 1.0], noise=0.2)
    law = law_of(target, Preprocessed(transform="-1/(0.2 + y**2)"))
    overlap = feature_overlaps(law, np.array([200.0]))[0]
    np.testing.assert_allclose(overlap, overlap[0], rtol=1e-6)
    assert 0.4 < overlap[0] < 0.5
    assert np.isfinite(feature_thresholds(law)).sum() == 1


def test_the_edge_of_a_bulk_is_where_it_ends():
    """T unrelated to X: the largest eigenvalue within the law's reach of the edge, 60 times.

    By the Tracy-Widom law of real matrices its mean is −1.21 scales from it, its deviation 1.27.
    """
    n, d, count = 450, 150, 60

    def one(key):
        key_x, key_t = jax.random.split(key)
        t = jnp.tanh(jax.random.normal(key_t, (2, n // 2)))
        edge = bulk_edge(Rows.of(n, capacity=n, size=n // 2), t, d)
        x = jax.random.normal(key_x, (n, d))
        top = jnp.linalg.eigvalsh((t.reshape(-1, 1) * x).T @ x / n)[-1]
        return (top - edge.place) / edge.scale, edge.found(top[None])

    away, beyond = map(np.asarray, jax.lax.map(one, jax.random.split(jax.random.key(0), count)))
    assert abs(away.mean() + 1.21) < 4 * 1.27 / np.sqrt(count) + 0.25  # d^(−1/3) is not small
    assert 0.8 < away.std(ddof=1) < 1.8
    assert beyond.sum() <= 3


MODEL = {"target": Hierarchical(features=4, gamma=1.0), "loss": Preprocessed(), "runtime": QUIET}


def test_the_full_spectrum_is_that_of_lanczos_and_streams():
    """D summed and diagonalised, or by as many Lanczos steps as dimensions, X kept or not."""
    common = {**MODEL, "d": 40, "n": 900, "seeds": 2}
    dense = simulate(Experiment(**common, algorithm=FullSpectrum(components=6), design=Dense()))
    values = dense.ritz_value.squeeze().values
    streamed = simulate(
        Experiment(**common, algorithm=FullSpectrum(components=6), design=Streamed())
    )
    np.testing.assert_allclose(streamed.ritz_value.squeeze().values, values, atol=2e-6)
    lanczos = Spectral(steps=40, components=6, end="upper", select="outliers")
    lanczos = simulate(Experiment(**common, algorithm=lanczos, design=Dense()))
    np.testing.assert_allclose(lanczos.ritz_value.squeeze().values, values, atol=5e-6)
    np.testing.assert_array_equal(dense.features_found, lanczos.features_found)
    np.testing.assert_allclose(dense.direction_overlap, lanczos.direction_overlap, atol=2e-3)


@pytest.mark.slow
@pytest.mark.optimised
def test_the_full_spectrum_of_an_x_never_drawn_is_one_law():
    common = {**MODEL, "d": 30, "n": 400, "algorithm": FullSpectrum(components=6)}
    dense = simulate(Experiment(**common, seeds=400, design=Dense()))
    never = simulate(Experiment(**common, seeds=400, first_seed=1000, design=Deferred()))
    for of in (
        lambda r: r.ritz_value.isel(ritz=-1),
        lambda r: r.ritz_value.isel(ritz=0),
        lambda r: (r.ritz_value**2).sum("ritz"),
        lambda r: r.overlap.isel(neuron=0, direction=0) ** 2,
        lambda r: r.features_found,
    ):
        a, b = (of(r).values.ravel() for r in (dense, never))
        assert stats.ks_2samp(a, b).pvalue > 2e-3


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    "target",
    [
        Hierarchical(),
        Hierarchical(gamma=0.8, features=5, link="abs(h)"),
        Hierarchical(gamma=2.0, features=3, link="He2(h)", noise=0.5),
    ],
    ids=label,
)
def test_simulation_is_on_the_predicted_curve(target):
    """Overlaps of features well beyond their threshold and MSE_γ, within 4 standard errors; the
    noise of an eigenvector lies in d − m⋆ dimensions, so that n/d counts as n/(d − m⋆).
    """
    d, seeds, alphas = 200, 12, [10.0, 60.0, 300.0]
    algorithm = Spectral(steps=40, components=target.rank, end="upper")
    model = {"target": target, "loss": Preprocessed(), "algorithm": algorithm}
    results = simulate(Experiment(**model, d=d, alpha=alphas, seeds=seeds, runtime=QUIET))
    law = law_of(target)
    overlap = feature_overlaps(law, np.array(alphas) * d / (d - target.rank))
    thresholds = feature_thresholds(law)
    checked = 0
    for i, alpha in enumerate(alphas):
        far = thresholds < alpha / 3
        seen = results.direction_overlap.isel(d=0, alpha=i).values[:, far]
        error = seen.std(axis=0, ddof=1) / np.sqrt(seeds)
        assert (np.abs(seen.mean(axis=0) - overlap[i, far]) < 4 * error + 2 / d / alpha).all()
        checked += far.sum()
        if far.all():
            mse = results.weighted_mse.isel(d=0, alpha=i).values
            predicted = weighted_mse(target.amplitudes(), overlap[i])
            assert abs(mse.mean() - predicted) < 4 * mse.std(ddof=1) / np.sqrt(seeds)
    assert checked >= target.rank


@pytest.mark.slow
@pytest.mark.optimised
def test_features_are_found_in_their_order_and_counted():
    algorithm = Spectral(steps=40, components=12, end="upper", select="outliers")
    alphas = [0.3, 2.5, 30.0, 300.0]
    model = {"target": Hierarchical(), "loss": Preprocessed(), "algorithm": algorithm}
    results = simulate(Experiment(**model, d=300, alpha=alphas, seeds=8, runtime=QUIET))
    found = results.features_found.squeeze("d").transpose("alpha", "seed").values
    predicted = (feature_thresholds(law_of(Hierarchical())) < np.array(alphas)[:, None]).sum(axis=1)
    assert (np.abs(np.median(found, axis=1) - predicted) <= 1).all()
    assert (found[0] == 0).all()
    overlap = results.direction_overlap.squeeze("d").sel(alpha=[30, 300]).mean("seed").values
    assert (np.diff(overlap, axis=1) < 0.02).all()


@pytest.mark.optimised
def test_two_stages_predict_the_mean_where_nothing_is_found_and_the_law_where_all_is():
    target = Hierarchical(features=3, gamma=1.0, link="He2(h)/2")
    algorithm = TwoStage(steps=30, components=5, ridge=1e-3)
    network = TwoLayer(width=150, symmetric=False, initial_norm=1.0)
    model = {"target": target, "loss": Preprocessed(), "activation": Relu(), "network": network}
    results = simulate(
        Experiment(**model, algorithm=algorithm, d=150, alpha=[0.2, 200], seeds=6, runtime=QUIET)
    )
    error = results.test_error.squeeze("d")
    variance = (target.amplitudes() ** 2).sum() / 2
    assert (results.features_found.squeeze("d").sel(alpha=0.2) == 0).all()
    np.testing.assert_allclose(error.sel(alpha=0.2), variance, rtol=0.35)
    predicted = readout_risk(target, feature_overlaps(law_of(target), np.array([200.0])))[0]
    assert float(error.sel(alpha=200).mean()) == pytest.approx(predicted, rel=0.25)


@pytest.mark.slow
@pytest.mark.optimised
def test_nothing_beats_the_posterior_mean_whose_curve_may_stand_beside_the_spectral_one():
    """One feature without noise: missed up to n/d = 1, known from there on."""
    experiment = Experiment(
        target=Hierarchical(features=1, link="He2(h)"),
        loss=Preprocessed(),
        algorithm=Spectral(components=1, end="upper", select="outliers"),
        theory=ScalingLaws(bayes_optimal=True),
        d=50,
        alpha=[0.6, 0.95, 1.1, 3.0],
        seeds=1,
        runtime=QUIET,
    )
    results = simulate(experiment)
    best, spectral = results.weighted_mse_bayes, results.weighted_mse_predicted
    assert (best.sel(alpha=[1.1, 3.0]) < 1e-4).all()
    at = np.interp(best["alpha"], spectral["alpha_theory"], spectral)
    assert (best <= at + 1e-6).all()
    assert 0.2 < float(best.sel(alpha=0.95)) < 1
    assert "Bayes" in str([t.get_text() for t in drawn_texts(results)])


def drawn_texts(results):
    figure = figures.draw(results, "hierarchical_scaling_law")
    texts = figure.axes[0].get_legend().get_texts()
    plt.close(figure)
    return texts


def test_bad_settings_say_what_is_accepted(caplog):
    for settings, words in (
        ({"strengths": [1.0, 2.0]}, "target.strengths=.*expected 10 numbers"),
        ({"strengths": [1.0, 0.0], "features": 2}, "expected 2 numbers other than 0"),
        ({"link": ["h", "h"]}, "target.link=.*a list of 10"),
        ({"link": "h1"}, "target.link.*unknown name 'h1'"),
        ({"features": 0}, "target.features=0: expected a whole number"),
    ):
        with pytest.raises(ValueError, match=words):
            Hierarchical(**settings)
    with pytest.raises(ValueError, match="expected at least the target's rank, 10"):
        Experiment(target=Hierarchical(), d=5, n=100)
    gap = Spectral(components=4, end="upper", select="outliers")
    with pytest.raises(ValueError, match="n=3: expected at least as many samples"):
        Experiment(**MODEL, algorithm=gap, d=50, n=3)
    with pytest.raises(ValueError, match="expected upper"):
        Spectral(select="outliers")
    with pytest.raises(ValueError, match=r"theory=scaling_laws: target=parity .*hierarchical"):
        Experiment(target=Parity(), theory=ScalingLaws(), d=50, n=100)
    with pytest.raises(ValueError, match=r"target=hierarchical.*rank"):
        ScalingLaws(bayes_optimal=True).serve(Hierarchical())
    with caplog.at_level(logging.WARNING):
        ScalingLaws().serve(Hierarchical(gamma=0.5))
    assert "no scaling law" in caplog.text
    with pytest.raises(ValueError, match=r"loss=mse: T\(y\).*without bound"):
        simulate(
            mirage.compose(
                "target=hierarchical", "+theory=scaling_laws", "loss=mse", "simulate=false"
            )
        )


SMALL = {
    "hierarchical_scaling_law": ("d=60", "alpha=[2,20]", "~parts.degree_2", "~parts.absolute_value",
                                 "parts.degrees_2_and_4.seeds=2", "target.features=4"),
    "hierarchical_spectrum": ("d=60", "alpha=[2,40]", "target.features=3"),
    "feature_selection": ("d=60", "alpha=[2,40]", "target.features=3", "seeds=2"),
    "readout_risk": ("d=60", "alpha=[2,40]", "seeds=2", "network.width=40", "target.features=3"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("name", SMALL)
def test_the_experiment_runs_and_draws_its_figure(name):
    overrides = (f"+experiment={name}", *SMALL[name], "runtime.progress=false")
    results = simulate(mirage.compose(*overrides))
    assert not results.diverged.any()
    figure = figures.draw(results, compose_config(overrides).figure)
    assert any(axes.get_xlabel() for axes in figure.axes)
    plt.close(figure)


@pytest.mark.slow
@pytest.mark.optimised
def test_small_steps_of_gd_tend_to_the_spectral_estimator():
    """The smallest step size ends within 0.01 of it, and no further off than the largest."""
    overrides = ("+experiment=gd_to_spectral", "d=200", "seeds=5", "runtime.progress=false")
    results = simulate(mirage.compose(*overrides))
    cosine = results.cos_best.squeeze().median("seed").values
    away = np.abs(cosine[:3] - cosine[3])
    assert away[2] < 0.01
    assert away[2] <= away[0]
    plt.close(figures.draw(results, "gd_to_spectral"))


def test_labels_too_rare_to_be_met_hide_no_feature():
    """y/(1 + |y|) of Σ a_k |h_k|, which nears its bound with the rarest labels alone: at d = 1000
    and n/d = 2, 0.761 ± 0.013 is missed of the features, where all labels would hide every one.
    """
    target = Hierarchical(link="abs(h)")
    error = weighted_mse(target.amplitudes(), feature_overlaps(law_of(target), np.array([2.0])))
    assert error[0] == pytest.approx(0.755, abs=0.005)
