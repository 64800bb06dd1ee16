"""A target typed by the user: `target=expression target.expr="He4(h1) + sign(h1*h2*h3)"`."""

import re

import equinox as eqx

from mirage.expressions import Expression as Formula
from mirage.options import require
from mirage.targets.base import Target

MAX_RANK = 100
DEFAULT = "He4(h1) + sign(h1*h2*h3)"


class Expression(Target):
    """g(h) as a formula in h1 ... hr (`h` means `h1`), in the grammar of `mirage.expressions`.

    The rank is the largest index named, unless `rank` is given. Raises ValueError when the
    formula does not parse, or names a direction above the rank.
    """

    expr: str = eqx.field(static=True)
    rank: int = eqx.field(static=True, default=1)

    def __init__(self, expr: str = DEFAULT, rank: int | None = None, *, noise: float = 0.0):
        self.expr, self.noise = str(expr), noise
        if rank is None:
            indices = [int(i) for i in re.findall(r"\bh([1-9][0-9]{0,8})\b", self.expr)]
            rank = max([1, *indices])
        require(
            isinstance(rank, int) and 1 <= rank <= MAX_RANK,
            "target.rank",
            rank,
            f"expected a whole number from 1 to {MAX_RANK}",
        )
        self.rank = rank
        self._formula()

    def _formula(self) -> Formula:
        names = ("h", *(f"h{i + 1}" for i in range(self.rank)))
        return Formula(self.expr, names=names, key="target.expr")

    def summands(self) -> list[tuple[str, tuple[str, ...]]]:
        """The text of every summand, with the names it uses."""
        return self._formula().summands()

    def parts(self):
        def part(function, names):
            active = tuple(sorted({0 if n == "h" else int(n[1:]) - 1 for n in names})) or (0,)

            def of_active(h):
                values = {f"h{i + 1}": h[..., j] for j, i in enumerate(active)}
                return function(**_with_h(values))

            return of_active, active

        return [part(function, names) for function, names in self._formula().terms()]

    def __call__(self, h):
        return self._formula()(**_with_h({f"h{i + 1}": h[..., i] for i in range(self.rank)}))


def _with_h(values):
    return {**values, "h": values["h1"]} if "h1" in values else values
