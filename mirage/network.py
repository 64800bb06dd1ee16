"""The two-layer network f(x) = Σ_j a_j σ(w_j·x + b_j)."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.activations import Activation
from mirage.arguments import shaped
from mirage.options import Option
from mirage.wishart import wishart_root

STARTS = ("random", "aligned", "orthogonal")
OUTPUTS = ("signs", "ones", "alternating")


class Network(Option, abc.ABC):
    """Base of the networks a config can name."""

    group: ClassVar[str] = "network"


class TwoLayer(Network):
    """`width` neurons of norm `initial_norm` and, if `symmetric`, in pairs that cancel: f ≡ 0.

    Start (Algorithm 1 of arXiv 2511.15120): a_j = ±1, w_j uniform on the sphere of radius
    `initial_norm` (ε0), b = 0. With `symmetric`, neuron j + width/2 has the same w and the
    opposite a. Between the stages the biases are drawn afresh, N(0, `bias_scale`²).

    `start` is `random`; `aligned`, the same with signs such that w_j·u_1 ≥ 0; or `orthogonal`,
    neurons at right angles to each other and to U. `output` says what a_j is, times
    `output_scale`: `signs`, ±1 at random; `ones`; or `alternating`, 1, −1, 1, ... Where there is
    no second stage biases are N(0, `initial_bias_scale`²) from the start.
    """

    width: int = eqx.field(static=True, default=4)
    initial_norm: float = 1e-3
    symmetric: bool = eqx.field(static=True, default=True)
    bias_scale: float = 1.0
    start: str = eqx.field(static=True, default="random")
    output: str = eqx.field(static=True, default="signs")
    output_scale: float = 1.0
    initial_bias_scale: float = 0.0

    def __check_init__(self):
        self.check("width", self.width >= 1, "expected a whole number ≥ 1")
        self.check(
            "width",
            not self.symmetric or self.width % 2 == 0,
            "the symmetric start pairs neurons, so it needs an even width "
            "(or network.symmetric=false)",
        )
        self.check("initial_norm", self.initial_norm > 0, "expected a norm > 0")
        for key in ("bias_scale", "initial_bias_scale"):
            self.check(key, getattr(self, key) >= 0, "expected a scale ≥ 0")
        self.check("start", self.start in STARTS, f"expected one of {', '.join(STARTS)}")
        self.check("output", self.output in OUTPUTS, f"expected one of {', '.join(OUTPUTS)}")

    @property
    def _drawn(self) -> int:
        """Neurons that are drawn: half of them where they come in pairs."""
        return self.width // 2 if self.symmetric else self.width

    def init(
        self, key: Key[Array, ""], directions: Float[Array, "r d"]
    ) -> tuple[Float[Array, " m"], Float[Array, "m d"]]:
        """Output weights a and first-layer weights W at the start."""
        key_w, key_a = jax.random.split(key)
        m, (r, d) = self._drawn, directions.shape
        w = jax.random.normal(key_w, (m, d), jnp.float32)
        if self.start == "orthogonal":
            basis = lapack.qr(jnp.concatenate([directions, w]).T)[0].T
            w = basis[r:]
        unit = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        if self.start == "aligned":
            unit = jnp.where(unit @ directions[:1].T < 0, -unit, unit)
        # The barrier keeps its rounding whatever it is compiled with.
        w = self.initial_norm * jax.lax.optimization_barrier(unit)
        a = self._signs(key_a, m)
        if self.symmetric:
            return jnp.concatenate([a, -a]), jnp.concatenate([w, w])
        return a, w

    def init_order_parameters(
        self, key: Key[Array, ""], *, rank: int, d: int
    ) -> tuple[Float[Array, " m"], Float[Array, "m r"], Float[Array, "m m"]]:
        """a, M = W Uᵀ and Q = W Wᵀ at the start, in law those of `init`; no W is drawn."""
        key_m, key_q, key_a = jax.random.split(key, 3)
        m = self._drawn
        if self.start == "orthogonal":
            overlap, root = jnp.zeros((m, rank)), jnp.eye(m)
        else:
            overlap = jax.random.normal(key_m, (m, rank), jnp.float32)
            root = wishart_root(key_q, size=m, freedom=d - rank, count=1)[0]
        both = jnp.concatenate([overlap, root], axis=1)
        both = both / jnp.linalg.norm(both, axis=1, keepdims=True)
        if self.start == "aligned":
            both = jnp.where(both[:, :1] < 0, -both, both)
        both = self.initial_norm * both
        a = self._signs(key_a, m)
        if self.symmetric:
            a, both = jnp.concatenate([a, -a]), jnp.concatenate([both, both])
        return a, both[:, :rank], both @ both.T

    def _signs(self, key: Key[Array, ""], m: int) -> Float[Array, " m"]:
        if self.output == "signs":
            return self.output_scale * jax.random.rademacher(key, (m,), jnp.float32)
        signs = jnp.ones((m,), jnp.float32)
        if self.output == "alternating":
            signs = signs.at[1::2].set(-1.0)
        return self.output_scale * signs

    def init_biases(self, key: Key[Array, ""]) -> Float[Array, " m"]:
        """The biases at the start; those of a pair are the same."""
        drawn = jax.random.normal(jax.random.fold_in(key, 1), (self._drawn,), jnp.float32)
        return self.initial_bias_scale * jnp.tile(drawn, 2 if self.symmetric else 1)

    def draw_biases(self, key: Key[Array, ""]) -> Float[Array, " m"]:
        """The biases of the second stage."""
        return self.bias_scale * jax.random.normal(key, (self.width,), jnp.float32)


def output(
    activation: Activation, a: Float[Array, " m"], z: Float[Array, "m rows"]
) -> Float[Array, " rows"]:
    """f = Σ_j a_j σ(z_j) for pre-activations z_j = w_j·x + b_j; ValueError for other shapes."""
    shaped((None,), a=a)
    shaped((len(a), None), z=z)
    return a @ activation(z)
