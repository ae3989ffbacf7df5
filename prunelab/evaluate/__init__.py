"""What pruning was worth: parameters, nonzero ones, multiply-adds and bytes, next to those of the dense network."""

from prunelab.evaluate.encoding import Encoded, decode, encode
from prunelab.evaluate.latency import Latency, latency
from prunelab.evaluate.report import Layer, Report, report
from prunelab.evaluate.runtime import sparse_runtime
from prunelab.evaluate.runtime_result import Run, SparseRuntime
from prunelab.evaluate.storage import load_sparse, save_sparse
from prunelab.evaluate.timing import Speedup

__all__ = [
    "Encoded",
    "Latency",
    "Layer",
    "Report",
    "Run",
    "SparseRuntime",
    "Speedup",
    "decode",
    "encode",
    "latency",
    "load_sparse",
    "report",
    "save_sparse",
    "sparse_runtime",
]
