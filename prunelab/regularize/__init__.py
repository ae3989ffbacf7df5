"""Weights that ask to be pruned: penalties and proximal steps that drive weights, or whole units, to zero.

Each regulariser is a value. `penalty(model)` is a scalar to add to the loss, `proximal_(model, lr)` a step to take
after the optimizer's; take one of the two, not both. A penalty leaves what it shrinks near zero; the proximal step
reaches zero exactly. `lab.train.fit` knows them as `penalty=` and `proximal=`.
"""

from prunelab.regularize.base import Regularizer
from prunelab.regularize.group_lasso import GroupLasso
from prunelab.regularize.hard_concrete import HardConcrete
from prunelab.regularize.norms import L1, L2
from prunelab.regularize.slimming import Slimming

__all__ = ["L1", "L2", "GroupLasso", "HardConcrete", "Regularizer", "Slimming"]
