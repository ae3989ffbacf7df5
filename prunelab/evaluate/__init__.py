"""What pruning was worth: parameters, nonzero ones, multiply-adds and bytes, next to those of the dense network."""

from prunelab.evaluate.report import Layer, Report, report

__all__ = ["Layer", "Report", "report"]
