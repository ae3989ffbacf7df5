"""One forward, recorded: which operation read which tensors, with which shapes, and how many multiply-adds it took.

`trace(model, example_inputs)` runs the model once and returns a `Trace`: plain data, no tensor kept alive, the model as
it was. The MAC counter (`prunelab.evaluate`) reads it.
"""

from prunelab.trace.counts import NonzeroCounter
from prunelab.trace.forward import (
    call_arguments,
    device_of,
    map_tensors,
    results_in,
    tensors_in,
    to_device,
    undisturbed,
)
from prunelab.trace.record import Op, Product, Trace, Value, Weight
from prunelab.trace.recorder import trace

__all__ = [
    "NonzeroCounter",
    "Op",
    "Product",
    "Trace",
    "Value",
    "Weight",
    "call_arguments",
    "device_of",
    "map_tensors",
    "results_in",
    "tensors_in",
    "to_device",
    "trace",
    "undisturbed",
]
