"""The files in a model's folder are a part of what the model is."""

import pytest
import yaml

pytest.importorskip("transformers")

from pipeline.classifier_made import as_on_the_hub
from pipeline.encoder_made import make_encoder
from pipeline.lessons import work_of
from pipeline.test_texts import recipe_of, reviews, write
from understudy.build.parts import tokenizer_mark
from understudy.data.tokenizers import train_tokenizer
from understudy.errors import ModelError
from understudy.pipeline.fresh import fresh_student
from understudy.pipeline.language import reads_its_own_tokens
from understudy.pipeline.model_marks import model_marks
from understudy.pipeline.prepare import prepare
from understudy.pipeline.student import student_mark
from understudy.recipe import Entry, Source, TokenizerSection


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


@pytest.mark.parametrize("folder", ["bert", "some/bert"])
def test_a_pretrained_network_with_another_tokenizer_is_refused(home, monkeypatch, folder):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
    as_on_the_hub(home / "bert", home / "hf", "some/bert", "a" * 40)
    other = train_tokenizer(["quite other words than those"], size=60)
    (home / "other.json").write_text(other.content)
    student = {"kind": "hf_encoder", "folder": folder}
    for tokenizer, fits in (("bert", True), ("other.json", False)):
        changes = {"data.tokenizer": tokenizer, "student.model": student}
        work = work_of(yaml.safe_load(recipe_of(changes)), home)
        prepare(work)
        entry = Entry.model_validate(student)
        if fits:
            reads_its_own_tokens(work, entry, who="the teacher")
            continue
        with pytest.raises(ModelError, match="the teacher must have the run's tokenizer"):
            reads_its_own_tokens(work, entry, who="the teacher")
        with pytest.raises(ModelError, match="the student must have the run's tokenizer"):
            fresh_student(work, 0)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocabulary.json",
                                  "special_tokens_map.json"])  # fmt: skip
def test_a_tokenizer_is_another_one_when_a_file_that_it_is_read_from_changes(home, name):
    section, place = TokenizerSection(file="bert"), Source(folder=home)
    before = tokenizer_mark(section, place)
    for _ in changed(home / "bert" / name):
        assert tokenizer_mark(section, place) != before
    assert tokenizer_mark(section, place) == before
