"""Exact selections, fast: the largest of everything, the largest of every row, the largest that fit a budget."""

from prunelab.selection.budget import keep_within_budget
from prunelab.selection.keys import NotANumberError
from prunelab.selection.largest import keep_largest
from prunelab.selection.rows import keep_largest_in_rows

__all__ = ["NotANumberError", "keep_largest", "keep_largest_in_rows", "keep_within_budget"]
