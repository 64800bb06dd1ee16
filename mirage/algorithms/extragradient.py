"""SGD that takes the gradient after a trial step on the same samples."""

import equinox as eqx

from mirage.algorithms.online_sgd import OnlineSgd


class Extragradient(OnlineSgd):
    """`OnlineSgd` with W ← W − γ ∇L(W − γ̃ ∇L(W)) on every batch; γ̃ < 0 is sharpness-aware
    minimisation (Arnaboldi et al. 2024, arXiv 2405.15459).

    γ̃ = `inner_step_size` · d^(−`inner_exponent`), of order 1/d for single samples.
    """

    update: str = eqx.field(static=True, default="extragradient")
    inner_step_size: float | None = 0.1
