"""How long a forward takes on this machine, and how much faster one network is than another."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunelab.evaluate.table import html_lines, html_table, text_table
from prunelab.evaluate.timing import Call, Speedup, check_settings, describe, duration, interleave, threads_of
from prunelab.trace import call_arguments, device_of, tensors_in, undisturbed
from prunelab.trace.forward import same_content
from prunelab.trace.record import all_of

_HEADINGS = ("network", "median", "quartiles", "speedup of the model")


@dataclass(frozen=True, repr=False)
class Latency:
    """The time of one forward, measured again and again; made by `latency`.

    - `name`: "model", or what `against` calls the network (a single one is "against").
    - `seconds`: every measurement, in order.
    - `device`: where the network ran, and `threads`: how many an operation on the CPU could use.
    - `against`: the same for the networks that ran in turn with this one: measurement i of each is of round i.
    """

    name: str
    seconds: tuple[float, ...]
    device: str
    threads: int
    against: Mapping[str, Latency] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile, in seconds: half of the measurements lie between them."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(low), float(high)

    @property
    def speedups(self) -> dict[str, Speedup]:
        """How many times as fast this network was as each of `against`, by name."""
        return {name: Speedup.of(self.seconds, other.seconds) for name, other in self.against.items()}

    @property
    def speedup(self) -> Speedup:
        """How many times as fast this network was as the other one. ValueError where it ran beside none or several."""
        if len(self.against) != 1:
            there = (
                f"beside {', '.join(self.against)}; ask .speedups" if self.against else "alone; give latency against="
            )
            raise ValueError(f"{self.name} was measured {there}")
        return next(iter(self.speedups.values()))

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dictionaries."""
        return {
            "name": self.name,
            "median": self.median,
            "quartiles": list(self.quartiles),
            "device": self.device,
            "threads": self.threads,
            "seconds": list(self.seconds),
            "against": {name: other.to_dict() for name, other in self.against.items()},
            "speedups": {name: vars(speedup) for name, speedup in self.speedups.items()},
        }

    def __repr__(self) -> str:
        return "\n".join([*text_table(_HEADINGS, self._rows(), left=1), "", self.conditions])

    def _repr_html_(self) -> str:
        table = html_table(_HEADINGS, self._rows(), label="Latency", left=1)
        return f'<div class="prunelab-latency">{table}{html_lines([self.conditions])}</div>'

    def _rows(self) -> list[tuple[str, ...]]:
        speedups = self.speedups
        rows = [(self, "")] + [(other, str(speedups[name])) for name, other in self.against.items()]
        return [(one.name, duration(one.median), " to ".join(map(duration, one.quartiles)), said) for one, said in rows]

    @property
    def conditions(self) -> str:
        """How it was measured, in words."""
        where = ", ".join(dict.fromkeys((self.device, *(other.device for other in self.against.values()))))
        said = f"{len(self.seconds)} rounds on {where}, {self.threads} thread{'s' * (self.threads > 1)}"
        for speedup in list(self.speedups.values())[:1]:  # all have as many rounds, so one confidence
            said += f"; speedup: median of the rounds' ratios, and its interval of {speedup.confidence:.1%} confidence"
        return said


def latency(
    model: nn.Module,
    example_inputs: Any,
    against: nn.Module | Mapping[str, nn.Module] | None = None,
    *,
    repeats: int | None = None,
    warmup: int = 3,
    seconds: float = 1.5,
    threads: int | None = None,
) -> Latency:
    """Measure how long `model` takes for one forward on `example_inputs`, batch included, on the device where it is.

    A forward runs in evaluation mode, without gradients, and everything is put back as `prunelab.trace` does it; what
    makes a network fast in use (fused layers, `torch.compile`) stays on. Time is that of the wall, from an idle device
    until it is idle again, after `warmup` rounds that do not count and with the garbage collector off. Every forward
    sees `example_inputs` as given: a network whose first forward changes its inputs in place gets a new copy before
    each one, made outside the time; the others read the same copy again.

    `against` is a network to compare with, or several by name. All run in turn, once a round, so that what the machine
    does beside hits all alike; the result's `speedup` (or `speedups`) is the ratio, with its interval.

    Args:
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, the same for all networks.
        repeats: rounds to measure; by default as many as fit into `seconds`, at least 7 and at most 501.
        threads: how many threads an operation on the CPU may use, from now until the end of this call; None: as set.

    Raises TypeError for what are no models or inputs, ValueError for models without values (meta device) and settings
    that measure nothing. An exception of a model passes through; where several run, it is the cause of a RuntimeError
    that says which of them failed.

    >>> small, large = nn.Linear(8, 8), nn.Linear(800, 800)
    >>> measured = latency(small, torch.zeros(1, 8), repeats=20)
    >>> len(measured.seconds), measured.device
    (20, 'cpu')
    """
    check_settings(repeats, warmup, seconds, threads)
    networks = _networks(model, against)
    calls = {}
    fused = torch.backends.mha.get_fastpath_enabled()
    with threads_of(threads) as count, ExitStack() as stack:
        for network in networks.values():
            stack.enter_context(undisturbed(network))
        stack.enter_context(_as_in_use(fused))
        for name, network in networks.items():
            calls[name] = _call(name, network, example_inputs, alone=len(networks) == 1)
        samples = interleave(calls, repeats=repeats, warmup=warmup, seconds=seconds)
    first, *others = (Latency(name, samples[name], describe(call.device), count) for name, call in calls.items())
    return replace(first, against={other.name: other for other in others})


def _networks(model: Any, against: Any) -> dict[str, nn.Module]:
    """All networks by name, the model first."""
    if against is None or isinstance(against, nn.Module):
        against = {} if against is None else {"against": against}
    if not isinstance(against, Mapping):
        raise TypeError(f"against must be a torch.nn.Module, or several by name, not {type(against).__name__}")
    if "model" in against:
        raise ValueError("'model' is the name of the model itself; call what it is compared with something else")
    networks = {"model": model, **against}
    for name, network in networks.items():
        if not isinstance(network, nn.Module):
            raise TypeError(f"{name} must be a torch.nn.Module, not {type(network).__name__}")
        if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
            raise ValueError(f"{name} holds no values (it is on the meta device), so nothing would be computed")
    return networks


@dataclass(frozen=True)
class _CallOnCopies(Call):
    """A call before which `renew` makes new inputs; the clock does not see it."""

    renew: Callable[[], object]

    def seconds(self) -> float:
        self.renew()
        return super().seconds()


def _call(name: str, network: nn.Module, example_inputs: Any, *, alone: bool) -> Call:
    """The forward to measure, once run: an error says in which network."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def renew() -> None:
        nonlocal args, kwargs
        args, kwargs = call_arguments(example_inputs, device_of(network))

    def run() -> object:
        return network(*args, **kwargs)

    renew()
    inputs = next(all_of(Tensor, (args, kwargs)), torch.empty(0))
    device = device_of(network) or inputs.device
    used = (args, kwargs)
    try:
        run()
    except Exception as error:
        if alone:
            error.add_note("raised in the forward of the model, which latency measures on example_inputs")
            raise
        said = f"{name} does not run on example_inputs, which are the same for all networks"
        raise RuntimeError(f"{said}: {type(error).__name__}: {error}") from error
    renew()
    # Only where it matters: a copy of a large input would push the network's weights out of the caches.
    if _same_tensors(used, (args, kwargs)):
        return Call(run, device)
    return _CallOnCopies(run, device, renew)


def _same_tensors(used: Any, given: Any) -> bool:
    """Whether a forward left its inputs as they were: the same tensors, and in each the same content."""
    left, there = tensors_in(used), tensors_in(given)
    return len(left) == len(there) and all(map(same_content, left, there))


@contextmanager
def _as_in_use(fused: bool) -> Iterator[None]:
    """Inside `undisturbed`, which looks at every operation: what makes a network fast in use, on again."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        if "torch.nn.attention.flex_attention" in sys.modules:  # where alone `undisturbed` turns compiling off
            with torch.compiler.set_stance("default"):
                yield
        else:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def compare_with_dense(model: nn.Module, example_inputs: Any, dense: nn.Module | None) -> Latency:
    """The latency of `model` against its `dense` network: by default a copy of the model in which nothing is zero.

    Alone where the dense network cannot run: it is on the meta device, or the model cannot be copied.
    """
    if dense is None:
        try:
            dense = _without_zeros(model)
        except (RuntimeError, TypeError):  # tensors of a graph, locks and files cannot be copied
            return latency(model, example_inputs)
    if any(parameter.is_meta for parameter in dense.parameters()):
        return latency(model, example_inputs)
    return latency(model, example_inputs, {"dense": dense})


def _without_zeros(model: nn.Module) -> nn.Module:
    """A copy of `model` whose zero parameters have another value, of the size of the others and of either sign."""
    # Sparse buffers know no deep copy; nothing is written into these.
    sparse = {id(buffer): buffer for buffer in model.buffers() if buffer.layout is not torch.strided}
    filled = copy.deepcopy(model, sparse)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filled.parameters():
            zero = parameter == 0
            size = parameter.abs().sum() / max(1, int((~zero).sum()))
            size = torch.where((size > 0) & size.isfinite(), size, torch.ones_like(size) / 64)
            sign = 2 * torch.randint(2, parameter.shape, generator=draw).to(parameter.device) - 1
            parameter.copy_(torch.where(zero, size * sign, parameter))
    return filled
