"""A model's words, written once, exported, and read beside the rows they were made of."""

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from integrations.models import VOCABULARY, llama, rows
from understudy.errors import DataError, ModelError, StoreError
from understudy.integrations.transformers import StoredRows, label_tokens, shared_tokens
from understudy.labels.columns import export_columns

TEXTS = {row["id"] + 10: row["input_ids"] for row in rows()}
ROWS = {number: {"input_ids": tokens} for number, tokens in TEXTS.items()}


class Words:
    """A tokenizer, as far as it is asked here."""

    def __init__(self, *words):
        self.words = words

    def get_vocab(self):
        return {word: number for number, word in enumerate(self.words)}


@pytest.fixture(scope="module")
def model():
    return llama(8).float()


def exported(model, folder, codec, suffix=".parquet", tokenizer=None, **parameters):
    store = label_tokens(model, TEXTS, folder / codec, codec=codec, parameters=parameters,
                         tokenizer=tokenizer, batch_size=3, shard_rows=3)  # fmt: skip
    path = folder / f"{codec}{suffix}"
    export_columns(store, path, rows=3)
    return store, path


def alone(model, number):
    """What it says of one row by itself, without padding."""
    with torch.no_grad():
        return model(torch.tensor([TEXTS[number]])).logits[0]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_dense_ones_are_what_the_model_says_of_each_row_alone(tmp_path, model, suffix):
    _, path = exported(model, tmp_path, "dense", suffix)
    stored = StoredRows(path, ROWS)
    assert len(stored) == len(TEXTS)
    for row in stored:
        assert row["input_ids"] == TEXTS[row["id"]]
        torch.testing.assert_close(row["logits"], alone(model, row["id"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize(
    ("codec", "parameters"),
    [("top_k", {"k": 4}), ("top_p", {"k": 6, "p": 0.6}), ("sampled", {"draws": 5})],
)
def test_lists_are_those_of_the_table(tmp_path, model, suffix, codec, parameters):
    _, path = exported(model, tmp_path, codec, suffix, **parameters)
    stored = StoredRows(path, ROWS)
    if suffix == ".parquet":
        table = pq.read_table(path)
        names = [name for name in table.column_names if name.startswith("logits")]
    else:
        _, other = exported(model, tmp_path, codec, ".parquet", **parameters)
        table, names = pq.read_table(other), [n for n in stored[0] if n.startswith("logits")]
    for at, told in enumerate(table.to_pylist()):
        row = stored[at]
        assert row["id"] == told["id"]
        for name in names:
            if name in ("logits_rest", "logits_entropy"):
                assert row[name].tolist() == told[name]
                continue
            for found, listed in zip(row[name].tolist(), told[name], strict=True):
                assert found[: len(listed)] == listed
                filled = -1 if name == "logits_ids" else -float("inf")
                assert all(value == filled for value in found[len(listed) :])


def test_a_finished_store_is_opened_and_another_models_is_refused(tmp_path, model):
    class Counted(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside, self.asked = inside, 0

        def forward(self, input_ids, attention_mask):
            self.asked += 1
            return self.inside(input_ids, attention_mask)

    counted = Counted(model).train()
    first = label_tokens(counted, TEXTS, tmp_path / "s", batch_size=3, parameters={"k": 4})
    assert counted.asked == 3
    again = label_tokens(counted, TEXTS, tmp_path / "s", batch_size=3, parameters={"k": 4})
    assert counted.asked == 3
    assert first.manifest == again.manifest
    assert counted.training
    with pytest.raises(StoreError, match="teacher"):
        label_tokens(llama(8, seed=5).float(), TEXTS, tmp_path / "s", parameters={"k": 4})


def test_another_configuration_is_another_teacher(tmp_path):
    """Weights alone do not say how far a head looks, or how many heads there are."""
    model = llama(8, seed=5).float()
    label_tokens(model, TEXTS, tmp_path / "s", parameters={"k": 4})
    model.save_pretrained(tmp_path / "elsewhere")
    loaded = type(model).from_pretrained(tmp_path / "elsewhere")
    label_tokens(loaded, TEXTS, tmp_path / "s", parameters={"k": 4})
    model.config.rms_norm_eps *= 10
    with pytest.raises(StoreError, match="teacher"):
        label_tokens(model, TEXTS, tmp_path / "s", parameters={"k": 4})


def test_labels_of_another_tokenizer_are_refused(tmp_path, model):
    words = Words(*(f"t{number}" for number in range(VOCABULARY)))
    _, path = exported(model, tmp_path, "top_k", tokenizer=words, k=4)
    assert len(StoredRows(path, ROWS, tokenizer=words)) == len(ROWS)
    with pytest.raises(StoreError, match="was labelled with another tokenizer"):
        StoredRows(path, ROWS, tokenizer=Words("a", "b"))


def test_a_store_that_does_not_tell_its_tokenizer_is_taken(tmp_path, model):
    _, path = exported(model, tmp_path, "top_k", k=4)
    assert len(StoredRows(path, ROWS, tokenizer=Words("a"))) == len(ROWS)


def test_rows_that_are_missing(tmp_path, model):
    _, path = exported(model, tmp_path, "top_k", k=4)
    few = {number: row for number, row in ROWS.items() if number != 12}
    with pytest.raises(DataError, match="1 ids that are not among the 7 rows, the first is 12"):
        StoredRows(path, few)
    with pytest.raises(DataError, match=r"has no view 3: it has 0"):
        StoredRows(path, ROWS, view=3)
    with pytest.raises(DataError, match=r"nowhere.parquet do not exist"):
        StoredRows(tmp_path / "nowhere.parquet", ROWS)


@pytest.mark.parametrize(
    ("given", "told"), [({}, "there are no rows"), ({4: []}, "row 4 has none")]
)
def test_rows_without_tokens_are_not_labelled(tmp_path, model, given, told):
    with pytest.raises(DataError, match=told):
        label_tokens(model, given, tmp_path)


def test_tokenizers_share_their_leading_tokens():
    assert shared_tokens(Words("a", "b", "c"), Words("a", "b")) == 2
    assert shared_tokens(Words("a"), Words("a")) == 1
    with pytest.raises(ModelError, match="token 0 is 'a' to the student and 'b' to the teacher"):
        shared_tokens(Words("a", "b"), Words("b", "a"))
