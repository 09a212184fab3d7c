"""Rewrite operations that overwrite their input, so that a graph may be cut anywhere and features may be kept."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx

__all__ = ["make_functional", "set_item"]

_OPERATORS: dict[object, Callable[..., object]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.imatmul: operator.matmul,
    operator.ipow: operator.pow,
}


def set_item(target: Tensor, key: object, value: object) -> Tensor:
    """``target[key] = value`` on a copy of ``target``."""
    copy = target.clone()
    copy[key] = value  # pyright: ignore[reportArgumentType]
    return copy


def make_functional(graph: fx.Graph) -> None:
    """Replace operations that overwrite a value by ones that return a new one; later uses read the new one.

    Handled are augmented assignments, item assignment, methods with a trailing underscore and ``inplace=True``. Views
    of an overwritten value are not followed; the caller compares the graph with the model.
    """
    for node in list(graph.nodes):
        overwritten = _overwritten(node)
        if overwritten is None:
            continue
        following, later = node.next, set[fx.Node]()
        while following.op != "root":
            later.add(following)
            following = following.next
        overwritten.replace_all_uses_with(node, delete_user_cb=lambda user, later=later: user in later)


def _overwritten(node: fx.Node) -> fx.Node | None:
    """Make the node itself functional; returns the value that it overwrote, None if it overwrote none."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.op == "call_function":
        if node.target is operator.setitem:
            node.target = set_item
        elif node.target in _OPERATORS:
            node.target = _OPERATORS[node.target]
        elif node.kwargs.get("inplace") is True:
            node.kwargs = {**node.kwargs, "inplace": False}
        else:
            return None
        return node.args[0]
    if node.op == "call_method":
        plain = str(node.target).removesuffix("_")
        if plain == node.target or plain.endswith("_") or not hasattr(torch.Tensor, plain):
            return None
        node.target = plain
        return node.args[0]
    return None
