"""Multiply-accumulates of operators that multiply matrices, convolve or recur, from the shapes of a JIT trace.

One formula per kind of operator; each takes the inputs and outputs of a node, as fvcore hands them over. Biases and
elementwise steps cost nothing, as with fvcore; a normalisation inside a fused operator costs what fvcore counts for
it where it stands alone (five per value).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from restnet_search.costs.einsum import einsum_macs

__all__ = ["FORMULAS"]

_Values = Sequence[Any]
_Formula = Callable[[_Values, _Values], "int | Counter[str]"]
_NORM = 5  # per value, fvcore's count of a layer norm with weights


def _shape(value: Any) -> tuple[int, ...]:
    from fvcore.nn.jit_handles import get_shape

    shape = get_shape(value)
    if shape is None:
        raise ValueError("a shape is not known")
    return tuple(shape)


def _listed(value: Any) -> list[Any]:
    # a traced list is a node that gathers its members
    return list(value.node().inputs())


def _shapes(values: _Values) -> list[tuple[int, ...]]:
    return [_shape(value) for value in values]


def _matmul(first: int) -> _Formula:
    """The output's shape times the inner axis, also with vectors and broadcast batches; left factor at ``first``."""

    def formula(inputs: _Values, outputs: _Values) -> int:
        return prod(_shape(outputs[0])) * _shape(inputs[first])[-1]

    return formula


def _addbmm(inputs: _Values, outputs: _Values) -> int:
    """``(B, n, m) @ (B, m, p)``, summed over the batch: ``B n m p``."""
    del outputs
    batch, rows, inner = _shape(inputs[1])
    return batch * rows * inner * _shape(inputs[2])[-1]


def _vecdot(inputs: _Values, outputs: _Values) -> int:
    """One product for each pair of values, after both were broadcast: the longer of every axis."""
    del outputs
    return prod(_broadcast(_shape(inputs[0]), _shape(inputs[1])))


def _outer(inputs: _Values, outputs: _Values) -> int:
    """One product for each value of the output: outer and Kronecker products."""
    del inputs
    return prod(_shape(outputs[0]))


def _tensordot(inputs: _Values, outputs: _Values) -> int:
    """The output's shape times the contracted axes; one of length 1 is broadcast, so the other is summed first."""
    axes = ((_shape(tensor), _listed(dims)) for tensor, dims in zip(inputs[:2], inputs[2:4], strict=True))
    left, right = ([shape[dim.toIValue()] for dim in dims] for shape, dims in axes)
    return prod(_shape(outputs[0])) * prod(min(pair) for pair in zip(left, right, strict=True))


def _einsum(inputs: _Values, outputs: _Values) -> int:
    del outputs
    path = inputs[2] if len(inputs) > 2 else None
    listed = path is not None and path.node().kind() == "prim::ListConstruct"
    steps = [step.toIValue() for step in _listed(path)] if listed else None
    return einsum_macs(inputs[0].toIValue(), _shapes(_listed(inputs[1])), steps)


def _bilinear(inputs: _Values, outputs: _Values) -> int:
    """``x W y`` with ``W (out, n, m)``: ``n m`` for ``x W``, then ``m`` for the second factor, per value put out."""
    _, left, right = _shape(inputs[2])
    return prod(_shape(outputs[0])) * (left + 1) * right


def _distances(inputs: _Values, outputs: _Values) -> int:
    """One product for each value of each pair of rows, as ``x @ y.T`` has it."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _convolution(inputs: _Values, outputs: _Values) -> int:
    """Each value put out sums over a filter ``(out, in / groups, *kernel)``."""
    return prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])


def _any_convolution(inputs: _Values, outputs: _Values) -> int:
    """As :func:`_convolution`; transposed, each value taken in spreads over ``(in, out / groups, *kernel)``."""
    transposed = bool(inputs[6].toIValue())
    return _convolution(inputs, [inputs[0]] if transposed else outputs)


def _time_convolution(inputs: _Values, outputs: _Values) -> int:
    """Filters lie as ``(kernel, in, out)``."""
    return prod(_shape(outputs[0])) * prod(_shape(inputs[1])[:2])


def _recurrence(inputs: _Values, outputs: _Values) -> int:
    """Steps times the weights of all layers and directions: each matrix multiplies once per step and image.

    Among the tensors of the lists, weights have two axes, biases one and states three; packed sequences come as
    ``(steps of all, features)``.
    """
    del outputs
    steps = prod(_shape(inputs[0])[:-1])
    lists = [value for value in inputs if value.node().kind() == "prim::ListConstruct"]
    tensors = _shapes([tensor for value in lists for tensor in _listed(value)])
    return steps * sum(prod(shape) for shape in tensors if len(shape) == 2)


def _attention(inputs: _Values, outputs: _Values) -> int:
    """Queries times keys, then weights times values: ``B h L S (E + E_v)``, batches broadcast and heads grouped."""
    query, key, value = _shapes(inputs[:3])
    result = _shape(outputs[0])
    # a group of query heads shares a head of keys, so the longer axis holds for both
    batch = prod(_broadcast(query[:-2], key[:-2]))
    scores = batch * query[-2] * key[-2] * query[-1]
    return scores + prod(result[:-2]) * query[-2] * key[-2] * value[-1]


def _multi_head_attention(inputs: _Values, outputs: _Values) -> int:
    """Projections of queries, keys, values and answers (``D`` by ``D`` each), and the attention between them."""
    del outputs
    query, key = _shape(inputs[0]), _shape(inputs[1])
    return _fused_attention(query, key[-2])


def _encoder_layer(inputs: _Values, outputs: _Values) -> Counter[str]:
    """Self-attention, two linear layers with weights ``(F, D)`` and ``(D, F)``; two norms under their own name."""
    del outputs
    tokens = _shape(inputs[0])
    hidden = _shape(inputs[14])[0]
    products = _fused_attention(tokens, tokens[-2]) + 2 * prod(tokens) * hidden
    return Counter({"_transformer_encoder_layer_fwd": products, "layer_norm": 2 * _NORM * prod(tokens)})


def _layer_norm(inputs: _Values, outputs: _Values) -> Counter[str]:
    """As fvcore counts it, which refuses features of one axis or more than five."""
    from fvcore.nn.jit_handles import get_shape

    weighted = get_shape(inputs[2]) is not None
    return Counter({"layer_norm": prod(_shape(outputs[0])) * (_NORM if weighted else _NORM - 1)})


def _fused_attention(query: tuple[int, ...], keys: int) -> int:
    *batch, queries, width = query
    projections = 2 * (queries + keys) * width * width
    return prod(batch) * (projections + 2 * queries * keys * width)


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    axes = max(len(left), len(right))
    padded = ((1,) * (axes - len(shape)) + shape for shape in (left, right))
    return tuple(max(pair) for pair in zip(*padded, strict=True))


_KINDS: Sequence[tuple[_Formula, str]] = (
    (_matmul(0), "matmul mm bmm mv dot vdot inner linear _int_mm"),
    (_matmul(1), "addmm addmv baddbmm _addmm_activation"),
    (_addbmm, "addbmm"),
    (_vecdot, "linalg_vecdot"),
    (_outer, "outer ger addr kron"),
    (_tensordot, "tensordot"),
    (_einsum, "einsum"),
    (_bilinear, "bilinear"),
    (_distances, "cdist pdist"),
    (_any_convolution, "_convolution"),
    (_convolution, "_convolution_mode torchvision::deform_conv2d"),
    (_time_convolution, "conv_tbc"),
    (_recurrence, "lstm gru rnn_tanh rnn_relu"),
    (_attention, "scaled_dot_product_attention"),
    (_multi_head_attention, "_native_multi_head_attention"),
    (_encoder_layer, "_transformer_encoder_layer_fwd"),
    (_layer_norm, "layer_norm"),
)


def _by_name() -> dict[str, _Formula]:
    names = {name if "::" in name else f"aten::{name}": formula for formula, line in _KINDS for name in line.split()}
    return names | {f"{name}_": formula for name, formula in names.items()}  # in place, where torch has such a variant


FORMULAS: Mapping[str, _Formula] = _by_name()
"""Formula by the operator's name in a trace (``aten::matmul``)."""
