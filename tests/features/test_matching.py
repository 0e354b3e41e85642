"""Student features in the teacher's exact shape."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.matching import Match

# From the student's shape to the teacher's, and whether "auto" has anything to learn.
PAIRS = [
    ((4, 6, 8), (4, 6, 8), False),
    ((4, 6, 8), (5, 6, 8), True),
    ((4, 6, 8), (5, 3, 4), True),
    ((4, 5, 7), (5, 3, 4), True),
    ((4, 3, 4), (5, 6, 8), True),
    ((4, 6, 8), (5, 4, 3), True),
    ((4, 4, 3), (5, 6, 8), True),
    ((4, 6, 8), (4, 3, 8), False),
    ((16, 4), (16, 4), False),
    ((16, 4), (16, 6), True),
    ((17, 4), (10, 6), True),
    ((16, 4), (10, 6), True),
    ((17, 4), (9, 6), True),
    ((4, 2, 3), (6, 5), True),
    ((4, 2, 3), (7, 5), True),
    ((4, 2, 3), (10, 5), True),
    ((6, 4), (5, 2, 3), True),
    ((7, 4), (5, 2, 3), True),
    ((17, 4), (5, 2, 3), True),
    ((17, 4), (5, 8, 8), True),
    ((4,), (4,), False),
    ((4,), (6,), True),
    ((4, 3, 5), (6,), True),
    ((7, 4), (6,), True),
    ((7, 4), (4,), False),
]
ANY = [((4, 2, 3), (5, 4, 1)), ((4,), (3, 2, 3)), ((4,), (5, 3)), ((7, 4), (11, 3)), ((7, 4), (3,))]


def named(pairs):
    return [f"{'x'.join(map(str, p[0]))}-{'x'.join(map(str, p[1]))}" for p in pairs]


def make(student, teacher, **options):
    torch.manual_seed(2)
    return Match(student, teacher, **options)


def call(adapter, features, goal=None):
    goal = features if goal is None else goal
    return adapter([features], [goal], batch_of([features])).student[0]


def draw(shape, count=3):
    return rows_of([shape], count, torch.Generator().manual_seed(4))[0]


class TestAuto(AdapterLaws):
    @pytest.fixture(params=PAIRS, ids=named(PAIRS))
    def case(self, request):
        own, goal, learns = request.param
        return AdapterCase(make=Match, student=[own], teacher=[goal], gives=[goal], learns=learns)


class TestAttention(AdapterLaws):
    @pytest.fixture(params=ANY, ids=named(ANY))
    def case(self, request):
        own, goal = request.param

        def attending(student, teacher):
            return Match(student, teacher, projector="attention")

        return AdapterCase(make=attending, student=[own], teacher=[goal], gives=[goal])


class TestSeveralLayers(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Match,
            student=[(3, 6, 8), (4,)],
            teacher=[(5, 3, 4), (6,)],
            gives=[(5, 3, 4), (6,)],
        )


@pytest.mark.parametrize("projector", ["auto", "linear", "conv"])
def test_equal_shapes_pass_as_they_are_unless_something_is_asked(projector):
    features = draw((4, 6, 8))
    plain = make([(4, 6, 8)], [(4, 6, 8)], projector=projector)
    assert (len(list(plain.parameters())) == 0) is (projector == "auto")
    if projector == "auto":
        assert torch.equal(call(plain, features), features)


@pytest.mark.parametrize("shape", [(4, 6, 8), (7, 4), (4,)])
def test_always_projects_equal_shapes(shape):
    adapter = make([shape], [shape], always=True)
    assert sum(p.numel() for p in adapter.parameters()) == 4 * 4 + 4
    assert call(adapter, draw(shape)).shape == (3, *shape)


def test_channels_are_a_convolution_of_one_pixel():
    adapter, features = make([(4, 6, 8)], [(5, 6, 8)]), draw((4, 6, 8))
    layer = adapter.bridges[0][0]
    expected = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], features)
    torch.testing.assert_close(call(adapter, features), expected + layer.bias[:, None, None])


@pytest.mark.parametrize(
    ("own", "goal", "kind"),
    [
        ((4, 6, 8), (5, 3, 4), nn.Conv2d),
        ((4, 7, 5), (5, 4, 3), nn.Conv2d),
        ((4, 3, 4), (5, 6, 8), nn.ConvTranspose2d),
    ],
)
def test_a_ratio_of_two_is_a_strided_convolution(own, goal, kind):
    (layer,) = make([own], [goal]).bridges[0]
    assert type(layer) is kind
    assert layer.stride == (2, 2)


def test_linear_resizes_maps_without_learning_to():
    adapter = make([(4, 6, 8)], [(5, 3, 4)], projector="linear")
    assert sum(p.numel() for p in adapter.parameters()) == 4 * 5 + 5
    features = draw((4, 6, 8))
    layer = adapter.bridges[0][1]
    torch.testing.assert_close(
        call(adapter, features), layer(F.adaptive_avg_pool2d(features, (3, 4)))
    )


def test_other_ratios_are_pooled_and_then_projected():
    adapter, features = make([(4, 6, 8)], [(5, 4, 3)]), draw((4, 6, 8))
    expected = adapter.bridges[0][1](F.adaptive_avg_pool2d(features, (4, 3)))
    torch.testing.assert_close(call(adapter, features), expected)


def test_a_class_token_is_kept_and_the_grid_is_resized():
    adapter, tokens = make([(17, 4)], [(5, 4)]), draw((17, 4))
    made = call(adapter, tokens)
    assert torch.equal(made[:, 0], tokens[:, 0])
    grid = tokens[:, 1:].transpose(1, 2).reshape(3, 4, 4, 4)
    expected = F.adaptive_avg_pool2d(grid, (2, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(made[:, 1:], expected)


def test_a_class_token_that_the_student_has_not_is_the_mean():
    tokens = draw((16, 4))
    made = call(make([(16, 4)], [(17, 4)]), tokens)
    torch.testing.assert_close(made[:, 0], tokens.mean(dim=1))
    assert torch.equal(made[:, 1:], tokens)


def test_a_class_token_that_the_teacher_has_not_is_left_out():
    tokens = draw((17, 4))
    assert torch.equal(call(make([(17, 4)], [(16, 4)]), tokens), tokens[:, 1:])


def test_a_map_is_one_token_per_pixel():
    maps = draw((4, 2, 3))
    made = call(make([(4, 2, 3)], [(7, 4)]), maps)
    torch.testing.assert_close(made[:, 0], maps.mean(dim=(2, 3)))
    assert torch.equal(made[:, 1 + 4], maps[:, :, 1, 1])
    again = call(make([(7, 4)], [(4, 2, 3)]), made)
    assert torch.equal(again, maps)


def test_a_map_or_tokens_onto_a_vector_are_their_mean():
    maps, tokens = draw((4, 2, 3)), draw((7, 4))
    torch.testing.assert_close(call(make([(4, 2, 3)], [(4,)]), maps), maps.mean(dim=(2, 3)))
    torch.testing.assert_close(call(make([(7, 4)], [(4,)]), tokens), tokens.mean(dim=1))


def test_attention_is_softmax_over_the_students_places():
    adapter = make([(7, 4)], [(5, 3)], projector="attention")
    layer, tokens = adapter.bridges[0], draw((7, 4))
    seen = tokens + layer.positions
    scores = layer.queries @ layer.key(seen).transpose(1, 2) / 3**0.5
    found = scores.softmax(dim=-1) @ layer.value(seen)
    inner = F.gelu(layer.up(layer.norm(layer.queries + found)))
    torch.testing.assert_close(call(adapter, tokens), found + layer.down(inner))


def test_attention_gives_one_vector_places_that_differ():
    made = call(make([(4,)], [(3, 2, 3)], projector="attention"), draw((4,)))
    assert (made.flatten(2).std(dim=2) > 1e-3).all()


def test_attention_learns_a_shift_that_no_resizing_can_make():
    # Places in reverse order: a linear projection per place cannot do it, attention can.
    adapter = make([(6, 8)], [(6, 8)], projector="attention")
    tokens = draw((6, 8), count=64)
    goal = tokens.flip(1)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.01)
    first = F.mse_loss(call(adapter, tokens), goal).item()
    for _ in range(150):
        loss = F.mse_loss(call(adapter, tokens), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first


@pytest.mark.parametrize(
    ("own", "goal", "options"),
    [
        ((4,), (3, 2, 3), {}),
        ((4,), (5, 3), {}),
        ((4,), (5, 3), {"projector": "linear"}),
        ((7, 4), (5, 3), {}),
        ((4, 2, 3), (8, 5), {}),
        ((7, 4), (5, 3), {"projector": "conv"}),
    ],
)
def test_what_cannot_be_brought_together_is_refused_with_both_shapes(own, goal, options):
    with pytest.raises(ModelError, match="projector: attention") as caught:
        make([own], [goal], **options)
    assert str(list(own)) in str(caught.value)
    assert str(list(goal)) in str(caught.value)


def test_an_unknown_projector_is_refused(as_users_run_it):
    with pytest.raises(ModelError, match="one of auto, conv, linear, attention"):
        make([(4,)], [(4,)], projector="mlp")
