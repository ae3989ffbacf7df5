"""Answers to q3 that must be rejected, each with the message it must get."""

from __future__ import annotations

__all__ = ["WRONG"]


def _answer(
    *,
    centred: str = "matrix - matrix.mean(dim=1, keepdim=True)",
    unit: str = "torch.where(length > 1e-5, centred / length, 0.0)",
    result: str = "(unit @ unit.T).abs()",
    matrix: str = "weight.flatten(1)",
) -> str:
    """The solution with one step changed."""
    return f"""\
def correlation(weight):
    matrix = {matrix}
    centred = {centred}
    length = centred.norm(dim=1, keepdim=True)
    unit = {unit}
    return {result}"""


WRONG = (
    (_answer(centred="matrix"), "These are cosines"),
    (_answer(result="unit @ unit.T"), "The sign is still there"),
    (_answer(result="(unit @ unit.T) ** 2"), "squared correlations"),
    (_answer(result="1 - (unit @ unit.T).abs()"), "how .unlike. they are"),
    (_answer(unit="centred"), "centred but not scaled"),
    (_answer(centred="matrix", unit="centred"), "neither centred nor normalised"),
    (_answer(result="torch.cov(matrix).abs()"), "These are covariances"),
    (_answer(centred="matrix - matrix.mean(dim=0)"), "The mean filter has been taken away"),
    (_answer(centred="matrix - matrix.mean()"), "The mean of the whole layer"),
    (_answer(result="(unit @ unit.T).abs().fill_diagonal_(0)"), "The diagonal is zero"),
    (_answer(result="(unit @ unit.T).abs().triu(1)"), "Only one half of the matrix"),
    (_answer(matrix="weight.transpose(0, 1).flatten(1)"), "the .input. channels"),
    (_answer(unit="(centred / length).abs()"), "The absolute value comes too early"),
    (_answer(unit="torch.where(length > 0, centred / length, 0.0)"), "Its mean is rounded"),
    (_answer(unit="centred / length"), "a filter that does not vary has length 0"),
    (_answer(result="torch.corrcoef(matrix).abs().nan_to_num(1)"), "counts as correlated with all others"),
    (_answer(result="(unit @ unit.T).abs().fill_diagonal_(1)"), "its place on the diagonal is 0"),
    (_answer(unit="centred / centred.std(dim=1, keepdim=True)"), "above 1, which no correlation can be"),
    (
        _answer(
            unit="torch.where(length > 1e-5, centred / matrix.std(dim=1, keepdim=True), 0.0)",
            result="(unit @ unit.T).abs() / matrix.shape[1]",
        ),
        "divides by M - 1 and your product by M",
    ),
    (
        _answer(
            centred="torch.nn.functional.normalize(matrix, dim=1)", unit="centred - centred.mean(dim=1, keepdim=True)"
        ),
        "You scaled first and centred after",
    ),
    (_answer(unit="centred / length.amax().clamp(min=1e-5)"), "are not the correlations of these filters"),
    (_answer(result="unit @ unit"), "raised RuntimeError"),
    (_answer(result="(unit @ unit.T).abs().double()"), "float64; it should be float32"),
    (_answer(result="(unit @ unit.T).abs().tolist()"), "it should return a tensor"),
    (_answer(result="(unit @ unit.T).abs().mean(1)"), r"shape \(6,\); with one value for each pair"),
    (_answer(result="np.corrcoef(matrix)"), "raised NameError"),
    (_answer(centred="matrix.sub_(matrix.mean(dim=1, keepdim=True))"), "modified its input `weight` in place"),
    ("def correlation(weight):\n    torch.corrcoef(weight.flatten(1))", "Is a `return` missing"),
    ("def correlation(one, other):\n    return one @ other", r"yours takes `\(one, other\)`"),
    ("correlation = torch.eye(6)", "needs the function itself"),
)
