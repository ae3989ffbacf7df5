"""The references behind the exercises on what gets faster, against oracles that share nothing with them."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from prunelab.evaluate import report
from prunelab.exercises import structured_vs_unstructured as ex
from prunelab.exercises.structured_vs_unstructured import csr_product, flattened, folded, forms


def solved(module):
    namespace: dict = {"torch": torch, "nn": nn}
    exec(module.SOLUTION, namespace)
    return namespace[module.QUESTION.answer]


def cases(module):
    return [pytest.param(case.arguments, id=case.about) for case in module._cases()]


def held(matrix):
    """The bytes of the three lists of torch's compressed rows, or of a dense tensor."""
    if matrix.layout == torch.strided:
        return matrix.nbytes
    return matrix.values().nbytes + matrix.col_indices().nbytes + matrix.crow_indices().nbytes


def test_the_bytes_of_q1_are_those_that_torch_holds():
    weight, blocks = torch.zeros(500, 1000), torch.zeros(50, 10, 100, 10)
    weight.flatten()[:50_000] = 1
    blocks.transpose(1, 2)[:5] = 1  # 5 rows of 100 blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the layouts are in beta
        matrices = {
            "zeros in place": weight,
            "CSR": weight.to_sparse_csr(),
            "block-CSR": blocks.reshape(500, 1000).to_sparse_bsr((10, 10)),
            "half of the outputs removed": weight[:250].clone(),
            "half of both removed": weight[:250, :500].clone(),
        }
    answer = solved(forms)
    assert {row: held(matrix) for row, matrix in matrices.items()} == {row: pair[0] for row, pair in answer.items()}
    for row, matrix in matrices.items():
        if matrix.layout == torch.strided:
            outputs, inputs = matrix.shape
            assert report(nn.Linear(inputs, outputs, bias=False), torch.zeros(1, inputs)).macs == answer[row][1]
        else:
            assert matrix.values().numel() == answer[row][1]


def test_q1_takes_no_fractions_and_no_swap():
    right = solved(forms)
    assert ex.q1.check(right)
    assert not ex.q1.check(right | {"CSR": (604_008.5, 50_000)})
    assert "changed places" in str(ex.q1.check(right | {"CSR": (50_000, 604_008)}))


@pytest.mark.parametrize("arguments", cases(csr_product))
def test_the_product_of_q2_is_that_of_torchs_own_csr(arguments):
    shape = (len(arguments["starts"]) - 1, len(arguments["x"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = torch.sparse_csr_tensor(
            arguments["starts"], arguments["columns"], arguments["values"], size=shape, check_invariants=True
        )
    expected = matrix.to_dense() @ arguments["x"]
    torch.testing.assert_close(csr_product._right(**arguments), expected)
    torch.testing.assert_close(solved(csr_product)(**arguments), expected)


@pytest.mark.parametrize("arguments", cases(flattened))
def test_what_q3_leaves_computes_what_the_masked_network_computes(arguments):
    weight, bias, reader, keep = arguments.values()
    pixels = reader.shape[1] // len(keep)
    x = torch.randn(3, 2, 3, 2 + pixels, dtype=weight.dtype)  # its maps have 1 × pixels
    alive = keep.to(weight.dtype)
    maps = nn.functional.conv2d(x, weight * alive[:, None, None, None], bias * alive).relu()
    expected = maps.flatten(1) @ reader.T
    for parts in (flattened._right(**arguments), solved(flattened)(**arguments)):
        small, fewer, rest = parts
        if len(small):
            found = nn.functional.conv2d(x, small, fewer).relu().flatten(1) @ rest.T
            torch.testing.assert_close(found, expected)
        assert len(small) == len(fewer) == int(keep.sum())
        assert rest.shape == (len(reader), int(keep.sum()) * pixels)


@pytest.mark.parametrize("arguments", cases(folded))
def test_the_bias_of_q4_makes_the_network_without_the_channels_compute_the_same(arguments):
    norm, dead, reader = arguments.values()
    images = torch.randn(4, len(dead), 5, 5)
    images[:, dead] = 0  # what a filter of zeros makes
    expected = reader(norm(images).relu().mean(dim=(2, 3)))
    for bias in (folded._right(norm, dead, reader), solved(folded)(norm, dead, reader)):
        features = norm(images).relu().mean(dim=(2, 3))[:, ~dead]
        torch.testing.assert_close(features @ reader.weight[:, ~dead].T + bias, expected)
