"""Ask a causal model once for every row of tokens, and keep what it says in a label store."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge, Ragged
from understudy.errors import DataError
from understudy.folders import fingerprint
from understudy.integrations.transformers.reading import logits_in
from understudy.integrations.transformers.tokenizers import Tokenizer, vocabulary_mark
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record
from understudy.labels.store import LabelStore
from understudy.models.weights import weights_fingerprint

FIELD: Final = "logits"


def label_tokens(
    model: nn.Module,
    rows: Mapping[int, Sequence[int]],
    folder: str | Path,
    *,
    codec: str = "top_k",
    parameters: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 8,
    shard_rows: int = 1024,
) -> LabelStore:
    """A store of what a causal model says after every token of every row.

    A store of the same model, rows and codec that was not finished goes on; a finished one is
    opened.

    Args:
        model: of Hugging Face, or any module that takes `input_ids` and `attention_mask`, padded
            at the end, and answers with logits.
        rows: tokens by id.
        folder: of the store.
        codec: one of the label store's: `top_k`, `top_p`, `sampled`, `dense`, `int8`.
        parameters: of the codec, such as `{"k": 64}`.
        tokenizer: the rows'; a mark of its vocabulary is stored, and compared where the labels
            are read.
        batch_size: rows per call of the model.
        shard_rows: rows per file.

    Raises:
        DataError: there are no rows, or one is empty.
        StoreError: the folder holds another store, or an answer is not finite.
        ModelError: the model does not answer with logits.
    """
    empty = [number for number, tokens in rows.items() if not len(tokens)]
    if empty or not rows:
        what = f"row {empty[0]} has none" if empty else "there are no rows"
        raise DataError(f"every row must have a token, but {what}: leave empty rows out")
    ids = sorted(rows)
    portions = cut(
        lambda start, stop: _batches(ids[start:stop], batch_size),
        rows=len(ids),
        batch_size=batch_size,
        shard_rows=shard_rows,
    )
    known = {number: [int(token) for token in rows[number]] for number in ids}
    marks = {"teacher": _mark(model), "data": fingerprint(sorted(known.items()))}
    if tokenizer is not None:
        marks["vocabulary"] = vocabulary_mark(tokenizer)
    made = codecs.make(codec, parameters or {}, {})
    record(
        engine=Serial(_Speaker(model, known), portions),
        rows=portions.rows,
        keep={FIELD: Keep(codec=made, reads=FIELD)},
        place=LocalPlace(Path(folder)),
        fingerprints=marks,
    )
    return LabelStore(Path(folder))


# What a configuration says of where it was saved and loaded, and by which release.
ELSEWHERE = (
    *("_name_or_path", "name_or_path", "transformers_version"),
    *("architectures", "dtype", "torch_dtype"),
)


def _mark(model: nn.Module) -> str:
    """Of all that the answers are a function of: weights, the class, and how it is configured."""
    config: Any = getattr(model, "config", None)
    told = config.to_dict() if hasattr(config, "to_dict") else {"module": repr(model)}
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    how = {name: repr(value) for name, value in told.items() if name not in ELSEWHERE}
    return fingerprint([weights_fingerprint(model), kind, sorted(how.items())])


class _Speaker:
    """A causal model as a teacher of sequences: one row of logits after every token."""

    def __init__(self, model: nn.Module, rows: Mapping[int, list[int]]) -> None:
        self._model, self._rows = model, rows

    @property
    def offers(self) -> frozenset[str]:
        """Logits alone."""
        return frozenset({FIELD})

    def __call__(self, batch: Batch) -> Knowledge:
        """The logits of every token, rows end to end."""
        assert batch.ids is not None
        rows = [torch.tensor(self._rows[int(number)]) for number in batch.ids]
        lengths = torch.tensor([len(row) for row in rows])
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        device = next(self._model.parameters()).device
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                answer = self._model(
                    input_ids=padded.to(device), attention_mask=real.long().to(device)
                )
        finally:
            self._model.train(training)
        values: Tensor = logits_in(answer).cpu()[real]
        return Knowledge(fields={FIELD: Ragged(values=values.float(), lengths=lengths)})


def _batches(ids: Sequence[int], size: int) -> Iterator[Batch]:
    for start in range(0, len(ids), size):
        some = torch.tensor(ids[start : start + size])
        yield Batch(inputs=some[:, None], ids=some)
