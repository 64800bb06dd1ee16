"""The order parameters M = W Uᵀ and Q = W Wᵀ of SGD on a first layer, for d → ∞.

The network f(x) = Σ_j a_j σ(w_j·x) has its readout a frozen. A batch of B samples moves its first
layer by W ← W − C X (`mirage.updates`). Step sizes are of order B/d: γ = γ0 B/d and γ̃ = γ̃0 B/d.
Then every sample moves W by C/d with C that of one sample alone, with step sizes γ0, γ̃0, and with
the Gram matrix ‖x‖²/d → 1; the others of its batch do not matter while B ≪ d. With τ the number of
samples seen so far over d,

    dM/dτ = −E[C hᵀ],    dQ/dτ = −E[C zᵀ + z Cᵀ] + ν E[C Cᵀ],    ν = 1

(Saad and Solla 1995, Phys. Rev. E 52, 4225; Goldt et al. 2019, arXiv 1906.08632; C of
extra-gradient: Arnaboldi et al. 2024, arXiv 2405.15459). Spherical SGD, w ← normalise(w − C x_⊥)
with x_⊥ = x − (w·x) w and ‖w‖ = 1, takes from w_j what lies along it and what its norm would gain,

    ρ_j = E[C_j z_j] − ν/2 E[C_j²],    dM_jk/dτ += ρ_j M_jk,    dQ_jl/dτ += (ρ_j + ρ_l) Q_jl,

so that dQ_jj = 0 (one neuron: ṁ = −E[C (h − m z)] − ½ E[C²] m; Ben Arous et al. 2021, arXiv
2003.10409). Where γ ≪ B/d, γ0 is small and ν E[C Cᵀ] negligible: its limit is γ0 = 1 and ν = 0,
with time counted in γ d/B · samples/d.
"""

import math
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from mirage.activations import Activation
from mirage.arguments import as_array, cosine, non_negative, positive, shaped, whole
from mirage.losses import Loss
from mirage.network import output
from mirage.options import Number, require
from mirage.precision import double_precision
from mirage.targets import Target
from mirage.theory.joint_quadrature import POINTS, Rule, rule
from mirage.updates import Update

# Q has diverged when an entry is this many times its trace at the start (or 1 if that is less).
LARGEST = 1e8
# Absolute tolerances are this share of the relative ones; a shorter step than this is divergence.
ABSOLUTE, SHORTEST, MAX_STEPS = 1e-3, 1e-12, 2**12
# A cosine this close to its level has reached it.
REACHED = 1e-6
# How far Q − M Mᵀ may be from positive semi-definite, and norms on the sphere from 1.
ROUNDING = 1e-6


class Dynamics(eqx.Module):
    """A first layer that learns a target: what is descended and how.

    `readout` is a (m,). The step sizes of `update` are those in units of B/d (`rescaled`).
    `spherical` keeps the rows of W on the unit sphere. `noise` is ν, the factor of E[C Cᵀ]:
    1, or 0 for γ ≪ B/d. ValueError where `readout` is no vector of numbers or `noise` is negative.
    """

    target: Target
    loss: Loss
    activation: Activation
    readout: Float[Array | np.ndarray, " m"]
    update: Update
    spherical: bool = eqx.field(static=True, default=False)
    noise: Number = 1.0

    def __check_init__(self):
        a = self.readout
        array = isinstance(a, np.ndarray | jax.Array) and a.ndim == 1 and len(a) > 0
        require(array, "readout", a, "expected one number a neuron")
        if isinstance(a, np.ndarray):
            require(bool(np.isfinite(a).all()), "readout", a, "expected finite numbers")
        non_negative(noise=self.noise)

    def coefficients(
        self, z: Float[Array, "m points"], y: Float[Array, " points"]
    ) -> Float[Array, "m points"]:
        """C of every single sample."""
        a = jnp.asarray(self.readout, z.dtype)

        def one(z, y):
            def score(z):
                slope = self.loss.slope(output(self.activation, a, z), y[None])
                return a[:, None] * self.activation.derivative(z) * slope[None]

            return self.update.coefficients(score, z[:, None], jnp.ones((1, 1), z.dtype))[:, 0]

        return jax.vmap(one, in_axes=-1, out_axes=-1)(z, y)


def rescaled(update: Update, *, dimension: float, batch_size: int = 1) -> Update:
    """An update of a simulation with the same step sizes in units of B/d: γ ↦ γ d/B.

    ValueError for a dimension ≤ 0 or a batch of no sample.
    """
    positive(dimension=dimension)
    whole(1, batch_size=batch_size)
    return jax.tree.map(lambda step_size: step_size * dimension / batch_size, update)


class Averages(NamedTuple):
    """E[C hᵀ], E[C zᵀ] and E[C Cᵀ]."""

    signal: Float[Array, "m r"]
    drift: Float[Array, "m m"]
    square: Float[Array, "m m"]


class OrderParameters(NamedTuple):
    """M = W Uᵀ and Q = W Wᵀ, or their rates."""

    overlap: Float[Array | np.ndarray, "*batch m r"]
    gram: Float[Array | np.ndarray, "*batch m m"]


def averages(
    dynamics: Dynamics, rule: Rule, overlap: Float[Array, "m r"], gram: Float[Array, "m m"]
) -> Averages:
    """The three averages by a rule of `mirage.theory.joint_quadrature`; float64 and traceable.

    ValueError for M and Q of another shape than (m, r) and (m, m).
    """
    m, r = len(dynamics.readout), dynamics.target.rank
    shaped((m, r), overlap=overlap)
    shaped((m, m), gram=gram)
    at = rule(overlap, gram)
    c = dynamics.coefficients(at.z, at.y)
    weighted = c * at.weights[None]
    return Averages(weighted @ at.h.T, weighted @ at.z.T, weighted @ c.T)


def rates(
    dynamics: Dynamics, rule: Rule, overlap: Float[Array, "m r"], gram: Float[Array, "m m"]
) -> OrderParameters:
    """dM/dτ and dQ/dτ: differentiable; call inside `double_precision()`.

    On the sphere they are those of normalised rows: an error in a norm would grow otherwise.
    ValueError as `averages`.
    """
    if dynamics.spherical:
        overlap, gram = normalised(overlap, gram)
    signal, drift, square = averages(dynamics, rule, overlap, gram)
    square = jnp.asarray(dynamics.noise, square.dtype) * square
    d_overlap, d_gram = -signal, square - drift - drift.T
    if dynamics.spherical:
        radial = jnp.diag(drift) - jnp.diag(square) / 2
        d_overlap += radial[:, None] * overlap
        d_gram += (radial[:, None] + radial[None]) * gram
    return OrderParameters(d_overlap, d_gram)


def normalised(
    overlap: Float[Array, "m r"], gram: Float[Array, "m m"]
) -> tuple[Float[Array, "m r"], Float[Array, "m m"]]:
    """M and Q of W with its rows rescaled to unit norm; ValueError for shapes of no W."""
    shaped((None, None), overlap=overlap)
    shaped((len(overlap), len(overlap)), gram=gram)
    norm = jnp.sqrt(jnp.diag(gram))
    return overlap / norm[:, None], gram / jnp.outer(norm, norm)


class Trajectory(NamedTuple):
    """M (times, m, r) and Q (times, m, m), NaN from where they diverged or steps ran out.

    `diverged` says that Q grew beyond all bounds, or its rate did; `finished` that every time was
    reached. Neither: the steps ran out.
    """

    times: Float[np.ndarray, " times"]
    overlap: Float[np.ndarray, "times m r"]
    gram: Float[np.ndarray, "times m m"]
    diverged: bool
    finished: bool


def trajectory(
    dynamics: Dynamics,
    overlap: Float[np.ndarray, "m r"],
    gram: Float[np.ndarray, "m m"],
    times: Float[np.ndarray, " times"],
    *,
    tolerance: float = 1e-6,
    points: int = POINTS,
) -> Trajectory:
    """M and Q at ascending times τ ≥ 0, from `overlap` and `gram` at τ = 0.

    Tsit5 with steps for a relative error of `tolerance`, on averages by rules of at most `points`
    points. ValueError for M and Q that no W has, for times that do not ascend, a tolerance ≤ 0, too
    few points, and a target whose labels cannot be averaged over.
    """
    positive(tolerance=tolerance)
    times = as_array("times", times)
    ascending = times.ndim == 1 and times.size > 0 and (np.diff(times) > 0).all()
    accepted = "expected ascending numbers ≥ 0, one of them > 0"
    require(bool(ascending and times[0] >= 0 < times[-1] < math.inf), "times", times, accepted)
    with double_precision():
        setup = prepared(dynamics, overlap, gram, points)
        saved = diffrax.SaveAt(ts=jnp.asarray(times))
        solution = _solved(*setup, saved, jnp.asarray(times[-1]), jnp.asarray(tolerance), None)
    assert solution.ys is not None
    m, q = (np.where(np.isfinite(y), y, np.nan) for y in solution.ys)
    finished = bool(solution.result == diffrax.RESULTS.successful)
    return Trajectory(times, m, q, _has_diverged(solution), finished)


def escape_time(
    dynamics: Dynamics,
    overlap: Float[np.ndarray, "m r"],
    gram: Float[np.ndarray, "m m"],
    *,
    level: float,
    max_time: float,
    direction: Float[np.ndarray, " r"] | None = None,
    tolerance: float = 1e-6,
    points: int = POINTS,
) -> float:
    """The first τ at which a neuron has the cosine `level` with the target's subspace.

    max_j ‖U w_j‖/‖w_j‖, or with a `direction` u of R^r max_j |u·U w_j|/(‖u‖ ‖w_j‖). inf where
    that is not before `max_time`, NaN where M and Q diverge or steps run out before. From m = c/√d
    on the sphere γ0 τ is of order 1, log d and d^{ℓ/2 − 1} for exponents ℓ = 1, 2 and > 2
    (`mirage.theory.drift_expansion`). For the last E[C²] m must not win over the drift, which takes
    a γ0 of order d^{1 − ℓ/2}: τ is of order d^{ℓ − 2}, d^{ℓ − 1} samples (Ben Arous et al. 2021).
    ValueError as `trajectory`, and for a level that is no cosine.
    """
    cosine(level=level)
    positive(max_time=max_time, tolerance=tolerance)
    r = dynamics.target.rank
    basis = np.eye(r) if direction is None else as_array("direction", direction)[None]
    length = np.linalg.norm(basis[0]) if basis.shape[-1] == r else 0.0
    accepted = f"expected a vector of {r} numbers, not all 0"
    require(bool(0 < length < math.inf), "direction", direction, accepted)
    with double_precision():
        setup = prepared(dynamics, overlap, gram, points)
        goal = jnp.asarray(level), jnp.asarray(basis / length)
        if _largest_cosine(setup[2], goal[1]) >= level:
            return 0.0
        end = jnp.asarray(float(max_time))
        saved = diffrax.SaveAt(t1=True)
        solution = _solved(*setup, saved, end, jnp.asarray(tolerance), goal)
        assert solution.ys is not None
        assert solution.ts is not None
        final = OrderParameters(*(y[-1] for y in solution.ys))
        reached = bool(jnp.abs(_largest_cosine(final, goal[1]) - level) < REACHED)
    if solution.result == diffrax.RESULTS.successful:
        return math.inf
    return float(solution.ts[-1]) if reached else math.nan


def prepared(
    dynamics: Dynamics,
    overlap: Float[np.ndarray, "m r"],
    gram: Float[np.ndarray, "m m"],
    points: int,
) -> tuple[Dynamics, Rule, OrderParameters]:
    """What compiled functions take: the numbers as arrays, a rule, and M and Q if they are valid.

    Call inside `double_precision()`. ValueError as `trajectory`.
    """
    m, r = len(dynamics.readout), dynamics.target.rank
    overlap, gram = as_array("overlap", overlap), as_array("gram", gram)
    require(overlap.shape == (m, r), "overlap", overlap.shape, f"expected the shape {(m, r)}")
    require(gram.shape == (m, m), "gram", gram.shape, f"expected the shape {(m, m)}")
    finite = np.isfinite(overlap).all() and np.isfinite(gram).all()
    require(bool(finite), "overlap and gram", (overlap, gram), "expected finite numbers")
    scale = ROUNDING * max(float(np.trace(gram)), 1e-300)
    possible = np.abs(gram - gram.T).max() <= scale
    possible = possible and np.linalg.eigvalsh(gram - overlap @ overlap.T).min() >= -scale
    accepted = "expected a symmetric Q with Q − M Mᵀ positive semi-definite"
    require(bool(possible), "gram", gram.tolist(), accepted)
    if dynamics.spherical:
        unit = bool(np.allclose(np.diag(gram), 1, rtol=0, atol=ROUNDING))
        require(unit, "gram", gram.tolist(), "expected a diagonal of ones with spherical=True")
    start = OrderParameters(jnp.asarray(overlap), jnp.asarray(gram))
    return as_arrays(dynamics), rule(dynamics.target, m, points=points), start


def as_arrays(dynamics: Dynamics) -> Dynamics:
    """The same with its numbers as float64 arrays: one compiled program serves all their values."""
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), dynamics)


@jax.jit
def _largest_cosine(state, basis):
    along = jnp.linalg.norm(state.overlap @ basis.T, axis=1)
    return (along / jnp.sqrt(jnp.maximum(jnp.diag(state.gram), 1e-300))).max()


@eqx.filter_jit
def _solved(dynamics, rule, start, saved, end, tolerance, goal):
    """The ODE, until Q diverges or, with a goal, until a cosine is reached."""

    def slope(_, state, args):
        dynamics, rule = args
        return rates(dynamics, rule, *state)

    largest = LARGEST * jnp.maximum(jnp.trace(start.gram), 1)

    def diverged(t, y, args, **_):
        return jnp.abs(y.gram).max() > largest

    def reached(t, y, args, **_):
        level, basis = goal
        beyond = _largest_cosine(y, basis) - level
        return jnp.where(diverged(t, y, args), jnp.ones_like(beyond), beyond)

    event = diffrax.Event(diverged)
    if goal is not None:
        event = diffrax.Event(reached, optx.Bisection(rtol=1e-10, atol=1e-12))
    return diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Tsit5(),
        t0=jnp.zeros(()),
        t1=end,
        dt0=None,
        y0=start,
        args=(dynamics, rule),
        saveat=saved,
        stepsize_controller=diffrax.PIDController(
            rtol=tolerance, atol=ABSOLUTE * tolerance, dtmin=SHORTEST, force_dtmin=False
        ),
        event=event,
        max_steps=MAX_STEPS,
        throw=False,
    )


def _has_diverged(solution) -> bool:
    ends = (diffrax.RESULTS.event_occurred, diffrax.RESULTS.dt_min_reached)
    return any(bool(solution.result == end) for end in ends)
