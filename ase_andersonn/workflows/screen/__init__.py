"""Screening: from many structures to relaxed ones, their properties, a ranked table and a report.

structures → duplicates → relaxation in batches → properties → filters → ranking → table, structures, report
"""

from .columns import PROPERTIES
from .run import Screening, screen

__all__ = ["PROPERTIES", "Screening", "screen"]
