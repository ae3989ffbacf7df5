"""`python -m zoo NAME ...`: check the named architectures, one line each; with no name, all that can be imported."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from pathlib import Path

import torch

from zoo.check import check
from zoo.collection import find


def failure(error: BaseException) -> str:
    """The exception's last line, with the innermost frame of the library and of the code that it ran."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/prunelab/" in frame.filename] or frames
    places = dict.fromkeys(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in (ours[-1], frames[-1]))
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}  [{' | '.join(places)}]"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    parser.add_argument("names", nargs="*", help="a name, a part of names, timm:NAME or torchvision:NAME")
    parser.add_argument("--sparsity", type=float, default=0.5, help="the fraction of every group that goes")
    parser.add_argument("--explain", action="store_true", help="print what explain() says")
    parser.add_argument("--traceback", action="store_true", help="print the whole traceback of a failure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    failed = 0
    for architecture in find(options.names):
        try:
            outcome = check(architecture, sparsity=options.sparsity)
        except Exception as error:
            failed += 1
            print(f"{architecture.name:30} FAILED  {failure(error)}", flush=True)
            if options.traceback:
                traceback.print_exception(error)
            continue
        print(outcome.line(), flush=True)
        if options.explain:
            print(outcome.small.explain(), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
