# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Products of matrices and convolutions against float64, and what numeric libraries are in the process.

The reference adds up in float64, one term after the other, with nothing but elementwise products and sums: no BLAS,
oneDNN or cuDNN takes part in it. A product of two numbers of 24 bits or fewer is exact in float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from builder.checks.contract import expect

#: Half of the distance from 1 to the next number, and the distance between the smallest numbers.
FORMATS = {
    "float64": (2.0**-53, 2.0**-1074),
    "float32": (2.0**-24, 2.0**-149),
    "bfloat16": (2.0**-8, 2.0**-133),
    "float16": (2.0**-11, 2.0**-24),
}
#: Rows, terms and columns. The first fits no vector register and no block, the second is worth several threads.
MATRICES = ((33, 129, 65), (192, 256, 160))
KERNEL = 3
#: Of convolutions. With a stride of one a library may use Winograd's or Fourier's method, whose errors have other
#: bounds; with two it adds up products.
STRIDE = 2


def bound(reference: torch.Tensor, magnitudes: torch.Tensor, terms: int, dtype: str, parts: int = 1) -> torch.Tensor:
    """How far each element may be from its reference.

    A sum of n products, each rounded once, in any order: at most n u / (1 - n u) of the sum of their magnitudes
    (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), where u is that of float32 for the types below it:
    oneDNN, MKL and cuBLAS add those up in float32. One more rounding puts the result into its type; where it is added
    up from `parts` in that type, each of them is rounded, and so is each sum. The reference has such an error too,
    with the u of float64.
    """
    unit, tiny = FORMATS[dtype]
    slack = sum(terms * each / (1 - terms * each) for each in (min(unit, FORMATS["float32"][0]), FORMATS["float64"][0]))
    error = slack * magnitudes
    in_type = reference.abs() if parts == 1 else 2 * parts * magnitudes
    return error + unit * (in_type + error) + parts * tiny


def held(found: torch.Tensor, reference: torch.Tensor, limit: torch.Tensor, what: str) -> float:
    """The largest error as a part of its bound; fails when it is above 1."""
    expect(found.shape == reference.shape, f"{what} has the shape {tuple(found.shape)}, not {tuple(reference.shape)}")
    error = (found.double().cpu() - reference).abs()
    # A NaN is above no bound, so it is asked whether all are below.
    if not bool((error <= limit).all()):
        worst = int(torch.nan_to_num(error / limit, nan=float("inf")).argmax())
        expect(
            False,
            f"{what} is off by {float(error.reshape(-1)[worst]):.2e}, "
            f"more than roundings explain ({float(limit.reshape(-1)[worst]):.2e})",
        )
    return float((error / limit).max())


def random(seed: int, dtype: str, *shape: int) -> torch.Tensor:
    """Normal numbers of a type, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))


def products(device: str, dtype: str) -> float:
    """Matrix products; the largest error as a part of its bound."""
    worst = 0.0
    for seed, (rows, terms, columns) in enumerate(MATRICES):
        left, right = random(seed, dtype, rows, terms), random(seed + 10, dtype, terms, columns)
        reference = torch.zeros(rows, columns, dtype=torch.float64)
        magnitudes = torch.zeros_like(reference)
        for term in range(terms):
            product = left[:, term, None].double() * right[term].double()
            reference += product
            magnitudes += product.abs()
        found = left.to(device) @ right.to(device)
        limit = bound(reference, magnitudes, terms, dtype)
        worst = max(worst, held(found, reference, limit, f"a product of matrices in {dtype} on {device}"))
    return worst


def convolutions(device: str, dtype: str) -> float:
    """A convolution and the gradient of its weight, in both layouts; the largest error as a part of its bound."""
    worst = 0.0
    images = random(20, dtype, 4, 16, 17, 17)
    weight = random(21, dtype, 24, 16, KERNEL, KERNEL)
    side = (images.shape[-1] - KERNEL) // STRIDE + 1
    signal = random(22, dtype, 4, 24, side, side)
    forward = [torch.zeros(signal.shape, dtype=torch.float64) for _ in range(2)]
    backward = [torch.zeros(weight.shape, dtype=torch.float64) for _ in range(2)]
    for row in range(KERNEL):
        for column in range(KERNEL):
            last = STRIDE * (side - 1) + 1
            window = images[:, :, row : row + last : STRIDE, column : column + last : STRIDE].double()
            for channel in range(images.shape[1]):
                seen = window[:, None, channel]
                product = weight[None, :, channel, row, column, None, None].double() * seen
                forward[0] += product
                forward[1] += product.abs()
                product = signal.double() * seen
                backward[0][:, channel, row, column] = product.sum((0, 2, 3))
                backward[1][:, channel, row, column] = product.abs().sum((0, 2, 3))
    forward_limit = bound(forward[0], forward[1], KERNEL * KERNEL * images.shape[1], dtype)
    # The gradient of the weight may be added up image by image.
    backward_limit = bound(backward[0], backward[1], signal.shape[0] * side * side, dtype, parts=signal.shape[0])
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.to(device).contiguous(memory_format=layout)
        learned = weight.to(device, copy=True).contiguous(memory_format=layout).requires_grad_()
        found = torch.nn.functional.conv2d(given, learned, stride=STRIDE)
        found.backward(signal.to(device).contiguous(memory_format=layout))
        what = f"in {dtype} on {device} ({str(layout).rpartition('.')[2]})"
        worst = max(worst, held(found.detach(), forward[0], forward_limit, f"a convolution {what}"))
        expect(learned.grad is not None, f"a convolution {what} gave its weight no gradient")
        worst = max(worst, held(learned.grad, backward[0], backward_limit, f"the gradient of a convolution {what}"))
    return worst


def solution(device: str, dtype: str) -> float:
    """A system of equations; the residual as a part of its bound.

    Gaussian elimination leaves a residual of at most 3 n u / (1 - 3 n u) of |L| |U| |x| (Higham, theorem 9.4). The
    matrix is diagonally dominant by columns and rows, so no row is exchanged and the norm of |L| |U| is at most
    2 n - 1 times that of the matrix (the maximum norm; Higham, section 9.5 with its Problem 8.7).
    """
    size = 96
    unit = FORMATS[dtype][0]
    matrix = random(30, dtype, size, size)
    matrix += torch.diag(matrix.abs().sum(0).maximum(matrix.abs().sum(1)))
    right = random(31, dtype, size)
    found = torch.linalg.solve(matrix.to(device), right.to(device)).cpu()
    residual = ((matrix.double() * found.double()).sum(1) - right.double()).abs().max()
    norm = matrix.double().abs().sum(1).max() * found.double().abs().max()
    slack = 3 * size * unit / (1 - 3 * size * unit)
    limit = slack * (2 * size - 1) * norm + size * FORMATS["float64"][0] * norm
    what = f"a system of {size} equations in {dtype} on {device}"
    return held(residual.reshape(1), torch.zeros(1, dtype=torch.float64), limit.reshape(1), f"{what}, its residual,")


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """As the formats say: no TF32 in the place of float32, and sums of low types in float32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    before = [
        (where, name, getattr(where, name)) for where in (matmul, cudnn) for name in names if hasattr(where, name)
    ]
    for where, name, _ in before:
        setattr(where, name, False)
    try:
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)


def examine(device: str) -> dict[str, Any]:
    """Every computation in every type on one device; what was measured are errors as parts of their bounds."""
    measured: dict[str, Any] = {}
    missing = []
    with strict():
        for dtype in FORMATS:
            try:
                measured[f"matmul_{dtype}"] = products(device, dtype)
                measured[f"convolution_{dtype}"] = convolutions(device, dtype)
            except RuntimeError as error:
                # Older releases have no float16 on the CPU; they say so, which is no wrong number.
                if (device, dtype) != ("cpu", "float16") or "not implemented for 'Half'" not in str(error):
                    raise
                missing.append(dtype)
        for dtype in ("float64", "float32"):
            measured[f"solve_{dtype}"] = solution(device, dtype)
    measured["types_missing"] = missing
    return measured
