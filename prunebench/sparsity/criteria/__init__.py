"""How much a weight matters: every module of this package is imported, and enters its criteria into CRITERIA."""

from prunebench.sparsity.criteria.base import CRITERIA, Criterion, Solver
from prunebench.sparsity.registry import import_modules
from prunebench.sparsity.stats import Sample

__all__ = ["CRITERIA", "Criterion", "Sample", "Solver"]

import_modules(__name__, __path__)
