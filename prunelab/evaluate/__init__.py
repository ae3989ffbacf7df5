"""What pruning was worth: parameters, multiply-adds, bytes and time, next to those of the dense network."""

from prunelab.evaluate.encoding import Encoded, decode, encode
from prunelab.evaluate.engine import Engine
from prunelab.evaluate.latency import Latency, latency
from prunelab.evaluate.layerwise import Sensitivity
from prunelab.evaluate.method import Method
from prunelab.evaluate.report import Layer, Report, report
from prunelab.evaluate.results import Sweep
from prunelab.evaluate.runtime import sparse_runtime
from prunelab.evaluate.runtime_result import Run, SparseRuntime
from prunelab.evaluate.sensitivity import sensitivity
from prunelab.evaluate.storage import load_sparse, save_sparse
from prunelab.evaluate.sweep import sweep
from prunelab.evaluate.timing import Speedup

__all__ = [
    "Encoded",
    "Engine",
    "Latency",
    "Layer",
    "Method",
    "Report",
    "Run",
    "Sensitivity",
    "SparseRuntime",
    "Speedup",
    "Sweep",
    "decode",
    "encode",
    "latency",
    "load_sparse",
    "report",
    "save_sparse",
    "sensitivity",
    "sparse_runtime",
    "sweep",
]
