"""A diagnosis as one page for a terminal."""

import math
from typing import Any

from mirage.diagnosis.advice import recommendation
from mirage.diagnosis.diagnosis import Diagnosis
from mirage.diagnosis.words import named
from mirage.theory.exponents import DEGREES, Leap, exponent, leap
from mirage.theory.weak_recovery import Step


def page(found: Diagnosis) -> str:
    """The page."""
    return "\n".join(_lines(found))


def _lines(found: Diagnosis) -> list[str]:
    names = found.names
    lines = [f"{group:<11} {name}" for group, name in names.items()]
    if not found.staircase:
        return [*lines, "", "The label does not depend on h: there is nothing to learn."]
    assert found.matrix is not None
    lines += [
        f"{'':<11} depends on {found.rank} direction{'s' * (found.rank > 1)}, "
        f"E g = {found.mean:.4g}, E g² = {found.square:.4g}",
        "",
        "exponents",
        _exponent_line("information", found.information, found.target.rank),
        _exponent_line("generative", found.generative, found.target.rank),
        "",
        "staircase: n/d from which a direction can be seen, those of earlier steps known",
    ]
    for number, step in enumerate(found.staircase, 1):
        lines.append(f"  {number}. {named(step.directions):<24} {step.kind:<8} {_threshold(step)}")
    values = ", ".join(f"{value:.4g}" for value in found.matrix.eigenvalues)
    condition = found.matrix.condition_number
    lines += [
        "",
        f"Σ_ℓ = E[ℓ'(0, y)(hhᵀ − I)]: eigenvalues {values}; condition number {condition:.4g}",
        "",
        "spectral thresholds n/d, at the upper and the lower end, and times alpha_c",
    ]
    for name, ends in found.thresholds.items():
        gap = ends.best / found.alpha_c if 0 < found.alpha_c < math.inf else math.inf
        times = f"{gap:.3g}" if math.isfinite(gap) else "-"
        lines.append(f"  {name:<28} {_end(ends.upper):<14} {_end(ends.lower):<14} {times}")
    lines.append(f"  {'best scalar T(y)':<28} {found.best_scalar:.4g}")
    lines += ["", "assumptions of the layer-wise GD theorem"]
    for a in found.assumptions:
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in a.numbers.items())
        remark = f"; {a.remark}" if a.remark else ""
        lines.append(f"  {a.name} {a.verdict:<6} {a.statement} ({numbers}{remark})")
    return [*lines, "", "in short", *(f"  {line}" for line in recommendation(found))]


def _exponent_line(kind: str, leaps: list[Leap], rank: int) -> str:
    if not leaps:
        return f"  {kind:<12} undefined: E g² is infinite"
    largest = leap(leaps)
    steps = "; ".join(
        f"{'?' if step.degree is None else step.degree} for {named(step.directions)}"
        for step in leaps
    )
    head = f"{_degree(exponent(leaps), rank)} (leap {_degree(largest, rank)})"
    tolerance = max(step.tolerance for step in leaps)
    exact = f"; smaller than {tolerance:.1g} counts as zero" if tolerance else "; exact"
    return f"  {kind:<12} {head}: {steps}{exact}"


def _degree(value: int | None, rank: int) -> str:
    return f"undecided, above {DEGREES[rank]}" if value is None else str(value)


def _threshold(step: Step) -> str:
    if step.kind == "trivial":
        return "0"
    if step.kind == "hard":
        return f"inf (above {step.least:.3g} at this tolerance)"
    bound = "at least " if step.lower_bound else ""
    return f"{bound}{step.alpha_c:.4g} ± {step.error:.1g}"


def _end(end: Any) -> str:
    return "T unbounded" if end is None else f"{float(end.value):.4g}"
