"""Which layers a term compares: named, by pattern, or found; and what a dry run says of them."""

import pytest
import torch
from torch import nn

from understudy import build, models
from understudy.build import Matched
from understudy.errors import ModelError
from understudy.models.deployable import Deployable
from understudy.recipe import TermEntry
from understudy.students.reused_head import reused_head

IMAGE = {"channels": 1, "width": 10}


def resnet(depth=14, base=4):
    return models.CATALOGUE["resnet"](**IMAGE, depth=depth, base=base)


def vit(depth, heads=2):
    return models.CATALOGUE["vit"](
        **IMAGE, height=8, image_width=8, patch=4, dim=8, depth=depth, heads=heads
    )


def match(entry, student=None, teacher=None, *, offers=None, **changes):
    """The layers of a term; a teacher in `offers` is one that only answers by name."""
    student = student or resnet(base=2)
    teacher = None if offers is not None else teacher or resnet()
    rows = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def told(spots):
        if teacher is None:
            return {spot: offers[spot] for spot in spots}
        return build.captured(teacher, spots, rows)

    entry = TermEntry.model_validate({"kind": "hint", **entry})
    return build.match(entry, student=student, teacher=teacher, rows=rows, told=told, **changes)


def stages(*numbers):
    return tuple((f"stages.{n}", f"stages.{n}") for n in numbers)


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "expected"), [
    ("auto", stages(1)),  # FitNets' own choice: the middle
    ({"auto": "evenly", "which": "all"}, stages(0, 1, 2)),
    ({"auto": "end", "which": "last"}, stages(2)),
    ({"auto": "evenly", "which": "middle"}, stages(1)),
    ({"student": "stages.0", "teacher": "stages.2:input"}, (("stages.0", "stages.2:input"),)),
    ([{"student": "stem", "teacher": "stages.0"}, {"student": "head", "teacher": "head:input"}],
     (("stem", "stages.0"), ("head", "head:input"))),
    ({"student": "stages.*", "teacher": "stages.*"}, stages(0, 1, 2)),
    ({"student": "stages.*.0", "teacher": "stages.*.1:input"},
     tuple((f"stages.{n}.0", f"stages.{n}.1:input") for n in range(3))),
])  # fmt: skip
def test_layers_as_they_are_written(layers, expected):
    assert match({"layers": layers}).pairs == expected


@pytest.mark.parametrize(("kind", "count"), [
    ("hint", 1), ("attention_transfer", 3), ("similarity_preserving", 1), ("review", 3),
])  # fmt: skip
def test_where_nothing_is_written_each_method_has_its_own_choice(kind, count):
    assert len(match({"kind": kind}).pairs) == count


def test_how_many_layers_differ():
    found = match({"layers": {"auto": "evenly", "which": "all"}}, vit(2), vit(6))
    assert found.pairs == (("blocks.0", "blocks.2"), ("blocks.1", "blocks.5"))
    found = match({"layers": {"auto": "end", "which": "all"}}, vit(2), vit(6))
    assert found.pairs == (("blocks.0", "blocks.4"), ("blocks.1", "blocks.5"))
    pattern = {"student": "blocks.*", "teacher": "blocks.*"}
    assert match({"layers": pattern}, vit(2), vit(4)).pairs == (
        ("blocks.0", "blocks.1"), ("blocks.1", "blocks.3"))  # fmt: skip


def test_provenance_is_followed_and_wanted():
    layers = {"auto": "provenance", "which": "all"}
    came = {"stages.0": "stages.2"}
    assert match({"layers": layers}, provenance=came).pairs == (("stages.0", "stages.2"),)
    assert match({"kind": "simkd"}, provenance=came).pairs == (("stages.0", "stages.2"),)
    with pytest.raises(ModelError, match="was not cut from its teacher"):
        match({"layers": layers})


class ByPlaces(nn.Module):
    """A teacher whose last layer reads four places of a map, and no layer gives these."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(24, 10)

    def forward(self, rows):
        maps = self.body(rows).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))


def test_simkd_reads_what_the_reused_layer_reads_and_never_its_answer():
    torch.manual_seed(0)
    rows, teacher = torch.randn(4, 1, 8, 8), ByPlaces()
    made = reused_head(resnet(base=2), teacher, rows, seed=0)
    found = match({"kind": "simkd"}, made.module, teacher, provenance=made.provenance)
    assert found.pairs == (("head:input", "head:input"),)
    assert (found.student, found.teacher) == (((24,),), ((24,),))


def test_attention_is_found_with_its_heads():
    found = match({"kind": "minilm"}, vit(2, heads=2), vit(4, heads=4))
    assert found.pairs == (("blocks.1.attention.qkv", "blocks.3.attention.qkv"),)
    assert dict(found.settings) == {"student_heads": 2, "teacher_heads": 4, "fused": True}


def test_margins_are_found_in_the_teachers_batch_norms():
    found = match({"kind": "overhaul"})
    assert [len(m) for m in found.settings["margins"]] == [4, 8, 16]
    assert all(m < 0 for margin in found.settings["margins"] for m in margin)


# --- shapes --------------------------------------------------------------------------------------


def test_shapes_are_those_of_one_row():
    found = match({"layers": {"student": "stages.1", "teacher": "head:input"}})
    assert (found.student, found.teacher) == (((4, 4, 4),), ((16,),))
    assert found.line() == "stages.1 [4, 4, 4] from head:input [16]"


def test_what_was_found_is_plain_data_and_comes_back():
    import json

    found = match({"kind": "overhaul"})
    assert Matched.from_data(json.loads(json.dumps(found.to_data()))) == found


def test_paths_begin_inside_of_what_is_around_a_network():
    student = Deployable(preprocess=nn.Identity(), network=resnet(base=2), width=10)
    assert match({}, student).pairs == stages(1)


def test_a_dry_run_changes_nothing():
    student, teacher = resnet(base=2).train(), resnet().train()
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    match({}, student, teacher)
    assert all(torch.equal(v, student.state_dict()[k]) for k, v in before.items())
    assert all(m.training for net in (student, teacher) for m in net.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks for m in student.modules())


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_path_that_is_not_there_lists_the_near_ones(side):
    layers = {"student": "stages.1", "teacher": "stages.1"} | {side: "stage.1"}
    with pytest.raises(ModelError, match=r"CifarResNet has no module `stage.1`; near are stages.1"):
        match({"layers": layers})


def test_a_pattern_that_finds_nothing_lists_the_near_ones():
    with pytest.raises(ModelError, match=r"no module `blocks.0`; near are"):
        match({"layers": {"student": "stages.*", "teacher": "blocks.*"}})


@pytest.mark.parametrize(("student", "teacher"), [("stages.*", "stages.1"), ("stages.1", "*")])
def test_a_pattern_on_one_side_is_refused(student, teacher):
    with pytest.raises(ModelError, match="needs `\\*` on both sides"):
        match({"layers": {"student": student, "teacher": teacher}})


def test_a_list_of_modules_does_not_run():
    with pytest.raises(ModelError, match="`stages` of CifarResNet is there, but was not called"):
        match({"layers": {"student": "stages", "teacher": "stages.1"}})


def test_attention_in_one_layer_and_in_three_is_refused():
    apart = vit(2)
    for block in apart.blocks:
        attention = block.attention
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(8, 8))
        del attention.qkv
    with pytest.raises(ModelError, match=r"queries, keys and values in one layer.*in three"):
        match({"kind": "minilm"}, vit(2), apart)


def test_a_network_without_attention_is_refused():
    with pytest.raises(ModelError, match="holds no attention"):
        match({"kind": "minilm"})


class TokensFirst(nn.Module):
    """As PyTorch's transformers are where nobody says `batch_first`."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Identity()
        self.total = nn.Identity()

    def forward(self, rows):
        tokens = self.turn(rows.flatten(2).permute(2, 0, 1))
        self.total(tokens.sum())
        return tokens.mean(0)


@pytest.mark.parametrize(("spot", "shape"), [("turn", r"\[64, 3, 1\]"), ("total", r"\[\]")])
def test_a_layer_whose_first_axis_is_not_the_batch_is_refused(spot, shape):
    layers = {"student": spot, "teacher": "stages.1"}
    with pytest.raises(ModelError, match=f"student's `{spot}`.* for 3 rows, but gave {shape}"):
        match({"layers": layers}, TokensFirst())
    with pytest.raises(ModelError, match=f"teacher's `{spot}`"):
        match({"layers": {"student": "stages.1", "teacher": spot}}, None, TokensFirst())


# --- a teacher that answers by name --------------------------------------------------------------


def test_a_teacher_that_is_no_module_is_read_by_name():
    offers = {"deep": torch.zeros(3, 7)}
    found = match({"layers": {"student": "head:input", "teacher": "deep"}}, offers=offers)
    assert found.teacher == ((7,),)


@pytest.mark.parametrize(("entry", "law"), [
    ({}, "is no PyTorch module: name them"),
    ({"layers": {"auto": "end"}}, "is no PyTorch module: name them"),
    ({"layers": {"student": "stages.*", "teacher": "d*"}}, "a teacher that is a PyTorch module"),
    ({"kind": "overhaul", "layers": {"student": "stages.1", "teacher": "deep"}}, "margins from a"),
])  # fmt: skip
def test_what_only_a_module_can_say_must_be_named(entry, law):
    with pytest.raises(ModelError, match=law):
        match(entry, offers={"deep": torch.zeros(3, 7)})


@pytest.mark.parametrize(("entry", "expected"), [
    ({"kind": "hint"}, True), ({"kind": "soft_target"}, False), ({"kind": "crd"}, True),
    ({"kind": "custom", "target": "a:b"}, False),
    ({"kind": "custom", "target": "a:b", "layers": "auto"}, True),
])  # fmt: skip
def test_which_terms_read_layers(entry, expected):
    assert build.reads_layers(TermEntry.model_validate(entry)) is expected
