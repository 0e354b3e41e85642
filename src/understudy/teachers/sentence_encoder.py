"""Sentence encoders: token ids in, one vector per sentence out.

The folders of sentence-transformers are read and written without that library: what it computes
for such a folder is the model's last states, pooled over the tokens and brought to length 1.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.folders import make_folder, write_atomic, write_json
from understudy.teachers.hf_model import fetched, load_hf_model, quietly, real
from understudy.teachers.sentence_tokenizer import SentenceTokenizer, read_file, read_tokenizer

Pooling = Literal["mean", "cls", "max"]

_POOLINGS: Mapping[str, Pooling] = {  # as older folders and newer ones call them
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_PARTS = ("Transformer", "Pooling", "Normalize")
_FILES = ("*.json", "*.safetensors", "*/*.json", "*/*.safetensors")


class SentenceEncoder(nn.Module):
    """A transformer, the pooling of its states, and what brings the result to length 1.

    Attributes:
        encoder: the transformer, called as those of Hugging Face are.
        pad: the id that fills rows up.
        pooling: `mean` over the real tokens, the first token (`cls`), or the `max` per column.
        normalize: whether vectors have length 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        pad: int,
        pooling: Pooling = "mean",
        normalize: bool = True,
    ) -> None:
        """Join the parts; rows are padded at the end."""
        super().__init__()
        self.encoder = encoder
        self.pad = pad
        self.pooling: Pooling = pooling
        self.normalize = normalize

    def forward(self, ids: Int64[Tensor, " batch length"]) -> Float[Tensor, " batch width"]:
        """One vector per row of token ids."""
        mask = real(ids, self.pad)
        seen = mask.clone()
        # Attention over nothing is no number: an empty text looks at its first padding.
        seen[:, 0] = True
        told = self.encoder(input_ids=ids, attention_mask=seen.long(), return_dict=True)
        vectors = _pooled(told.last_hidden_state, mask.unsqueeze(2), self.pooling)
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return int(cast(Any, self.encoder).config.hidden_size)


def _pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "cls":
        return states[:, 0]
    if pooling == "max":
        return states.masked_fill(~mask, torch.finfo(states.dtype).min).amax(dim=1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def load_sentence_encoder(
    source: str | Path, *, projected: bool = False
) -> tuple[SentenceEncoder, SentenceTokenizer]:
    """An encoder and its tokenizer from a folder of sentence-transformers, or a hub's name.

    Args:
        source: the folder, or the name.
        projected: whether a Dense layer behind the pooling is left to the caller, not refused.

    Raises:
        ModelError: there is no such folder or name, it has parts other than a transformer, a
            pooling and a normalisation, or files are missing or of a form that is not read.
        MissingExtraError: transformers or tokenizers are not installed.

    Example:
        >>> encoder, tokenizer = load_sentence_encoder("all-MiniLM-L6-v2/")  # doctest: +SKIP
        >>> encoder(torch.from_numpy(tokenizer(["A man eats."]))).shape  # doctest: +SKIP
        torch.Size([1, 384])
    """
    home = _folder(source)
    parts = _parts(home, projected=projected)
    inside = home / parts["Transformer"]
    pooling = _read_pooling(home / parts["Pooling"] / "config.json")
    tokenizer = read_tokenizer(inside)
    network = load_hf_model(inside, answer="states", pad=tokenizer.pad).network
    encoder = SentenceEncoder(
        network,
        pad=tokenizer.pad,
        pooling=pooling,
        normalize="Normalize" in parts and "Dense" not in parts,
    )
    return encoder.eval(), tokenizer


def transformer_folder(source: str | Path) -> Path:
    """Where the transformer of an encoder lies, with its configuration and tokenizer.

    Raises:
        ModelError: as of `load_sentence_encoder`.
    """
    home = _folder(source)
    return home / _parts(home)["Transformer"]


def save_sentence_encoder(
    encoder: SentenceEncoder, tokenizer: SentenceTokenizer, folder: Path
) -> Path:
    """Write a folder that `load_sentence_encoder` and sentence-transformers read.

    Raises:
        ModelError: the transformer has become something that its configuration cannot describe.
        RunError: the folder cannot be written.
    """
    network = cast(Any, encoder.encoder)
    _check_described(network)
    make_folder(folder / "1_Pooling")
    with quietly():
        network.save_pretrained(folder)
    modes = {name: kind == encoder.pooling for name, kind in _POOLINGS.items()}
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.width, **modes}
    )
    for name, content in tokenizer.files().items():
        write_atomic(folder / name, json.dumps(content, ensure_ascii=False))
    limits = {"max_seq_length": tokenizer.length, "do_lower_case": tokenizer.lower}
    write_json(folder / "sentence_bert_config.json", limits)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if encoder.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    return folder


def _check_described(network: Any) -> None:
    """A cut network must be what its configuration builds, or nobody can load what is saved."""
    with torch.device("meta"):
        built = type(network)(network.config).state_dict()
    own = network.state_dict()
    # Whether there is a pooler is for whoever builds it to say, and it is not read here.
    one_sided = {n for n in built.keys() ^ own.keys() if "pooler" not in n}
    wrong = sorted(one_sided)
    wrong += sorted(n for n in built if n in own and built[n].shape != own[n].shape)
    if wrong:
        raise ModelError(
            f"a saved model must be what its configuration describes, but {len(wrong)} of its "
            f"tensors are not ({', '.join(wrong[:3])}): set what was changed in "
            "`encoder.encoder.config` (such as `num_hidden_layers`), or export it to ONNX instead"
        )


def _folder(source: str | Path) -> Path:
    home = fetched(source, patterns=_FILES)
    if not (home / "modules.json").is_file():
        raise ModelError(
            f"a sentence encoder's folder must hold `modules.json`, but {home} does not: name a "
            "folder that sentence-transformers wrote, or use `load_hf_model`"
        )
    return home


def _parts(home: Path, *, projected: bool = False) -> dict[str, str]:
    """The parts of the encoder in order: what each is, and its folder."""
    found = read_file(home / "modules.json")
    try:
        parts = {str(part["type"]).rpartition(".")[2]: str(part["path"]) for part in found}
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{home / 'modules.json'} must list parts with `type` and `path`, but does not: write "
            "it again with sentence-transformers"
        ) from error
    known = [kind for kind in parts if not (projected and kind == "Dense")]
    if tuple(known) not in (_PARTS, _PARTS[:2]) or len(parts) != len(found):
        raise ModelError(
            "a sentence encoder must be a Transformer, a Pooling and perhaps a Normalize, but "
            f"{home} has {', '.join(parts)}: load it with sentence-transformers and give the module"
        )
    outside = [path for path in parts.values() if ".." in Path(path).parts or path.startswith("/")]
    if outside:
        raise ModelError(
            f"parts of an encoder must lie in its folder {home}, but one is at {outside[0]}: "
            "correct `modules.json`"
        )
    return parts


def _read_pooling(path: Path) -> Pooling:
    told = read_file(path)
    mode = told.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or ())
    modes = modes or [
        name for name, on in told.items() if name.startswith("pooling_") and on is True
    ]
    found = [_POOLINGS.get(name, name) for name in modes]
    if len(found) != 1 or found[0] not in _POOLINGS.values():
        raise ModelError(
            f"a pooling must be one of {', '.join(_POOLINGS.values())}, but {path} says "
            f"{' and '.join(found) or 'nothing'}: load it with sentence-transformers and give the "
            "module"
        )
    return cast(Pooling, found[0])
