"""Teachers' logits that `label_codecs.py` writes and reads: two language models, two made ones.

The story model is real. The word model is trained here, in about two minutes on one core. The made
logits are random and say so; they stand in for vocabularies that no model at hand has.
"""

import json
import math
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, WIDTH, LENGTH, BATCH, SECONDS = 4096, 192, 64, 32, 110

Logits = NDArray[np.float32]


def story_logits(folder: Path, *, rows: int, length: int = 256) -> Logits:
    """What the story model says of text that it wrote itself, `[tokens, 512]`."""
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    draw = torch.Generator().manual_seed(0)
    tokens = torch.ones(-(-rows // length), 1, dtype=torch.long)
    for _ in range(length):
        mass = llama(tokens, weights, config)[:, -1].softmax(dim=1)
        tokens = torch.cat([tokens, torch.multinomial(mass, 1, generator=draw)], dim=1)
    return llama(tokens[:, :-1], weights, config).reshape(-1, config["vocab_size"])[:rows].numpy()


def llama(tokens: Tensor, weights: dict[str, Tensor], config: dict) -> Tensor:
    """Logits `[batch, length, classes]` of a Llama with tied embeddings."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    base = config["rope_parameters"]["rope_theta"]
    embedding = weights["model.embed_tokens.weight"]
    x = F.embedding(tokens, embedding)
    for layer in range(config["num_hidden_layers"]):
        own = {
            name.removeprefix(f"model.layers.{layer}."): weight
            for name, weight in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        y = normed(x, own["input_layernorm.weight"])
        q, k, v = (
            F.linear(y, own[f"self_attn.{name}_proj.weight"]).unflatten(2, (count, -1))
            for name, count in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = turned(q, base), turned(k, base)
        k, v = (part.repeat_interleave(heads // groups, dim=2) for part in (k, v))
        seen = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + F.linear(seen.transpose(1, 2).flatten(2), own["self_attn.o_proj.weight"])
        y = normed(x, own["post_attention_layernorm.weight"])
        gate = F.silu(F.linear(y, own["mlp.gate_proj.weight"]))
        y = gate * F.linear(y, own["mlp.up_proj.weight"])
        x = x + F.linear(y, own["mlp.down_proj.weight"])
    return F.linear(normed(x, weights["model.norm.weight"]), embedding)


def normed(x: Tensor, weight: Tensor) -> Tensor:
    """Divided by its root mean square."""
    return F.rms_norm(x, weight.shape, weight, 1e-5)


def turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions on `[batch, length, heads, size]`."""
    half = x.shape[-1] // 2
    speed = base ** (-torch.arange(half) / half)
    angle = (torch.arange(x.shape[1])[:, None] * speed)[:, None]
    left, right = x[..., :half], x[..., half:]
    return torch.cat(
        [left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], dim=-1
    )


class WordModel(nn.Module):
    """The next word from the words before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.memory = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(WORDS))
        nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, words: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits `[batch, length, words]`, and what is remembered."""
        seen, state = self.memory(F.dropout(self.embedding(words), 0.2, self.training), state)
        seen = F.dropout(seen, 0.2, self.training)
        return F.linear(seen, self.embedding.weight, self.bias), state


def word_logits(folder: Path, *, rows: int) -> tuple[Logits, float]:
    """What a word model trained on one text says of another `[tokens, 4096]`; its perplexity."""
    texts = [(folder / f"{name}.txt").read_text().split() for name in ("test", "valid")]
    known = [word for word, _ in Counter(texts[0]).most_common(WORDS - 1)]
    number = {word: i + 1 for i, word in enumerate(known)}
    train, judge = (torch.tensor([number.get(word, 0) for word in text]) for text in texts)
    torch.manual_seed(0)
    model = WordModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01, fused=True)
    span = (len(train) - 1) // BATCH
    inputs, targets = (train[i : i + span * BATCH].view(BATCH, span) for i in (0, 1))
    started, state = time.perf_counter(), None
    model.train()
    while (spent := (time.perf_counter() - started) / SECONDS) < 1:
        for at in range(0, span - LENGTH, LENGTH):
            spent = min(1.0, (time.perf_counter() - started) / SECONDS)
            optimizer.param_groups[0]["lr"] = 4e-3 * 0.5 * (1 + math.cos(math.pi * spent))
            logits, state = model(inputs[:, at : at + LENGTH], state)
            state = state.detach()
            loss = F.cross_entropy(logits.flatten(0, 1), targets[:, at : at + LENGTH].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if spent >= 1:
                break
        state = None
    model.eval()
    with torch.no_grad():
        logits = model(judge[None, :rows])[0][0]
        loss = F.cross_entropy(logits, judge[1 : rows + 1])
    return logits.numpy(), float(loss.exp())


def zipf_logits(classes: int, *, rows: int, seed: int = 0) -> Logits:
    """Made logits `[rows, classes]`: rank r of a random order gets -a log r plus noise.

    a is drawn from 1.2 to 1.9 for every row, so that some are sharp and some flat, and the noise
    is normal with deviation 0.5: the 50 likeliest classes then hold nine tenths of the mass. An
    order of its own per row is the worst case for the numbers of classes: real vocabularies keep
    likely classes near each other.
    """
    draw = np.random.default_rng(seed)
    found = np.empty((rows, classes), np.float32)
    ranks = np.log(np.arange(1, classes + 1, dtype=np.float32))
    for row in found:
        base = -draw.uniform(1.2, 1.9) * ranks
        row[draw.permutation(classes)] = base + draw.normal(0, 0.5, classes)
    return found


def data_folder() -> Path | None:
    """Where the real models and texts are, if anywhere."""
    name = os.environ.get("UNDERSTUDY_DATA")
    return Path(name) if name and Path(name).is_dir() else None
