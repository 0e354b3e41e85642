"""Small networks with what exporters stumble over; raw rows in, numbers out."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Shaped, jaxtyped
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.export.onnx import export_onnx
from understudy.export.quantize import quantize_int8


class Pixels(nn.Module):
    """uint8 `[batch, height, width, channels]` to normalised `[batch, channels, ...]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(100, 140, channels))
        self.register_buffer("std", torch.linspace(50, 70, channels))

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows.float() - self.mean) / self.std).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Two convolutions and a shortcut by strided slicing and padding."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.stride, self.more = (1, 0) if channels == out else (2, out - channels)
        self.conv1 = nn.Conv2d(channels, out, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class Residual(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.pixels = Pixels(3)
        self.conv, self.bn = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16))
        self.head = nn.Linear(16, classes)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(self.pixels(rows)))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Every number is a token; the shapes are checked while the exporter traces it."""

    def __init__(self, dim: int = 16, heads: int = 2, width: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.norm = nn.Linear(1, dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.head = nn.Linear(dim, width)

    @jaxtyped(typechecker=beartype)
    def forward(self, rows: Shaped[Tensor, " batch tokens"]) -> Float[Tensor, " batch width"]:
        x = self.embed(rows.float().unsqueeze(-1))
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim)
        return self.head((x + self.out(mixed)).mean(1))


class Scale(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows / 16.0


class Tied(nn.Module):
    """One weight, looked up and multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(F.relu(self.embed(rows).mean(1)))


def settle(module: nn.Module, rows: Tensor) -> nn.Module:
    """Give its batch normalisation statistics that are not those of the start."""
    with torch.no_grad():
        for _ in range(3):
            module(rows)
    return module.eval()


@pytest.fixture(scope="session")
def nets() -> Mapping[str, tuple[nn.Module, Tensor]]:
    """Each network in evaluation mode, and 48 raw rows."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (48, 8, 8, 3), dtype=torch.uint8, generator=generator)
    table = torch.randn(48, 64, generator=generator) * 4 + 8
    tokens = torch.randint(0, 50, (48, 7), generator=generator)
    torch.manual_seed(2)
    mlp = nn.Sequential(Scale(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
    normed = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 2))
    encoder = nn.Sequential(
        nn.Unflatten(1, (8, 8)),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    made = {
        "mlp": (mlp, table),
        "normed": (normed, table),
        "residual": (Residual(), pictures),
        "channels_last": (Residual().to(memory_format=torch.channels_last), pictures),
        "attention": (Attention(), table[:, :9]),
        "encoder": (encoder, table),
        "tied": (Tied(), tokens),
    }
    return {name: (settle(module, rows), rows) for name, (module, rows) in made.items()}


@pytest.fixture(scope="session")
def exported(nets, tmp_path_factory) -> Mapping[str, Path]:
    """The file of every network, made once."""
    folder = tmp_path_factory.mktemp("exported")
    metadata = {"task": json.dumps("classification"), "classes": json.dumps(["ä", "b"])}
    return {
        name: export_onnx(module, rows[:3], folder / f"{name}.onnx", metadata=metadata)
        for name, (module, rows) in nets.items()
    }


@pytest.fixture(scope="session")
def quantized(nets, exported, tmp_path_factory) -> Mapping[str, Path]:
    """The int8 form of every network, made once."""
    folder = tmp_path_factory.mktemp("quantized")
    return {
        name: quantize_int8(exported[name], folder / f"{name}.onnx", calibration=rows.numpy())
        for name, (_, rows) in nets.items()
    }


@pytest.fixture
def by_hand(tmp_path) -> Callable[..., Path]:
    """Writes a file of nodes `(operator, inputs, output)` on float rows; faster than exporting."""

    def make(
        width: int,
        nodes: Sequence[tuple[str, Sequence[str], str]],
        constants: Mapping[str, np.ndarray],
    ) -> Path:
        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            [
                helper.make_node(name, inputs, [output], name=output)
                for name, inputs, output in nodes
            ],
            "graph",
            [helper.make_tensor_value_info("rows", kind, ["batch", width])],
            [helper.make_tensor_value_info("output", kind, ["batch", None])],
            [
                numpy_helper.from_array(np.asarray(value, np.float32), name)
                for name, value in constants.items()
            ],
        )
        opsets = [helper.make_opsetid("", 20)]
        onnx.save(
            helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "fp32.onnx"
        )
        return tmp_path / "fp32.onnx"

    return make
