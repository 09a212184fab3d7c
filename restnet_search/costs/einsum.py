"""Multiply-accumulates of an Einstein sum, contracted pair by pair as torch does it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from string import ascii_letters

__all__ = ["einsum_macs"]

_Sizes = dict[str, int]


def einsum_macs(equation: str, shapes: Sequence[Sequence[int]], path: Sequence[int] | None = None) -> int:
    """Count the products of an Einstein sum.

    Two operands cost the product of the lengths of all axes that they have between them, as a batched matrix product
    does; an axis that one operand alone has and that is summed goes first, at no cost, as an axis of length 1
    (broadcast) counts as absent. Repeated axes of one operand are its diagonal. One operand alone is permuted and
    summed: 0.

    Args:
        equation: As ``torch.einsum`` takes it; ``...`` and a missing output are allowed.
        shapes: Of the operands.
        path: Pairs of positions, flat, as torch hands them on (the result goes to the end); from left to right without.
    """
    operands, output = _parse(equation, shapes)
    macs = 0
    for first, second in _pairs(len(operands), path):
        pair = [operands.pop(position) for position in sorted((first, second), reverse=True)]
        kept = output.union(*operands)
        macs += _contraction(pair[0], pair[1], kept)
        sizes = {axis: max(operand.get(axis, 1) for operand in pair) for axis in pair[0] | pair[1]}
        operands.append({axis: size for axis, size in sizes.items() if axis in kept})
    return macs


def _contraction(left: _Sizes, right: _Sizes, kept: set[str]) -> int:
    sizes: _Sizes = {}
    for operand, other in ((left, right), (right, left)):
        sizes |= {axis: size for axis, size in operand.items() if size > 1 and (axis in kept or other.get(axis, 1) > 1)}
    return prod(sizes.values())


def _pairs(operands: int, path: Sequence[int] | None) -> list[tuple[int, int]]:
    if path is not None:
        return [(path[step], path[step + 1]) for step in range(0, len(path) - 1, 2)]
    # the running result goes to the end, so the next one is the first of those that are left
    return [(0, 1 if step == 0 else operands - 1 - step) for step in range(operands - 1)]


def _parse(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[_Sizes], set[str]]:
    given, arrow, output = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    free = [letter for letter in ascii_letters + "".join(map(chr, range(0x391, 0x3C0))) if letter not in equation]
    broadcast = max(len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True))
    ellipsis = "".join(free[:broadcast])
    operands: list[_Sizes] = []
    for term, shape in zip(terms, shapes, strict=True):
        absent = len(shape) - len(term.replace("...", ""))
        axes = term.replace("...", ellipsis[len(ellipsis) - absent :])
        sizes: _Sizes = {}
        for axis, size in zip(axes, shape, strict=True):
            sizes[axis] = max(size, sizes.get(axis, 1))
        operands.append(sizes)
    if not arrow:
        letters = given.replace(",", "").replace("...", "")
        output = ellipsis + "".join(letter for letter in letters if letters.count(letter) == 1)
    return operands, set(output.replace("...", ellipsis))
