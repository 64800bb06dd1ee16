"""Design `auto`: the cheapest of the others for the cell at hand."""

from mirage.designs.base import DesignChoice
from mirage.designs.deferred import Deferred
from mirage.designs.dense import Dense
from mirage.designs.streamed import Streamed

# Seconds a seed that the longer compilation of `deferred` costs: five, over ten seeds.
PATIENCE = 0.5


class Auto(DesignChoice):
    """X never drawn where that is clearly faster, by the designs' own cost models; else drawn.

    A drawn X is stored where it fits into `runtime.memory` and streamed where not. The choice
    depends on the cell alone (n, d, query columns), not on what else is in the grid.
    """

    def resolve(self, inputs, *, n, d, right, left, steps, fits):
        dense, deferred = Dense(), Deferred()
        asked = {"right": right, "left": left, "steps": steps}
        if inputs.standard_gaussian and max(right, left) < min(n, d):
            seconds = {one: one.seconds(n=n, d=d, **asked) for one in (dense, deferred)}
            if seconds[deferred] + PATIENCE < seconds[dense]:
                return deferred
        return dense if fits(dense) else Streamed()
