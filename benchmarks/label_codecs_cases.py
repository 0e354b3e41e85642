"""What the teachers of `label_codecs.py` say: two language models, and two made ones.

The story model is real. The word model is trained here, in less than two minutes on one core. The
made logits are random and say so; they stand in for vocabularies that no model at hand has.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, WIDTH, LENGTH, BATCH, EPOCHS = 4096, 192, 64, 32, 4

Numbers = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One teacher's logits.

    Attributes:
        title: what it is, for the table.
        logits: `[tokens, classes]`.
        state: what goes into the head, `[tokens, d]`, where there is a model.
        weight: of the head, `[classes, d]`.
        bias: of the head, `[classes]`, if it has one.
    """

    title: str
    logits: Numbers
    state: Numbers | None = None
    weight: Numbers | None = None
    bias: Numbers | None = None


def stories(folder: Path, *, rows: int, length: int = 256) -> Case:
    """What the story model says of text that it draws itself from a fixed seed."""
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    head = weights["model.embed_tokens.weight"]
    draw = torch.Generator().manual_seed(0)
    tokens = torch.ones(-(-rows // length), 1, dtype=torch.long)
    for _ in range(length):
        mass = (llama(tokens, weights, config)[:, -1] @ head.T).softmax(dim=1)
        tokens = torch.cat([tokens, torch.multinomial(mass, 1, generator=draw)], dim=1)
    state = llama(tokens[:, :-1], weights, config).flatten(0, 1)[:rows]
    return Case(
        title="story model, vocabulary 512",
        logits=(state @ head.T).numpy(),
        state=state.numpy(),
        weight=head.numpy(),
    )


def llama(tokens: Tensor, weights: dict[str, Tensor], config: dict) -> Tensor:
    """The last hidden state `[batch, length, d]` of a Llama, after its last normalisation."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    base = config["rope_parameters"]["rope_theta"]
    x = F.embedding(tokens, weights["model.embed_tokens.weight"])
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}."
        own = {n.removeprefix(start): w for n, w in weights.items() if n.startswith(start)}
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
    return normed(x, weights["model.norm.weight"])


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
    """The next word from the words before it; the embedding is the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.memory = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(WORDS))
        nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, words: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What goes into the head `[batch, length, width]`, and what is remembered."""
        seen, after = self.memory(F.dropout(self.embedding(words), 0.2, self.training), before)
        return F.dropout(seen, 0.2, self.training), after

    def head(self, state: Tensor) -> Tensor:
        """Logits `[..., words]`."""
        return F.linear(state, self.embedding.weight, self.bias)


def words(folder: Path, *, rows: int) -> Case:
    """What a model of one text's 4,095 commonest words says of another text."""
    texts = [(folder / f"{name}.txt").read_text().split() for name in ("test", "valid")]
    known = [word for word, _ in Counter(texts[0]).most_common(WORDS - 1)]
    number = {word: i + 1 for i, word in enumerate(known)}
    train, judge = (torch.tensor([number.get(word, 0) for word in text]) for text in texts)
    torch.manual_seed(0)
    model = WordModel()
    learn(model, train)
    model.eval()
    with torch.no_grad():
        state = model(judge[None, :rows])[0][0]
        logits = model.head(state)
        loss = F.cross_entropy(logits, judge[1 : rows + 1])
        return Case(
            title=f"word model, vocabulary 4,096, perplexity {loss.exp():.0f}",
            logits=logits.numpy(),
            state=state.numpy(),
            weight=model.embedding.weight.numpy(),
            bias=model.bias.numpy(),
        )


def learn(model: WordModel, text: Tensor) -> None:
    """A few epochs over a text, the learning rate falling to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01, fused=True)
    span = (len(text) - 1) // BATCH
    inputs, targets = (text[i : i + span * BATCH].view(BATCH, span) for i in (0, 1))
    starts = range(0, span - LENGTH, LENGTH)
    model.train()
    for epoch in range(EPOCHS):
        memory = None
        for number, at in enumerate(starts):
            done = (epoch + number / len(starts)) / EPOCHS
            optimizer.param_groups[0]["lr"] = 2e-3 * (1 + math.cos(math.pi * done))
            state, memory = model(inputs[:, at : at + LENGTH], memory)
            memory = memory.detach()
            loss = F.cross_entropy(
                model.head(state).flatten(0, 1), targets[:, at : at + LENGTH].flatten()
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


def zipf(classes: int, *, rows: int) -> Case:
    """Made logits: rank r of a random order gets -a log r plus noise.

    a is drawn from 1.2 to 1.9 for every row, so that some are sharp and some flat, and the noise
    is normal with deviation 0.5: the 50 likeliest classes then hold nine tenths of the mass. An
    order of its own per row is the worst case for the numbers of classes: real vocabularies keep
    likely classes near each other.
    """
    draw = np.random.default_rng(0)
    found = np.empty((rows, classes), np.float32)
    ranks = np.log(np.arange(1, classes + 1, dtype=np.float32))
    for row in found:
        base = -draw.uniform(1.2, 1.9) * ranks
        row[draw.permutation(classes)] = base + draw.normal(0, 0.5, classes)
    return Case(title=f"made, vocabulary {classes:,}", logits=found)
