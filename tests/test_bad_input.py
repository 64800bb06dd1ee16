"""Bad input to everything a user can call: ValueError that names the argument, or a flag.

Options are found by their registries and functions by the documentation's list of modules: what
is new and in neither table fails a test here.
"""

import ast
import functools
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jaxtyping
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mirage
from mirage.activations import Tanh
from mirage.algorithms import draw_problem
from mirage.channels.additive_labels import FeatureLaw
from mirage.channels.channel import Output
from mirage.channels.labels import LabelTables
from mirage.channels.preprocessing import Law
from mirage.channels.registry import channel_of
from mirage.config import compose_config
from mirage.config.schema import OPTION_GROUPS
from mirage.losses import Huber, Mse, Optimal
from mirage.options import Option
from mirage.targets import Expression, Hermite, Hierarchical, Parity, PhaseRetrieval, Tree
from mirage.theory.giant_step import SlopeMoments
from mirage.theory.joint_quadrature import rule
from mirage.theory.lazy import Spectrum
from mirage.theory.order_parameters import Dynamics
from mirage.updates import Gradient

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module", autouse=True)
def _as_users_call():
    """Without the tests' own checker of types, which would be there before ours."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refuse(call: Callable[[], Any], *names: str) -> None:
    """A call is refused in words that name one of these, or its result is flagged."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except ValueError as error:
        words = str(error)
        # Of arrays that do not belong together either may be the one that is named.
        found = any(re.search(rf"\b{re.escape(name)}\b", words) for name in names)
        assert found or ".shape=" in words, words
        assert 0 < len(words.splitlines()) <= 2
        assert len(words) < 1000
    else:
        assert flagged(result), result


def flagged(result: Any) -> bool:
    """Whether NaN, or a flag of the result, says that there is none."""
    if getattr(result, "converged", True) is False or getattr(result, "diverged", False):
        return True
    numbers = [np.asarray(leaf) for leaf in jax.tree.leaves(result) if eqx.is_array_like(leaf)]
    return any(leaf.dtype.kind == "f" and np.isnan(leaf).any() for leaf in numbers)


# Options


OPTIONS = [
    pytest.param(option, setting, id=f"{group}-{name}-{setting}")
    for group, base in OPTION_GROUPS.items()
    for name, option in base.options().items()
    if option.__module__.startswith("mirage.")
    for setting in option.settings()
]
# What cannot be made without.
REQUIRED = {"path": "no_such_file.npy", "settings": {"loss": {"delta": [1.0]}}}
anything = st.one_of(
    st.sampled_from([None, True, False, NAN, INF, -INF, 0, -1, 1, 10**12, 10**400, -(10**400)]),
    st.sampled_from(["", "x", "h1", "tanh", "1/0", "h**", "nan", {}, {"a": 1}, 1j, object(), ()]),
    st.sampled_from([[], [1], ["x"], [None], [[1]], [NAN], [10**400], [[1, [2]], [1, [2, 3]]]]),
    st.integers(-3, 40),
    st.floats(),
)  # fmt: skip


@pytest.mark.parametrize(("option", "setting"), OPTIONS)
@settings(max_examples=20)
@given(value=anything)
def test_an_option_is_made_or_names_the_setting(option, setting, value):
    given = {key: REQUIRED[key] for key in option.settings() if key in REQUIRED}
    # What else a message may be about: a formula for the rank that was given, a missing file.
    others = [key for key in ("path", "expr") if key in option.settings()]
    try:
        option(**{**given, setting: value})
    except ValueError:
        refuse(lambda: option(**{**given, setting: value}), setting, *others)


@pytest.mark.parametrize(("option", "setting"), OPTIONS)
def test_a_setting_of_a_simple_type_takes_no_other(option, setting):
    kind = option.settings()[setting].annotation
    wrong = {int: [2.5, "2", True, NAN], float: ["2", True, NAN], bool: [1, "true"], str: [1, None]}
    given = {key: REQUIRED[key] for key in option.settings() if key in REQUIRED}
    for value in wrong.get(kind, []):
        with pytest.raises(ValueError, match=rf"{option.group}\.{setting}="):
            option(**{**given, setting: value})


# Functions


class Case(NamedTuple):
    """Arguments that are right, and values that are wrong for some; partials are called first."""

    right: Mapping[str, Any]
    wrong: Mapping[str, st.SearchStrategy]
    call: Callable[..., Any] | None = None


def one_of(*values: Any) -> st.SearchStrategy:
    return st.sampled_from(values)


def array(values: Any) -> np.ndarray:
    return np.array(values, np.float64)


not_a_number = one_of(NAN, INF, -INF, "x", None, True, [1.0], np.ones(2))
negative = st.floats(max_value=0, exclude_max=True) | not_a_number
not_positive = st.just(0) | negative
not_inside = not_positive | one_of(1, 1.5)
# Without lists: some are remembered by their arguments.
below_0 = st.integers(max_value=-1) | one_of(0.5, NAN, INF, -INF, "x", None, True)
below_1 = st.just(0) | below_0
below_2 = st.just(1) | below_1
no_alphas = one_of(array([]), [], 0.0, [0.0], [1.0, -1.0], [NAN], [INF], "x", None, np.ones((2, 2)))
no_vector = one_of(1.0, "x", None, np.ones((2, 2)), array([NAN, 1.0, 2.0, 3.0]))
no_matrix = one_of(None, "x", 1.0, np.ones(2), np.ones((3, 5)))
# Of two directions.
no_square = one_of(None, "x", 0.5, np.ones(2), np.eye(3) / 2, np.ones((2, 3)), np.zeros((0, 0)))
no_overlap = no_square | one_of(
    np.full((2, 2), NAN), -np.eye(2), 2 * np.eye(2), array([[0.1, 0.5], [0.5, 0.1]]),
    array([[0.5, 0.1], [0.0, 0.5]]),
)  # fmt: skip
no_gram = no_square | one_of(-np.eye(2), array([[1.0, 2.0], [2.0, 1.0]]))
random_labels = one_of(Tree(), Tree(branches=2))
not_finite = one_of(Expression("log(h)"), Expression("(h-1)**0.5"))
many_directions = one_of(Hierarchical(features=5), Parity(k=5))

EYE, ZERO = np.eye(2), np.zeros((2, 2))
LAW = Law(array([[-1, 0.5, 1]]), np.full((1, 3), 1 / 3), array([[-0.2, 0, 0.2]])[..., None, None])
FEATURES = FeatureLaw(array([-1, 1]), array([0.5, 0.5]), array([[-0.1, 0.1], [0, 0]]), None)
SPECTRUM = Spectrum(array([0.3, 0.2, 1e-3]), array([1, 30, 400]), 0.1)
MOMENTS = SlopeMoments(np.zeros(2), np.eye(2), np.ones(2))


def case(call: Callable[..., Any] | None = None, /, **arguments: Any) -> Case:
    """Each argument as it is right, or that and what is wrong."""

    def wrong(value):
        return isinstance(value, tuple) and isinstance(value[-1], st.SearchStrategy)

    right = {key: value[0] if wrong(value) else value for key, value in arguments.items()}
    return Case(right, {key: value[1] for key, value in arguments.items() if wrong(value)}, call)


made = functools.partial
CHANNEL = made(channel_of, Parity())
DYNAMICS = made(
    lambda: Dynamics(Parity(), Mse(), Tanh(), np.ones(2), Gradient(step_size=1.0), noise=0.0)
)
RULE = made(lambda: rule(Parity(), 2, points=2**12))
ORDER = {"overlap": (ZERO / 10, no_square), "gram": (EYE, no_square)}
STATE = {"overlap": (ZERO, no_square), "gram": (EYE, no_gram)}
CELLS = {
    "readout": (np.ones((1, 2)), no_matrix),
    "biases": (np.ones((1, 2)), no_matrix),
    "intercept": (np.ones(1), one_of("x", 1.0, np.ones(2), np.ones((1, 1)))),
    "overlap": (np.zeros((1, 2, 2)), no_square),
    "gram": (EYE[None], one_of(-EYE[None], EYE, "x", array([[[1.0, 2.0], [2.0, 1.0]]]))),
}
SPAN = {"overlap": (ZERO, no_matrix), "gram": (EYE, no_gram), "tolerance": (1e-4, negative)}


def config(*overrides: str) -> Any:
    return compose_config(["d=20", *overrides])


def replaced(key: str, value: Any) -> Any:
    changed = config().copy()
    changed[key] = value
    return changed


bad_config = one_of(*(
    made(replaced, *pair)
    for pair in [("d", 0), ("d", []), ("seeds", 0), ("alpha", -1.0), ("name", "a/b"), ("loss", 3)]
))  # fmt: skip
KEYS = ("d", "seeds", "alpha", "name", "loss", "target")


EXPERIMENT = {"d": 20, "alpha": 2.0, "seeds": 1}
no_sizes = one_of(0, -1, NAN, INF, [], [0], [1, 1], "x", [[2]], True, ["x"])
no_mapping = one_of({"loss.delta": 3}, {"loss.delta": []}, {"x.y": [1]}, {"loss.x": [1]}, [1], "x")
not_an_option = one_of("parity", 3, {}, {"a": 3}, Option, [Mse()])


def labelled(**directions: Any) -> Any:
    key = jax.random.key(0)
    return draw_problem(key, None, **directions, target=Parity())


TABLE: dict[str, Case] = {
    # Running
    "mirage.config.compose": case(
        lambda overrides: mirage.compose(*overrides),
        overrides=(
            ["d=20"],
            one_of([3], ["d=0"], ["d=x"], ["target=nothing"], ["alpha=-1"], [None]),
        ),
    ),
    "mirage.config.composition.compose_config": case(
        overrides=(["d=20"], one_of([3], ["dd=3"], ["target=nothing"], [None])),
        config_dir=(None, one_of("no_such_folder")),
    ),
    "mirage.config.build.build": case(config=(made(config), bad_config)),
    "mirage.config.build.build_all": case(config=(made(config), bad_config)),
    "mirage.config.build.build_options": case(
        config=(made(config), one_of(made(replaced, "loss", 3))),
        groups=(["loss"], one_of(["losses"], ["loss", "x"], [3])),
    ),
    "mirage.diagnose.diagnose": case(
        target=(Parity(), not_an_option | random_labels | not_finite | one_of(Parity(k=5), None)),
        loss=(None, not_an_option),
        activation=(None, not_an_option),
        network=(None, not_an_option),
    ),
    "mirage.experiments.simulate.simulate": case(experiment=(None, not_an_option)),
    "mirage.experiments.store.load": case(path=(".", one_of(3, None, __file__))),
    "mirage.experiments.store.save": case(
        dataset=(xr.Dataset(), one_of(3, None, {})), folder="no_such_folder"
    ),
    "mirage.experiments.experiment.Experiment": case(
        **{
            **EXPERIMENT,
            "d": (20, no_sizes | one_of(1, 2.5, None, [20, 1])),
            "alpha": (2.0, no_sizes | st.floats(max_value=0)),
            "seeds": (1, below_1),
            "first_seed": (0, below_0),
            "root_seed": (0, below_0 | one_of(2**32)),
            "vary": ({}, no_mapping),
            "theory": (None, not_an_option),
            "tune": (None, not_an_option),
            "search": (None, not_an_option),
            "runtime": (mirage.runtime.Default(), not_an_option | one_of(None)),
            **{
                group: (base(), not_an_option | one_of(None))
                for group, base in [("target", Hermite), ("loss", Huber), ("activation", Tanh)]
            },
        }
    ),
    # Algorithms and designs
    "mirage.algorithms.base.draw_problem": case(labelled, directions=(np.eye(2, 20), no_matrix)),
    "mirage.designs.rows.grains": case(size=(10, below_1), numbers=(10, below_1)),
    "mirage.losses.slopes": case(
        loss=(Mse(), one_of(Optimal())),
        t=(np.zeros(4), one_of("x", np.zeros(3), [[1.0], [1.0, 2.0]])),
        y=(np.zeros(4), one_of("x", np.zeros(3), np.zeros((4, 1)))),
    ),
    "mirage.network.output": case(
        activation=Tanh(),
        a=(np.ones(2), one_of(None, "x", 1.0, np.ones((3, 5)))),
        z=(np.ones((2, 5)), no_matrix),
    ),
    # Measures
    "mirage.measures.cos_best": case(
        overlap=(ZERO, one_of(None, "x", 1.0, np.ones(2))),
        norm=(np.ones(2), one_of(None, "x", 1.0, np.ones(3), EYE, array([NAN, 1]))),
    ),
    "mirage.measures.escape": case(
        samples=(np.ones((1, 3)), no_matrix),
        cosine=(np.ones((1, 3)), no_matrix | st.just(np.full((1, 3), NAN))),
        level=(0.5, not_a_number),
    ),
    "mirage.measures.principal_cosines": case(**SPAN),
    "mirage.measures.direction_overlap": case(**SPAN),
    "mirage.measures.matrix_mse": case(**SPAN),
    "mirage.measures.weighted_mse": case(
        amplitudes=(np.ones(2), one_of(1.0, "x", None, np.zeros(2), np.ones(3), array([]))),
        direction_overlaps=(np.ones(2), one_of(1.0, "x", None, np.ones(3), array([NAN, 1]))),
    ),
    "mirage.measures.population_error": case(target=Parity(), activation=Tanh(), **CELLS),
    "mirage.measures.bayes_error": case(
        channel=CHANNEL,
        target=Parity(),
        overlap=CELLS["overlap"],
        gram=CELLS["gram"],
        covariance=CELLS["gram"],
    ),
    **{
        f"mirage.measures.{name}": case(target=(Parity(), random_labels | not_finite))
        for name in ("target_integrals", "target_mean", "target_square")
    },
    # Gaussian integrals
    "mirage.gaussian.line_rule": case(
        nodes=(16, below_2 | one_of(3)), half_width=(9.0, one_of(0, -1.0, NAN, INF, "x", None))
    ),
    "mirage.gaussian.rule": case(rank=(2, below_0)),
    "mirage.gaussian.gauss_hermite": case(rank=(2, below_0), nodes=(4, below_1)),
    "mirage.gaussian.scattered": case(
        rank=(1, below_0), count=(8, below_1), seed=(0, below_0), half_width=(9.0, not_positive)
    ),
    "mirage.gaussian.exact_weights": case(
        points=(np.ones((8, 1)), no_matrix | st.just(np.full((8, 1), NAN))),
        weights=(np.ones(8), no_vector),
        degree=(1, below_0),
    ),
    "mirage.gaussian.expectation": case(
        function=len, rank=(1, below_0), count=(8, below_1), replicas=(2, below_2)
    ),
    "mirage.gaussian.mean_and_error": case(replicas=(np.ones(2), one_of(1.0, np.ones(1), None))),
    "mirage.gaussian.multi_indices": case(rank=(1, below_0), degree=(2, below_0)),
    "mirage.gaussian.hermite_functions": case(
        z=(np.ones((4, 1)), one_of(1.0, None, "x")), degree=(2, below_0)
    ),
    "mirage.gaussian.hermite_lines": case(x=np.ones(4), degree=(2, below_0)),
    "mirage.gaussian.hermite_coefficients": case(
        function=len,
        rank=(1, below_1),
        degree=(2, below_0),
        count=(8, below_1),
        replicas=(2, below_2),
    ),
    "mirage.gaussian.contraction": case(
        first=(np.ones(3), one_of(1.0, "x", None, np.ones(4))),
        second=(np.ones(3), one_of(1.0, "x", None, np.ones(4))),
        rank=(2, below_1),
        degree=(2, below_1),
    ),
    # Channels
    "mirage.channels.labels.label_table": case(
        target=(Parity(), many_directions | random_labels | not_finite),
        known=(None, one_of("x", EYE, np.ones((1, 3)), np.ones((1, 2)), array([[NAN, 0]]), 1.0)),
    ),
    "mirage.channels.channel.posterior": case(
        out=(
            Output(np.ones(4), np.ones((2, 4)), np.ones((2, 2, 4))),
            one_of(Output(np.ones(4), np.ones((3, 4)), np.ones((2, 2, 4)))),
        ),
        omega=(np.ones((2, 4)), one_of("x", None, 1.0)),
        covariance=(EYE, no_square),
    ),
    "mirage.channels.channel.mixture": case(
        log_weights=(np.ones((3, 4)), no_matrix),
        scores=(np.ones((2, 3, 4)), no_matrix),
        curvatures=(np.ones((2, 2, 3, 4)), no_matrix),
    ),
    **{
        f"mirage.channels.registry.{name}": case(
            lambda target, name=name: PUBLIC[f"mirage.channels.registry.{name}"](target),
            target=(Parity(), random_labels | one_of(Parity(k=4), Hierarchical(features=5))),
        )
        for name in ("channel_of", "make_channel")
    },
    # State evolution
    "mirage.theory.state_evolution.update": case(
        channel=CHANNEL, overlap=(EYE / 2, no_overlap), alpha=(1.0, not_positive)
    ),
    "mirage.theory.state_evolution.mapped": case(
        channel=CHANNEL, overlap=(EYE / 2, one_of(np.eye(3), np.ones(2))), alpha=np.ones(())
    ),
    "mirage.theory.state_evolution.trajectory": case(
        channel=CHANNEL, alpha=(1.0, not_positive), start=(EYE / 2, no_overlap), steps=(1, below_0)
    ),
    "mirage.theory.state_evolution.fixed_point": case(
        channel=CHANNEL,
        alpha=(1.0, not_positive),
        start=(EYE / 2, no_overlap),
        tolerance=(1e-9, not_positive),
        max_steps=(5, below_1),
    ),
    "mirage.theory.state_evolution.carried_on": case(
        overlap=(EYE / 2, one_of(np.eye(3), np.ones(2), np.ones((2, 3)))),
        first=(EYE / 2, one_of(np.eye(3), np.ones(2))),
        second=(EYE / 2, one_of(np.eye(3), np.ones(2))),
    ),
    "mirage.theory.state_evolution.start_of": case(
        kind=("informed", one_of("x", "", None, 3)), rank=(2, below_1)
    ),
    "mirage.theory.state_evolution.averages": case(
        channel=CHANNEL, overlaps=(EYE[None] / 2, no_overlap | one_of(-EYE[None], EYE[None] * 2))
    ),
    "mirage.theory.state_evolution.stability": case(channel=CHANNEL, overlap=(EYE / 2, no_overlap)),
    "mirage.theory.state_evolution.growth": case(
        function=lambda q: q,
        overlap=(EYE / 2, one_of(np.ones(2), np.ones((2, 3)), -EYE, 2 * EYE, ZERO + NAN, "x")),
    ),
    # The Bayes-optimal limit
    "mirage.theory.bayes_optimal.free_energy": case(
        channel=CHANNEL, overlap=(EYE / 2, no_overlap), alpha=(1.0, not_positive)
    ),
    "mirage.theory.bayes_optimal.exact_recovery": case(
        overlap=(EYE / 2, one_of(np.ones(2), np.ones((2, 3)), -EYE, 2 * EYE, ZERO + NAN, "x"))
    ),
    "mirage.theory.bayes_optimal.value_of": case(
        channel=CHANNEL, overlap=(EYE / 2, no_overlap), alpha=(1.0, not_positive)
    ),
    "mirage.theory.bayes_optimal.stationary_points": case(
        channel=CHANNEL, alpha=(1.0, not_positive)
    ),
    "mirage.theory.bayes_optimal.rays": case(rank=(2, below_1)),
    "mirage.theory.bayes_optimal.optimal": case(
        channel=CHANNEL, alphas=([1.0], no_alphas), tolerance=(1e-3, not_positive)
    ),
    # Exponents
    "mirage.theory.exponents.information_leaps": case(
        target=(Parity(), many_directions | random_labels)
    ),
    "mirage.theory.exponents.generative_leaps": case(
        lambda target: importlib.import_module("mirage.theory.exponents").generative_leaps(
            LabelTables(target)
        ),
        target=(Parity(), many_directions | random_labels | not_finite),
    ),
    "mirage.theory.exponents.polynomial_degree": case(target=(Parity(), random_labels)),
    # Spectra
    "mirage.theory.spectral.predict": case(law=LAW, alpha=([1.0], no_alphas)),
    "mirage.theory.spectral.bulk_density": case(
        law=LAW,
        alpha=(1.0, not_positive),
        x=(np.ones(4), no_vector),
        smoothing=(1e-3, not_positive),
    ),
    # Scaling laws
    "mirage.theory.scaling_laws.feature_overlaps": case(law=FEATURES, alpha=([1.0], no_alphas)),
    "mirage.theory.scaling_laws.optimal_thresholds": case(
        target=(Hierarchical(features=2), one_of(Parity())),
        count=(1, one_of(0, -1, 3, 0.5, NAN, "x", True)),
    ),
    "mirage.theory.scaling_laws.readout_risk": case(
        target=(Hierarchical(features=2), one_of(Parity())),
        overlap=(np.ones(2), one_of(1.0, "x", None, np.ones(3), array([2.0, 0]), array([-1.0, 0]))),
        degree=(4, below_0),
    ),
    "mirage.theory.scaling_laws.rate": case(gamma=(1.0, not_a_number | st.floats(max_value=0.5))),
    "mirage.theory.scaling_laws.local_slope": case(
        alpha=(array([1, 2, 3]), no_alphas | one_of(np.ones(1), np.ones(4))),
        error=(np.ones(3), one_of(1.0, "x", None, np.ones(2), array([1, NAN, 1]), -np.ones(3))),
    ),
    # Order parameters
    "mirage.theory.order_parameters.Dynamics": case(
        target=Parity(),
        loss=Mse(),
        activation=Tanh(),
        update=Gradient(step_size=1.0),
        readout=(np.ones(2), one_of(None, "x", 1.0, [1.0], EYE, array([]), array([NAN, 1]))),
        noise=(1.0, negative),
    ),
    "mirage.theory.order_parameters.rescaled": case(
        update=Gradient(step_size=1.0), dimension=(10, not_positive), batch_size=(1, below_1)
    ),
    "mirage.theory.order_parameters.averages": case(dynamics=DYNAMICS, rule=RULE, **ORDER),
    "mirage.theory.order_parameters.rates": case(dynamics=DYNAMICS, rule=RULE, **ORDER),
    "mirage.theory.order_parameters.normalised": case(
        overlap=(ZERO, one_of("x", None, 1.0, np.ones(2), np.ones((3, 5)))),
        gram=(EYE, no_square),
    ),
    "mirage.theory.order_parameters.trajectory": case(
        dynamics=DYNAMICS,
        **STATE,
        times=(array([1.0]), one_of([], [0.0], [2.0, 1.0], [NAN], [-1.0], "x", None, 1.0)),
        tolerance=(1e-6, not_positive),
        points=(2**12, below_1 | one_of(7)),
    ),
    "mirage.theory.order_parameters.escape_time": case(
        dynamics=DYNAMICS,
        **STATE,
        level=(0.5, not_inside),
        max_time=(1.0, not_positive),
        direction=(array([1, 0]), one_of("x", 1.0, np.ones(3), np.zeros(2), array([NAN, 0]))),
        tolerance=(1e-6, not_positive),
        points=(2**12, below_1 | one_of(7)),
    ),
    "mirage.theory.order_parameters.prepared": case(
        dynamics=DYNAMICS, **STATE, points=(2**12, below_1)
    ),
    "mirage.theory.full_batch.full_batch_step": case(
        dynamics=DYNAMICS,
        **STATE,
        alpha=(1.0, not_positive),
        points=(2**12, below_1),
    ),
    "mirage.figures.draw": case(
        dataset=(xr.Dataset(), one_of(xr.Dataset(), None, 3)), figure=("recovery", one_of("x", 3))
    ),
    # Lazy training and the giant step
    "mirage.theory.giant_step.slope_moments": case(
        target=(Parity(), random_labels | not_finite), loss=(Mse(), one_of(Optimal())), centred=True
    ),
    "mirage.theory.giant_step.overlap_law": case(
        moments=MOMENTS,
        activation=Tanh(),
        step=(1.0, not_a_number),
        **dict.fromkeys(("norm", "d", "n"), (1.0, not_positive)),
    ),
    "mirage.theory.lazy.kernel_series": case(
        activation=Tanh(), norm=(1.0, not_positive), bias_scale=(1.0, negative)
    ),
    "mirage.theory.lazy.sphere_spectrum": case(
        series=(np.ones(3), no_vector), total=(3.0, negative), d=(10, below_2)
    ),
    "mirage.theory.lazy.degree_variances": case(target=(PhaseRetrieval(), random_labels)),
    "mirage.theory.lazy.ridge_error": case(
        spectrum=SPECTRUM,
        variances=(np.ones(3), no_vector),
        n=(100, not_positive | one_of(1e300)),
        ridge=(0.1, not_positive | one_of(1e300)),
        width=(INF, one_of(0, -1.0, NAN, -INF, "x", None)),
        noise=(0.0, negative),
    ),
}

# What a message may name instead: the key of a config, the argument that another belongs to.
OTHERS = {
    "mirage.config.compose": KEYS,
    "mirage.config.composition.compose_config": ("dd", "config-dir", *KEYS),
    "mirage.config.build.build": KEYS,
    "mirage.config.build.build_all": KEYS,
    "mirage.config.build.build_options": KEYS,
}
EXCEPTIONS = {
    "results, which functions return and users read": [
        "mirage.algorithms.base.Trained",
        "mirage.channels.channel.Information",
        "mirage.channels.channel.Output",
        "mirage.channels.labels.LabelTable",
        "mirage.gaussian.Estimate",
        "mirage.measures.TargetIntegrals",
        "mirage.theory.bayes_optimal.Optimal",
        "mirage.theory.bayes_optimal.StationaryPoint",
        "mirage.theory.exponents.Leap",
        "mirage.theory.exponents.Seen",
        "mirage.theory.giant_step.OverlapLaw",
        "mirage.theory.giant_step.SlopeMoments",
        "mirage.theory.lazy.Spectrum",
        "mirage.theory.order_parameters.Averages",
        "mirage.theory.order_parameters.OrderParameters",
        "mirage.theory.order_parameters.Trajectory",
        "mirage.theory.spectral.Prediction",
        "mirage.theory.state_evolution.FixedPoint",
    ],
    "what is passed to an algorithm's `init` and `step`, made by `draw_problem` and designs": [
        "mirage.algorithms.base.Problem",
        "mirage.algorithms.loop.train",
        "mirage.designs.rows.Rows",
        "mirage.designs.windows.BlockOfRows",
        "mirage.designs.windows.Window",
    ],
    "abstract, or an error": [
        "mirage.channels.channel.Channel",
        "mirage.config.errors.ConfigError",
        "mirage.designs.base.Matrix",
        "mirage.targets.kernels.Likelihood",
    ],
    "no argument but what other functions here return, having checked theirs": [
        "mirage.theory.exponents.exponent",
        "mirage.theory.exponents.leap",
        "mirage.theory.order_parameters.as_arrays",
        "mirage.theory.scaling_laws.feature_thresholds",
        "mirage.theory.spectral.pooled_threshold",
        "mirage.theory.spectral.threshold",
        "mirage.theory.state_evolution.threshold",
    ],
    "no argument at all": ["mirage.measures.scalars"],
    "a decorator of a user's own function": ["mirage.figures.figure"],
    "parts of `draw`, and of what writes: an error of the file system as it is": [
        "mirage.figures.diagnosis.diagnosis",
        "mirage.figures.recovery.recovery",
        "mirage.figures.write",
    ],
}


@pytest.mark.parametrize(
    ("name", "argument"),
    [pytest.param(n, a, id=f"{n}-{a}") for n, entry in TABLE.items() for a in entry.wrong],
)
@settings(max_examples=12)
@given(data=st.data())
def test_a_function_names_the_argument_that_is_wrong(name, argument, data):
    entry = TABLE[name]
    arguments = {**entry.right, argument: data.draw(entry.wrong[argument])}
    arguments = {k: v() if isinstance(v, made) else v for k, v in arguments.items()}
    call = entry.call or PUBLIC[name]
    refuse(lambda: leaves(call(**arguments)), argument, *OTHERS.get(name, ()))


def leaves(result: Any) -> Any:
    """A result, all of it where it comes one by one."""
    return list(result) if inspect.isgenerator(result) else result


# Completeness


def documented() -> list[str]:
    """The modules whose docstrings the documentation shows."""
    text = (Path(__file__).parents[1] / "docs" / "site" / "generate.py").read_text()
    found = next(
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
    )
    return [module for modules in ast.literal_eval(found).values() for module in modules]


PACKAGES = ("mirage", "mirage.theory", "mirage.channels", "mirage.analysis", "mirage.figures")


def public() -> dict[str, Any]:
    """What a user may call, by the place it comes from."""
    found = {}
    for name in (*documented(), *PACKAGES, "mirage.gaussian"):
        module = importlib.import_module(name)
        own = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == name]
        for key in getattr(module, "__all__", own):
            thing = getattr(module, key)
            home = str(getattr(thing, "__module__", name))
            # No alias of a type, which has its home elsewhere.
            if callable(thing) and home.startswith("mirage") and not key.startswith("_"):
                found[f"{home}.{getattr(thing, '__qualname__', key)}"] = thing
    return found


PUBLIC = public()


def test_everything_public_is_in_the_table_or_excepted():
    options = {
        name
        for name, thing in PUBLIC.items()
        if inspect.isclass(thing) and issubclass(thing, Option)
    }
    excepted = [name for names in EXCEPTIONS.values() for name in names]
    assert set(PUBLIC) - options == {*TABLE, *excepted}
    assert len(excepted) == len(set(excepted))
    assert not set(excepted) & set(TABLE)
