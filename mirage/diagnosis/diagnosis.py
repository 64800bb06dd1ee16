"""Everything theory can say of a target, a loss and an activation before any simulation."""

import dataclasses
import math
from typing import Any

import numpy as np

from mirage.activations import Activation, Cos
from mirage.channels.labels import LabelBins, LabelTables, label_bins, second_moments
from mirage.channels.optimal import made_for
from mirage.channels.preprocessing import best_direction, law, law_of, slope_of
from mirage.diagnosis.words import described
from mirage.losses import Huber, Loss, Mse
from mirage.network import TwoLayer
from mirage.options import require
from mirage.targets import Target
from mirage.theory.assumptions import Assumption, assumptions
from mirage.theory.exponents import Leap, generative_leaps, information_leaps, polynomial_degree
from mirage.theory.loss_design import LossThreshold, best_delta, loss_threshold
from mirage.theory.loss_matrix import LossMatrix, loss_matrix
from mirage.theory.moments import mean_and_square
from mirage.theory.spectral import LARGEST
from mirage.theory.weak_recovery import Step, staircase

GROUPS = {"target": Target, "loss": Loss, "activation": Activation, "network": TwoLayer}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `str()` of it is the page to read, `record()` what a machine reads.

    `thresholds` has the spectral thresholds of losses by name, the chosen one first;
    `best_delta` is Huber's best δ, `best_scalar` the threshold of the best scalar preprocessing.
    `bins` is None and the rest empty for a target that depends on nothing.
    """

    target: Target
    loss: Loss
    activation: Activation
    mean: float
    square: float
    information: list[Leap]
    generative: list[Leap]
    staircase: list[Step]
    assumptions: list[Assumption]
    matrix: LossMatrix | None = None
    thresholds: dict[str, LossThreshold] = dataclasses.field(default_factory=dict)
    best_delta: float = math.nan
    best_scalar: float = math.inf
    bins: LabelBins | None = None

    def __str__(self) -> str:
        """The page."""
        from mirage.diagnosis.page import page

        return page(self)

    def record(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and words."""
        from mirage.diagnosis.record import record

        return record(self)

    @property
    def rank(self) -> int:
        """The number of directions that the target depends on."""
        return sum(len(step.directions) for step in self.staircase)

    @property
    def alpha_c(self) -> float:
        """The threshold of the first step; 0 where a first moment sees a direction."""
        return self.staircase[0].alpha_c if self.staircase else math.inf

    @property
    def names(self) -> dict[str, str]:
        """Target, loss and activation as a user would write them."""
        return {
            group: described(getattr(self, group)) for group in ("target", "loss", "activation")
        }


def diagnose(
    target: Target,
    loss: Loss | None = None,
    activation: Activation | None = None,
    network: TwoLayer | None = None,
) -> Diagnosis:
    """How hard a target is, and what a loss and an activation see of it, for d → ∞.

    Defaults are Huber's loss with δ = 1, cos and the standard start. Raises ValueError for a
    target of a rank above what can be integrated, or one that is not finite everywhere, and for
    what is no option of its group.
    """
    given = {"target": target, "loss": loss, "activation": activation, "network": network}
    for group, option in given.items():
        base = GROUPS[group]
        good = isinstance(option, base) or (option is None and group != "target")
        require(good, group, option, f"expected a {base.__name__}")
    asked, activation = loss or Huber(), activation or Cos()
    loss = made_for(asked, target)
    tables = LabelTables(target)
    steps = staircase(tables)
    mean, square = mean_and_square(target)
    if not steps:
        return Diagnosis(target, asked, activation, mean, square, [], [], [], [])
    table = tables(np.zeros((0, target.rank)))
    bins = label_bins(table)
    slopes = law(bins, slope_of(loss), centred=False)
    matrix = loss_matrix(law_of(loss, bins))
    delta, _ = best_delta(bins)
    losses: dict[str, Loss] = {described(asked): loss}
    losses |= {described(other): other for other in (Mse(), *_huber(delta))}
    second = second_moments(table).mean(axis=0)
    _, seen = best_direction(second)
    slope_mean = -float((slopes.probability * slopes.values).sum(axis=1).mean())
    return Diagnosis(
        target=target,
        loss=asked,
        activation=activation,
        mean=mean,
        square=square,
        information=information_leaps(target) if math.isfinite(square) else [],
        generative=generative_leaps(tables),
        staircase=steps,
        assumptions=assumptions(
            square=square,
            slope_mean=slope_mean,
            matrix=matrix,
            degree=polynomial_degree(target),
            loss=loss,
            activation=activation,
            network=network or TwoLayer(),
            rank=sum(len(step.directions) for step in steps),
        ),
        matrix=matrix,
        thresholds={name: loss_threshold(target, one, bins) for name, one in losses.items()},
        best_delta=delta,
        best_scalar=1 / seen if seen > 1 / LARGEST else math.inf,
        bins=bins,
    )


def _huber(delta: float) -> list[Loss]:
    return [Huber(delta=float(f"{delta:.2g}"))] if math.isfinite(delta) else []
