"""The parts of a run from their entries. `check` has been through the same entries before."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from understudy import data, models
from understudy.build.arguments import accepted, coerced, required
from understudy.build.hub_names import DEFINITIONS, FILES, tokenizer_home
from understudy.build.targets import TargetError, resolve, told
from understudy.data.files import split_key
from understudy.data.language_tokens import Coder, read_coder, train_coder
from understudy.data.rows import Rows
from understudy.data.tokenizers import read_tokenizer, train_tokenizer
from understudy.data.tokens import TokenFacts
from understudy.data.views import CATALOGUE as VIEWS
from understudy.data.views import Mixing, OfTokens, Own, View, Views
from understudy.deployed.texts import Tokenizer
from understudy.errors import ModelError, UnderstudyError, did_you_mean
from understudy.folders import file_checksum
from understudy.labels.codecs import CATALOGUE as CODECS
from understudy.labels.codecs.form import Codec
from understudy.recipe import Entry, Source, TokenizerSection
from understudy.students.static.student import Static
from understudy.teachers.hf_causal import HFCausal, load_hf_causal
from understudy.teachers.hf_classifier import HFClassifier
from understudy.teachers.hf_encoder import HFEncoder
from understudy.teachers.sentence_model import SentenceModel

# What rows must be where a network has an argument of this name.
NEEDS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("channels", "height", "image_width"), "images")
    | dict.fromkeys(("vocabulary", "pad", "length"), "texts")
    | {"inputs": "rows of numbers"}
)


def hf_causal(*, folder: str, begin: int | None = None, end: int | None = None) -> HFCausal:
    """A causal model of Hugging Face, by the tokens that begin and end a document in its rows.

    Args:
        folder: of the model, or its name.
        begin: the token that a document begins with.
        end: the token that a document ends with.
    """
    return load_hf_causal(folder, begin=begin, end=end)


# Networks by their kind: small ones of our own, and those that others have pretrained.
MODELS: Final[Mapping[str, Callable[..., nn.Module]]] = MappingProxyType(
    {
        **models.CATALOGUE,
        "static": Static,
        "hf_encoder": HFEncoder,
        "hf_classifier": HFClassifier,
        "sentence_encoder": SentenceModel,
        **models.CAUSAL,
        "hf_causal": hf_causal,
    }
)
# Parameters of data sources that are paths, relative to the recipe's folder. A place inside an
# `.npz` file follows a colon.
PATHS = ("path", "test_path", "inputs", "labels", "test_inputs", "test_labels", "ids", "classes")


def source(entry: Entry, place: Source) -> Callable[[], Rows]:
    """What loads the raw rows."""
    if entry.kind == "custom":
        function, arguments = custom(entry, place)
        return lambda: data.from_custom(called(function, arguments))
    function = data.CATALOGUE[entry.kind]
    arguments = with_paths(entry.parameters, place)
    return lambda: function(**arguments)


def with_paths(parameters: Mapping[str, Any], place: Source) -> dict[str, Any]:
    """Parameters with their relative paths resolved."""
    return {
        name: _path(value, place) if name in PATHS and isinstance(value, str) else value
        for name, value in parameters.items()
    }


def _path(value: str, place: Source) -> str:
    file, key = split_key(value)
    return str(place.resolve(file)) + (f":{key}" if key is not None else "")


def named_files(value: str) -> list[Path]:
    """The files that a path of a source names: one, or what a pattern finds."""
    path = Path(split_key(value)[0])
    if "*" in path.name:
        return sorted(path.parent.glob(path.name))
    return [path] if path.exists() else []


def views(
    entries: Sequence[Entry],
    place: Source | None = None,
    *,
    seed: int,
    tokens: TokenFacts | None = None,
) -> Views:
    """The chain of random operations.

    Args:
        entries: of the recipe, in order.
        place: where relative paths of transforms start; None: the working directory.
        seed: of all that is drawn.
        tokens: the tokenizer of rows that are texts.

    Raises:
        ModelError: a transform's factory fails, or returns nothing that can be called.
    """
    return Views([_view(entry, place or Source(), tokens) for entry in entries], seed=seed)


def _view(entry: Entry, place: Source, tokens: TokenFacts | None) -> View | Mixing:
    if entry.kind != "custom":
        view = VIEWS[entry.kind](**coerced(VIEWS[entry.kind], entry.parameters))
        if not isinstance(view, OfTokens):
            return view
        if tokens is None:
            raise ModelError(f"the view `{entry.kind}` is for texts, but these rows are none")
        return view.told(pad=tokens.pad, mask=tokens.mask, special=tokens.special)
    function, arguments = custom(entry, place)
    made = called(function, arguments)
    if not callable(made):
        raise ModelError(
            f"`{entry.parameters['target']}` of `data.views` must be a factory that returns a "
            f"transform of one row, but it returned {type(made).__name__}"
        )
    return Own(made, batched=bool(getattr(made, "batched", False)))


def codec(entry: Entry) -> Codec:
    """How the teacher's answer is stored."""
    kind = CODECS[entry.kind]
    return kind(**coerced(kind, entry.parameters))


def network(
    entry: Entry, facts: Mapping[str, int], place: Source, *, where: str
) -> Callable[[], nn.Module]:
    """A factory of the network, with what the data says filled in.

    Raises:
        ModelError: when called, if the network's own checks refuse the arguments.
    """
    function, arguments = constructor(entry, facts, place)
    lacking = [n for n in _needs(function) if n in NEEDS and n not in arguments]

    def make() -> nn.Module:
        if lacking:
            raise ModelError(_unfit(where, entry.kind, NEEDS[lacking[0]], facts))
        try:
            made = function(**arguments)
        except Exception as error:  # whatever a network of the user's raises
            raise ModelError(f"{where} cannot be built: {told(error)}") from error
        if not isinstance(made, nn.Module):
            raise ModelError(
                f"{where} must be a torch module, but its factory returned {type(made).__name__}"
            )
        return made

    return make


def _unfit(where: str, kind: str, needs: str, facts: Mapping[str, int]) -> str:
    """Why a network cannot have these rows."""
    own, remedy = f"a table of {facts.get('inputs', 0)} numbers", "`kind: mlp`"
    if "vocabulary" in facts:
        own, remedy = "texts", "`kind: text_cnn`"
    elif "channels" in facts:
        own, remedy = "images", "`kind: convnet`"
    return (
        f"{where} is a `{kind}`, which needs {needs}, but these rows are {own}: use {remedy}, or "
        "a network of your own"
    )


def constructor(
    entry: Entry, facts: Mapping[str, int], place: Source
) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What makes a network, and its arguments with what the data says filled in."""
    if entry.kind == "custom":
        function, arguments = custom(entry, place)
        return function, required(function, facts) | arguments
    function = MODELS[entry.kind]
    given = coerced(function, entry.parameters)
    if isinstance(given.get("folder"), str):
        given["folder"] = folder(given["folder"], place)
    return function, accepted(function, facts) | given


def folder(value: str, place: Source) -> str:
    """Where a model's folder is; a name of the hub, which is no path, stays what it is."""
    there = place.resolve(value)
    return str(there) if there.exists() else value


def tokenizer(section: TokenizerSection, place: Source, texts: Iterable[str]) -> Tokenizer:
    """What makes tokens of texts: as it is in a file, or trained on these texts.

    Raises:
        DataError: there is no such tokenizer, or the texts make none.
        MissingExtraError: tokenizers is not installed.
    """
    if section.file is not None:
        return read_tokenizer(tokenizer_home(section, place), length=section.max_length)
    return train_tokenizer(
        texts,
        kind=section.train,
        size=section.size,
        lower=section.lower,
        length=section.max_length,
    )


def coder(section: TokenizerSection, place: Source, texts: Iterable[str]) -> Coder:
    """What makes tokens of a language model's documents: from a file, or trained on these texts.

    Raises:
        DataError: there is no such tokenizer, or the texts make none.
        MissingExtraError: tokenizers is not installed.
    """
    if section.file is not None:
        return read_coder(tokenizer_home(section, place))
    return train_coder(texts, size=section.size)


def tokenizer_mark(section: TokenizerSection, place: Source) -> dict[str, str]:
    """What a tokenizer from a file is a function of: the checksums of what is read."""
    path = tokenizer_home(section, place)
    folder = path if path.is_dir() else path.parent
    names = {path.name} if path.is_file() else {*DEFINITIONS}
    names |= {*FILES}
    return {n: file_checksum(folder / n) for n in sorted(names) if (folder / n).is_file()}


def _needs(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty]


def predictor(entry: Entry, place: Source, *, where: str) -> Callable[..., Any]:
    """A teacher of the user's own: the factory's result, which takes raw rows.

    Raises:
        ModelError: the factory fails, or returns nothing that can be called.
    """
    function, arguments = custom(entry, place)
    try:
        made = function(**arguments)
    except Exception as error:
        raise ModelError(f"{where} cannot be built: {told(error)}") from error
    if not callable(made):
        raise ModelError(
            f"{where} must be a factory that returns a callable of raw rows, but it returned "
            f"{type(made).__name__}"
        )
    return made  # type: ignore[no-any-return]


def called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What the user's own factory makes.

    Raises:
        ModelError: it fails.
    """
    try:
        return function(**arguments)
    except UnderstudyError:
        raise
    except Exception as error:  # whatever the user's own code raises
        name = getattr(function, "__name__", "the target")
        raise ModelError(f"`{name}` of the recipe fails: {told(error)}") from error


def custom(entry: Entry, place: Source) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The user's own function, and the arguments that the recipe gives it.

    Raises:
        ModelError: there is no such function.
    """
    try:
        function = resolve(entry.parameters["target"], Path(place.folder))
    except TargetError as error:
        raise ModelError(str(error)) from error
    return function, dict(entry.parameters.get("arguments", {}))


def unknown_kind(kind: str, known: Mapping[str, Any]) -> str | None:
    """The law that an unknown kind breaks."""
    if kind == "custom" or kind in known:
        return None
    return f"unknown kind `{kind}`: {did_you_mean(kind, [*known, 'custom'])}"
