"""Data that need no network: scikit-learn's handwritten digits, split and normalised, MNIST-1D, the MONK's problems."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from prunelab.evaluate.seeding import seeded
from prunelab.lab.extras import lab_extra
from prunelab.lab.monks import monks as monks

Pair = tuple[Tensor, Tensor]
Split = Literal["train", "val", "test"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, in three disjoint parts, each a pair (inputs, targets).

    Attributes:
        train, val, test: inputs (N, ...) float32 and targets (N,) int64.
        classes: number of classes; targets are 0 to classes - 1.
        mean, std: what was subtracted from, and then divided out of, the raw inputs; 0 and 1 when nothing was.
        name: what to call it in titles.

    Raises:
        ValueError: a part whose inputs and targets differ in length, or that is empty.
    """

    train: Pair
    val: Pair
    test: Pair
    classes: int
    mean: float = 0.0
    std: float = 1.0
    name: str = "data"

    def __post_init__(self) -> None:
        for split in SPLITS:
            inputs, targets = getattr(self, split)
            if len(inputs) != len(targets) or not len(inputs):
                raise ValueError(f"{self.name}.{split} has {len(inputs)} inputs and {len(targets)} targets; "
                                 "give as many of one as of the other, and at least one")  # fmt: skip

    def batches(
        self, split: Split = "train", batch_size: int = 64, seed: int | None = None, device: torch.device | None = None
    ) -> Batches:
        """The examples of one part in batches, ready to be iterated over as often as you like.

        `seed=None` keeps the order of the data. With a seed each pass has its own order, and the same seed gives the
        same sequence of orders. `device` moves the data there, once.
        """
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: a data set has the parts {', '.join(map(repr, SPLITS))}")
        inputs, targets = getattr(self, split)
        return Batches(inputs.to(device), targets.to(device), batch_size, seed)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split)[1])}" for split in SPLITS)
        shape = tuple(self.train[0].shape[1:])
        return f"Dataset({self.name}: {sizes}; inputs {shape}, {self.classes} classes)"


class Batches:
    """A re-iterable of (inputs, targets) batches: `len`, and any number of passes; the last batch may be short."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int = 64, seed: int | None = None) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int):
            raise TypeError(f"batch_size={batch_size!r} is a {type(batch_size).__name__}; give a positive int")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: a batch holds at least 1 example")
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets; every input needs its target")
        self.inputs, self.targets, self.batch_size, self.seed = inputs, targets, batch_size, seed
        self._passes = 0

    def __len__(self) -> int:
        return math.ceil(len(self.targets) / self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        # The order is drawn here, not in the generator, so that asking for an iterator is what counts as a pass.
        order = self._order()
        self._passes += 1
        return self._batches(order)

    def _order(self) -> Tensor | None:
        if self.seed is None:
            return None
        # A fresh generator a pass: pass k depends on (seed, k) alone. Drawn on the CPU, so all devices see one order.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self._passes) % 2**63)
        return torch.randperm(len(self.targets), generator=generator).to(self.targets.device)

    def _batches(self, order: Tensor | None) -> Iterator[Pair]:
        for start in range(0, len(self.targets), self.batch_size):
            part = slice(start, start + self.batch_size)
            if order is None:
                yield self.inputs[part], self.targets[part]
            else:
                yield self.inputs[order[part]], self.targets[order[part]]

    def __repr__(self) -> str:
        order = "in order" if self.seed is None else f"shuffled from seed {self.seed}"
        return f"Batches({len(self.targets)} examples in {len(self)} batches of {self.batch_size}, {order})"


def digits(*, size: int = 8, val: float = 0.15, test: float = 0.25, seed: int = 0) -> Dataset:
    """Handwritten digits: 1,797 grey images of 8 × 8 pixels, ten classes (scikit-learn's copy of UCI's test set).

    The parts are drawn with `seed`, stratified (each has the classes in equal proportion) and disjoint. Pixels are
    scaled from 0..16 to 0..1, then normalised with the mean and standard deviation of the training part's pixels, so
    nothing of the validation and test parts enters.

    Args:
        size: 8, the real resolution, or 28 for networks made for MNIST. 28 is the same image upsampled bilinearly: it
            has MNIST's shape, not its detail.
        val, test: fractions of the 1,797 images; the rest is for training.
        seed: which split.

    Returns:
        Dataset whose inputs are (N, 1, size, size) float32 and whose targets are (N,) int64.

    >>> data = digits()
    >>> data
    Dataset(digits: train 1078, val 270, test 449; inputs (1, 8, 8), 10 classes)
    """
    if size not in {8, 28}:
        raise ValueError(f"size={size!r}: the digits come in 8 (as scanned) and 28 (upsampled to MNIST's shape)")
    with lab_extra():
        from sklearn.datasets import load_digits
    raw = load_digits()
    images = torch.from_numpy(raw.images).float().div(16).unsqueeze(1)  # (1797, 1, 8, 8) in 0..1
    targets = torch.from_numpy(raw.target).long()
    if size != 8:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    rows = split_indices(targets, val=val, test=test, seed=seed)
    mean, std = images[rows["train"]].mean().item(), images[rows["train"]].std().item()
    images = (images - mean) / std
    parts = {split: (images[index], targets[index]) for split, index in rows.items()}
    return Dataset(**parts, classes=10, mean=mean, std=std, name="digits")


def split_indices(targets: Tensor, *, val: float, test: float, seed: int) -> dict[str, Tensor]:
    """Row numbers of a stratified train/val/test split of `targets`: a dict of three disjoint int64 tensors.

    Raises:
        ValueError: a fraction outside (0, 1), or nothing left to train on.
    """
    for name, fraction in (("val", val), ("test", test)):
        if not 0 < fraction < 1:
            raise ValueError(f"{name}={fraction!r} is not a fraction between 0 and 1 (not a percentage, not a count)")
    if val + test >= 1:
        raise ValueError(f"val={val} and test={test} leave nothing to train on; together they must stay below 1")
    with lab_extra():
        from sklearn.model_selection import train_test_split
    rows, labels = range(len(targets)), targets.tolist()
    held_in, test_rows = train_test_split(rows, test_size=round(test * len(rows)), stratify=labels, random_state=seed)
    train_rows, val_rows = train_test_split(
        held_in, test_size=round(val * len(rows)), stratify=[labels[row] for row in held_in], random_state=seed
    )
    return {"train": torch.tensor(train_rows), "val": torch.tensor(val_rows), "test": torch.tensor(test_rows)}


def mnist1d(*, seed: int = 42, data_home: str | os.PathLike[str] | None = None) -> Dataset:
    """MNIST-1D: signals of 40 points, ten classes; 4,000 to train on and 1,000 to test (Greydanus & Kobak 2024).

    Each signal is one of ten templates, padded, stretched, shifted, sheared and blurred with noise. The package
    `mnist1d` makes them, in seconds and without a network; they are then kept in `data_home`. It has no validation
    part: those 1,000 signals are further ones, made in the same way.

    The package standardises: all 5,000 signals together have mean 0 and standard deviation 1, the validation part has
    by itself.

    Args:
        seed: which signals, from 0 to 2**31 - 1; 42 is the package's own.
        data_home: the folder to keep them in; by default the one that the environment variable PRUNELAB_DATA names,
            or else scikit-learn's (`sklearn.datasets.get_data_home`). Where it cannot be written, nothing is kept.

    Returns:
        Dataset whose inputs are (N, 40) float32 and whose targets are (N,) int64.

    >>> mnist1d()
    Dataset(mnist1d: train 4000, val 1000, test 1000; inputs (40,), 10 classes)
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"seed={seed!r}: MNIST-1D is made from a whole number from 0 to 2**31 - 1, by default 42")
    with lab_extra():
        from sklearn.datasets import get_data_home
    home = data_home if data_home is not None else os.environ.get("PRUNELAB_DATA")
    parts: dict[str, Tensor] = {}
    kept = None
    with suppress(OSError):
        kept = Path(get_data_home(home)) / f"mnist1d-{seed}.safetensors"
        parts = load_file(kept) if kept.is_file() else {}
    if not parts:
        parts = _made(seed)
        if kept is not None:
            with suppress(OSError):
                part = kept.with_name(f"{kept.name}.{os.getpid()}.part")  # two processes may be at it
                save_file(parts, part)
                os.replace(part, kept)
    train, val, test = ((parts[split], parts[f"{split} targets"]) for split in SPLITS)
    return Dataset(train, val, test, classes=10, name="mnist1d")


def _made(seed: int) -> dict[str, Tensor]:
    """The three parts of MNIST-1D, inputs and targets, by name."""
    with lab_extra():
        from mnist1d.data import get_dataset_args, make_dataset
    settings = get_dataset_args()
    settings.seed = seed
    with seeded(seed):  # the package reseeds the global generators
        made = make_dataset(settings)
        # A seed that is nobody's training set: the first signals of two sets of one seed are the same.
        settings.seed, settings.num_samples, settings.train_split = seed + 2**31, 1000, 1.0
        further = make_dataset(settings)
    inputs = {"train": made["x"], "val": further["x"], "test": made["x_test"]}
    targets = {"train": made["y"], "val": further["y"], "test": made["y_test"]}
    return {
        **{split: torch.from_numpy(signals).float() for split, signals in inputs.items()},
        **{f"{split} targets": torch.from_numpy(classes).long() for split, classes in targets.items()},
    }
