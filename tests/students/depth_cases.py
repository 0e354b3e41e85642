"""Networks that lose blocks."""

import pytest
import torch
from torch import nn

from understudy import models

MADE = torch.Generator().manual_seed(0)
IMAGES = torch.randn(3, 3, 8, 8, generator=MADE, dtype=torch.float64)
TOKENS = torch.randint(1, 40, (3, 6), generator=MADE)
VIT = {"height": 8, "image_width": 8, "patch": 4, "dim": 8, "heads": 2}
SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4}


class Encoded(nn.Module):
    """An encoder inside another module, with a head on the mean of its tokens."""

    def __init__(self, encoder, dim=16):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, 3)

    def forward(self, tokens):
        return self.head(self.encoder(tokens)[0].mean(dim=1))


class Apart(nn.Module):
    """Blocks that are attributes."""

    def __init__(self):
        super().__init__()
        for name in "abcd":
            self.add_module(
                name, models.resnet.ResidualBlock(3, 3, stride=1, shortcut=nn.Identity())
            )
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.d(self.c(self.b(self.a(x)))).mean(dim=(2, 3)))


def resnet(depth=14, shortcut="A"):
    return models.CifarResNet(channels=3, width=4, depth=depth, base=2, shortcut=shortcut)


def vit():
    return models.VisionTransformer(channels=3, width=4, depth=4, **VIT)


def perceptron():
    layers = (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(4))
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), *layers, nn.Linear(8, 2))


def bert():
    t = pytest.importorskip("transformers")
    return Encoded(t.BertModel(t.BertConfig(**SMALL, intermediate_size=24)))


def distilbert():
    t = pytest.importorskip("transformers")
    config = t.DistilBertConfig(vocab_size=40, dim=16, n_layers=4, n_heads=2, hidden_dim=24)
    return t.DistilBertModel(config)


def llama():
    t = pytest.importorskip("transformers")
    more = {"num_key_value_heads": 2, "intermediate_size": 24, "tie_word_embeddings": True}
    return t.LlamaForCausalLM(t.LlamaConfig(**SMALL, **more, bos_token_id=1, eos_token_id=2))


def gemma():
    t = pytest.importorskip("transformers")
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
    more = {"num_key_value_heads": 2, "intermediate_size": 24, "head_dim": 4, "sliding_window": 2}
    config = t.Gemma3TextConfig(**SMALL, **more, layer_types=kinds, bos_token_id=1, eos_token_id=2)
    return t.Gemma3ForCausalLM(config)


def gpt2():
    t = pytest.importorskip("transformers")
    config = t.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=4, n_head=2, bos_token_id=1, eos_token_id=2
    )
    return t.GPT2LMHeadModel(config)


def lively(network):
    """In evaluation mode, with normalisations that do something, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in network.modules():
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
            if isinstance(getattr(module, "running_mean", None), torch.Tensor):
                nn.init.normal_(module.running_mean, 0, 0.2)
            if isinstance(getattr(module, "bias", None), torch.Tensor):
                nn.init.normal_(module.bias, 0, 0.2)
    return network.double().eval()


CASES = {
    "resnet_a": (resnet, IMAGES),
    "resnet_b": (lambda: resnet(shortcut="B"), IMAGES),
    "vit": (vit, IMAGES),
    "perceptron": (perceptron, IMAGES),
    "attributes": (Apart, IMAGES),
    "bert": (bert, TOKENS),
    "distilbert": (distilbert, TOKENS),
    "llama": (llama, TOKENS),
    "gemma": (gemma, TOKENS),
    "gpt2": (gpt2, TOKENS),
}


def answer(network, rows):
    with torch.no_grad():
        made = network(rows)
    return made if isinstance(made, torch.Tensor) else made[0]
