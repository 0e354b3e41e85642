"""Two vocabularies compared on the tokens that they share."""

import math

import pytest
import torch

from understudy.errors import ModelError
from understudy.losses import soft_target_kl
from understudy.losses.vocabulary import (
    Alignment,
    DenseLabels,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    map_vocabularies,
    vocabulary_loss,
)
from understudy.losses.vocabulary.aligned import shared_list, shared_logits

# Another order, a token that only one side has on each, and columns that padding adds.
OWN = {"a": 0, "b": 1, "c": 2, "d": 3, "<end>": 4, "<own>": 5}
THEIRS = {"d": 0, "</s>": 1, "b": 2, "a": 3, "<theirs>": 4, "c": 6}
WIDTHS = {"student_width": 8, "teacher_width": 9}
PLAN = map_vocabularies(OWN, THEIRS, **WIDTHS, same={"<end>": "</s>"}, least=0.5)
SHARED = [(0, 3), (1, 2), (2, 6), (3, 0), (4, 1)]
TOKENS, DIM = 6, 4


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def softmax(logits):
    top = max(logits)
    total = sum(math.exp(x - top) for x in logits)
    return [math.exp(x - top) / total for x in logits]


def reference(own, goal, *, rest, at=1.0):
    """One position, by plain loops over probabilities."""
    p, q = softmax([x / at for x in goal]), softmax([x / at for x in own])
    pairs = [(p[theirs], q[mine]) for mine, theirs in SHARED]
    masses = [sum(one) for one in zip(*pairs, strict=True)]
    if rest:
        pairs.append((1 - masses[0], 1 - masses[1]))
    else:
        pairs = [(one / masses[0], other / masses[1]) for one, other in pairs]
    return at**2 * sum(one * math.log(one / other) for one, other in pairs)


class TestThePlan:
    def test_tokens_are_found_by_their_text(self):
        assert list(zip(PLAN.student.tolist(), PLAN.teacher.tolist(), strict=True)) == SHARED
        assert PLAN.coverage == (5 / 6, 5 / 6)
        assert not PLAN.same_numbers
        assert PLAN.to_student.tolist() == [3, 4, 1, 0, -1, -1, 2, -1, -1]
        assert PLAN.to_teacher.tolist() == [3, 2, 6, 0, 1, -1, -1, -1]
        assert "5 tokens are shared" in PLAN.line()
        assert "masked are 3 of 8 columns" in PLAN.line()

    def test_a_text_is_read_in_the_teachers_numbers(self):
        tokens = torch.tensor([[0, 3], [4, 5]])
        assert PLAN.translated(tokens, unknown=8).tolist() == [[3, 0], [1, 8]]
        seen = torch.tensor([[1, 1], [1, 0]])
        assert PLAN.translated(tokens, read=seen)[0].tolist() == [3, 0]
        with pytest.raises(ModelError, match=r"lacks the student's 5 \(1 of 4 tokens\)"):
            PLAN.translated(tokens)
        with pytest.raises(ModelError, match=r"`0 <= tokens < 8` must hold"):
            PLAN.translated(tokens + 7)

    def test_a_token_beyond_the_head_is_not_there(self):
        made = map_vocabularies({"a": 0, "b": 1, "z": 2}, {"a": 0, "b": 1, "z": 2}, teacher_width=2,
                                least=0.5)  # fmt: skip
        assert len(made) == 2
        assert made.teacher_tokens == 2

    def test_what_is_refused(self):
        with pytest.raises(ModelError, match=r"`shared / tokens >= 0.9` must hold .* no '<end>'"):
            map_vocabularies(OWN, THEIRS)
        with pytest.raises(ModelError, match="'nothing' is none of the teacher's 6"):
            map_vocabularies(OWN, THEIRS, same={"a": "nothing"})
        with pytest.raises(ValueError, match="one stands for two"):
            map_vocabularies(OWN, THEIRS, same={"<own>": "a"}, least=0.1)
        with pytest.raises(ValueError, match="`0 < least <= 1` must hold"):
            map_vocabularies(OWN, THEIRS, least=0.0)
        with pytest.raises(ValueError, match="numbers from 0 on"):
            map_vocabularies(OWN, {})


class TestLogits:
    @pytest.mark.parametrize("masked", ["renormalised", "rest"])
    @pytest.mark.parametrize("at", [1.0, 3.0])
    def test_the_value_is_that_of_plain_loops(self, masked, at):
        own, goal = drawn(TOKENS, 8), drawn(TOKENS, 9, seed=1)
        both = Alignment(vocabulary=PLAN, masked=masked)
        labels = torch.zeros(TOKENS, dtype=torch.int64)
        mine, _, theirs = both(own, labels, DenseLabels(logits=goal), temperature=at)
        found = soft_target_kl(mine, theirs.logits, temperature=at)
        pairs = zip(own.tolist(), goal.tolist(), strict=True)
        wanted = [reference(*pair, rest=masked == "rest", at=at) for pair in pairs]
        assert found.tolist() == pytest.approx(wanted, abs=1e-12)

    def test_the_same_vocabulary_changes_nothing(self):
        plan = map_vocabularies(OWN, OWN)
        own, goal = drawn(TOKENS, 6), drawn(TOKENS, 6, seed=1)
        labels = torch.arange(TOKENS)
        for masked in ("renormalised", "rest"):
            both = Alignment(vocabulary=plan, masked=masked)
            mine, known, theirs = both(own, labels, DenseLabels(logits=goal))
            assert torch.equal(mine, own)
            assert torch.equal(theirs.logits, goal)
            assert torch.equal(known, labels)
            # No copy either.
            assert mine.data_ptr() == own.data_ptr()

    @pytest.mark.parametrize("masked", ["renormalised", "rest"])
    def test_it_is_zero_where_both_agree_on_what_they_share(self, masked):
        own, goal = drawn(TOKENS, 8), drawn(TOKENS, 9, seed=1)
        goal[:, PLAN.teacher] = own[:, PLAN.student]
        if masked == "rest":  # as much mass, spread in another way
            free = [column for column in range(9) if column not in PLAN.teacher.tolist()]
            left = own[:, [5, 6, 7]].logsumexp(dim=1, keepdim=True)
            goal[:, free] += left - goal[:, free].logsumexp(dim=1, keepdim=True)
        both = Alignment(vocabulary=PLAN, masked=masked)
        mine, _, theirs = both(own, torch.zeros(TOKENS).long(), DenseLabels(logits=goal))
        assert soft_target_kl(mine, theirs.logits, temperature=1.0).abs().max() < 1e-14

    def test_masked_tokens_do_not_matter_and_have_no_gradient(self):
        own = drawn(TOKENS, 8).requires_grad_()
        goal = drawn(TOKENS, 9, seed=1)
        other = goal.clone()
        other[:, [4, 5, 7, 8]] = torch.tensor([50.0, -torch.inf, torch.nan, 9.0]).double()
        both = Alignment(vocabulary=PLAN)
        values = []
        for told in (goal, other):
            mine, _, theirs = both(own, torch.zeros(TOKENS).long(), DenseLabels(logits=told))
            values.append(soft_target_kl(mine, theirs.logits, temperature=2.0))
        assert torch.equal(*values)
        values[0].sum().backward()
        assert bool((own.grad[:, 5:] == 0).all())
        assert bool((own.grad[:, :5] != 0).all())

    def test_labels_keep_their_token_and_those_the_teacher_lacks_do_not_count(self):
        both = Alignment(vocabulary=PLAN)
        labels = torch.tensor([4, 0, 5, -100, 6, 3])
        _, known, _ = both(drawn(TOKENS, 8), labels, None)
        assert known.tolist() == [4, 0, -100, -100, -100, 3]
        # What is no number of the student's at all is still refused by the loss.
        _, known, _ = both(drawn(TOKENS, 8), labels + 8, None)
        assert known[1] == 8

    def test_heads_that_are_not_the_plans_are_refused(self):
        both = Alignment(vocabulary=PLAN)
        labels = torch.zeros(TOKENS).long()
        with pytest.raises(ValueError, match="7 columns of the student and 9 of the teacher"):
            both(drawn(TOKENS, 7), labels, None)
        with pytest.raises(ValueError, match="8 columns of the student and 8 of the teacher"):
            both(drawn(TOKENS, 8), labels, DenseLabels(logits=drawn(TOKENS, 8)))
        with pytest.raises(ValueError, match="`masked` must be one of renormalised, rest"):
            Alignment(vocabulary=PLAN, masked="dropped")


class TestHeads:
    def sides(self):
        student = HiddenLabels(
            hidden=drawn(TOKENS, DIM).requires_grad_(),
            head=LinearHead(
                weight=drawn(8, DIM, seed=2).requires_grad_(), bias=drawn(8, seed=4), soft_cap=5.0
            ),
        )
        weight = drawn(9, DIM, seed=3).requires_grad_()
        hidden = drawn(TOKENS, DIM, seed=5)
        return student, HiddenLabels(hidden=hidden, head=LinearHead(weight=weight))

    def test_selected_rows_give_what_selected_logits_give(self):
        student, teacher = self.sides()
        both = Alignment(vocabulary=PLAN)
        labels = torch.tensor([0, 1, 2, 3, 4, 5])
        mine, known, theirs = both(student, labels, teacher)
        told = vocabulary_loss(
            mine.hidden, mine.head, theirs, temperature=2.0, labels=known, hard_weight=0.5
        )
        own = 5 * torch.tanh((student.hidden @ student.head.weight.T + student.head.bias) / 5)
        goal = teacher.hidden @ teacher.head.weight.T
        pairs = list(zip(own.tolist(), goal.tolist(), strict=True))
        wanted = [reference(*pair, rest=False, at=2.0) for pair in pairs[:5]]
        assert told.soft[:5].tolist() == pytest.approx(wanted, abs=1e-12)
        assert told.counted.tolist() == [True] * 5 + [False]
        told.loss.backward()
        assert teacher.head.weight.grad is None
        assert bool((student.head.weight.grad[5:] == 0).all())
        assert bool((student.head.weight.grad[:5] != 0).any(dim=1).all())

    def test_a_teachers_rows_are_picked_once(self):
        _, teacher = self.sides()
        both = Alignment(vocabulary=PLAN)
        first, again = (both._head(teacher.head).weight for _ in range(2))
        assert first is again
        with torch.no_grad():
            teacher.head.weight.mul_(2)
        assert torch.equal(both._head(teacher.head).weight, 2 * first)

    def test_a_rest_cannot_be_had_from_a_head(self):
        student, teacher = self.sides()
        both = Alignment(vocabulary=PLAN, masked="rest")
        with pytest.raises(ValueError, match="`masked: rest` needs logits or listed outcomes"):
            both(student, torch.zeros(TOKENS).long(), teacher)

    def test_the_padding_that_crashes_everywhere_else(self):
        words = {f"token {number}": number for number in range(151_665)}
        plan = map_vocabularies(words, words, student_width=151_936, teacher_width=152_064)
        weight = drawn(151_936, 2)
        goal = drawn(2, 152_064, seed=1)
        goal[:, 151_665:] = 30.0  # what nobody has trained
        hidden = drawn(2, 2, seed=2)
        student = HiddenLabels(hidden=hidden, head=LinearHead(weight=weight))
        mine, _, theirs = Alignment(vocabulary=plan)(
            student, torch.zeros(2).long(), DenseLabels(logits=goal)
        )
        assert mine.head.weight.data_ptr() == weight.data_ptr()
        told = vocabulary_loss(mine.hidden, mine.head, theirs)
        own, goal = ((x[:, :151_665]).log_softmax(1) for x in (hidden @ weight.T, goal))
        assert torch.allclose(told.soft, (goal.exp() * (goal - own)).sum(1), atol=1e-10, rtol=0)


class TestLists:
    def told(self, k=4, seed=1):
        """The largest outcomes of a teacher, and what is left."""
        log_mass, ids = drawn(TOKENS, 9, seed=seed).log_softmax(dim=1).topk(k)
        left = (1 - log_mass.exp().sum(dim=1)).clamp(min=0).log()
        return ListedLabels(ids=ids, log_mass=log_mass, rest=left)

    @pytest.mark.parametrize("masked", ["renormalised", "rest"])
    def test_no_mass_is_lost(self, masked):
        told = self.told()
        assert bool((PLAN.to_student[told.ids] < 0).any())
        found = shared_list(told, PLAN.to_student, masked=masked)
        whole = torch.cat([found.log_mass, found.rest[:, None]], dim=1).logsumexp(dim=1)
        assert whole.abs().max() < 1e-12
        kept = found.ids >= 0
        assert torch.equal(found.log_mass == -torch.inf, ~kept)
        if masked == "rest":
            assert torch.equal(found.log_mass[kept], told.log_mass[kept])
        else:  # the others keep their proportions
            gap = (found.log_mass - told.log_mass)[:, :1]
            rest = found.rest - told.rest
            first = kept[:, 0]
            assert torch.allclose(gap[first, 0], rest[first])
            assert bool((rest >= 0).all())

    @pytest.mark.parametrize("masked", ["renormalised", "rest"])
    def test_a_list_of_everything_says_what_all_logits_say(self, masked):
        own, goal = drawn(TOKENS, 8), drawn(TOKENS, 9, seed=1)
        both = Alignment(vocabulary=PLAN, masked=masked)
        labels = torch.zeros(TOKENS).long()
        log_mass, ids = goal.log_softmax(dim=1).sort(dim=1)
        nothing = torch.full((TOKENS,), -torch.inf, dtype=torch.float64)
        told = ListedLabels(ids=ids, log_mass=log_mass, rest=nothing)
        # One dimension per column: the head gives the logits that it is given.
        student = HiddenLabels(hidden=own, head=LinearHead(weight=torch.eye(8).double()))
        mine, _, listed = both(student, labels, told)
        found = vocabulary_loss(mine.hidden, mine.head, listed).soft
        pairs = zip(own.tolist(), goal.tolist(), strict=True)
        wanted = [reference(*pair, rest=masked == "rest") for pair in pairs]
        assert found.tolist() == pytest.approx(wanted, abs=1e-9)

    def test_a_list_of_nothing_but_masked_tokens_says_nothing(self):
        nothing = torch.full((1,), -torch.inf)
        told = ListedLabels(
            ids=torch.tensor([[4, -1]]), log_mass=torch.tensor([[0.0, -torch.inf]]), rest=nothing
        )
        for masked in ("renormalised", "rest"):
            student = HiddenLabels(
                hidden=drawn(1, 8), head=LinearHead(weight=torch.eye(8).double())
            )
            mine, _, listed = Alignment(vocabulary=PLAN, masked=masked)(
                student, torch.zeros(1).long(), told
            )
            assert listed.ids.tolist() == [[-1, -1]]
            assert listed.rest.tolist() == [0.0]
            assert vocabulary_loss(mine.hidden, mine.head, listed).soft.abs().max() < 1e-12

    def test_draws_are_weighted_up_to_what_was_drawn(self):
        told = ListedLabels(
            ids=torch.tensor([[4, 0, 3], [4, -1, -1]]),
            log_mass=torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]).log(),
            rest=torch.full((2,), -torch.inf),
            sampled=True,
            entropy=torch.tensor([1.0, 2.0]),
        )
        found = shared_list(told, PLAN.to_student, masked="rest")
        assert found.ids.tolist() == [[-1, 3, 0], [-1, -1, -1]]
        assert torch.allclose(found.log_mass.exp()[0], torch.tensor([0.0, 0.5, 0.5]))
        assert found.entropy.tolist() == [1.0, 0.0]


def test_columns_of_one_side_and_the_mass_of_the_others():
    logits = drawn(3, 2, 9)
    found = shared_logits(logits, PLAN.teacher, rest=True, temperature=2.0)
    assert found.shape == (3, 2, 6)
    softened = (found / 2).softmax(dim=-1)
    others = (logits / 2).softmax(dim=-1)[..., [4, 5, 7, 8]].sum(dim=-1)
    assert torch.allclose(softened[..., 5], others, atol=1e-14, rtol=0)
