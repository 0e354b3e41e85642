"""A recipe back to YAML: reading it again gives the same recipe."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.recipe import Recipe, loads, starter, to_data, to_yaml

texts = st.text(alphabet="ab1e.-+:# \n'\"\t_oO0xnfy~é", max_size=8) | st.sampled_from(
    ["1e3", "1E-3", "on", "no", "true", "null", "~", "12:30", "010", "1_000", "2024-01-01", ".inf",
     ".5", "=", "<<", "", " ", "- a", "a: b", "# c", "0x1f", "1.", "+1"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc1e", min_size=1, max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


def test_the_starter_reads_back_the_same():
    recipe, _ = loads(starter("recipe.yaml"))
    assert loads(to_yaml(recipe))[0] == recipe


def test_the_starter_names_its_file():
    assert "understudy check my.yaml" in starter("my.yaml")


def test_everything_is_written_defaults_included(read):
    data = yaml.safe_load(to_yaml(read()))
    assert data["steps"][0]["training"]["optimizer"]["kind"] == "adamw"
    assert data == to_data(read())
    json.dumps(to_data(read()))


@settings(max_examples=40, deadline=None)
@given(kind=texts, parameter=values)
def test_any_text_and_any_parameter_reads_back_the_same(kind, parameter):
    data = {
        "data": {"source": {"kind": kind}},
        "teacher": {"onnx": "t.onnx"},
        "student": {"model": {"kind": "mlp", "parameter": parameter}},
    }
    recipe = Recipe.model_validate(data)
    assert to_data(loads(to_yaml(recipe))[0]) == to_data(recipe)


@pytest.mark.parametrize("text", ["1e3", "on", "12:30", "010", "2024-01-01", "${HOME"])
def test_texts_that_look_like_something_else_are_quoted_for_older_readers_too(read, text):
    recipe = read(f"data: {{source: {{kind: '{text}'}}}}")
    assert yaml.safe_load(to_yaml(recipe))["data"]["source"]["kind"] == text
    assert loads(to_yaml(recipe))[0].data.source.kind == text
