"""Encodings of tensors with zeros: bytes written by hand, sizes worked out by hand, and every bit back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from prunelab.evaluate import Encoded, decode, encode
from prunelab.evaluate.encoding import same_bits

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OTHERS = [
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.float8_e4m3fn,
    torch.complex64,
]
NAMES = ["dense", "bitmap", "CSR", "1:2", "2:4", "4:8", "3:16", "5:32"]


def test_a_bitmap_by_hand() -> None:
    """11 elements: bits 0100 1000 | 001 and five to fill, then the three elements."""
    tensor = torch.zeros(11, dtype=torch.uint8)
    tensor[[1, 4, 10]] = torch.tensor([7, 8, 9], dtype=torch.uint8)
    assert encode(tensor, "bitmap").payload == bytes([0b01001000, 0b00100000, 7, 8, 9])


def test_csr_by_hand() -> None:
    """The matrix of many textbooks; 5 nonzero elements and 4 columns need one byte an index."""
    matrix = torch.tensor([[0, 0, 0, 0], [5, 8, 0, 0], [0, 0, 3, 0], [0, 6, 0, 0]], dtype=torch.uint8)
    starts, columns, values = [0, 0, 2, 3, 4], [0, 1, 2, 1], [5, 8, 3, 6]
    assert encode(matrix, "CSR").payload == bytes([*starts, *columns, *values])


def test_two_of_four_by_hand() -> None:
    """Places 1 and 3, 0 and 2 in two bits each: 01 11 00 10; a group with one element stores a zero too, its first."""
    row = torch.tensor([[0, 5, 0, 6, 7, 0, 8, 0]], dtype=torch.uint8)
    assert encode(row, "2:4").payload == bytes([0b01110010, 5, 6, 7, 8])
    short = torch.tensor([[0, 0, 9, 0], [0, 1, 0, 1]], dtype=torch.uint8)
    assert encode(short, "2:4").payload == bytes([0b00100111, 0, 9, 1, 1])


def test_the_signs_of_zeros_by_hand() -> None:
    tensor = torch.tensor([1.0, -0.0, 0.0, -0.0, 2.0], dtype=torch.float16)
    one, two = (np.float16(v).tobytes() for v in (1, 2))
    assert encode(tensor, "bitmap").payload == bytes([0b10001000]) + one + two + bytes([0b10100000])
    assert not encode(tensor.abs(), "bitmap").signs


def pruned(rows: int, columns: int, nonzero: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A matrix of ones with `nonzero` of them left, at random places."""
    draw = torch.Generator().manual_seed(rows + columns + nonzero)
    tensor = torch.zeros(rows * columns, dtype=dtype)
    tensor[torch.randperm(len(tensor), generator=draw)[:nonzero]] = 1
    return tensor.reshape(rows, columns)


@pytest.mark.parametrize(
    ("tensor", "encoding", "size"),
    [
        # 300 × 784 float32, a tenth left: bitmap 235 200 / 8 + 4 · 23 520 = 123 480; CSR with indices of two bytes
        # 2 · 301 + 6 · 23 520 = 141 722, pointers up to 23 520 too
        (pruned(300, 784, 23_520), "bitmap", 123_480),
        (pruned(300, 784, 23_520), "CSR", 141_722),
        (pruned(300, 784, 23_520), "dense", 940_800),
        # 256 columns: the last index, 255, still fits one byte; with 257 it does not
        (pruned(4, 256, 100), "CSR", 5 * 1 + 100 * (1 + 4)),
        (pruned(4, 257, 100), "CSR", 5 * 1 + 100 * (2 + 4)),
        # pointers hold the number of nonzero elements: 255 in one byte, 256 in two, 65 536 in four
        (pruned(4, 256, 255), "CSR", 5 * 1 + 255 * 5),
        (pruned(4, 256, 256), "CSR", 5 * 2 + 256 * 5),
        (pruned(512, 256, 65_535), "CSR", 513 * 2 + 65_535 * 5),
        (pruned(512, 256, 65_536), "CSR", 513 * 4 + 65_536 * 5),
        (pruned(300, 784, 23_520, torch.bfloat16), "bitmap", 235_200 // 8 + 2 * 23_520),
        # half of every four of 1024 weights: 512 values, and 512 places of two bits
        (torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(8, 32), "2:4", 4 * 512 + 128),
        # 10 columns: three groups of four a row, the last one filled up
        (torch.tensor([0.0, 1.0]).repeat(3, 5), "2:4", 3 * 3 * 2 * 4 + math.ceil(3 * 3 * 2 * 2 / 8)),
        # one of every 16: 64 values, and 64 places of four bits
        (torch.eye(16).repeat(1, 4), "1:16", 4 * 64 + 32),
    ],
)  # fmt: skip
def test_sizes_by_hand(tensor: Tensor, encoding: str, size: int) -> None:
    encoded = encode(tensor, encoding)
    assert len(encoded.payload) == size
    assert same_bits(decode(encoded), tensor)


def test_csr_agrees_with_scipy() -> None:
    tensor = pruned(40, 60, 500) * torch.arange(2400.0).reshape(40, 60)
    theirs = sparse.csr_array(tensor.numpy())
    arrays = (theirs.indptr.astype("<u2"), theirs.indices.astype("<u1"), theirs.data)
    assert encode(tensor, "CSR").payload == b"".join(array.tobytes() for array in arrays)


@pytest.mark.parametrize(
    ("tensor", "encoding"),
    [
        (torch.ones(4, 4), "dense"),
        (torch.tensor([0, 1, 1, 1], dtype=torch.int8), "dense"),  # three bytes and one for the bits are four again
        (torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=torch.int8), "dense"),
        (torch.tensor([0, 1, 1, 1, 1, 1, 1, 0], dtype=torch.int8), "bitmap"),  # 7 bytes; three of four would be 6 + 2
        (torch.zeros(8, 8), "bitmap"),  # one bit for each of 64, against nine pointers
        (torch.zeros(8, 80), "CSR"),
        (pruned(64, 64, 2_048), "bitmap"),
        (pruned(64, 64, 40), "CSR"),
        # two of four take as many bytes as the bitmap: what hardware reads wins
        (torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(8, 32), "2:4"),
        (torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(8, 32), "1:2"),  # here one bit for each pair is enough
        (torch.eye(16).repeat(4, 4), "1:16"),
        (torch.zeros(0, 5), "dense"),
        (torch.tensor(3.0), "dense"),
        (torch.zeros(3, 5, dtype=torch.complex128), "dense"),
    ],
)
def test_the_smallest_wins(tensor: Tensor, encoding: str) -> None:
    assert encode(tensor).encoding == encoding


def special(dtype: torch.dtype) -> Tensor:
    """Zeros of both signs, infinities, subnormals, and NaNs of several bits."""
    if dtype not in FLOATS:
        return torch.tensor([0, 1, 0, 1, 0, 0, 1]).to(dtype)
    info, bits = torch.finfo(dtype), {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    values = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, info.tiny, 1.5, -2.0], dtype=dtype)
    odd = torch.tensor([-1, 1, torch.iinfo(bits).min + 1], dtype=bits).view(dtype)  # a NaN with a payload, subnormals
    return torch.cat([values, odd])


@given(
    dtype=st.sampled_from([*FLOATS, *OTHERS]),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    zeros=st.sampled_from([0.0, 0.3, 0.6, 0.9, 0.99, 1.0]),
    encoding=st.sampled_from([None, *NAMES]),
    seed=st.integers(0, 1000),
)
def test_every_bit_comes_back(
    dtype: torch.dtype, shape: tuple[int, ...], zeros: float, encoding: str | None, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    pool = special(dtype)
    tensor = pool.view(torch.uint8).view(len(pool), -1)[torch.randint(len(pool), (math.prod(shape),), generator=draw)]
    tensor[torch.rand(len(tensor), generator=draw) < zeros] = 0
    tensor = tensor.reshape(-1).view(dtype).reshape(shape)
    try:
        encoded = encode(tensor, encoding)
    except ValueError:
        assert encoding not in (None, "dense")  # not every tensor has every pattern, nor zeros to leave out
        return
    again = decode(encoded)
    assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
    assert again.contiguous().reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()
    assert encoding is not None or len(encoded.payload) == min(
        len(encode(tensor, name).payload) for name in available(tensor)
    )


def test_the_signs_of_zeros_count_in_the_choice() -> None:
    """One zero of eight float16: a byte of bits and 14 bytes are 15, one byte of a sign more is as many as dense."""
    tensor = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0], dtype=torch.float16)
    assert encode(tensor).encoding == "bitmap"
    assert encode(-tensor).encoding == "dense"


def test_the_same_bits() -> None:
    one = torch.tensor([1.0, torch.nan])
    assert same_bits(one, one.clone())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(one, one.view(torch.int32))
    assert not same_bits(one, one[None])


def available(tensor: Tensor) -> list[str]:
    try:
        encode(tensor, "no such")
    except ValueError as error:
        return str(error).rpartition("there are ")[2].split(", ")
    raise AssertionError


def brute_force_pattern(tensor: Tensor, m: int) -> int:
    """The most nonzero elements in any m of a row, from the definition."""
    return max(int(group.count_nonzero()) for row in tensor for group in row.split(m))


@given(rows=st.integers(1, 4), columns=st.integers(1, 70), keep=st.floats(0.01, 1), seed=st.integers(0, 1000))
def test_patterns_are_found(rows: int, columns: int, keep: float, seed: int) -> None:
    tensor = (torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < keep).float()
    if tensor.all():
        assert available(tensor) == ["dense"]
        return
    expected = [f"{max(n, 1)}:{m}" for m in (2, 4, 8, 16, 32) if (n := brute_force_pattern(tensor, m)) < m and m > 1]
    assert [name for name in available(tensor) if ":" in name] == expected


@pytest.mark.parametrize(
    "view", [lambda w: w.t(), lambda w: w[::2, 1:], lambda w: w.expand(3, 8, 6), lambda w: w[0, 0]]
)
def test_views_are_stored_as_they_look(view) -> None:
    tensor = view(pruned(8, 6, 20) * torch.arange(48.0).reshape(8, 6))
    for name in available(tensor):
        assert torch.equal(decode(encode(tensor, name)), tensor)


def test_a_conjugate_view_is_stored_as_it_looks() -> None:
    """Every zero of it has a negative imaginary part, a bit that is stored."""
    tensor = torch.tensor([1 + 2j, 0, 0, 0, 0, 0]).conj()
    assert encode(tensor).encoding == "dense"
    assert same_bits(decode(encode(tensor)), tensor.resolve_conj())
    tensor = torch.complex(torch.tensor([1.0, 0, 0]), torch.tensor([2.0, -0.0, -0.0])).conj()
    assert torch.equal(decode(encode(tensor, "bitmap")), tensor)


def test_parameters_on_any_device(device: torch.device) -> None:
    parameter = torch.nn.Parameter(pruned(30, 30, 90).to(device))
    again = decode(encode(parameter))
    assert torch.equal(again, parameter.detach().cpu())
    assert not again.requires_grad


def test_the_result_does_not_share_the_tensors_memory() -> None:
    tensor = torch.ones(3)
    encoded = encode(tensor)
    tensor.fill_(7)
    first = decode(encoded)
    first.fill_(8)
    assert decode(encoded).tolist() == [1, 1, 1]


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a dense tensor, not list"):
        encode([1.0])
    with pytest.raises(TypeError, match=r"layout torch.sparse_coo; .to_dense\(\)"):
        encode(torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="without values"):
        encode(torch.empty(3, device="meta"))
    with pytest.raises(
        ValueError, match=r"'2:4' does not exist for this tensor \(shape \(1, 4\), torch.float32, 1 zeros"
    ):
        encode(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), "2:4")
    with pytest.raises(ValueError, match=r"'bitmap' does not exist.*there are dense$"):
        encode(torch.zeros(3, dtype=torch.complex128), "bitmap")


@pytest.mark.parametrize("name", ["dense", "bitmap", "CSR", "2:4"])
def test_a_payload_of_another_length_is_refused(name: str) -> None:
    good = encode(torch.tensor([0.0, 1.0, -0.0, 2.0]).repeat(4, 2), name)
    assert good.encoding == name
    for size in range(len(good.payload)):
        with pytest.raises(ValueError, match=r"cannot be read: .*too short|cannot be read: .*outside"):
            decode(replace(good, payload=good.payload[:size]))
    with pytest.raises(ValueError, match="1 bytes too long"):
        decode(replace(good, payload=good.payload + b"\0"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "zip"}, "there is no encoding 'zip'"),
        ({"encoding": "2:5"}, "there is no encoding '2:5'"),
        ({"encoding": "4:4"}, "there is no encoding '4:4'"),
        ({"dtype": torch.complex128}, "elements of 16 bytes are stored dense"),
        ({"nonzero": 3}, "does not mark 3 elements"),
        ({"shape": (10**9, 10**9)}, "too short"),
    ],
)
def test_a_wrong_description_is_refused(change: dict, message: str) -> None:
    good = encode(torch.tensor([[0.0, 1.0, 0.0, 2.0]]), "bitmap")
    with pytest.raises(ValueError, match=message):
        decode(replace(good, **change))


@pytest.mark.parametrize(
    "payload",
    [
        [1, 1, 2, 0, 0, 5, 6],  # the first row does not start at the first element
        [0, 1, 1, 0, 0, 5, 6],  # the last row ends too early
        [0, 3, 2, 0, 0, 5, 6],  # the second row ends before it starts
        [0, 1, 2, 0, 4, 5, 6],  # a fifth column
    ],
)
def test_csr_that_points_outside_is_refused(payload: list[int]) -> None:
    with pytest.raises(ValueError, match="lie outside of the matrix"):
        decode(Encoded("CSR", torch.uint8, (2, 4), 2, False, bytes(payload)))


def test_an_absurd_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        decode(Encoded("CSR", torch.uint8, (1, 10**18), 0, False, bytes(2)))
    with pytest.raises(ValueError, match="cannot be read"):
        decode(Encoded("CSR", torch.uint8, (1, 10**30), 0, False, bytes(2)))
