"""Terms on layers for `distill`: somebody's own modules, loaders and teachers."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import understudy
from understudy.contracts import Batch, Knowledge
from understudy.engine import fitting
from understudy.errors import ModelError, RecipeError
from understudy.features.matching import Match
from understudy.losses import Hint, SoftTargetKL
from understudy.objective import Pair, Term
from understudy.pipeline.own_loaders import Loader
from understudy.pipeline.own_terms import own_terms
from understudy.recipe import Training
from understudy.tasks import Classification
from understudy.teachers.torch_module import TorchTeacher

TASK = Classification(classes=("a", "b", "c"))
LAYERS = {"student": "body.0", "teacher": "body.0"}
HARD, HINT = {"kind": "hard_label"}, {"kind": "hint", "layers": LAYERS}


class Own(nn.Module):
    """Somebody's network."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(channels * 16, 3)

    def forward(self, rows):
        return self.head(self.body(rows).flatten(1))


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 1, 4, 4, generator=generator), torch.arange(40) % 3


@pytest.fixture
def loader(rows):
    return DataLoader(TensorDataset(*rows), batch_size=8)


@pytest.fixture
def teacher():
    torch.manual_seed(1)
    return Own(6)


def terms_of(objective, loader, teacher, *, seed=0):
    batches = Loader(loader)
    lesson = own_terms(objective, task=TASK, teacher=teacher, student=lambda: Own(4),
                       train=batches, batch=next(iter(batches)))  # fmt: skip
    return lesson.teacher, lesson.terms(seed)


class Lines:
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)

    def track(self, name, total, unit):
        from contextlib import nullcontext

        return nullcontext(lambda done, note="": None)


def distilled(teacher, loader, objective, **changes):
    options = {"seeds": 2, "training": Training(epochs=1)} | changes
    return understudy.distill(teacher, lambda: Own(4), loader, objective=objective, **options)


# --- it works ------------------------------------------------------------------------------------


def test_a_hint_between_modules_of_ones_own(teacher, loader, tmp_path):
    progress = Lines()
    result = distilled(teacher, loader, [HARD, HINT], progress=progress, out=tmp_path)
    plain = distilled(teacher, loader, [HARD])
    for seed in (0, 1):
        pairs = [(r.students[seed].state_dict(), r.controls[seed].state_dict())
                 for r in (result, plain)]  # fmt: skip
        assert any(not torch.equal(v, pairs[1][0][k]) for k, v in pairs[0][0].items())
        assert all(torch.equal(v, pairs[1][1][k]) for k, v in pairs[0][1].items())
        assert set(pairs[0][0]) == {f"network.{k}" for k in Own(4).state_dict()}
    assert len([line for line in progress.said if line.startswith("hint: ")]) == 1
    assert result.onnx.is_file()


def test_nothing_is_left_in_the_modules(teacher, loader):
    teacher.train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    distilled(teacher, loader, [HARD, HINT], seeds=1)
    assert teacher.training
    assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in before.items())
    assert not any(m._forward_hooks for m in teacher.modules())


def test_layers_are_found_where_nobody_names_them(teacher, loader):
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    result = understudy.distill(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3)), student, loader,
        objective=[HARD, {"kind": "hint", "layers": "auto"}], seeds=1, control=False,
        training=Training(epochs=1),
    )  # fmt: skip
    assert result.controls == {}


def test_a_memory_of_rows_with_ids(teacher, rows):
    loader = DataLoader(TensorDataset(*rows, torch.arange(100, 140)), batch_size=8)
    adapter = {"kind": "contrast", "negatives": 4, "width": 4}
    _, terms = terms_of([{"kind": "crd", "layers": LAYERS, "adapter": adapter}], loader, teacher)
    assert terms[0].adapter.ids.tolist() == list(range(100, 140))
    distilled(teacher, loader, [{"kind": "crd", "layers": LAYERS, "adapter": adapter}], seeds=1)


# --- names, seeds, objects -----------------------------------------------------------------------


def soft(name="soft_target"):
    return Term(name=name, loss=SoftTargetKL(temperature=2.0), reads="logits", needs=("logits",))


def test_repeated_kinds_are_numbered_whether_they_come_as_mappings_or_objects(teacher, loader):
    mapped = {"kind": "soft_target"}
    _, terms = terms_of([soft(), mapped, HINT, mapped, HINT, soft()], loader, teacher)
    assert [term.name for term in terms] == [
        "soft_target", "soft_target#2", "hint", "soft_target#3", "hint#2", "soft_target#4",
    ]  # fmt: skip


def test_every_one_of_two_objects_of_a_name_is_trained_with(teacher, loader):
    progress = Lines()
    distilled(teacher, loader, [soft(), soft()], seeds=1, control=False, progress=progress)
    told = [line.partition(":")[0] for line in progress.said]
    assert told == ["soft_target", "soft_target#2"]


def test_an_adapter_of_ones_own_begins_anew_for_every_seed(teacher, loader, monkeypatch):
    seen = []
    usual = fitting.Distiller

    def spy(**parts):
        adapters = parts["objective"].adapters
        seen.append({k: v.clone() for k, v in adapters.state_dict().items()})
        return usual(**parts)

    monkeypatch.setattr(fitting, "Distiller", spy)
    mine = Match([(4, 4, 4)], [(6, 4, 4)])
    term = Term(
        name="hint", loss=Hint(), reads="features", needs=("features",), adapter=mine,
        pairs=(Pair(student="body.0", teacher="body.0"),),
    )  # fmt: skip
    before = {k: v.clone() for k, v in mine.state_dict().items()}
    distilled(teacher, loader, [HARD, term], control=False)
    assert len(seen) == 2
    for start in seen:
        assert len(start) == len(before) > 0
        assert all(torch.equal(v, start[f"hint.{k}"]) for k, v in before.items())
    assert all(torch.equal(v, mine.state_dict()[k]) for k, v in before.items())


def test_adapters_of_mappings_begin_from_their_seed(teacher, loader):
    one, again, other = (
        terms_of([HINT], loader, teacher, seed=seed)[1][0].adapter.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(v, again[k]) for k, v in one.items())
    assert any(not torch.equal(v, other[k]) for k, v in one.items())


# --- teachers ------------------------------------------------------------------------------------


def test_the_teacher_offers_every_layer_that_a_term_reads(teacher, loader):
    term = Term(
        name="mine", loss=Hint(), reads="features", needs=("features",),
        pairs=(Pair(student="head:input", teacher="head:input"),),
    )  # fmt: skip
    asked, _ = terms_of([HINT, term], loader, teacher)
    assert asked.offers == {"logits", "body.0", "head:input"}


class ByName:
    """A teacher that offers more than its answer, and is no module."""

    def __init__(self, module):
        self.inner = TorchTeacher(module, output="logits", spots=["body.0"])

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"logits", "deep"})

    def __call__(self, batch: Batch) -> Knowledge:
        told = self.inner(batch)
        return Knowledge(fields={"logits": told["logits"], "deep": told["body.0"]})


def test_a_teacher_that_offers_a_layer_by_name_is_read_by_name(teacher, loader):
    named = {"kind": "hint", "layers": {"student": "body.0", "teacher": "deep"}}
    distilled(ByName(teacher), loader, [HARD, named], seeds=1)


@pytest.mark.parametrize(("layers", "what"), [
    (LAYERS, "body.0"), ("auto", "layers"), (None, "layers"),
    ([LAYERS, {"student": "body.1", "teacher": "body.1"}], "body.0, body.1"),
])  # fmt: skip
def test_a_teacher_that_offers_its_answer_only_is_refused_with_how_to_get_more(
    loader, layers, what
):
    def ask(rows):
        return rows.reshape(len(rows), -1)[:, :3]

    term = {"kind": "hint"} if layers is None else {"kind": "hint", "layers": layers}
    with pytest.raises(ModelError) as error:
        distilled(ask, loader, [HARD, term])
    text = str(error.value)
    assert f"`hint` compares {what} inside the teacher, but this one offers logits only" in text
    assert "as a PyTorch module, or a label store that holds these" in text


def test_a_teacher_by_name_without_this_name_is_refused(teacher, loader):
    with pytest.raises(ModelError, match=r"compares body.0 inside.*offers deep, logits only"):
        distilled(ByName(teacher), loader, [HARD, HINT])


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(("term", "told"), [
    ({**HINT, "weight": -1}, "objective[1].weight: the value must be greater than or equal to 0"),
    ({**HINT, "weight": float("nan")}, "objective[1].weight: the value must be a finite number"),
    ({**HINT, "layers": {"student": "body.0"}}, "objective[1].layers: field required"),
    ({"kind": "soft_target", "temperature": float("nan")}, "temperature"),
    ({"kind": "soft_target", "temperature": -2}, "`temperature > 0` must hold"),
    ({"kind": "hnit"}, "did you mean `hint`"),
    ({"kind": "vid", "adapter": {"kind": "match"}}, "learns with `variance`"),
])  # fmt: skip
def test_a_mapping_that_is_no_term_is_refused_at_its_place(teacher, loader, term, told):
    with pytest.raises(RecipeError) as error:
        distilled(teacher, loader, [HARD, term])
    assert told in str(error.value)


@pytest.mark.parametrize(("term", "told"), [
    ({"kind": "hint", "layers": {"student": "bodi.0", "teacher": "body.0"}}, "near are body"),
    ({"kind": "crd", "layers": LAYERS}, "give batches as `.inputs, labels, ids.`"),
    ({"kind": "factor_transfer", "layers": LAYERS}, "`distill` has one phase.*recipe with `phases"),
    ({"kind": "simkd"}, "reused_head: {factor: 2}"),
    ({"kind": "hint", "layers": {"student": "head", "teacher": "body.0"}},
     r"\[3\].*\[6, 4, 4\].*projector: attention"),
    ({"kind": "hint", "layers": {"student": "body.0", "teacher": "body.0:input"}}, "in place"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused_before_training(teacher, loader, term, told):
    if told == "in place":
        teacher.body[0] = nn.ReLU(inplace=True)
        teacher.head = nn.Linear(16, 3)
    with pytest.raises(ModelError, match=told):
        distilled(teacher, loader, [HARD, term])


def test_relations_in_batches_of_one_are_refused(teacher, rows):
    loader = DataLoader(TensorDataset(*rows), batch_size=1)
    with pytest.raises(ModelError, match=r"`pkt`.*`batch_size >= 2`, but got batches of 1"):
        distilled(teacher, loader, [HARD, {"kind": "pkt", "layers": LAYERS}])
