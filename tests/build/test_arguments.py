"""Parameters of a recipe against signatures."""

import pytest

from understudy.build.arguments import accepted, coerced, required, wrong_arguments


def layer(
    *, width: int, share: float = 0.5, sizes: tuple[int, ...] = (), name: str = "a"
) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"width": 3}, {}),
        ({"width": 3, "sizes": [1, 2], "share": 1}, {}),
        ({}, {"width": "required"}),
        ({"width": 3, "widht": 4}, {"widht": "did you mean `width`"}),
        ({"width": "3"}, {"width": "integer"}),
        ({"width": 3, "sizes": ["a"]}, {"sizes": "integer"}),
        ({"width": 3, "name": 5}, {"name": "string"}),
    ],
)
def test_wrong_arguments_are_named_with_their_law(arguments, wrong):
    found = wrong_arguments(layer, arguments)
    assert set(found) == set(wrong)
    for name, part in wrong.items():
        assert part in found[name]


def test_what_the_data_fills_in_may_be_missing():
    assert not wrong_arguments(layer, {}, filled=("width",))


def test_facts_go_where_there_is_a_parameter_for_them():
    facts = {"width": 10, "share": 0.1, "height": 8}
    assert accepted(layer, facts) == {"width": 10, "share": 0.1}
    assert required(layer, facts) == {"width": 10}


def test_whole_numbers_become_floats_where_floats_are_meant():
    fitted = coerced(layer, {"width": 3, "share": 1})
    assert fitted == {"width": 3, "share": 1.0}
    assert isinstance(fitted["share"], float)
    assert isinstance(fitted["width"], int)
