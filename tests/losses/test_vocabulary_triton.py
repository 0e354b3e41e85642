"""Fused losses by Triton's kernels: every test of the plain ones once more, and what is their own.

Where there is no GPU they run in Triton's interpreter: `make test-triton`.
"""

import pytest
import torch

from losses import test_vocabulary, test_vocabulary_laws, test_vocabulary_refusals
from losses.vocabulary_cases import (
    FORMS,
    KINDS,
    OWN,
    PIECES,
    TOKENS,
    VOCABULARY,
    agree,
    divergence_of,
    drawn,
    gradients,
    student,
    told,
)
from understudy.losses.vocabulary import (
    DenseLabels,
    LinearHead,
    ListedLabels,
    Pieces,
    loss,
    vocabulary_loss,
)
from understudy.losses.vocabulary.compiled import choosing
from understudy.losses.vocabulary.compiled.choosing import interpreted

READY = choosing._installed() and (torch.cuda.is_available() or interpreted())
pytestmark = [
    pytest.mark.skipif(
        not READY, reason="needs Triton, and CUDA or TRITON_INTERPRET=1: make test-triton"
    ),
    # A GPU says nothing of exp(-inf), and NumPy, which interprets here, does.
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]
if READY:
    from understudy.losses.vocabulary.compiled import launching


@pytest.fixture(autouse=True)
def by_kernels(monkeypatch):
    """All losses go through the kernels, several blocks to a tile."""
    monkeypatch.setattr(loss, "takes_kernels", lambda kernels, device: kernels != "plain")
    monkeypatch.setattr(launching, "BLOCK", 128)
    for module in (test_vocabulary, test_vocabulary_laws):
        monkeypatch.setattr(module, "PIECES", PIECES[1:], raising=False)
    torch.set_default_device("cpu" if interpreted() else "cuda")
    yield
    torch.set_default_device(None)


# The same tests, whatever is added to them.
for module in (test_vocabulary, test_vocabulary_laws) if READY else ():
    for name, found in vars(module).items():
        if name.startswith("test_"):
            assert name not in globals(), name
            globals()[name] = found
if READY:
    test_a_nan_names_its_token = test_vocabulary_refusals.test_a_nan_names_its_token


def both_ways(hidden, head, teacher, *, tokens=3, columns=5, **constants):
    """Value, parts and gradients by kernels are those by PyTorch's own operations."""
    found = []
    for kernels in ("triton", "plain"):
        cut = Pieces(tokens=tokens, columns=columns, kernels=kernels)
        got = vocabulary_loss(hidden, head, teacher, pieces=cut, **constants)
        found.append([got.loss, got.soft, got.hard, *gradients(got.loss, hidden, head)])
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain)


def test_the_kernels_are_what_computes_here(monkeypatch):
    hidden, head = student()
    for form in FORMS:
        both_ways(hidden, head, told(form)[1])
        with monkeypatch.context() as patch:
            patch.setattr(launching.Launcher, "slope", lambda *_, **__: None)
            with pytest.raises(AssertionError, match="are not close"):
                both_ways(hidden, head, told(form)[1])


def test_asking_for_them_is_heard(monkeypatch):
    monkeypatch.undo()
    hidden, head = student()
    assert choosing.takes_kernels("triton", hidden.device)
    launching.try_out(hidden.device)
    both_ways(hidden, head, told("dense")[1])


LAYOUTS = {
    "as it is": lambda x: x,
    "columns first": lambda x: x.t().contiguous().t(),
    "part of something wider": lambda x: torch.cat([x, x, x], dim=1)[:, VOCABULARY:-VOCABULARY],
    "every second row": lambda x: x.repeat_interleave(2, dim=0)[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_stored_logits_of_any_precision_are_read_where_they_lie(layout, dtype):
    logits = LAYOUTS[layout](told("dense")[0].to(dtype))
    mask = torch.arange(TOKENS) != 1
    both_ways(*student(soft_cap=2.0), DenseLabels(logits=logits), temperature=2.0, mask=mask)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_in_blocks_of_real_size_float32_is_that_of_pytorchs_operations(form, kind, monkeypatch):
    monkeypatch.setattr(launching, "BLOCK", 16384)
    width, targets = 5001, torch.arange(TOKENS) * 700
    _, labels = told(form, vocabulary=width, k=40)
    hidden = drawn(TOKENS, OWN).float().requires_grad_()
    head = LinearHead(weight=drawn(width, OWN, seed=1).float().requires_grad_(), soft_cap=9.0)
    constants = {"divergence": kind, "temperature": 1.7, "labels": targets, "hard_weight": 0.5}
    # The last piece has one column.
    both_ways(hidden, head, labels, tokens=4, columns=5000, **constants)


def test_columns_that_both_sides_rule_out_are_as_if_they_were_not_there():
    out = torch.tensor([2, 9, 22])
    rest = torch.tensor([at for at in range(VOCABULARY) if at not in out.tolist()])
    logits = drawn(TOKENS, VOCABULARY, seed=3).index_fill(1, out, -torch.inf)
    hidden, head = student()
    bias = head.bias.detach().index_fill(0, out, -torch.inf).requires_grad_()
    ruled = LinearHead(weight=head.weight, bias=bias)
    own = (hidden @ head.weight.T + bias)[:, rest].softmax(1)
    for kind in KINDS:
        got = vocabulary_loss(hidden, ruled, DenseLabels(logits=logits), divergence=kind)
        wanted = divergence_of(kind, logits[:, rest].softmax(1), own).mean()
        agree(got.loss, wanted, hidden, ruled)


def test_drawn_outcomes_go_through_the_cap_too():
    ids = torch.tensor([[2, 5, -1], [0, 22, 9], [1, 1, -1]]).repeat(3, 1)[:TOKENS]
    labels = ListedLabels(
        ids=ids,
        log_mass=drawn(TOKENS, 3, seed=4).masked_fill(ids < 0, -torch.inf),
        rest=torch.full((TOKENS,), -torch.inf, dtype=torch.float64),
        sampled=True,
        entropy=drawn(TOKENS, seed=5),
    )
    targets = torch.arange(TOKENS)
    both_ways(*student(soft_cap=2.0), labels, labels=targets, hard_weight=0.4, label_smoothing=0.1)
