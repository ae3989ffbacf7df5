"""What pruning was worth: parameters, nonzero ones, multiply-adds and bytes, next to those of the dense network."""

from prunelab.evaluate.encoding import Encoded, decode, encode
from prunelab.evaluate.report import Layer, Report, report
from prunelab.evaluate.storage import load_sparse, save_sparse

__all__ = ["Encoded", "Layer", "Report", "decode", "encode", "load_sparse", "report", "save_sparse"]
