"""Screening: from many structures to relaxed ones, their properties, a ranked table and a report.

structures → duplicates → relaxation in batches → properties → filters → ranking → table, structures, report
"""

from .columns import PROPERTIES
from .ranking import Screening
from .run import screen

__all__ = ["PROPERTIES", "Screening", "screen"]
