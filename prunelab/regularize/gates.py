"""Hard-concrete gates: random numbers from 0 to 1, both ends included, through which a gradient flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunelab.granularity import Granularity
from prunelab.regularize.units import Piece, sizes_of, spread

GAMMA, ZETA, TAU = -0.1, 1.1, 2 / 3  # the stretched interval and the temperature (Louizos et al. 2018)
SHIFT = TAU * math.log(-GAMMA / ZETA)
EDGE = 1e-6  # uniform noise stays this far from 0 and 1, where its logarithm is infinite


def hard_sigmoid(s: Tensor) -> Tensor:
    """Stretch (0, 1) to (γ, ζ) and clip it: what falls outside [0, 1] becomes exactly 0 or 1."""
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class Gates(nn.Module):
    """One gate a unit. `log_alpha`, (units,), is learned; `noise`, (units,), is the last uniform sample."""

    def __init__(self, pieces: list[Piece], granularity: Granularity, log_alpha: float) -> None:
        super().__init__()
        sizes = sizes_of(pieces, granularity)
        self.log_alpha = nn.Parameter(torch.full_like(sizes, log_alpha))
        self.noise: Tensor
        self.sizes: Tensor
        self.register_buffer("noise", torch.full_like(sizes, 0.5), persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)

    def draw(self) -> None:
        """Take a new sample of the noise."""
        self.noise = torch.rand_like(self.noise).clamp(EDGE, 1 - EDGE)

    def forward(self) -> Tensor:
        """The gates z, (units,), in [0, 1]; without chance in eval mode."""
        if not self.training:
            return self.settled()
        logistic = self.noise.log() - (-self.noise).log1p()
        return hard_sigmoid(((logistic + self.log_alpha) / TAU).sigmoid())

    def settled(self) -> Tensor:
        """The gates without chance, σ(log α) stretched and clipped (Louizos et al. 2018, eq. 13)."""
        return hard_sigmoid(self.log_alpha.sigmoid())

    def open(self) -> Tensor:
        """The probability that a sampled gate is not zero, (units,): σ(log α - τ log(-γ/ζ))."""
        return (self.log_alpha - SHIFT).sigmoid()


class Gated(nn.Module):
    """A parametrization: a parameter times the gates of its units.

    The piece that a forward reads first draws the sample; the others, such as the bias, follow it. `order` are the
    names of the parameters of the module as it was, for whoever puts it back.
    """

    def __init__(
        self, gates: Gates, piece: Piece, granularity: Granularity, *, draws: bool, order: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.gates, self.granularity, self.draws, self.order = gates, granularity, draws, order
        self.shape, self.layout = piece.shape, piece.layout

    def forward(self, values: Tensor) -> Tensor:
        if self.draws and self.training:
            self.gates.draw()
        return (values * self.spread(self.gates()).reshape(values.shape)).to(values.dtype)

    def spread(self, numbers: Tensor) -> Tensor:
        """One number a unit at every entry of the parameter; a bias as a column."""
        return spread(numbers, self.granularity, self.shape, self.layout)
