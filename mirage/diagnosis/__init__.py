"""Everything theory can say before any simulation, found, worded and recorded."""

from mirage.diagnosis.dataset import dataset
from mirage.diagnosis.diagnosis import Diagnosis, diagnose
from mirage.diagnosis.page import page
from mirage.diagnosis.record import record

__all__ = ["Diagnosis", "dataset", "diagnose", "page", "record"]
