"""What to do about a target, in sentences."""

import math

from mirage.diagnosis.diagnosis import Diagnosis
from mirage.diagnosis.words import named
from mirage.theory.loss_design import LossThreshold


def recommendation(found: Diagnosis) -> list[str]:
    """What to do about it, in sentences."""
    first = found.staircase[0]
    name, ends = next(iter(found.thresholds.items()))
    assert found.matrix is not None
    said = []
    if first.kind == "trivial":
        said.append(
            f"First moments of h given the label see {named(first.directions)}: any n/d > 0 is "
            "enough to start, with a preprocessing of the label that keeps E[h | y]."
        )
    elif first.kind == "hard":
        said.append(
            f"No first-order or low-degree method is known to see {named(first.directions)} with n "
            f"of order d: first and second moments given the label vanish (alpha_c > "
            f"{first.least:.3g} at this tolerance)."
        )
    else:
        said.append(
            f"No first-order or low-degree method is known to see anything below n/d = "
            f"{first.alpha_c:.3g}; from there on {named(first.directions)} can be found."
        )
    for step in found.staircase[1:]:
        if step.kind == "hard":
            said.append(f"Once the others are known, {named(step.directions)} stay hard.")
        elif step.kind == "trivial":
            said.append(
                f"{named(step.directions)} follow as soon as those before are known: they are seen "
                "by first moments then."
            )
        else:
            said.append(
                f"{named(step.directions)} follow, not below n/d = {step.alpha_c:.3g}, reached if "
                "those before are recovered perfectly by then."
            )
    if found.matrix.rank == 0:
        said.append(f"{name} cannot see this target at second order: Σ_ℓ = 0.")
    elif found.matrix.rank < found.rank:
        count = found.matrix.rank
        said.append(
            f"{name} sees {count} of {found.rank} directions at second order (rank of Σ_ℓ)."
        )
    if first.kind != "hard":
        said += _losses_in_words(found, name, ends)
    return said


def _losses_in_words(found: Diagnosis, name: str, ends: LossThreshold) -> list[str]:
    said = []
    if math.isfinite(ends.best):
        said.append(
            f"The leading eigenvectors that {name} gives its first layer leave the noise from "
            f"n/d = {ends.best:.3g} on{_gap(found, ends.best)}."
        )
    best = min(found.thresholds, key=lambda key: found.thresholds[key].best)
    lowest = found.thresholds[best].best
    if best != name and lowest < 0.98 * ends.best:
        said.append(f"{best} does so from n/d = {lowest:.3g} on{_gap(found, lowest)}.")
    return said


def _gap(found: Diagnosis, value: float) -> str:
    limit = found.alpha_c
    return f" ({value / limit:.2g} times alpha_c)" if 0 < limit < math.inf else ""
