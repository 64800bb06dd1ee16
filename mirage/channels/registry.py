"""Which channel serves a target."""

import functools
import re

import jax
import numpy as np

from mirage.channels.channel import Channel
from mirage.channels.line_level_set import line_level_set
from mirage.channels.plane_level_set import plane_level_set
from mirage.channels.quadrature import quadrature
from mirage.channels.signs import SignProduct
from mirage.channels.staircases import first_and_sign
from mirage.options import require
from mirage.targets import (
    Expression,
    FlippedParity,
    GrandStaircase,
    Kernel,
    NoisySign,
    Parity,
    PhaseRetrieval,
    Staircase,
    Target,
    evaluation,
)

# Points at which a formula is compared with what has a channel of its own.
POINTS = 4096


def channel_of(target: Target) -> Channel:
    """The channel of a target, kept for the last few; ValueError says why there is none."""
    # Channels look at values of the target, also where one is made inside a compiled function.
    with jax.ensure_compile_time_eval():
        try:
            return _kept(target)
        except TypeError:  # a target with arrays among its settings has no hash
            return make_channel(target)


@functools.lru_cache(maxsize=32)
def _kept(target: Target) -> Channel:
    return make_channel(target)


@functools.singledispatch
def make_channel(target: Target) -> Channel:
    """The channel of a target, chosen by its class.

    `@make_channel.register` above a function of a target of a user's own class gives it a channel.
    Without, it is served by what its formula is: a sign of a product in closed form, a smooth
    P(y|h) (label noise, or a `log_likelihood`) by a rule over h up to rank 3, and y = g(h) by its
    level sets up to rank 2. Raises ValueError where none of these serves.
    """
    one_law = "its labels have a law of their own for every seed; there is no channel for them"
    require(not target.draws, "target", target.name(), one_law)
    if isinstance(target, Kernel):
        return quadrature(target)
    found = _sign_of_product(target)
    if found is not None:
        return found
    if target.noise > 0 or target.rank > 2:
        return quadrature(target)
    return line_level_set(target) if target.rank == 1 else plane_level_set(target)


@make_channel.register
def _(target: Parity) -> Channel:
    accepted = "expected at most 3 where a channel is needed"
    require(target.k <= 3, "target.k", target.k, accepted)
    return SignProduct(target.k, noisy=target.noise > 0, noise=target.noise)


@make_channel.register
def _(target: FlippedParity) -> Channel:
    accepted = "expected at most 3 where a channel is needed"
    require(target.k <= 3, "target.k", target.k, accepted)
    return SignProduct(target.k, flip=target.flip)


@make_channel.register
def _(target: NoisySign) -> Channel:
    inner, noise = target.inner_noise, target.noise
    return SignProduct(1, noisy=noise > 0, noise=noise, inner_noise=inner)


@make_channel.register
def _(target: Staircase) -> Channel:
    return first_and_sign(PhaseRetrieval(power=2.0), noise=target.noise)


@make_channel.register
def _(target: GrandStaircase) -> Channel:
    return first_and_sign(Expression("He4(h1)"), noise=target.noise)


@make_channel.register
def _(target: Expression) -> Channel:
    found = _typed_staircase(target) if target.rank == 3 else None
    return make_channel.dispatch(Target)(target) if found is None else found


def _sign_of_product(target: Target) -> Channel | None:
    """The closed form, where the target is a multiple of sign(h1 ... hr) and r ≤ 3."""
    scale = _multiple_of_sign(target) if target.rank <= 3 else None
    if scale is None:
        return None
    noise = target.noise
    return SignProduct(target.rank, noisy=noise > 0, noise=noise, scale=scale)


def _multiple_of_sign(target: Target) -> float | None:
    h = np.random.default_rng(0).standard_normal((POINTS, target.rank))
    ratio = evaluation.values(target, h) * np.sign(h).prod(axis=1)
    constant = np.isfinite(ratio).all() and np.ptp(ratio) <= 1e-9 * abs(ratio[0])
    return float(ratio[0]) if constant and ratio[0] != 0 else None


def _typed_staircase(target: Expression) -> Channel | None:
    """The closed form for a formula f(h_i) + c sign(h1 h2 h3)."""
    terms = target.summands()
    scales = [_multiple_of_sign(Expression(text, rank=3)) for text, _ in terms]
    signs = [i for i, scale in enumerate(scales) if scale is not None]
    if len(signs) != 1:
        return None
    rest = [term for i, term in enumerate(terms) if i not in signs]
    names = {name for _, used in rest for name in used}
    if len(names) != 1:
        return None
    first = names.pop()
    place = {"h": 0, "h1": 0, "h2": 1, "h3": 2}[first]
    order = (place, *(i for i in range(3) if i != place))
    text = " + ".join(text for text, _ in rest)
    alone = Expression(re.sub(rf"\b{first}\b", "h1", text))
    scale = scales[signs[0]]
    assert scale is not None
    return first_and_sign(alone, scale=scale, order=order, noise=target.noise)
