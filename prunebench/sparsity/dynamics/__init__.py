"""How training goes on beside pruning: every module of this package is imported, and enters what it defines."""

from prunebench.sparsity.dynamics.base import DYNAMICS, Dynamics, Moment
from prunebench.sparsity.registry import import_modules

__all__ = ["DYNAMICS", "Dynamics", "Moment"]

import_modules(__name__, __path__)
