"""The files in a model's folder are a part of what the model is."""

import pytest
import yaml

pytest.importorskip("transformers")

from pipeline.encoder_made import make_encoder
from pipeline.lessons import work_of
from pipeline.test_texts import recipe_of, reviews, write
from understudy.pipeline.model_marks import model_marks
from understudy.pipeline.prepare import prepare
from understudy.pipeline.student import student_mark
from understudy.recipe import Entry, Source


@pytest.fixture
def home(tmp_path):
    lines = list(reviews(40))
    write(tmp_path, lines)
    make_encoder(tmp_path / "bert", [text for text, _ in lines], size=80)
    return tmp_path


def changed(path):
    """Another byte at the end, for as long as it is looked at."""
    whole = path.read_bytes() if path.exists() else None
    path.write_bytes((whole or b"") + b" ")
    yield
    path.unlink() if whole is None else path.write_bytes(whole)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_student_of_a_folder_is_another_one_when_a_file_of_it_changes(home, name):
    recipe = yaml.safe_load(
        recipe_of(
            {"data.tokenizer": "bert", "student.model": {"kind": "hf_encoder", "folder": "bert"}}
        )
    )
    work = work_of(recipe, home)
    prepare(work)
    before = student_mark(work)
    assert student_mark(work_of(recipe, home)) == before
    for _ in changed(home / "bert" / name):
        assert student_mark(work) != before
    assert student_mark(work) == before


def test_where_the_texts_of_a_language_model_end_is_a_part_of_it(home):
    entry = Entry.model_validate({"kind": "hf_causal", "folder": "./bert"})
    before = model_marks(entry, Source(folder=home))
    for _ in changed(home / "bert" / "generation_config.json"):
        assert model_marks(entry, Source(folder=home)) != before
    for _ in changed(home / "bert" / "tokenizer_config.json"):  # nothing is read of it
        assert model_marks(entry, Source(folder=home)) == before
