"""The channel of a noiseless target with two directions: integrals over {h : g(h) = y}.

The level set is a curve, met by two families of parallel lines.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mirage.channels.averages import in_blocks, normal_rule
from mirage.channels.channel import Channel, Information, Output
from mirage.channels.curve_averages import curve_averages
from mirage.channels.level_curves import level_curves
from mirage.channels.line_level_set import LABELS, check_noiseless
from mirage.small_matrices import cholesky, inverse_lower
from mirage.targets import Target, evaluation

# In units of the belief: PLANE_NODES lines each way, from −PLANE_END to PLANE_END, and at most
# ROOTS points of a line.
PLANE_END = 5.0
PLANE_NODES = 81
ROOTS = 4
# Powers of ∂_i g in the weights of the two families.
POWER = 2
PLANE_PREDICT = 65


class PlaneLevelSet(Channel):
    """y = g(h) with two directions: Z = ∫ N(h; ω, V)/‖∇g‖ over {g = y}, by two families of lines.

    With h = ω + L z, L Lᵀ = V, lines z_j = const meet the curve in points z, found by bisection
    between fixed nodes and polished. With t_i = (∂_i g)²/‖∇g‖², derivatives in z, a point on a
    line along z_i has the weight

        φ(z_1) φ(z_2) · spacing/|∂_i g| · t_i^p/(t_1^p + t_2^p),  p = 2:

    shares of the two families that add up to one, and vanish where lines touch the curve.
    Jumps of g are no points of the curve.

    Lines are 0.125 apart in z, and of each at most four points are kept. Errors of E[z|y] are
    1e-4 where the curve is smooth on that scale, 1e-2 where it turns within it. A closed curve that
    no line meets counts as a point; where the curve lies beyond |z| = 5, g is taken as linear at a
    point of it, found by steps along ∇g from the nearest node.

    `information` does without `output`: it follows the curves of some 60 labels once
    (`level_curves`) and sums along them (`curve_averages`).
    """

    target: Target

    @property
    def rank(self):
        return 2

    def output(self, prepared, omega, covariance):
        root = _belief_root(covariance)
        y = prepared[0]

        def one(sample):
            label, centre = sample
            return _on_curve(self.target, label, centre, root)

        samples = (y.ravel(), omega.reshape(2, -1).T)
        log_z, mean, second = in_blocks(one, samples, floats=4 * PLANE_NODES**2)
        inverse = inverse_lower(root)
        covariances = second - mean[:, :, None] * mean[:, None]
        eye = jnp.eye(2, dtype=y.dtype)[None]
        score = inverse.T @ mean.T
        curvature = jnp.einsum("ki,nkl,lj->ijn", inverse, covariances - eye, inverse)
        return Output(
            log_z.reshape(y.shape),
            score.reshape(omega.shape),
            curvature.reshape(2, 2, *y.shape),
        )

    def predict(self, omega, covariance):
        root = _belief_root(covariance)
        u, weights = normal_rule(PLANE_PREDICT, 6.0, omega.dtype)
        z = jnp.stack(jnp.meshgrid(u, u, indexing="ij"), axis=-1) @ root.T

        def at(centre):
            return weights @ self.target(centre[None, None] + z) @ weights

        flat = in_blocks(at, omega.reshape(2, -1).T, floats=4 * PLANE_PREDICT**2)
        return flat.reshape(omega.shape[1:])

    def information(self, overlap):
        score, log_evidence = curve_averages(level_curves(self.target), overlap)
        return Information(score, log_evidence, self._square(overlap))

    def _square(self, overlap):
        """E[E[y|ω]²] = Σ_jk q_1^j q_2^k c_jk², c the Hermite coefficients in eigenvectors of Q."""
        dtype = overlap.dtype
        x, transform = _hermite_transform()
        first, second, both = overlap[0, 0], overlap[1, 1], overlap[0, 1]
        angle = jax.lax.stop_gradient(jnp.arctan2(2 * both, first - second) / 2)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        turn = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
        grid = jnp.asarray(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1), dtype)
        transform = jnp.asarray(transform, dtype)
        coefficients = transform @ self.target(grid @ turn) @ transform.T
        q = jnp.clip(jnp.diag(turn @ overlap @ turn.T), 0, 1)
        powers = q[:, None] ** jnp.arange(len(x), dtype=dtype)[None]
        return powers[0] @ coefficients**2 @ powers[1]


@functools.cache
def _hermite_transform() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite points (n,), and (n, n) that takes values there to normalised coefficients."""
    x, weights = np.polynomial.hermite_e.hermegauss(PLANE_PREDICT)
    rows = [np.ones_like(x), x]
    for k in range(1, PLANE_PREDICT - 1):
        rows.append((x * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1))
    return x, np.stack(rows) * (weights / weights.sum())


def _belief_root(covariance: Float[Array, "2 2"]) -> Float[Array, "2 2"]:
    """L with L Lᵀ = V; V may be singular up to rounding."""
    eye = jnp.eye(2, dtype=covariance.dtype)
    return cholesky(covariance + 4 * jnp.finfo(covariance.dtype).eps * jnp.trace(covariance) * eye)


def _log_normal(z: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
    return -(z**2).sum(axis=-1) / 2 - math.log(2 * math.pi)


def _on_curve(target, y, omega, root):
    """log Z, E[z] (2,) and E[z zᵀ] (2, 2) of one label, for h = ω + L z."""
    dtype = y.dtype
    nodes = jnp.linspace(-PLANE_END, PLANE_END, PLANE_NODES, dtype=dtype)

    def excess(z):  # (*shape, 2) to (*shape)
        h1 = omega[0] + root[0, 0] * z[..., 0]
        h2 = omega[1] + root[1, 0] * z[..., 0] + root[1, 1] * z[..., 1]
        return target(jnp.stack([h1, h2], axis=-1)) - y

    def slopes(z):
        return jax.grad(lambda z: excess(z).sum())(z)

    grid = jnp.stack(jnp.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    values = jax.lax.stop_gradient(excess(grid))
    crossings = jax.vmap(functools.partial(_crossings, excess, slopes, nodes))
    z, log_w = crossings(jnp.stack([values, values.T]), jnp.array([False, True]))
    z, log_w = z.reshape(-1, 2), log_w.ravel()
    found = jnp.isfinite(log_w).any()
    single_z, single_w, single_second = _nearest(excess, slopes, values, grid)
    top = jnp.where(found, jax.lax.stop_gradient(log_w).max(), 0)
    weights = jnp.exp(log_w - top)
    total = jnp.where(found, weights.sum(), 1)
    share = weights / total
    mean = share @ z
    second = (share[:, None] * z).T @ z
    return (
        jnp.where(found, top + jnp.log(total), single_w),
        jnp.where(found, mean, single_z),
        jnp.where(found, second, single_second),
    )


def _crossings(excess, slopes, nodes, f, second):
    """Points of {excess = 0} on the lines along z_1, or z_2 where `second`; their log weights.

    `f` are the values on the grid, those of a line in a column.
    """
    change = (f[:-1] < 0) != (f[1:] < 0)
    change &= jnp.isfinite(f[:-1]) & jnp.isfinite(f[1:])
    cell, present = _first_true(change, ROOTS)

    def at(x):  # points with z_along = x
        z = jnp.stack([x, jnp.broadcast_to(nodes[None], x.shape)], axis=-1)
        return jnp.where(second, z[..., ::-1], z)

    def own(pair):  # of what is along z_1 and along z_2
        return jnp.where(second, pair[..., 1], pair[..., 0])

    start = jnp.take_along_axis(f, cell, axis=0)
    whole = jnp.abs(jnp.take_along_axis(f, cell + 1, axis=0) - start)
    is_low = start < 0
    low, high = nodes[cell], nodes[cell + 1]

    def halve(_, state):
        low, high, at_low, at_high = state
        middle = (low + high) / 2
        value = excess(at(middle))
        go_up = (value < 0) == is_low
        return (
            jnp.where(go_up, middle, low),
            jnp.where(go_up, high, middle),
            jnp.where(go_up, value, at_low),
            jnp.where(go_up, at_high, value),
        )

    state = (low, high, start, jnp.take_along_axis(f, cell + 1, axis=0))
    state = jax.lax.stop_gradient(jax.lax.fori_loop(0, 6, halve, state))
    low, high, at_low, at_high = state
    present &= jnp.abs(at_high - at_low) < whole / 4  # else a jump
    x = low - at_low * (high - low) / jnp.where(at_high == at_low, 1, at_high - at_low)
    smallest = jnp.finfo(x.dtype).tiny ** 0.5
    slope = jax.lax.stop_gradient(own(slopes(at(x))))
    slope = jnp.where(jnp.abs(slope) > smallest, slope, 1)
    # Newton's step also carries the derivatives of the point in ω, V and y.
    x = x - excess(at(x)) / slope
    x = x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)
    z = at(x)
    gradient = slopes(z)
    square = (gradient**2).sum(axis=-1) + smallest
    t = jnp.clip(own(gradient) ** 2 / square, 1e-12, 1)
    log_w = (POWER - 0.5) * jnp.log(t) - jnp.log(t**POWER + (1 - t) ** POWER)
    log_w += _log_normal(z) - jnp.log(square) / 2 + jnp.log(nodes[1] - nodes[0])
    log_w = jnp.where(present, log_w, -jnp.inf)
    return z, log_w


def _first_true(mask: Array, count: int) -> tuple[Int[Array, "count lines"], Array]:
    """The indices of the first `count` Trues along axis 0, and whether there are that many.

    In words of 32 bits, whose lowest bits are taken off: a search for each would cost more than
    all the rest of a channel.
    """
    length, lines = mask.shape
    words = math.ceil(length / 32)
    mask = jnp.pad(mask, ((0, 32 * words - length), (0, 0))).reshape(words, 32, lines)
    bits = jnp.left_shift(jnp.uint32(1), jnp.arange(32, dtype=jnp.uint32))
    left = jnp.where(mask, bits[None, :, None], 0).sum(axis=1, dtype=jnp.uint32)
    places, present = [], []
    for _ in range(count):
        word = jnp.argmax(left != 0, axis=0).astype(jnp.int32)
        value = jnp.take_along_axis(left, word[None], axis=0)[0]
        lowest = value & (~value + 1)
        bit = jax.lax.population_count(lowest - 1).astype(jnp.int32)
        places.append(jnp.minimum(32 * word + bit, length - 1))
        present.append(value != 0)
        here = jnp.arange(words, dtype=jnp.int32)[:, None] == word[None]
        left = jnp.where(here, left ^ lowest[None], left)
    return jnp.stack(places), jnp.stack(present)


def _nearest(excess, slopes, values, grid):
    """The point that stands for a curve which the lines miss: z, log weight, E[z zᵀ].

    Inside the grid the curve is small and the point is all of it. Outside it is as good as a line,
    n·z = c with n along ∇g: E[z] = c n, and I − n nᵀ is the covariance.
    """
    distance = jnp.where(jnp.isfinite(values), jnp.abs(values), jnp.inf)
    z = grid.reshape(-1, 2)[jnp.argmin(distance)]

    def step(_, z):
        gradient = slopes(z)
        square = (gradient**2).sum()
        move = -excess(z) * gradient / jnp.where(square > 0, square, 1)
        # Not farther than |z|: near an extremum a whole step would lead anywhere.
        far = jnp.maximum((z**2).sum(), 1) / jnp.maximum((move**2).sum(), 1e-12)
        new = z + move * jnp.minimum(1, jnp.sqrt(far))
        return jnp.where(jnp.abs(excess(new)) < jnp.abs(excess(z)), new, z)

    z = jax.lax.stop_gradient(jax.lax.fori_loop(0, 16, step, z))
    gradient = slopes(z)
    norm = jnp.sqrt((gradient**2).sum() + jnp.finfo(z.dtype).tiny ** 0.5)
    n = gradient / norm
    inside = jnp.abs(z).max() < PLANE_END - 0.25
    c = n @ z
    mean = jnp.where(inside, z, c * n)
    spread = jnp.where(inside, 0, 1).astype(z.dtype)
    eye = jnp.eye(2, dtype=z.dtype)
    second = jnp.outer(mean, mean) + spread * (eye - jnp.outer(n, n))
    log_w = jnp.where(inside, _log_normal(z), -(c**2) / 2 - math.log(2 * math.pi) / 2)
    return mean, log_w - jnp.log(norm), second


def plane_level_set(target: Target) -> PlaneLevelSet:
    """The channel of a noiseless target of rank 2 whose labels do not repeat.

    Raises ValueError for another rank, for labels that are random given h, and for labels that
    repeat.
    """
    check_noiseless(target, rank=2)
    h = np.random.default_rng(0).standard_normal((LABELS, 2))
    y = evaluation.labels(target, h, seed=0)
    if len(np.unique(y)) < len(y):
        raise ValueError(
            f"target={target.name()}: labels that repeat, noiseless, at rank 2 have no channel; "
            "expected target.noise > 0"
        )
    return PlaneLevelSet(target)
