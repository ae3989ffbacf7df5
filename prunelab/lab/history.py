"""What a training run remembers: one record an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.lab.figure import Picture
    from prunelab.masks import Masks

ROWS_SHOWN = 10
NUMBERS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "penalty", "sparsity")
OPTIONAL = ("penalty", "sparsity")  # a column only where there is something to show


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        epoch: 1, 2, ...; steps: optimizer steps taken so far.
        train_loss, train_accuracy: means over the examples as they were met, while the weights moved.
        val_loss, val_accuracy: over the validation data after the epoch, in eval mode; None without validation data.
        penalty: mean of what `penalty=` added to the loss; the losses above are without it. None without a penalty.
        sparsity: of the pruner's masks after the epoch; None without a pruner.
    """

    epoch: int
    steps: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None = None
    val_accuracy: float | None = None
    penalty: float | None = None
    sparsity: float | None = None


@dataclass
class History:
    """The epochs of one call of `fit`, in order. Iterates over them; shows as a table in a notebook.

    Attributes:
        epochs: the records.
        restored: number of the epoch whose weights the model was given back by early stopping, or None.
        masks: what the pruner had removed at the end, or None without a pruner.
    """

    epochs: list[Epoch] = field(default_factory=list)
    restored: int | None = None
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, index: int) -> Epoch:
        return self.epochs[index]

    def plot(self) -> Picture:
        """Loss and accuracy against epoch, as a figure with alt text."""
        from prunelab.lab import plots  # matplotlib is needed by those who look, not by those who train

        return plots.history(self)

    def __str__(self) -> str:
        if not self.epochs:
            return "History: no epoch"
        last = self.epochs[-1]
        text = f"History: {len(self)} epochs, {last.steps} steps; train {_cell(last.train_accuracy)}"
        if last.val_accuracy is not None:
            text += f", validation {_cell(last.val_accuracy)}"
        return text + (f"; weights of epoch {self.restored} restored" if self.restored else "")

    def _repr_html_(self) -> str:
        columns = [
            name for name in NUMBERS if name not in OPTIONAL or any(getattr(e, name) is not None for e in self.epochs)
        ]
        head = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in ("epoch", *columns))
        rows = []
        for record in self._shown():
            label = f"{record.epoch} (restored)" if record.epoch == self.restored else str(record.epoch)
            cells = "".join(f"<td>{_cell(getattr(record, name))}</td>" for name in columns)
            rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
        caption = f"<caption>{self}</caption>"
        return f'<table class="dataframe">{caption}<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'

    def _shown(self) -> list[Epoch]:
        """At most about `ROWS_SHOWN` epochs, evenly spread, with the first, the last and the restored one."""
        count = len(self.epochs)
        if count <= ROWS_SHOWN:
            return self.epochs
        picks = {round(index * (count - 1) / (ROWS_SHOWN - 1)) for index in range(ROWS_SHOWN)}
        return [record for index, record in enumerate(self.epochs) if index in picks or record.epoch == self.restored]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
