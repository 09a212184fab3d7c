"""Operators without a formula: those that may multiply matrices, convolve or recur are refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from restnet_search.errors import GraphError

__all__ = ["may_multiply", "refuse_hidden_products", "refuse_products", "uncountable"]

_OPAQUE = ("prim::CallFunction", "prim::PythonOp")  # scripted functions, autograd functions

_MULTIPLIES = re.compile(
    r"""
    (?:^|_)(?:                                             # whole words of a name
        (?:|s|b|add|addb|baddb|hsp|sspadd)mm|(?:add)?mv    # products of matrices and vectors
        |v?dot|vecdot|tensordot|einsum|trilinear|inner|outer|ger|addr|kron|cdist|pdist|cov|corrcoef
        |fft|i?stft                                        # transforms
        |linalg|p?inverse|(?:|log|slog)det|svd|qr|eigh?|lu|lstsq|lobpcg|ormqr|orgqr|geqrf
    )(?:_|$)
    |^bilinear$                                            # upsample_bilinear2d only resizes
    |matmul|conv(?!ert)|lstm|gru|rnn|attention|transformer_encoder
    |cholesky|triangular_solve|matrix_exp
    """,
    re.VERBOSE,
)
_HARMLESS = re.compile(
    r"aten::linalg_(?:vector_norm|norm|matrix_norm|cross|diagonal)"
    r"|aten::fft_(?:i?fftshift|r?fftfreq)"
    r"|torchvision::(?:nms|roi_align|roi_pool|ps_roi_align|ps_roi_pool|_cuda_version)"
)


def may_multiply(operator: str) -> bool:
    """Tell by its name whether an operator may multiply matrices, convolve, recur, transform or solve.

    Args:
        operator: As a trace names it: ``aten::gelu``. Operators of other packages may do anything.
    """
    namespace, _, name = operator.partition("::")
    if namespace == "prim" or _HARMLESS.fullmatch(operator):
        return False
    return namespace != "aten" or _MULTIPLIES.search(name.rstrip("_")) is not None


def refuse_products(operators: Iterable[str]) -> None:
    """Raise where one of the operators that were not counted could weigh as much as all others.

    Raises:
        GraphError: Names these operators.
    """
    names = [operator for operator in operators if may_multiply(operator)]
    if names:
        raise uncountable(
            f"{', '.join(names)} may multiply matrices, convolve or recur, and there is no formula for its MACs"
        )


def refuse_hidden_products(operators: Iterable[str], module: nn.Module, features: Tensor, counted: int) -> None:
    """Raise where nodes that hide their operators hide products: torch's own counter finds more than was counted.

    Args:
        operators: Nodes that were not counted.
        module: In eval mode.
        features: Its input.
        counted: MACs of the products, convolutions and recurrences that were counted.

    Raises:
        GraphError: Names these nodes.
    """
    names = [operator for operator in operators if operator.startswith(_OPAQUE)]
    if names and _count_with_torch(module, features) > counted:
        raise uncountable(
            f"{', '.join(names)} hides products of matrices or convolutions (scripted or own autograd code)"
        )


def uncountable(problem: str) -> GraphError:
    """Return the error that says which operator cannot be counted, and why."""
    return GraphError(
        f"The costs of a model cannot be counted: {problem}.",
        expected="convolutions, recurrent layers, attention and products of matrices as torch and torch.nn have them",
        hint="Write that part of the model with such operators, or take another anchor.",
    )


def _count_with_torch(module: nn.Module, features: Tensor) -> int:
    from torch.backends import mha
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # torch's counter does not know fused encoder layers, nor fused attention on CPUs
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            module(features)
    finally:
        mha.set_fastpath_enabled(before)
    return counter.get_total_flops() // 2
