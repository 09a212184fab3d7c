"""Operators without a formula: those that may multiply matrices, convolve or recur are refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor, nn

from restnet_search.costs.torch_counter import count_with_torch
from restnet_search.errors import GraphError

__all__ = ["computes", "may_multiply", "refuse_hidden_products", "refuse_products", "uncountable"]

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
_MOVES = re.compile(
    r"""
    alias|clone|repeat(_interleave)?|tile|expand_as|pad|un(flatten|fold)|pixel_(un)?shuffle|channel_shuffle|move(dim|axis)
    |swap(axes|dims)|im2col|col2im|fold|flip|tril|triu|where|one_hot|embedding|index_select|index_add|meshgrid|ravel
    |(feature_|alpha_)?dropout|zero|fill|broadcast_to|view_as|reshape_as|new_zeros|lift_fresh|numpy_T|real|imag|hardtanh
    |view_as_(real|complex)|linspace|masked_select|scatter|take_along_dim|rot90|argmax|argsort|sort|topk|diagonal|le|lt|ne
    |tensor_split|[hvd]split|[hvd]stack|logical_\w+|is\w*|min|max_pool\dd|clamp_(min|max)
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


def computes(operator: str) -> bool:
    """Tell by its name whether an operator computes values: those that move, repeat, select or compare them do not."""
    return _MOVES.fullmatch(operator.partition("::")[2].rstrip("_")) is None


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
    if names and sum(count_with_torch(module, features).values()) > counted:
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
