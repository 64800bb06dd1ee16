"""Which channel serves a target."""

import functools

from mirage.channels.channel import Channel
from mirage.channels.signs import SignProduct
from mirage.targets import Parity, Target


@functools.singledispatch
def make_channel(target: Target) -> Channel:
    """The channel of a target, by its class; ValueError says why there is none.

    A class of a user's own is registered with `@make_channel.register` above a function of the
    target; without, it is served by its formula alone.
    """
    raise NotImplementedError


def channel_of(target: Target) -> Channel:
    """The channel of a target, kept for the last few; errors as for `make_channel`."""
    try:
        return _kept(target)
    except TypeError:  # a target with arrays among its settings has no hash
        return make_channel(target)


@functools.lru_cache(maxsize=32)
def _kept(target: Target) -> Channel:
    return make_channel(target)


@make_channel.register
def _(target: Parity) -> Channel:
    return SignProduct(target.k, noisy=target.noise > 0, noise=target.noise)
