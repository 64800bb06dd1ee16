"""The channel of any target of few directions whose P(y|h) is smooth, by a rule over h."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage.channels.averages import (
    graded,
    line_averages,
    remaining,
    scattered_averages,
    symmetric_root,
)
from mirage.channels.channel import Channel, Information, Output
from mirage.gaussian import scattered
from mirage.options import require
from mirage.precision import double_precision
from mirage.small_matrices import cholesky, inverse_lower
from mirage.targets import Kernel, Likelihood, Target, evaluation

# By rank: the distance of neighbouring nodes, in units of the belief's width.
SPACING = {1: 0.01, 2: 0.12, 3: 0.3}
RADIUS = 5.5
# Of the lattice of nodes against the axes, where targets like to jump.
ANGLE = 0.55
# Numbers that go through the target at once: few enough to stay in a processor's cache.
BLOCK = 2**18
# By rank: points of the averages over ω, h and y where no product rule serves.
COUNT = {1: 2**14, 2: 2**13, 3: 2**13}
# Nodes of ω of the averages where labels can be listed.
NODES = 96
# By rank: a likelihood is resolved where its width is this many spacings of nodes; measured so
# that log P(y|ω) is right to 4e-3 for 95 % of labels, and to 2e-4 for half of them.
SHARPEST = {1: 1.0, 2: 0.7, 3: 0.7}
# No Δ is smaller than this, however flat g is.
SMALLEST_NOISE = 1e-4


@functools.cache
def ball(
    rank: int, spacing: float
) -> tuple[Float[np.ndarray, "nodes rank"], Float[np.ndarray, " nodes"]]:
    """The trapezoidal rule for E[f(z)], z ~ N(0, I): a cubic lattice in the ball |z| ≤ `RADIUS`.

    The lattice is turned, so that a jump on a plane h_i = 0 cuts its cells at all places instead
    of passing whole planes of nodes at once: the error is a tenth of that of a straight lattice.
    """
    reach = math.floor(RADIUS / spacing)
    line = spacing * np.arange(-reach, reach + 1)
    z = np.stack(np.meshgrid(*[line] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    z = z[(z**2).sum(axis=1) <= RADIUS**2]
    w = np.exp(-(z**2).sum(axis=1) / 2)
    return z @ _rotation(rank), w / w.sum()


def _rotation(rank: int, angle: float = ANGLE) -> Float[np.ndarray, "rank rank"]:
    """The product of rotations by an angle in the planes of all pairs of axes."""
    product = np.eye(rank)
    for i, j in itertools.combinations(range(rank), 2):
        turn = np.eye(rank)
        turn[[i, j], [i, j]] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        product = product @ turn
    return product


class Quadrature(Channel):
    """Any P(y|h) that is smooth in h: N(y; g(h), Δ), or the target's own `log_likelihood`.

    At nodes h_k = ω + L z_k, L Lᵀ = V, with z_k and w_k from `ball`:

        Z = Σ_k w_k P(y|h_k),   g_out = L⁻ᵀ E[z|y],   ∂g_out/∂ω = L⁻ᵀ (Cov[z|y] − I) L⁻¹,

    so that no ω is subtracted from a mean of h. The trapezoidal rule converges faster than any
    power of the spacing (Trefethen and Weideman, SIAM Review 56, 2014), once likelihoods are
    wider than it. Where g jumps the error is that of a cell: measured on parities with Δ = 0.5,
    in root mean square, log Z to 2e-3, 2e-3, 5e-3 at rank 1, 2, 3, the score to 0.2, 0.4, 2 %.
    `noise` is Δ, and that of the target is not read.
    """

    target: Target
    noise: Float[Array, ""] | float
    spacing: float = eqx.field(static=True)

    @property
    def rank(self):
        return self.target.rank

    def _rule(self, dtype):
        z, w = ball(self.rank, self.spacing)
        return jnp.asarray(z, dtype), jnp.asarray(w, dtype)

    def _mean(self, lines):
        """g at the nodes. In parts, since XLA fuses functions of few directions best."""
        total = jnp.zeros_like(lines[0])
        for part, active in self.target.parts():
            none = jnp.zeros((*total.shape, 0), total.dtype)
            total += part(jnp.stack([lines[i] for i in active], axis=-1) if active else none)
        return total

    def _log_likelihood(self, y, lines):
        if isinstance(self.target, Likelihood):
            return self.target.log_likelihood(y, jnp.stack(lines, axis=-1))
        noise = jnp.asarray(self.noise, y.dtype)
        return -((y - self._mean(lines)) ** 2) / (2 * noise) - 0.5 * jnp.log(2 * math.pi * noise)

    def _each(self, function, *arrays):
        """A function of (k,) arrays at every point of the batch behind (k, *batch) arrays."""
        batch = arrays[0].shape[1:]
        rows = tuple(a.reshape(len(a), -1).T for a in arrays)
        nodes = len(ball(self.rank, self.spacing)[0])
        size = min(max(1, BLOCK // nodes), len(rows[0]))
        # The values at the nodes are too many to keep for a derivative.
        kept = jax.checkpoint(lambda row: function(*row), prevent_cse=False)
        result = jax.lax.map(kept, rows, batch_size=size)
        return jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1).reshape(*a.shape[1:], *batch), result)

    def output(self, prepared, omega, covariance):
        r = self.rank
        z, w = self._rule(omega.dtype)
        root = cholesky(covariance)
        inverse_root = inverse_lower(root)
        steps, x = (
            _product(root, z.T),
            _product(z, inverse_root),
        )  # h − ω and V⁻¹(h − ω) at the nodes
        square = x[:, :, None] * x[:, None, :] - _product(inverse_root.T, inverse_root)[None]
        features = w[:, None] * jnp.concatenate([x, square.reshape(-1, r * r)], axis=1)

        def one(y, omega):
            log_likelihood = self._log_likelihood(y, _lines(omega, steps))
            top = jax.lax.stop_gradient(log_likelihood.max())
            likelihood = jnp.exp(log_likelihood - top)
            evidence = _product(likelihood, w)
            # The means of the features without a label are zero: less to round in narrow beliefs.
            moments = _product(likelihood / evidence - 1, features)
            score = moments[:r]
            curvature = moments[r:].reshape(r, r) - score[:, None] * score[None]
            return Output(top + jnp.log(evidence), score, curvature)

        return self._each(one, prepared, omega)

    def predict(self, omega, covariance):
        z, w = self._rule(omega.dtype)
        steps = _product(cholesky(covariance), z.T)
        return self._each(lambda omega: _product(self._mean(_lines(omega, steps)), w), omega)

    def information(self, overlap):
        values = self.target.label_values() if isinstance(self.target, Kernel) else None
        if values is not None:
            return self._summed(overlap, jnp.asarray(values, overlap.dtype))
        if isinstance(self.target, Likelihood):
            return scattered_averages(self, overlap, self._drawn, count=COUNT[self.rank])
        if self.rank == 1:
            return line_averages(self, overlap, self._shifted, extra=1)
        return scattered_averages(self, overlap, self._shifted, extra=1, count=COUNT[self.rank])

    def _shifted(self, h, u):
        g = self.target(jnp.moveaxis(h, 0, -1))
        return g + jnp.sqrt(jnp.asarray(self.noise, h.dtype)) * u[0]

    def _drawn(self, h, u):
        return self.target.draw(jax.random.key(0), jnp.moveaxis(h, 0, -1))

    def _summed(self, overlap, values):
        """The averages by a rule over ω and a sum over all labels."""
        v = remaining(overlap)
        if self.rank == 1:
            x, weights = graded(NODES, jnp.sqrt(v[0, 0]))
            x = x[None]
        else:
            x, weights = scattered(self.rank, COUNT[self.rank], seed=0)
            x, weights = jnp.asarray(x.T, v.dtype), jnp.asarray(weights, v.dtype)
        omega = symmetric_root(overlap) @ x
        shape = (len(values), len(weights))
        out = self(
            jnp.broadcast_to(values[:, None], shape),
            jnp.broadcast_to(omega[:, None], (self.rank, *shape)),
            v,
        )
        mass = weights[None] * jnp.exp(out.log_evidence)
        return Information(
            jnp.einsum("yx,iyx,jyx->ij", mass, out.score, out.score),
            (mass * out.log_evidence).sum(),
            weights @ self.predict(omega, v) ** 2,
        )


def _product(a, b):
    """A matrix product in full precision: accelerators round its factors to ten bits otherwise."""
    return jnp.matmul(a, b, precision="highest")


def _lines(omega, steps):
    """h at the nodes, a list of lines: a matrix of them would be read r times as slowly."""
    return [o + line for o, line in zip(omega, steps, strict=True)]


def smallest_noise(target: Target) -> float:
    """The smallest Δ that the nodes resolve at V = I: E‖∇g‖² · (`SHARPEST` · spacing)²."""
    h, w = _typical(target)
    square = (evaluation.gradients(target, h) ** 2).sum(axis=1)
    finite = np.isfinite(square)
    mean = float(w[finite] @ square[finite] / w[finite].sum())
    return max(mean * _resolved_width(target.rank) ** 2, SMALLEST_NOISE)


def _typical(target: Target) -> tuple[Float[np.ndarray, "count r"], Float[np.ndarray, " count"]]:
    return scattered(target.rank, 2**10, seed=0)


def _resolved_width(rank: int) -> float:
    return SHARPEST[rank] * SPACING[rank]


def _sharpness(target: Target, likelihood: Likelihood) -> float:
    """E‖∂ log P(y|h)/∂h‖²."""
    h, w = _typical(target)
    y = evaluation.labels(target, h, seed=0)
    with double_precision():
        gradient = jax.jit(jax.vmap(jax.grad(likelihood.log_likelihood, argnums=1)))
        square = np.asarray(gradient(y, h)) ** 2
        return float(w @ square.sum(axis=1))


def quadrature(target: Target) -> Quadrature:
    """The channel of a target, for any of rank up to 3 whose P(y|h) the nodes resolve.

    ValueError for a target of more directions, with a Δ below `smallest_noise`, or whose
    `log_likelihood` is as sharp as that.
    """
    name, rank = target.name(), target.rank
    if rank not in SPACING:
        raise ValueError(
            f"target={name}: rank {rank}; the quadrature channel goes up to rank {max(SPACING)}"
        )
    if isinstance(target, Likelihood):
        sharpness = _sharpness(target, target)
        most = _resolved_width(rank) ** -2
        if sharpness > most:
            raise ValueError(
                f"target={name}: P(y|h) is too sharp in h for the quadrature channel; expected "
                f"E‖∂ log P(y|h)/∂h‖² of at most {most:.2g}, "
                f"got {sharpness:.2g}"
            )
    elif isinstance(target, Kernel):
        raise ValueError(
            f"target={name}: the quadrature channel needs log P(y|h) as a smooth function of h; "
            "expected a target with log_likelihood"
        )
    else:
        smallest = smallest_noise(target)
        require(
            target.noise >= smallest,
            "target.noise",
            target.noise,
            f"too little for the quadrature channel, and target={name} has no noiseless channel "
            f"of its own; expected target.noise of at least {_rounded_up(smallest)}",
        )
    return Quadrature(target, target.noise, SPACING[rank])


def _rounded_up(number: float) -> float:
    """The number to two digits, and no less than it."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit * (1 - 1e-12)) * unit:.2g}")
