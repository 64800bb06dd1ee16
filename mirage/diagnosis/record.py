"""A diagnosis as one record of plain numbers, lists and words."""

import math
from typing import Any

from mirage.diagnosis.advice import recommendation
from mirage.diagnosis.diagnosis import Diagnosis
from mirage.theory.exponents import Leap, exponent, leap
from mirage.theory.loss_design import LossThreshold


def record(found: Diagnosis) -> dict[str, Any]:
    """Everything as plain numbers, lists and words; infinity is "inf", undecided null."""
    if not found.staircase:
        return {**found.names, "rank": 0, "constant": True, "staircase": []}
    assert found.matrix is not None
    chosen = next(iter(found.thresholds.values()))
    return {
        **found.names,
        "rank": found.rank,
        "constant": False,
        "mean": _plain(found.mean),
        "square": _plain(found.square),
        "information_exponent": exponent(found.information),
        "information_leap": leap(found.information),
        "information_staircase": [_leap_record(step) for step in found.information],
        "generative_exponent": exponent(found.generative),
        "generative_leap": leap(found.generative),
        "generative_staircase": [_leap_record(step) for step in found.generative],
        "staircase": [
            {
                "directions": step.directions.round(6).tolist(),
                "class": step.kind,
                "alpha_c": _plain(step.alpha_c),
                "alpha_c_error": _plain(step.error),
                "lower_bound": step.lower_bound,
                "at_least": _plain(step.least),
            }
            for step in found.staircase
        ],
        "sigma_loss": {
            "matrix": found.matrix.matrix.tolist(),
            "error": _plain(found.matrix.error),
            "eigenvalues": found.matrix.eigenvalues.tolist(),
            "rank": found.matrix.rank,
            "condition_number": _plain(found.matrix.condition_number),
        },
        "spectral_threshold": _ends(chosen),
        "loss_thresholds": {name: _ends(ends) for name, ends in found.thresholds.items()},
        "best_huber_delta": _plain(found.best_delta),
        "best_preprocessing_threshold": _plain(found.best_scalar),
        "assumptions": [
            {
                "name": a.name,
                "statement": a.statement,
                "numbers": {key: _plain(value) for key, value in a.numbers.items()},
                "verdict": a.verdict,
                "remark": a.remark,
            }
            for a in found.assumptions
        ],
        "recommendation": recommendation(found),
    }


def _ends(ends: LossThreshold) -> dict[str, Any]:
    return {
        side: None if end is None else _plain(float(end.value))
        for side, end in (("upper", ends.upper), ("lower", ends.lower))
    }


def _leap_record(step: Leap) -> dict[str, Any]:
    return {
        "degree": step.degree,
        "directions": step.directions.round(6).tolist(),
        "tolerance": _plain(step.tolerance),
    }


def _plain(value: float) -> float | str | None:
    value = float(value)
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
