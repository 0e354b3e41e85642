"""Networks and test rows that a recipe shows to be wrong: each at its line, all at once."""

import pytest
import yaml

from understudy import build, models
from understudy.build.check_models import _sizes
from understudy.errors import RecipeError
from understudy.recipe import Entry

TEXT = "{kind: text, path: t.csv, text: a, target: b}"
TEACHER = "{model: {kind: %s}, training: {epochs: 1}}"


@pytest.fixture
def mistakes(tmp_path):
    """The mistakes of a recipe, as they are printed."""
    for name in ("t.csv", "u.csv"):
        (tmp_path / name).touch()
    (tmp_path / "part").mkdir()

    def find(data, teacher, student):
        text = f"data: {data}\nteacher: {teacher}\nstudent: {{model: {student}}}\n"
        try:
            build.checked(tmp_path / "r.yaml", text=text)
        except RecipeError as error:
            return [str(mistake) for mistake in error.mistakes]
        return []

    return find


def test_all_of_them_are_told_at_once(mistakes):
    told = mistakes(
        f"{{source: {TEXT}, test: given}}",
        TEACHER % "text_transformer, dim: 30, heads: 4",
        "{kind: mlp, hidden: [8]}",
    )
    laws = {
        "data.test": "give it a `test_path`, or draw a share",
        "teacher.model.heads": "got dim=30, heads=4: use `heads: 3`, or another `dim`",
        "student.model.kind": "`mlp` needs rows of numbers, but a source of kind `text` gives "
        "texts: use `kind: text_cnn`",
    }
    assert len(told) == 3
    for one, (path, law) in zip(told, laws.items(), strict=True):
        assert path in one
        assert law in one


@pytest.mark.parametrize(
    ("data", "law"),
    [
        ("{source: {kind: digits}, test: given}", "`digits` has none: draw a share"),
        (
            "{source: {kind: text, path: t.csv, test_path: u.csv, text: a, target: b}}",
            "say `test: given`, or remove `test_path`",
        ),
        ("{source: {kind: csv, path: t.csv, target: b}, test: given}", "`test_path`"),
    ],
)
def test_test_rows_are_given_and_asked_for_or_neither(mistakes, data, law):
    network = "mlp, hidden: [8]" if "text" not in data else "text_cnn"
    (told,) = mistakes(data, TEACHER % network, f"{{kind: {network}}}")
    assert "data.test" in told
    assert law in told


@pytest.mark.parametrize(
    ("source", "network", "law"),
    [
        (TEXT, "convnet", "needs images, but a source of kind `text` gives texts"),
        ("{kind: digits}", "text_cnn", "gives images: use `kind: convnet`"),
        ("{kind: csv, path: t.csv, target: b}", "text_static", "gives rows of numbers: use `kind:"),
        ("{kind: csv, path: t.csv, target: b}", "convnet", "needs images"),
    ],
)
def test_networks_for_other_rows_are_refused_on_both_sides(mistakes, source, network, law):
    told = mistakes(f"{{source: {source}}}", TEACHER % network, f"{{kind: {network}}}")
    assert len(told) == 2
    assert all(law in one for one in told)


def test_what_fits_or_cannot_be_known_is_left_alone(mistakes):
    fine = [
        (TEXT, "text_transformer, dim: 30, heads: 3"),
        ("{kind: digits}", "mlp, hidden: [8]"),
        ("{kind: digits}", "vit, patch: 4, dim: 16, depth: 1, heads: 2"),
        # Whether this one divides the pictures is seen when they are there.
        ("{kind: digits}", "vit, patch: 3, dim: 16, depth: 1, heads: 2"),
        ("{kind: custom, target: 'math:sqrt', arguments: {}}", "text_cnn"),
    ]
    for source, network in fine:
        told = mistakes(f"{{source: {source}}}", TEACHER % network, f"{{kind: {network}}}")
        assert [one for one in told if "model" in one] == []


@pytest.mark.parametrize(
    ("network", "path", "law"),
    [
        ("vit, patch: 4, dim: 16, depth: 1, heads: 3", "heads", "use `heads: 2`"),
        ("resnet, depth: 9", "depth", "use 8 or 14"),
        ("mlp, hidden: [8], dropout: 1.5", "dropout", "`0 <= dropout < 1`"),
    ],
)
def test_sizes_that_no_rows_allow(mistakes, network, path, law):
    (told,) = mistakes("{source: {kind: digits}}", TEACHER % network, "{kind: mlp, hidden: [4]}")
    assert f"teacher.model.{path}" in told
    assert law in told


WRONG = {
    "mlp": "hidden: [0]", "convnet": "channels: 0", "resnet": "depth: 9",
    "vit": "patch: 4, dim: 16, depth: 1, heads: 3", "text_static": "dim: 0",
    "text_cnn": "filters: 0",
    "text_bilstm": "hidden: 0", "text_transformer": "depth: 0", "gpt": "heads: 3, dim: 16",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted({**models.CATALOGUE, **models.CAUSAL}))
def test_every_network_of_ours_is_looked_at(kind):
    """One that could not be built without memory would never be refused here."""
    entry = Entry.model_validate({"kind": kind, **yaml.safe_load(f"{{{WRONG[kind]}}}")})
    assert len(list(_sizes(entry, ("student", "model")))) == 1


def test_tokens_beyond_any_guess_of_a_vocabulary_are_no_mistake():
    for arguments in ({"begin": 5000}, {"end": 70_000}, {"begin": 1, "end": 1024}):
        entry = Entry.model_validate({"kind": "gpt", **arguments})
        assert not list(_sizes(entry, ("student", "model")))


def test_a_name_of_the_hub_may_be_a_tokenizer_and_a_path_must_exist(mistakes):
    fine = TEACHER % "text_cnn"
    for name, count in (("owner/model", 0), ("part/model", 1), ("owner/t.json", 1), ("model", 1)):
        told = mistakes(f"{{source: {TEXT}, tokenizer: {name}}}", fine, "{kind: text_cnn}")
        assert len(told) == count, told
