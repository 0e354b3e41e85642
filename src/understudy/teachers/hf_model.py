"""Hugging Face models as ordinary modules: token ids in, one tensor out.

A folder or a name of the hub becomes a module of one positional argument, so that such a model is
taught, cut, exported and timed as any other. No code that came with a model is run, and no file is
unpickled: weights are safetensors, or they are refused.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from understudy.errors import MissingExtraError, ModelError
from understudy.export.load_notes import without_load_notes
from understudy.folders import file_checksum

Answer = Literal["logits", "states"]

# What stands at the end of an architecture's name, and the class that builds it.
_HEADS: Mapping[str, str] = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")


class TokenModel(nn.Module):
    """A Hugging Face model that takes one tensor of token ids and answers with one tensor.

    Rows are padded at the end. What is padding is read off the ids, so there is nothing to pass
    beside them, and an exported file has one input.

    Attributes:
        network: the model itself; its `config` says what it is.
        pad: the id that fills rows up; None where every token is real.
        answer: `logits` of its head, or the last hidden `states`.
    """

    def __init__(self, network: nn.Module, *, pad: int | None, answer: Answer) -> None:
        """Wrap a model that is called with `input_ids` and `attention_mask`."""
        super().__init__()
        self.network = network
        self.pad = pad
        self.answer: Answer = answer

    def forward(self, ids: Int64[Tensor, " batch length"]) -> Float[Tensor, " batch *axes"]:
        """Logits `[batch, width]`, or logits or states of every token `[batch, length, width]`."""
        mask = None if self.pad is None else real(ids, self.pad).long()
        told = self.network(input_ids=ids, attention_mask=mask, return_dict=True)
        return cast(Tensor, told.logits if self.answer == "logits" else told.last_hidden_state)


def real(ids: Int64[Tensor, " batch length"], pad: int) -> Bool[Tensor, " batch length"]:
    """Which tokens are no padding."""
    return ids != pad


def load_hf_model(
    source: str | Path,
    *,
    answer: Answer | Literal["auto"] = "auto",
    pad: int | Literal["auto"] | None = "auto",
) -> TokenModel:
    """A model from a folder, or by its name on the Hugging Face hub, in evaluation mode, float32.

    The network is asked only where `source` is no folder, and what was fetched once is read from
    the cache. The library's own switch `HF_HUB_OFFLINE=1` holds.

    Args:
        source: the folder of `config.json` and `model.safetensors`, or a name such as
            `distilbert-base-uncased`.
        answer: `logits` of the head that the model was saved with, or `states` of the model below
            it; `auto` is logits where there is a head.
        pad: the id that rows are filled up with. `auto` is the tokenizer's, or else the
            configuration's; a model of neither takes rows of real tokens only (None).

    Raises:
        ModelError: there is no such model, it needs code of its own, its weights are no
            safetensors or do not fit it, or it has no head to answer with logits.
        MissingExtraError: transformers is not installed.

    Example:
        >>> model = load_hf_model("distilbert-base-uncased", answer="states")  # doctest: +SKIP
        >>> model(torch.tensor([[101, 7592, 102, 0]])).shape  # doctest: +SKIP
        torch.Size([1, 4, 768])
    """
    library = transformers()
    config = config_of(source)
    head = _head(config)
    if answer == "logits" and head is None:
        raise ModelError(
            f"`answer: logits` needs a model with a head, but {source} was saved as "
            f"{architecture_of(config)}: use `answer: states`"
        )
    chosen: Answer = "states" if head is None or answer == "states" else "logits"
    padding = _padding(source, config) if pad == "auto" else pad
    if padding is not None:
        config.pad_token_id = padding  # heads on the last token look for it there
    builder = getattr(library, head if chosen == "logits" and head else "AutoModel")
    try:
        with quietly():
            network, found = builder.from_pretrained(
                located(source),
                config=config,
                dtype="float32",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # the library's own, of many kinds
        raise ModelError(f"the model {source} cannot be loaded: {_reason(error)}") from error
    _refuse_missing(source, network, found)
    return TokenModel(network, pad=padding, answer=chosen).eval()


def transformers() -> Any:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers as library
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "hf") from error
    return library


def located(source: str | Path) -> str:
    """A folder as it is, a name of the hub as it is; what looks like a path must exist.

    Raises:
        ModelError: a path without a folder.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"a model's folder must hold `config.json`, but {path} does not: name the folder "
                "that `save_pretrained` wrote"
            )
        return str(path)
    text = str(source)
    if isinstance(source, Path) or text.startswith((".", "~", os.sep)) or text.count("/") > 1:
        raise ModelError(
            f"the model's folder {path.absolute()} does not exist: correct the path, or give a "
            "name of the Hugging Face hub, `owner/model`"
        )
    return text


def fetched(source: str | Path, *, patterns: Sequence[str]) -> Path:
    """The folder of a model: as it is, or what the hub's cache or the hub itself has of it.

    Raises:
        ModelError: there is no such folder or name.
        MissingExtraError: transformers is not installed.
    """
    where = located(source)
    if Path(where).is_dir():
        return Path(where)
    transformers()  # brings the library of the hub
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, allow_patterns=list(patterns)))
    except Exception as error:
        raise ModelError(f"the model {source} cannot be found: {_reason(error)}") from error


def revision(name: str) -> dict[str, str]:
    """What a name of the hub stands for now: the commit, or else the checksums of its files.

    Raises:
        ModelError: there is no such name.
        MissingExtraError: transformers is not installed.
    """
    home = fetched(name, patterns=("config.json",))
    if home.parent.name == "snapshots" and _COMMIT.fullmatch(home.name):
        return {"commit": home.name}
    files = sorted(file for kind in ("json", "safetensors") for file in home.glob(f"**/*.{kind}"))
    return {file.relative_to(home).as_posix(): file_checksum(file) for file in files}


@contextmanager
def quietly() -> Iterator[None]:
    """Without the library's bars and notes: what matters of them is raised as an error."""
    told = transformers().utils.logging
    shown, level = told.is_progress_bar_enabled(), told.get_verbosity()
    told.disable_progress_bar()
    told.set_verbosity_error()
    try:
        with without_load_notes():
            yield
    finally:
        told.set_verbosity(level)
        if shown:
            told.enable_progress_bar()


def config_of(source: str | Path) -> Any:
    """The configuration of a model in a folder, or of a name.

    Raises:
        ModelError: there is no such model, or it needs code of its own.
        MissingExtraError: transformers is not installed.
    """
    try:
        with quietly():
            return transformers().AutoConfig.from_pretrained(
                located(source), trust_remote_code=False
            )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the model {source} cannot be found: {_reason(error)}") from error


def architecture_of(config: Any) -> str:
    """What a model was saved as, such as `BertForSequenceClassification`."""
    return str((getattr(config, "architectures", None) or [config.model_type])[0])


def _head(config: Any) -> str | None:
    name = architecture_of(config)
    return next((auto for ending, auto in _HEADS.items() if name.endswith(ending)), None)


def _padding(source: str | Path, config: Any) -> int | None:
    try:
        with quietly():
            tokenizer = transformers().AutoTokenizer.from_pretrained(
                located(source), trust_remote_code=False
            )
    except Exception:  # a folder without a tokenizer; whoever brings ids has no need of one
        tokenizer = None
    known = getattr(tokenizer, "pad_token_id", None)
    if known is None:
        known = getattr(config, "pad_token_id", None)
    # Some configurations say -1 for none.
    return None if known is None or known < 0 else int(known)


def _refuse_missing(source: str | Path, network: nn.Module, found: Mapping[str, Any]) -> None:
    # A pooler that a checkpoint lacks is not read here, so random weights in it do not matter.
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    wrong = sorted(str(item[0]) for item in found.get("mismatched_keys", ()))
    if missing or wrong:
        names = [*missing, *wrong]
        raise ModelError(
            f"the weights in {source} must fill all of {type(network).__name__}, but "
            f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''} are missing or of "
            "another shape: train and save this model first, or use `answer: states`"
        )


def _reason(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = text or type(error).__name__
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return (
            "it comes with Python code of its own, which is never run; load it yourself where you "
            "trust it, and give the module"
        )
    if "safetensors" in str(error):
        return (
            "its weights must be a safetensors file, as no file is unpickled: load it where you "
            "trust it and call `save_pretrained`"
        )
    if any(w in str(error) for w in ("offline", "connect", "HF_HUB_OFFLINE", "cached")):
        return (
            "it is no folder here, not in the cache, and the hub cannot be reached: correct the "
            "path, or fetch the model where there is a network"
        )
    return text if len(text) <= 300 else f"{text[:300]}..."
