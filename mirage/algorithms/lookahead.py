"""SGD that takes several steps with the same samples."""

import equinox as eqx

from mirage.algorithms.online_sgd import OnlineSgd


class Lookahead(OnlineSgd):
    """`OnlineSgd` that goes `repeats` steps γ̃ with every batch and keeps the share γ/γ̃ of the way
    (Zhang et al. 2019, arXiv 1907.08610). By default γ̃ = γ: plain repetition, every sample used
    twice.
    """

    update: str = eqx.field(static=True, default="lookahead")
