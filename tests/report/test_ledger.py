import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from understudy.report.ledger import as_yaml, ledger
from understudy.report.record import RunRecord

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(alphabet="abc_xyz", min_size=1, max_size=5), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(alphabet="abcnoy", min_size=1, max_size=4), trees, min_size=1))
def test_the_recipe_is_shown_as_yaml_that_reads_back(recipe):
    assert yaml.safe_load("\n".join(as_yaml(recipe))) == recipe


@pytest.mark.parametrize("word", ["yes", "No", "null", "1e3", "a: b", "# c", "", "- x", "0x1"])
def test_words_that_yaml_reads_otherwise_are_quoted(word):
    assert yaml.safe_load("\n".join(as_yaml({"key": word}))) == {"key": word}


def test_a_huge_recipe_is_cut_and_says_so(full):
    full["recipe"] = {"text": "&" * 500_000}
    page = ledger(RunRecord(data=full))
    assert len(page) < 300_000
    assert "the rest is in run.json" in page


def test_many_warnings_are_cut_and_counted(full):
    full["warnings"] = [f"warning {i}" for i in range(100)]
    page = ledger(RunRecord(data=full))
    assert "warning 39<" in page
    assert "and 60 more" in page


def test_an_empty_record_has_only_a_foot():
    assert ledger(RunRecord(data={"format": 1})) == "<footer>Understudy </footer>"
