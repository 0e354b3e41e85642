"""A student that begins with its teacher's token vectors."""

import pytest
import torch
from torch import nn

from conformance.student import StudentCase, StudentLaws
from understudy.errors import ModelError
from understudy.models import MLP, TextBiLSTM, TextCNN, TextStatic, TextTransformer
from understudy.students.token_vectors import with_token_vectors

SIZE = 30
OF = {"vocabulary": SIZE, "pad": 0, "width": 3}
MAKES = {
    "cnn": lambda: TextCNN(dim=6, filters=4, **OF),
    "bilstm": lambda: TextBiLSTM(dim=6, hidden=4, **OF),
    "static": lambda: TextStatic(dim=6, **OF),
}


def texts(count=6):
    return torch.randint(1, SIZE, (count, 5), generator=torch.Generator().manual_seed(0))


def teacher(dim=8, vocabulary=SIZE):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        of = OF | {"vocabulary": vocabulary}
        return TextTransformer(length=8, dim=dim, depth=1, heads=2, **of).eval()


def made(name, *, seed=0, goal=None, counts=None, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = MAKES[name]().eval()
    counts = torch.ones(SIZE) if counts is None else counts
    return with_token_vectors(student, goal or teacher(), counts, **options)


class TestTokenVectors(StudentLaws):
    @pytest.fixture(params=list(MAKES))
    def case(self, request):
        return StudentCase(
            make=lambda seed: made(request.param, seed=seed),
            rows=texts(),
            width=3,
            parent=frozenset(name for name, _ in teacher().named_modules()),
        )


def test_all_axes_keep_every_distance_between_tokens():
    goal = teacher()
    with torch.no_grad():
        goal.embedding.weight.add_(3.0)  # a shift is no difference between tokens
    student = TextStatic(dim=8, **OF)
    found = with_token_vectors(student, goal, torch.arange(SIZE), scale=0.5)
    own = found.module.embedding.weight.detach().double()
    theirs = goal.embedding.weight.detach().double()
    ratio = torch.pdist(own) / torch.pdist(theirs)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)
    weights = (torch.arange(SIZE) + 0.5).sqrt()
    size = (weights.double() @ own.square().mean(dim=1) / weights.sum()).sqrt()
    torch.testing.assert_close(float(size), 0.5)


def test_fewer_axes_are_the_first_of_all_and_follow_what_the_texts_hold():
    goal = teacher()
    few = made("static", goal=goal).module.embedding.weight
    full = with_token_vectors(TextStatic(dim=8, **OF), goal, torch.ones(SIZE)).module
    kept = full.embedding.weight[:, :6]
    torch.testing.assert_close(few / few.norm(), kept / kept.norm())
    assert (few.square().mean(dim=0).diff() <= 1e-6).all()  # the largest first
    with torch.no_grad():
        goal.embedding.weight.zero_()
        for token, place, value in ((3, 0, 1), (4, 0, -1), (5, 1, 1), (6, 1, -1)):
            goal.embedding.weight[token, place] = value
    for often, rarely in (([3, 4], [5, 6]), ([5, 6], [3, 4])):
        counts = torch.zeros(SIZE)
        counts[often] = 1e6
        first = made("static", goal=goal, counts=counts).module.embedding.weight[:, 0].abs()
        assert first[often].min() > 10 * first[rarely].max()


def test_nothing_else_changes_and_neither_model_is_touched():
    goal, student = teacher(), MAKES["cnn"]()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    theirs = goal.embedding.weight.clone()
    module = with_token_vectors(student, goal, torch.ones(SIZE)).module
    torch.testing.assert_close(student.state_dict(), before)
    torch.testing.assert_close(goal.embedding.weight.data, theirs.data)
    changed = {n for n, v in module.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"embedding.weight"}
    assert all(weight.requires_grad for weight in module.parameters())
    still = with_token_vectors(student, goal, torch.ones(SIZE), frozen=True).module
    held = {name for name, weight in still.named_parameters() if not weight.requires_grad}
    assert held == {"embedding.weight"}
    assert student.embedding.weight.requires_grad


def test_a_teacher_may_know_more_ids_and_alike_tokens_give_zeros():
    goal = teacher(vocabulary=SIZE + 10)
    assert made("static", goal=goal).module.embedding.weight.isfinite().all()
    nn.init.ones_(goal.embedding.weight)
    assert not made("static", goal=goal).module.embedding.weight.any()


class Telling(nn.Module):
    """As Hugging Face's: a table of positions beside that of tokens, and one that says which."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(SIZE + 4, 8), nn.Embedding(SIZE, 8)

    def get_input_embeddings(self):
        return self.words


def test_a_network_that_says_which_table_is_believed():
    assert made("static", goal=Telling()).provenance == {"embedding": "words"}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"no more numbers per token.*6 and 4.*`dim: 4`"):
        made("cnn", goal=teacher(dim=4))
    with pytest.raises(ModelError, match=r"must have one table.*it has none"):
        made("cnn", goal=MLP(inputs=4, width=3, hidden=[4]))
    with pytest.raises(ModelError, match="the teacher must have one table"):
        made("cnn", goal=teacher(vocabulary=SIZE - 1))
    two = nn.ModuleDict({"a": nn.Embedding(SIZE, 8), "b": nn.Embedding(SIZE, 8)})
    with pytest.raises(ModelError, match="`a`, `b`"):
        made("cnn", goal=two)
    with pytest.raises(ValueError, match="scale > 0"):
        made("cnn", scale=float("nan"))
