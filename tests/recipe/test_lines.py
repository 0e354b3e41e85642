"""YAML to plain data: scalars, keys, lines, and everything that YAML itself can object to."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.recipe.lines import Plain, parse, parse_value


def value(text):
    data, _, mistakes = parse(f"a: {text}")
    assert not mistakes
    return data["a"]


def law(text):
    _, _, mistakes = parse(text)
    assert len(mistakes) == 1
    return mistakes[0]


@pytest.mark.parametrize(("text", "expected"), [
    ("1e-3", 0.001), ("1E5", 1e5), ("-2e+3", -2000.0), ("1.5e3", 1500.0), ("1.", 1.0), (".5", 0.5),
    ("+1.5", 1.5), ("0.1", 0.1), (".inf", math.inf), ("-.inf", -math.inf),
    ("0", 0), ("-3", -3), ("+7", 7), ("50_000", 50_000), ("1" * 21, int("1" * 21)),
    ("true", True), ("False", False), ("TRUE", True), ("null", None), ("~", None), ("", None),
])  # fmt: skip
def test_numbers_truths_and_nothing(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_nan_is_a_number():
    assert math.isnan(value(".nan"))


@pytest.mark.parametrize("text", [
    "on", "off", "yes", "no", "y", "n", "On", "NO", "12:30", "1:2:3", "2024-01-01", "2024-13-45",
    "010", "0o17", "0b11", "1e", "e3", "1.2.3", "=", "inf", "nan", "None", "v1e3",
])  # fmt: skip
def test_everything_else_is_a_text_as_it_is_written(text):
    assert value(text) == text


@pytest.mark.parametrize("text", ["'1e-3'", '"1e-3"', "'true'", "'12'", "''"])
def test_quotes_make_a_text(text):
    assert value(text) == text[1:-1]


def test_a_text_without_quotes_is_known_as_such():
    assert isinstance(value("${X}"), Plain)
    assert not isinstance(value("'${X}'"), Plain)
    assert not isinstance(value("|\n  ${X}"), Plain)


# --- lines ---------------------------------------------------------------------------------------


def test_every_path_has_its_line():
    text = "a: 1\nb:\n  c: [1,\n    2]\n  d:\n  - e: x\n\n  - f: y\n"
    _, lines, _ = parse(text)
    expected = {
        (): 1, ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 3, ("b", "c", 1): 4,
        ("b", "d"): 5, ("b", "d", 0): 6, ("b", "d", 0, "e"): 6,
        ("b", "d", 1): 8, ("b", "d", 1, "f"): 8,
    }  # fmt: skip
    assert lines == expected


def test_keys_are_texts_as_they_are_written():
    data, lines, _ = parse("1: a\nnull: b\ntrue: c\n1e-3: d\n'5': e\n? [x, y]\n: f\n")
    assert list(data) == ["1", "null", "true", "1e-3", "5", "['x', 'y']"]
    assert lines[("true",)] == 3


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n"])
def test_nothing_is_an_empty_mapping_or_nothing(text):
    data, _, mistakes = parse(text)
    assert data in ({}, None)
    assert not mistakes


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    assert parse("\ufeffa: 1")[0] == {"a": 1}


# --- what YAML objects to ------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_a_mistake_at_the_second_place():
    data, _, mistakes = parse("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 4\n")
    assert [(m.path, m.line) for m in mistakes] == [(("a",), 6), (("b", "c"), 5)]
    assert "`c` stands again here: remove one of the two" in mistakes[1].law
    assert data == {"a": 4, "b": {"c": 3, "d": 2}}


@pytest.mark.parametrize(("text", "line", "words"), [
    ("a: 1\nb:\n\tc: 2\n", 3, "character '\\t'"),
    ("a: b: c\n", 1, "mapping values are not allowed"),
    ("a: [1, 2\nb: 3\n", 2, "expected ',' or ']'"),
    ("a: 'x\n", 2, "unexpected end"),
    ("a: 1\n---\nb: 2\n", 2, "but found another document"),
    ("a: *nobody\n", 1, "undefined alias"),
    ("a: !!python/name:os.system x\n", 1, "could not determine a constructor"),
    ("a: 1\n  b: 2\n", 2, "mapping values are not allowed"),
    ("- a\nb: 1\n", 2, "expected <block end>"),
])  # fmt: skip
def test_broken_yaml_says_where_and_what(text, line, words):
    mistake = law(text)
    assert mistake.line == line
    assert words in mistake.law
    assert "check the indentation, colons and quotes here" in mistake.law


@pytest.mark.parametrize("character", ["\x00", "\x07", "\ufffe"])
def test_characters_that_yaml_has_not_are_a_mistake(character):
    assert "special characters are not allowed" in law(f"a: x{character}y").law


def test_a_tag_on_a_list_runs_nothing():
    assert value("!!python/object/apply:os.system [exit 3]") == ["exit 3"]


@pytest.mark.parametrize("text", ["!!int abc", "!!bool maybe", "!!float x"])
def test_a_tag_that_lies_is_a_mistake(text):
    mistake = law(f"\na: {text}")
    assert (mistake.path, mistake.line) == (("a",), 2)
    assert "is not what its tag" in mistake.law


# --- anchors -------------------------------------------------------------------------------------


def test_an_alias_is_a_copy():
    data, _, _ = parse("a: &x {b: [1]}\nc: *x\n")
    assert data == {"a": {"b": [1]}, "c": {"b": [1]}}
    data["a"]["b"].append(2)
    assert data["c"]["b"] == [1]


def test_a_merged_mapping_is_overridden_without_a_mistake():
    data, lines, mistakes = parse("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n")
    assert not mistakes
    assert data["d"] == {"b": 3, "c": 2}
    assert lines[("d", "b")] == 4


def test_a_mapping_with_a_merge_may_be_repeated_and_merged_again():
    text = "a: &x {b: 1}\nd: &y {<<: *x, b: 2, c: 3}\ne: *y\nf: {<<: *y, c: 4}\ng: {<<: [*x, *y]}\n"
    data, _, mistakes = parse(text)
    assert not mistakes
    assert data["d"] == data["e"] == {"b": 2, "c": 3}
    assert data["f"] == {"b": 2, "c": 4}
    assert data["g"] == {"b": 1, "c": 3}


def test_a_key_that_stands_twice_beside_a_merge_is_still_a_mistake():
    assert law("a: &x {b: 1}\nd:\n  <<: *x\n  b: 2\n  b: 3\n").line == 5


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}", "&x {a: *x}"])
def test_an_anchor_that_holds_itself_is_a_mistake(text):
    assert "must not hold itself" in law(text).law


# --- single values, and anything at all ----------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [
    ("0.1", 0.1), ("1e-3", 0.001), ("true", True), ("[1, x]", [1, "x"]), ("{a: 1}", {"a": 1}),
    ("", None), ("  ", None), ("null", None), ("{}", {}), ("[]", []), ("'1'", "1"),
    ("a b", "a b"), ("#1", "#1"), ("{broken", "{broken"), ("a: b: c", "a: b: c"), ("\x00", "\x00"),
])  # fmt: skip
def test_a_single_value_is_read_as_in_a_recipe_or_stays_a_text(text, expected):
    assert parse_value(text) == expected


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet=st.sampled_from("ab1:-[]{}&*!|>'\"%@#?,. \n\t<~\x00\u0085e"), max_size=30)
)
def test_any_text_is_data_or_a_mistake_and_never_a_traceback(text):
    _, _, mistakes = parse(text)
    parse_value(text)
    assert all(mistake.law for mistake in mistakes)
