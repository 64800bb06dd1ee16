"""Families: the setups that one compiled function serves."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np

from mirage.activations import Cos
from mirage.experiments.experiment import GROUPS, Setup
from mirage.losses import Mse, OneOf
from mirage.network import TwoLayer


@dataclasses.dataclass(frozen=True)
class Family:
    """Setups that one compiled function serves: they differ in numbers and in the loss alone.

    `names` are those of every setup: several where they differ in what the algorithm has no use
    for, so that one run is the result of all.
    """

    names: tuple[tuple[tuple[Any, ...], ...], ...]
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
    groups: dict[Any, list[tuple[list[tuple[Any, ...]], Setup]]] = {}
    for names, setup in setups.items():
        setup = _used(setup)
        key = tuple(jax.tree.structure(getattr(setup, g)) for g in GROUPS if g != "loss")
        # Inputs are drawn once for all: their numbers must agree, not only their kind.
        members = groups.setdefault((key, setup.inputs), [])
        same = [others for others, member in members if eqx.tree_equal(member, setup) is True]
        if same and not setup.algorithm.uses_model:
            same[0].append(names)
        else:
            members.append(([names], setup))
    return [
        Family(tuple(tuple(names) for names, _ in members), tuple(setup for _, setup in members))
        for members in groups.values()
    ]


def _used(setup: Setup) -> Setup:
    """A setup whose loss, activation and network are plain where its algorithm uses none."""
    if setup.algorithm.uses_model:
        return setup
    return dataclasses.replace(setup, loss=Mse(), activation=Cos(), network=TwoLayer())


def as_array(value: Any) -> np.ndarray:
    """A number as a float32 array; an array as it is."""
    return value if isinstance(value, np.ndarray) else np.asarray(value, np.float32)
