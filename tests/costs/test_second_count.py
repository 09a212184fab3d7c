"""Two counters: where they agree, why they differ, and that a count which is too low is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from restnet_search.conformance import cut_check
from restnet_search.conformance.cut_check import check_case
from restnet_search.conformance.families import Case
from restnet_search.costs.count import count_costs
from restnet_search.costs.second_count import TwoCounts, count_twice


class Mixed(nn.Module):
    """A convolution, a batch-norm, a recurrence and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.steps, self.head = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(self.conv(x)).mean(2).transpose(1, 2)
        return self.head(self.steps(rows)[0][:, -1])


def test_both_counts_and_the_reason_of_their_difference() -> None:
    counts = count_twice(Mixed().eval(), torch.zeros(1, 3, 16, 16))
    convolution, head = 16 * 16 * 8 * 27, 4 * 5
    recurrence, norm = 16 * 4 * 4 * (8 + 4), 2 * 8 * 16 * 16
    assert counts.torch == convolution + head
    assert counts.ours.macs == convolution + head + recurrence + norm
    assert counts.ours.products == convolution + head + recurrence
    assert counts.difference == pytest.approx((recurrence + norm) / counts.torch)
    assert counts.why == "torch lacks 4.10k of norms, 3.07k of lstm"
    assert not counts.too_low


def test_a_parameter_that_is_handed_to_a_module_and_wants_gradients_is_no_obstacle() -> None:
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.zeros(1, 4, 8)), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.token) @ x

    model = Queries().eval()
    assert count_twice(model, torch.zeros(1, 8, 2)).torch == 4 * 8 * 8 + 4 * 8 * 2
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_equal_counts_need_no_reason() -> None:
    counts = count_twice(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.zeros(1, 3, 8, 8))
    assert (counts.difference, counts.why) == (0.0, "")


@pytest.mark.parametrize(("share", "low"), [(1.0, False), (0.991, False), (0.985, True)])
def test_products_more_than_one_percent_below_are_too_low_whatever_norms_add(share: float, low: bool) -> None:
    ours = count_costs(Mixed().eval(), torch.zeros(1, 3, 16, 16))
    assert TwoCounts(ours, round(ours.products / share)).too_low is low


def test_conformance_rejects_a_row_that_counts_too_little_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(module: nn.Module, features: Tensor) -> TwoCounts:
        counts = count_twice(module, features)
        less = {name: count // 2 for name, count in counts.ours.by_operator.items()}
        return TwoCounts(replace(counts.ours, by_operator=less), counts.torch, "convolutions: 1, by torch 2")

    case = Case("resnet", "test_resnet")
    row = check_case(case)
    assert (row.status, row.reason) == ("equal", "") and row.macs and row.torch_macs and row.macs > row.torch_macs
    assert row.why.startswith("torch lacks ")
    monkeypatch.setattr(cut_check, "count_twice", half)
    row = check_case(case)
    assert row.status == "rejected"
    assert row.reason == "its products are counted 50.0% below torch's counter: convolutions: 1, by torch 2"


def test_uncounted_operators_have_calls_and_values() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AvgPool2d(2), nn.GELU(), nn.PixelShuffle(2)).eval()
    uncounted = {one.operator: one for one in count_costs(model, torch.zeros(1, 3, 10, 10)).uncounted}
    assert (uncounted["aten::gelu"].calls, uncounted["aten::gelu"].values) == (2, 4 * 8 * 8 + 4 * 4 * 4)
    assert uncounted["aten::avg_pool2d"].values == 4 * 8 * 8  # what it reads
    assert (uncounted["aten::pixel_shuffle"].calls, uncounted["aten::pixel_shuffle"].values) == (1, 0)
