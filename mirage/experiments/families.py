"""Families: the setups that one compiled function serves."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np

from mirage.experiments.experiment import GROUPS, Setup
from mirage.losses import OneOf


@dataclasses.dataclass(frozen=True)
class Family:
    """Setups that one compiled function serves: they differ in numbers and in the loss alone."""

    names: tuple[tuple[Any, ...], ...]
    setups: tuple[Setup, ...]

    @property
    def setup(self) -> Setup:
        """What they share, shown by the first."""
        return self.setups[0]

    def lanes(self) -> tuple[Setup, Setup]:
        """Their numbers, stacked along a leading axis, and what is the same for all of them.

        `eqx.combine` of both is one setup. Different losses become a `OneOf` that holds one of
        each kind, so that a kind is compiled once.
        """
        kinds = {jax.tree.structure(s.loss): s.loss for s in self.setups}
        lanes = []
        for setup in self.setups:
            kind = jax.tree.structure(setup.loss)
            losses = tuple(setup.loss if k == kind else loss for k, loss in kinds.items())
            index = np.asarray(list(kinds).index(kind), np.int32)
            loss = losses[0] if len(losses) == 1 else OneOf(index, losses)  # type: ignore[arg-type]
            lanes.append(eqx.tree_at(lambda s: s.loss, setup, loss))
        numbers = [jax.tree.map(as_array, lane) for lane in lanes]
        stacked = jax.tree.map(lambda *values: np.stack(values), *numbers)
        return stacked, eqx.filter(lanes[0], lambda _: False)


def families(setups: dict[tuple[Any, ...], Setup]) -> list[Family]:
    """Group the setups that one compiled function serves."""
    groups: dict[Any, list[tuple[tuple[Any, ...], Setup]]] = {}
    for names, setup in setups.items():
        key = tuple(jax.tree.structure(getattr(setup, g)) for g in GROUPS if g != "loss")
        # Inputs are drawn once for all: their numbers must agree, not only their kind.
        groups.setdefault((key, setup.inputs), []).append((names, setup))
    return [Family(*zip(*members, strict=True)) for members in groups.values()]


def as_array(value: Any) -> np.ndarray:
    """A number as a float32 array; an array as it is."""
    return value if isinstance(value, np.ndarray) else np.asarray(value, np.float32)
