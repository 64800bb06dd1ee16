"""One table of everything a config can name, for the tests that hold for all of them."""

import jax
import pytest

from mirage.activations import Activation
from mirage.algorithms import Algorithm, Amp, ThreeLayer
from mirage.designs import Design
from mirage.inputs import Gaussian, Inputs
from mirage.losses import Loss
from mirage.targets import Expression, Hermite, Hierarchical, Parity, PhaseRetrieval, Target, Tree


def _own(base):
    """The package's own options: a test's plugin must not leak into another's table."""
    return [c() for c in base.options().values() if c.__module__.startswith("mirage.")]


TARGETS = [
    # Of what has many features by default, few: what needs more tests itself.
    *(t for t in _own(Target) if t.name() not in ("hierarchical", "tree")),
    Hierarchical(features=3),
    Tree(width=3),  # a tree has a rank only where its width is known
    Hermite(terms=[[1.0, [3]], [0.5, [1]]], noise=0.3),
    Hermite(terms=[[0.7, [2, 1, 0]], [-1.0, [0, 0, 4]]]),
    Parity(k=3),
    Parity(k=1),
    PhaseRetrieval(power=1.0),
    Expression("h1**2 + sign(h1*h2*h3)"),
    Expression("maximum(h, h2) - 0.5*relu(h3)", noise=0.1),
    Expression("exp(-h**2)", rank=2),
]
# All but the one that is made for a target.
LOSSES = [loss for loss in _own(Loss) if loss.name() != "optimal"]
ACTIVATIONS = [*_own(Activation), Activation.options()["hermite"](degree=5)]
# Message passing moves r² columns a step, and stops when it has settled: a few steps are enough.
# A narrow second layer is as good as one of a hundred.
SMALLER = {
    "amp": Amp(steps=6, start_steps=4),
    "three_layer": ThreeLayer(second_width=12),
}
# What compiles longest, and does what others do too: among the slow tests.
_LATE = (*SMALLER, "linearised_amp", "full_batch_gd", "gd_and_power_iteration")


def _in_time(algorithm):
    smaller = SMALLER.get(algorithm.name(), algorithm)
    late = algorithm.name() in _LATE
    return pytest.param(smaller, marks=pytest.mark.slow) if late else smaller


ALGORITHMS = [_in_time(a) for a in _own(Algorithm) if not (a.one_pass or a.needs_rows)]
ONE_PASS = [a for a in _own(Algorithm) if a.one_pass]
DESIGNS = _own(Design)
# For what compiles long: the stored design at once, the others among the slow tests.
SLOW_BUT_DENSE = [
    design if design.name() == "dense" else pytest.param(design, marks=pytest.mark.slow)
    for design in DESIGNS
]
INPUTS = [c() for c in Inputs.options().values() if c.name() != "file"]


def target_for(algorithm) -> Target:
    """The default target, or one with a channel in closed form for those that want a channel."""
    return Parity() if hasattr(algorithm, "channel") else Hermite()


def samples() -> dict:
    """What a problem says of where its rows come from."""
    return {"inputs": Gaussian(), "inputs_key": jax.random.key(9)}


def label(option) -> str:
    """A readable test id."""
    return repr(option).replace(" ", "").replace("\n", "")[:60]
