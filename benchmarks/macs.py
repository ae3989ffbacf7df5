"""What counting multiply-adds costs, in forwards: prunelab's trace and report beside torch's `FlopCounterMode`.

    python benchmarks/macs.py

A *forward* is one plain call of the model in evaluation mode without gradients. In each round every case runs once, on
the same input, in an order that rotates; figures are medians of the ratios to the forward of the same round. The peer
counts the forward that it watches: on the CPU it does not see fused attention or recurrent layers.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from environment import seconds, store
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunelab import evaluate
from prunelab.trace import trace

ROUNDS = 15


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 with a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *self.layer(inputs, width, 1, 1), nn.ReLU(inplace=True),
            *self.layer(width, width, 3, stride), nn.ReLU(inplace=True),
            *self.layer(width, outputs, 1, 1),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*self.layer(inputs, outputs, 1, stride))

    @staticmethod
    def layer(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """25.6 M parameters."""
    layers: list[nn.Module] = [*Bottleneck.layer(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Attention(nn.Module):
    """Self-attention on (B, S, D) as timm writes it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Residual(nn.Module):
    def __init__(self, width: int, body: nn.Module) -> None:
        super().__init__()
        self.norm, self.body = nn.LayerNorm(width), body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(self.norm(x))


def vit_s_blocks() -> nn.Module:
    """The twelve blocks of ViT-S (Dosovitskiy et al. 2021; 384 wide, 6 heads)."""
    blocks = []
    for _ in range(12):
        mlp = nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384))
        blocks += [Residual(384, Attention(384, 6)), Residual(384, mlp)]
    return nn.Sequential(*blocks)


def peer_macs(model: nn.Module, x: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 2


def measure(model: nn.Module, x: Tensor) -> dict[str, Any]:
    model.eval()

    def forward() -> None:
        with torch.no_grad():
            model(x)

    cases = {
        "forward": forward,
        "trace": lambda: trace(model, x),
        "report": lambda: evaluate.report(model, x),
        "FlopCounterMode": lambda: peer_macs(model, x),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        call()
    for turn in range(ROUNDS):
        for i in range(len(cases)):
            name = list(cases)[(turn + i) % len(cases)]
            times[name].append(seconds(cases[name]))
    ratios = {name: [t / f for t, f in zip(series, times["forward"], strict=True)] for name, series in times.items()}
    return {
        "forward_seconds": statistics.median(times["forward"]),
        "forwards": {name: round(statistics.median(r), 3) for name, r in ratios.items()},
        "macs": trace(model, x).macs,
        "peer_macs": peer_macs(model, x),
    }


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = {
        "ResNet-50, 1 image": (resnet50(), torch.randn(1, 3, 224, 224)),
        "ViT-S blocks, 1 image": (vit_s_blocks(), torch.randn(1, 197, 384)),
        "LSTM 256, 2 layers, 8 x 64 steps": (nn.LSTM(256, 256, 2, batch_first=True), torch.randn(8, 64, 256)),
    }
    results = {name: measure(model.to(device), x.to(device)) for name, (model, x) in models.items()}
    columns = ("trace", "report", "FlopCounterMode")
    print(f"{'cost in forwards':34}" + "".join(f"{c:>17}" for c in columns) + f"{'G MACs':>10}{'peer':>10}")
    for name, result in results.items():
        costs = "".join(f"{result['forwards'][c]:17.2f}" for c in columns)
        print(f"{name:34}{costs}{result['macs'] / 1e9:10.3f}{result['peer_macs'] / 1e9:10.3f}")
    print(f"stored in {store(f'macs-{device.type}', {'rounds': ROUNDS, 'models': results})}")


if __name__ == "__main__":
    main()
