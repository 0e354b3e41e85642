"""Recipes of language models that cannot be, each with the place of its mistake."""

import pytest

from understudy import build, recipe
from understudy.errors import RecipeError

GOOD = """
task: {kind: language_model}
data: {source: {kind: documents, path: t.txt}, tokenizer: {size: 300, max_length: 16}}
teacher: {model: {kind: gpt, dim: 16}, training: {epochs: 1}}
student: {model: {kind: gpt, dim: 8, heads: 2}}
"""


@pytest.fixture
def told(tmp_path):
    """The mistakes of the recipe with changes, as `place: law`."""
    (tmp_path / "t.txt").write_text("to be or not to be\n")

    def look(*settings):
        try:
            made, place = recipe.loads(GOOD, settings, folder=tmp_path)
            build.check(made, place)
        except RecipeError as error:
            return [f"{'.'.join(map(str, m.path))}: {m.law}" for m in error.mistakes]
        return []

    return look


def test_the_recipe_is_fine_and_its_defaults_fit_a_vocabulary(told, tmp_path):
    assert told() == []
    made, _ = recipe.loads(GOOD, folder=tmp_path)
    assert (made.labels.codec.kind, made.labels.codec.parameters) == ("top_k", {"k": 64})
    assert made.quantized.form == "weight_int8"
    terms = made.phases[0].objective
    assert [(t.kind, t.weight) for t in terms] == [("hard_label", 0.1), ("soft_target", 0.9)]
    assert terms[1].parameters["temperature"] == 1.0
    assert recipe.loads(recipe.to_yaml(made))[0] == made


@pytest.mark.parametrize(
    "fine",
    [
        "labels.codec={kind: hidden, precision: float16}",
        "labels.use=live",
        "steps=[{objective: [{kind: reverse_kl}]}]",
        "steps=[{objective: [{kind: l2_sp}, {kind: hard_label}]}]",
    ],
)
def test_what_a_vocabulary_allows(fine, told):
    assert told(fine) == []


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ("data.source={kind: digits}", "data.source.kind: a language model learns texts"),
        ("data.labelled=0.5", "data.labelled: every text is its own label"),
        ("data.views=[{kind: token_dropout}]", "data.views: a language model predicts"),
        ("data.tokenizer.train=wordpiece", "data.tokenizer.train: a language model must be able"),
        (
            "student.model={kind: text_cnn}",
            "student.model.kind: `text_cnn` says nothing of the next",
        ),
        ("teacher={onnx: t.txt}", "teacher: a teacher of language_model answers at every token"),
        ("labels.backend=onnxruntime", "labels.backend: a language model is asked as it is"),
        ("labels.codec={kind: hidden, precision: int3}", "labels.codec.precision: "),
        ("steps=[{objective: [{kind: dkd}]}]", "steps.0.objective.0.kind: `dkd` is not made for"),
        (
            "labels.codec={kind: sampled}",
            "labels.codec.kind: `reverse_kl` cannot read labels of codec `sampled`",
        ),
    ],
)
def test_what_is_refused_before_anything_runs(wrong, law, told):
    settings = [wrong]
    if "sampled" in wrong:
        settings.append("steps=[{objective: [{kind: reverse_kl}]}]")
    found = told(*settings)
    assert any(one.startswith(law) for one in found), found
