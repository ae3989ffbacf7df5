"""Classifiers of sequences with recurrent layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """Tokens, an embedding, an LSTM or GRU, the last state of each direction, a hidden layer and logits."""

    def __init__(self, cell: type[nn.RNNBase], *, layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.cell = cell(16, 24, layers, batch_first=True, bidirectional=bidirectional)
        directions = 2 if bidirectional else 1
        self.hidden, self.head = nn.Linear(24 * directions, 32), nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, length) -> logits (N, 5)."""
        _, state = self.cell(self.embedding(tokens))
        last = state[0] if isinstance(state, tuple) else state  # (layers · directions, N, 24)
        last = torch.cat([last[-2], last[-1]], 1) if self.cell.bidirectional else last[-1]
        return self.head(torch.relu(self.hidden(last)))
