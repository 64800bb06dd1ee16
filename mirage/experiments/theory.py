"""What theory says beside an experiment's cells: the options of the group `theory`."""

import abc
from typing import TYPE_CHECKING, ClassVar

import xarray as xr

from mirage.options import Option, require
from mirage.targets import Target

if TYPE_CHECKING:
    from mirage.experiments.experiment import Experiment


class Theory(Option, abc.ABC):
    """Predictions for d → ∞ of the targets and losses of an experiment."""

    group: ClassVar[str] = "theory"

    def serve(self, target: Target) -> None:
        """ValueError, before anything runs, if there is nothing to say of a target.

        Such as one that has numbers of its own for every seed.
        """
        accepted = "it has numbers of its own for every seed, and no one law; expected theory=null"
        require(not target.draws, "target", target.name(), accepted)

    @abc.abstractmethod
    def compute(self, experiment: "Experiment") -> xr.Dataset:
        """Variables along those axes of the experiment that they depend on."""
