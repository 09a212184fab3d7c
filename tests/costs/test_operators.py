"""MACs of operators against closed forms written out here, and against torch's own counter where it knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from restnet_search.costs.count import count_costs
from restnet_search.costs.operators import FORMULAS
from restnet_search.costs.uncounted import may_multiply
from restnet_search.errors import GraphError


class Apply(nn.Module):
    """Calls a function of its input and of itself, so that it can hold layers and weights."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def macs(module: nn.Module, *shape: int) -> int:
    return count_costs(module.eval(), torch.rand(*shape)).macs


def macs_by_torch(module: nn.Module, *shape: int) -> int:
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            module.eval()(torch.rand(*shape))
    finally:
        mha.set_fastpath_enabled(before)
    return counter.get_total_flops() // 2


def of(function: Callable[[Tensor], Tensor], *shape: int) -> int:
    return macs(Apply(lambda _, x: function(x)), *shape)


def of_by_torch(function: Callable[[Tensor], Tensor], *shape: int) -> int:
    return macs_by_torch(Apply(lambda _, x: function(x)), *shape)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding="same"), (1, 3, 8, 8), 64 * 8 * 27),
        (nn.Conv2d(3, 8, 3, padding="valid"), (1, 3, 8, 8), 36 * 8 * 27),
        (nn.Conv2d(4, 8, (2, 5), padding="same", dilation=2, groups=2), (2, 4, 9, 7), 2 * 63 * 8 * 20),
        (nn.Conv1d(6, 4, 4, padding="same"), (2, 6, 10), 2 * 10 * 4 * 24),
        (nn.Conv3d(2, 3, 3, padding="same"), (1, 2, 4, 5, 6), 120 * 3 * 54),
        (nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"), (1, 3, 8, 8), 64 * 8 * 27),
        (nn.Conv2d(3, 8, 3, padding="same"), (3, 8, 8), 64 * 8 * 27),  # no batch axis
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (1, 4, 5, 5), 25 * 4 * 3 * 9),
        (nn.ConvTranspose1d(8, 8, 4, stride=4, groups=8), (2, 8, 7), 2 * 7 * 8 * 4),
        (nn.ConvTranspose3d(2, 4, 2, output_padding=1, stride=2), (1, 2, 3, 3, 3), 27 * 2 * 4 * 8),
    ],
)
def test_convolutions(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert macs(layer, *shape) == expected
    if "padding_mode" not in repr(layer) or shape != (3, 8, 8):
        assert macs_by_torch(layer, *shape) == expected


def test_convolution_with_time_in_front() -> None:
    weight = torch.rand(3, 8, 2)
    assert of(lambda x: F.conv_tbc(x, weight, torch.zeros(2), 1), 6, 4, 8) == 6 * 4 * 3 * 8 * 2


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 1), (2, 2)])
def test_deformable_convolutions_cost_what_plain_ones_do(groups: int, stride: int) -> None:
    from torchvision.ops import DeformConv2d

    offsets = nn.Conv2d(4, 18, 3, padding=1, stride=stride)
    layer = DeformConv2d(4, 6, 3, padding=1, groups=groups, stride=stride)
    model = Apply(lambda self, x: self.layer(x, self.offsets(x)), layer=layer, offsets=offsets)
    places = 8 // stride * 8 // stride
    assert macs(model, 1, 4, 8, 8) == places * (18 * 36 + 6 * 36 // groups)


def _gates(kind: Any) -> int:
    return {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("options", [{}, {"bias": False, "batch_first": True}])
def test_recurrent_layers(kind: Any, layers: int, directions: int, options: dict[str, bool]) -> None:
    rnn = kind(8, 5, num_layers=layers, bidirectional=directions == 2, **options)
    inputs = [8] + [5 * directions] * (layers - 1)
    expected = 7 * 2 * directions * sum(_gates(kind) * 5 * (width + 5) for width in inputs)
    shape = (2, 7, 8) if options else (7, 2, 8)
    assert macs(Apply(lambda self, x: self.rnn(x)[0], rnn=rnn), *shape) == expected


@pytest.mark.parametrize("directions", [1, 2])
def test_lstm_with_projections(directions: int) -> None:
    rnn = nn.LSTM(8, 6, num_layers=2, proj_size=3, bidirectional=directions == 2)
    expected = 14 * directions * sum(4 * 6 * (width + 3) + 6 * 3 for width in (8, 3 * directions))
    assert macs(Apply(lambda self, x: self.rnn(x)[0], rnn=rnn), 7, 2, 8) == expected


def test_recurrent_layer_without_batch_axis_and_with_relu() -> None:
    assert macs(Apply(lambda self, x: self.rnn(x)[0], rnn=nn.GRU(8, 5)), 7, 8) == 7 * 3 * 5 * 13
    rnn = nn.RNN(8, 5, nonlinearity="relu")
    assert macs(Apply(lambda self, x: self.rnn(x)[0], rnn=rnn), 7, 2, 8) == 14 * 5 * 13


def test_packed_sequences_cost_their_own_steps() -> None:
    def packed(self: Any, x: Tensor) -> Tensor:
        sequence = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 4]))
        return self.rnn(sequence)[0].data

    assert macs(Apply(packed, rnn=nn.LSTM(8, 5)), 7, 2, 8) == 11 * 4 * 5 * 13


def test_recurrent_cells() -> None:
    assert macs(Apply(lambda self, x: self.cell(x)[0], cell=nn.LSTMCell(8, 5)), 2, 8) == 2 * 4 * 5 * 13
    assert macs(nn.GRUCell(8, 5), 2, 8) == 2 * 3 * 5 * 13


def test_sequencer_costs_its_recurrences() -> None:
    model = timm.create_model("sequencer2d_s").eval()
    recurrences: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
        steps = inputs[0].shape[0] * inputs[0].shape[1]
        recurrences.append(steps * sum(weight.numel() for weight in layer.parameters() if weight.ndim > 1))

    for layer in model.modules():
        if isinstance(layer, nn.LSTM):
            layer.register_forward_hook(note)
    whole = macs(model, 1, 3, 224, 224)
    assert len(recurrences) == 36
    assert whole == 4_958_739_456 + sum(recurrences)  # the rest as fvcore counts it
    # Tatsunami and Taki 2022, Sequencer2D-S: 8.4 GFLOPs; 8.33 without layer norms
    assert whole / 1e9 == pytest.approx(8.33, rel=0.005)


def _attention(batch: int, queries: int, keys: int, width: int) -> int:
    """Projections in and out, scores, and weighted values."""
    return batch * (2 * queries * width**2 + 2 * keys * width**2 + 2 * queries * keys * width)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("heads", [2, 4])
def test_multi_head_attention_costs_the_same_on_every_path(heads: int, weights: bool, fast: bool) -> None:
    layer = nn.MultiheadAttention(8, heads, batch_first=fast)
    model = Apply(lambda self, x: self.layer(x, x, x, need_weights=weights)[0], layer=layer)
    shape = (2, 6, 8) if fast else (6, 2, 8)
    names = _operators(model.eval(), torch.rand(*shape))
    assert ("aten::_native_multi_head_attention" in names) == fast
    assert macs(model, *shape) == _attention(2, 6, 6, 8)
    assert macs_by_torch(model, *shape) == _attention(2, 6, 6, 8)


def test_cross_attention() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    model = Apply(lambda self, x: self.layer(x[:, :2], x, x)[0], layer=layer)
    assert macs(model, 3, 6, 8) == macs_by_torch(model, 3, 6, 8) == _attention(3, 2, 6, 8)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_encoder_layers_cost_the_same_on_every_path(fast: bool, norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=fast, norm_first=norm_first)
    shape = (3, 6, 8) if fast else (6, 3, 8)
    assert ("aten::_transformer_encoder_layer_fwd" in _operators(layer.eval(), torch.rand(*shape))) == fast
    products = _attention(3, 6, 6, 8) + 2 * 3 * 6 * 8 * 20
    assert macs(layer, *shape) == products + 2 * 5 * 3 * 6 * 8  # two layer norms, as fvcore counts them
    assert macs_by_torch(layer, *shape) == products


def test_stacked_encoder_and_decoder_layers() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 20, batch_first=True), 3)
    one = _attention(3, 6, 6, 8) + 2 * 3 * 6 * 8 * 20 + 2 * 5 * 144
    assert macs(encoder, 3, 6, 8) == 3 * one
    decoder = nn.TransformerDecoderLayer(8, 2, 20, batch_first=True)
    assert macs(Apply(lambda self, x: self.layer(x, x), layer=decoder), 3, 6, 8) == (
        2 * _attention(3, 6, 6, 8) + 2 * 3 * 6 * 8 * 20 + 3 * 5 * 144
    )


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((10, 10), (4, 10, 8), 3200),
        ((2, 6, 8), (8,), 2 * 6 * 8),
        ((8,), (2, 8, 5), 2 * 8 * 5),
        ((8,), (8,), 8),
        ((8,), (8, 3), 24),
        ((4, 8), (8,), 32),
        ((5, 1, 2, 3), (7, 3, 4), 5 * 7 * 2 * 3 * 4),
        ((1, 2, 3), (7, 3, 4), 7 * 2 * 3 * 4),
        ((7, 2, 3), (3, 4), 7 * 2 * 3 * 4),
        ((2, 3), (3, 4), 24),
    ],
)
def test_matrix_products(left: tuple[int, ...], right: tuple[int, ...], expected: int) -> None:
    other = torch.rand(right)
    assert of(lambda x: x @ other, *left) == expected
    if len(left) > 1 and len(right) > 1:
        assert of_by_torch(lambda x: x @ other, *left) == expected


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda x: torch.baddbmm(torch.zeros(2, 6, 6), x, x.mT), (2, 6, 8), 2 * 6 * 6 * 8),
        (lambda x: torch.zeros(1, 6).baddbmm(x, x.mT), (2, 6, 8), 2 * 6 * 6 * 8),
        (lambda x: torch.addmm(torch.zeros(6), x, x.T), (6, 8), 6 * 6 * 8),
        (lambda x: torch.bmm(x, x.mT), (2, 6, 8), 2 * 6 * 6 * 8),
        (lambda x: torch.mm(x, x.T), (6, 8), 6 * 6 * 8),
        (lambda x: F.linear(x, torch.ones(3, 8)), (2, 6, 8), 2 * 6 * 8 * 3),
    ],
)
def test_products_with_sums(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], expected: int) -> None:
    assert of(function, *shape) == of_by_torch(function, *shape) == expected


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda x: torch.addmv(torch.zeros(6), x, x[0]), (6, 8), 48),
        (lambda x: torch.zeros(6, 6).addmm_(x, x.T), (6, 8), 6 * 6 * 8),
        (lambda x: torch.addbmm(torch.zeros(6, 6), x, x.mT), (2, 6, 8), 2 * 6 * 6 * 8),
        (lambda x: torch.zeros(2, 6, 6).baddbmm_(x, x.mT), (2, 6, 8), 2 * 6 * 6 * 8),
        (lambda x: torch.mv(x, x[0]), (6, 8), 48),
        (lambda x: torch.dot(x, x), (8,), 8),
        (lambda x: torch.vdot(x, x), (8,), 8),
        (lambda x: torch.linalg.vecdot(x, x[:1]), (6, 8), 48),
        (lambda x: torch.inner(x, x[0]), (2, 6, 8), 2 * 6 * 6 * 8),
        (lambda x: torch.outer(x[0], x[:, 0]), (6, 8), 48),
        (lambda x: torch.ger(x[0], x[:, 0]), (6, 8), 48),
        (lambda x: torch.addr(torch.zeros(8, 6), x[0], x[:, 0]), (6, 8), 48),
        (lambda x: torch.kron(x, x), (6, 8), 48 * 48),
        (lambda x: F.linear(x, torch.ones(8)), (2, 6, 8), 96),  # one output without an axis
        (lambda x: torch.cdist(x, x[:, :4]), (2, 6, 8), 2 * 6 * 4 * 8),
        (lambda x: torch.cdist(x, x[:1], p=1.0), (2, 6, 8), 2 * 6 * 6 * 8),
        (torch.pdist, (6, 8), 15 * 8),
    ],
)
def test_products_that_torchs_counter_does_not_know(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...], expected: int
) -> None:
    assert of(function, *shape) == expected


@pytest.mark.parametrize(
    ("dims", "right", "expected"),
    [
        (1, (8, 3), 2 * 6 * 8 * 3),
        (2, (6, 8, 5), 2 * 48 * 5),
        (3, (2, 6, 8), 96),
        (0, (3,), 96 * 3),
        (([0, -1], [1, 0]), (8, 2, 4), 6 * 16 * 4),
        (([1], [0]), (1, 4), 2 * 8 * 4),  # broadcast: the six are summed before
    ],
)
def test_tensordot(dims: Any, right: tuple[int, ...], expected: int) -> None:
    other = torch.rand(right)
    assert of(lambda x: torch.tensordot(x, other, dims=dims), 2, 6, 8) == expected


@pytest.mark.parametrize("shape", [(2, 6, 8), (6, 8), (8,)])
def test_bilinear_layers(shape: tuple[int, ...]) -> None:
    model = Apply(lambda self, x: self.layer(x, x[..., :5]), layer=nn.Bilinear(8, 5, 3))
    rows = torch.Size(shape[:-1]).numel()
    assert macs(model, *shape) == rows * 3 * (8 * 5 + 5)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bij,bjk->bik", [(2, 6, 8), (2, 8, 5)], 2 * 6 * 8 * 5),
        ("bhic,bhjc", [(2, 3, 4, 8), (2, 3, 5, 8)], 2 * 3 * 4 * 5 * 8),
        ("bij,bjk->bik", [(1, 6, 8), (7, 8, 5)], 7 * 6 * 8 * 5),  # broadcast batch
        ("...ij,...jk->...ik", [(4, 1, 6, 8), (3, 8, 5)], 4 * 3 * 6 * 8 * 5),
        ("i,j->ij", [(6,), (8,)], 48),
        ("i,i", [(6,), (6,)], 6),
        ("bi,bi->b", [(2, 6), (2, 6)], 12),
        ("ij,k->i", [(6, 8), (5,)], 6),  # both are summed before
        ("ii,ij->j", [(6, 6), (6, 8)], 48),  # a diagonal
        ("aab,abc->ac", [(3, 3, 4), (3, 4, 5)], 3 * 4 * 5),
        ("ij->ji", [(6, 8)], 0),
        ("ii", [(6, 6)], 0),
        ("bij->bj", [(2, 6, 8)], 0),
        (" b i , b j -> b i j ", [(2, 6), (2, 8)], 96),
        ("abcdef,defg->abcg", [(2, 3, 11, 5, 7, 13), (5, 7, 13, 17)], 66 * 455 * 17),  # fvcore rounds to four digits
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]], expected: int) -> None:
    others = [torch.rand(shape) for shape in shapes[1:]]
    assert of(lambda x: torch.einsum(equation, x, *others), *shapes[0]) == expected


@pytest.mark.parametrize("enabled", [True, False])
def test_einsum_follows_the_path_that_torch_takes(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.opt_einsum, "enabled", enabled and torch.backends.opt_einsum.is_available())
    chain = [torch.rand(30, 20), torch.rand(20, 4), torch.rand(4, 3)]
    for equation, others in (("ij,jk,kl->il", chain[:2]), ("ij,jk,kl,lm->im", chain)):

        def function(x: Tensor, equation: str = equation, others: list[Tensor] = others) -> Tensor:
            return torch.einsum(equation, x, *others)

        assert of(function, 40, 30) == of_by_torch(function, 40, 30) > 0


def test_einsum_from_left_to_right() -> None:
    from restnet_search.costs.einsum import einsum_macs

    shapes = [(40, 30), (30, 20), (20, 4), (4, 3)]
    assert einsum_macs("ij,jk,kl,lm->im", shapes) == 40 * 30 * 20 + 40 * 20 * 4 + 40 * 4 * 3
    # the last two first, then what is left of it
    assert einsum_macs("ij,jk,kl,lm->im", shapes, [2, 3, 1, 2, 0, 1]) == 20 * 4 * 3 + 30 * 20 * 3 + 40 * 30 * 3


@pytest.mark.parametrize(
    ("query", "key", "value", "options", "expected"),
    [
        ((1, 2, 10, 16), (1, 2, 10, 16), (1, 2, 10, 16), {}, 6_400),
        ((1, 2, 10, 16), (3, 2, 10, 16), (3, 2, 10, 16), {}, 19_200),
        ((3, 2, 10, 16), (1, 2, 10, 16), (1, 2, 10, 16), {}, 19_200),
        ((3, 4, 10, 16), (3, 1, 7, 16), (3, 1, 7, 16), {}, 3 * 4 * 10 * 7 * 32),
        ((2, 8, 10, 16), (2, 2, 7, 16), (2, 2, 7, 16), {"enable_gqa": True}, 2 * 8 * 10 * 7 * 32),
        ((2, 6, 10, 16), (2, 3, 7, 16), (2, 3, 7, 20), {"enable_gqa": True}, 2 * 6 * 10 * 7 * 36),
        ((2, 3, 10, 16), (2, 3, 7, 16), (2, 3, 7, 5), {}, 2 * 3 * 10 * 7 * 21),
        ((5, 10, 16), (5, 7, 16), (5, 7, 16), {}, 5 * 10 * 7 * 32),
        ((2, 3, 4, 10, 16), (2, 3, 4, 7, 16), (2, 3, 4, 7, 16), {}, 24 * 10 * 7 * 32),
    ],
)
def test_attention(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], options: dict[str, Any], expected: int
) -> None:
    keys, values = torch.rand(key), torch.rand(value)

    def function(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, keys, values, **options)

    assert of(function, *query) == expected


@pytest.mark.parametrize("shape", [(8,), (2, 8), (1, 2, 3, 2, 3, 8)])
@pytest.mark.parametrize("weighted", [True, False])
def test_layer_norms_of_any_number_of_axes(shape: tuple[int, ...], weighted: bool) -> None:
    values = torch.Size(shape).numel()
    assert macs(nn.LayerNorm(8, elementwise_affine=weighted), *shape) == values * (5 if weighted else 4)


def _operators(module: nn.Module, features: Tensor) -> set[str]:
    from torch.jit import _get_trace_graph

    with torch.no_grad():
        graph, _ = _get_trace_graph(module, (features,))
    return {node.kind() for node in graph.nodes()}


@torch.jit.script
def scripted_product(x: Tensor) -> Tensor:
    return x @ x.transpose(-1, -2)


@torch.jit.script
def scripted_products(x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        x = x @ x
    return x


@torch.jit.script
def scripted_activation(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class OwnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x @ x.transpose(-1, -2)


class OwnActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.linalg.inv, "aten::linalg_inv"),
        (lambda x: torch.linalg.matrix_power(x, 3), "aten::linalg_matrix_power"),
        (torch.linalg.qr, "aten::linalg_qr"),
        (lambda x: torch.chain_matmul(x, x, x), "aten::chain_matmul"),
        (lambda x: torch.fft.rfft2(x).abs(), "aten::fft_rfft2"),
        (torch.corrcoef, "aten::corrcoef"),
        (scripted_product, "prim::CallFunction"),
        (lambda x: scripted_products(x, 3), "prim::CallFunction"),
        (OwnProduct.apply, "OwnProduct"),
    ],
)
def test_products_without_a_formula_stop_with_their_name(function: Callable[[Tensor], Tensor], name: str) -> None:
    model = Apply(lambda _, x: function(x))
    with pytest.raises(GraphError, match=r"costs of a model cannot be counted") as error:
        count_costs(model, torch.rand(6, 6))
    assert name in str(error.value)


def test_scripted_modules_are_refused() -> None:
    layers = torch.jit.script(nn.Sequential(nn.Linear(8, 5), nn.ReLU()).eval())
    with pytest.raises(GraphError, match="scripted modules"):
        macs(Apply(lambda self, x: self.layer(x), layer=layers), 2, 8)


@pytest.mark.parametrize("function", [scripted_activation, OwnActivation.apply])
def test_own_activations_stay_uncounted(function: Callable[[Tensor], Tensor]) -> None:
    count = count_costs(Apply(lambda self, x: function(self.layer(x)), layer=nn.Linear(8, 5)), torch.rand(2, 8))
    assert count.macs == 2 * 8 * 5
    assert count.uncounted


HARMLESS = (
    "aten::mvlgamma aten::digamma aten::special_gammainc aten::upsample_bilinear2d aten::upsample_bicubic2d "
    "aten::im2col aten::softmax aten::gelu aten::cumsum aten::linalg_vector_norm aten::max_pool2d aten::normal_ "
    "aten::dropout aten::_convert_indices_from_coo_to_csr aten::cosine_similarity aten::embedding "
    "torchvision::nms prim::If aten::fft_fftshift aten::grid_sampler aten::prelu aten::pixel_shuffle "
    "aten::scatter_add aten::lt"
)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_harmless_operators_stay_uncounted(name: str) -> None:
    assert not may_multiply(name)


MULTIPLYING = (
    "aten::_scaled_mm aten::_grouped_mm aten::_weight_int4pack_mm aten::sspaddmm aten::slow_conv3d "
    "aten::conv_depthwise3d aten::lstm_cell aten::quantized_gru_cell aten::_scaled_dot_product_flash_attention "
    "aten::linalg_multi_dot aten::cudnn_convolution_relu aten::_trilinear aten::fft_fftn aten::stft "
    "quantized::linear mine::selective_scan aten::linalg_solve aten::_sparse_mm aten::_thnn_fused_lstm_cell "
    "aten::matrix_exp aten::cholesky_solve"
)


@pytest.mark.parametrize("name", MULTIPLYING.split())
def test_operators_that_may_multiply_are_known_by_name(name: str) -> None:
    assert may_multiply(name)


def test_what_the_formula_cannot_read_stops_with_the_operators_name() -> None:
    with pytest.raises(GraphError, match="aten::inner"):
        of(lambda x: torch.inner(torch.tensor(2.0), x), 6, 8)


@pytest.mark.parametrize(
    ("name", "size", "gmacs"),
    [("vit_b_32", 224, 4.409), ("swin_v2_t", 256, 5.94), ("maxvit_t", 224, 5.558)],
)
def test_torchvisions_published_costs(name: str, size: int, gmacs: float) -> None:
    import torchvision

    model = torchvision.models.get_model(name)
    assert macs(model, 1, 3, size, size) / 1e9 == pytest.approx(gmacs, rel=0.01)


BESIDE_PRODUCTS = ("norm", "upsample", "adaptive_avg_pool2d", "grid_sampler")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mvitv2_tiny", "convmixer_768_32", "coat_tiny", "halonet26t"])
def test_products_of_whole_networks_are_those_of_torchs_counter(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    model = timm.create_model(name).eval()
    size = 256 if name == "halonet26t" else 224
    with torch.no_grad():
        analysis = FlopCountAnalysis(model, torch.rand(1, 3, size, size)).tracer_warnings("none")
        counted = analysis.set_op_handle(**FORMULAS).by_operator()  # pyright: ignore[reportArgumentType]
    products = sum(count for name, count in counted.items() if not any(part in name for part in BESIDE_PRODUCTS))
    assert products == macs_by_torch(model, 1, 3, size, size)
