"""Queries, keys and values per head."""

import pytest
import torch

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.heads import Heads
from understudy.models import VisionTransformer


def two_heads(student, teacher):
    return Heads(student, teacher, student_heads=2, teacher_heads=2)


def relations(student, teacher):
    return Heads(student, teacher, fused=False, relation_heads=4, give="qkv")


class TestScores(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=two_heads,
            student=[(7, 12), (7, 24)],
            teacher=[(7, 24), (7, 24)],
            gives=[(2, 7, 7), (2, 7, 7)],
            learns=False,
        )


class TestParts(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=relations,
            student=[(7, 8)] * 3,
            teacher=[(7, 12)] * 3,
            gives=[(4, 7, 2)] * 3,
            goals=[(4, 7, 3)] * 3,
            learns=False,
        )


def test_scores_are_products_of_queries_and_keys_over_the_root_of_their_size():
    (fused,) = rows_of([(5, 3 * 6)], 2, torch.Generator().manual_seed(0))
    made = two_heads([(5, 18)], [(5, 18)])([fused], [fused], batch_of([fused])).student[0]
    for row in range(2):
        for head in range(2):
            query = fused[row, :, 3 * head : 3 * head + 3]
            key = fused[row, :, 6 + 3 * head : 6 + 3 * head + 3]
            torch.testing.assert_close(made[row, head], query @ key.T / 3**0.5)


def test_the_layout_is_that_of_our_own_transformer():
    torch.manual_seed(0)
    net = VisionTransformer(
        channels=1, height=8, image_width=8, width=3, patch=4, dim=6, depth=1, heads=2
    )
    kept = []
    attention = net.blocks[0].attention
    attention.qkv.register_forward_hook(lambda module, args, output: kept.append(output))
    attention.proj.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    net(torch.randn(2, 1, 8, 8))
    fused, mixed = kept
    shapes = [tuple(fused.shape[1:])]
    scores = two_heads(shapes, shapes)([fused], [fused], batch_of([fused])).student[0]
    adapter = Heads(shapes, shapes, student_heads=2, teacher_heads=2, give="qkv")
    value = adapter([fused], [fused], batch_of([fused])).student[2]
    expected = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, expected)


def test_three_tensors_give_what_one_fused_gives():
    (fused,) = rows_of([(5, 18)], 2, torch.Generator().manual_seed(0))
    parts = list(fused.chunk(3, dim=2))
    shapes = [(5, 6)] * 3
    apart = Heads(shapes, shapes, student_heads=3, teacher_heads=3, fused=False)
    joined = Heads([(5, 18)], [(5, 18)], student_heads=3, teacher_heads=3)
    made = apart(parts, parts, batch_of(parts)).student
    assert len(made) == 1
    assert torch.equal(made[0], joined([fused], [fused], batch_of([fused])).student[0])


@pytest.mark.parametrize(
    ("own", "goal", "options", "law"),
    [
        ([(5, 18)], [(5, 18)], {"student_heads": 2, "teacher_heads": 3}, "relation_heads"),
        ([(5, 18)], [(5, 18)], {"student_heads": 2}, "teacher_heads >= 1"),
        ([(5, 18)], [(5, 18)], {"student_heads": 0, "teacher_heads": 0}, "student_heads >= 1"),
        ([(5, 18)], [(5, 24)], {"relation_heads": 4}, "divide the student's width"),
        ([(5, 24)], [(5, 18)], {"relation_heads": 4}, "divide the teacher's width"),
        ([(5, 18)], [(6, 18)], {"relation_heads": 2}, "as many tokens"),
        ([(4, 3, 3)], [(4, 3, 3)], {"relation_heads": 2}, r"\[tokens, width\]"),
        ([(5, 6)] * 2, [(5, 6)] * 2, {"relation_heads": 2, "fused": False}, "three times"),
        ([(5, 18)] * 2, [(5, 18)] * 2, {"relation_heads": 2, "give": "qkv"}, "usually the last"),
    ],
)
def test_what_does_not_fit_is_refused(own, goal, options, law):
    with pytest.raises(ModelError, match=law):
        Heads(own, goal, **options)


def test_an_unknown_outcome_is_refused(as_users_run_it):
    with pytest.raises(ModelError, match="scores"):
        Heads([(5, 18)], [(5, 18)], relation_heads=2, give="maps")
