"""The backends, one by one: every one is a teacher, and none changes the module it runs."""

import copy

import pytest
import torch
from torch import nn

from conformance.teacher import COLUMNS, TeacherCase, TeacherLaws
from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.models import CifarResNet
from understudy.models.deployable import Deployable
from understudy.teachers.backends import BACKENDS, Forms, forms, prepare

WIDTH = 3


def pictures():
    """A network of pictures that are written as rows; its batch norms have seen other rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(4, 2, 1),
            nn.Flatten(),
            nn.Linear(12, WIDTH),
        )
        made(3 * torch.randn(50, COLUMNS) + 1)
    return made.eval()


def rows(count=9):
    return torch.randn(count, COLUMNS, generator=torch.Generator().manual_seed(1))


def teacher(name, module=None, *, count=9, piece=4):
    return prepare(name, Forms(module or pictures(), rows(count)), output="logits", piece=piece)


@pytest.fixture(scope="module")
def session():
    """Exported once for all the laws."""
    return teacher("onnxruntime")


class TestEager(TeacherLaws):
    @pytest.fixture
    def case(self):
        return TeacherCase(teacher=teacher("eager"), width=WIDTH)


class TestChannelsLast(TeacherLaws):
    @pytest.fixture
    def case(self):
        return TeacherCase(teacher=teacher("channels_last"), width=WIDTH)


class TestFolded(TeacherLaws):
    @pytest.fixture
    def case(self):
        return TeacherCase(teacher=teacher("folded"), width=WIDTH)


class TestBf16(TeacherLaws):
    @pytest.fixture
    def case(self):
        return TeacherCase(teacher=teacher("bf16"), width=WIDTH)


class TestOnnxRuntime(TeacherLaws):
    @pytest.fixture
    def case(self, session):
        return TeacherCase(teacher=session, width=WIDTH)


@pytest.fixture(scope="module")
def sessions():
    """Three threads, each with a piece of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 3)
        return teacher("onnxruntime_pieces", count=8)


class TestOnnxRuntimeWithAPiecePerThread(TeacherLaws):
    @pytest.fixture
    def case(self, sessions):
        return TeacherCase(teacher=sessions, width=WIDTH)

    def test_a_batch_keeps_all_threads_busy(self, case):
        assert case.teacher.piece == 3  # eight rows, in pieces of four at most

    def test_it_answers_as_the_module_does(self, case):
        with torch.no_grad():
            expected = pictures()(rows(50))
        torch.testing.assert_close(case.teacher(Batch(inputs=rows(50)))["logits"], expected)


def test_one_thread_needs_no_pieces(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(ModelError, match="there is one thread"):
        teacher("onnxruntime_pieces")


def test_a_module_is_exported_once_for_both(monkeypatch):
    exported, real = [], forms.export_onnx

    def export_onnx(*args, **named):
        exported.append(args)
        return real(*args, **named)

    monkeypatch.setattr(forms, "export_onnx", export_onnx)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    made = Forms(pictures(), rows())
    for name in ("onnxruntime", "onnxruntime_pieces"):
        prepare(name, made, output="logits")
    assert len(exported) == 1


@pytest.fixture(scope="module")
def compiled():
    """Made for the seven rows of its example, as no other number is named."""
    try:
        return teacher("compile", piece=None, count=7)
    except ModelError as error:
        pytest.skip(f"nothing compiles here: {error}")


@pytest.mark.slow
class TestCompiled(TeacherLaws):
    @pytest.fixture
    def case(self, compiled):
        return TeacherCase(teacher=compiled, width=WIDTH)

    def test_it_is_made_for_the_number_of_rows_in_its_example(self, case):
        assert case.teacher.piece == 7

    def test_a_batch_of_another_size_compiles_nothing(self, case):
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert before > 0
        for count in (1, 6, 7, 9, 15):
            assert case.teacher(Batch(inputs=rows(count)))["logits"].shape == (count, WIDTH)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before

    def test_it_answers_as_the_module_does(self, case):
        expected = teacher("eager")(Batch(inputs=rows()))["logits"]
        torch.testing.assert_close(case.teacher(Batch(inputs=rows()))["logits"], expected)


@pytest.mark.slow
def test_a_missing_compiler_is_a_reason_and_no_crash(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(ModelError, match=r"[Cc]ompiler"):
        teacher("compile", nn.Sequential(nn.Linear(COLUMNS, 5), nn.Tanh(), nn.Linear(5, 2)).eval())


@pytest.mark.parametrize("name", ["eager", "channels_last", "folded"])
def test_it_answers_as_the_module_does(name):
    module = pictures()
    with torch.no_grad():
        expected = module(rows())
    torch.testing.assert_close(teacher(name, module)(Batch(inputs=rows()))["logits"], expected)


def test_onnx_runtime_answers_as_the_module_does(session):
    with torch.no_grad():
        expected = pictures()(rows())
    torch.testing.assert_close(session(Batch(inputs=rows()))["logits"], expected)


def test_bfloat16_answers_nearly_as_the_module_does():
    with torch.no_grad():
        expected = pictures()(rows())
    found = teacher("bf16")(Batch(inputs=rows()))["logits"]
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    ("name", "learning"),
    [(name, mode) for name in ("eager", "channels_last", "folded", "bf16") for mode in (0, 1)]
    + [("onnxruntime", 1)],
)
def test_the_module_comes_out_as_it_went_in(name, learning):
    module = pictures().train(bool(learning))
    module[0].eval()
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    pointers = [(p.data_ptr(), p.stride(), p.requires_grad) for p in module.parameters()]
    teacher(name, module)(Batch(inputs=rows()))
    assert [part.training for part in module.modules()] == modes
    assert [(p.data_ptr(), p.stride(), p.requires_grad) for p in module.parameters()] == pointers
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_module_that_is_learning_teaches_as_if_it_were_not():
    module = pictures()
    expected = teacher("eager", module)(Batch(inputs=rows()))["logits"]
    found = teacher("eager", copy.deepcopy(module).train())(Batch(inputs=rows()))["logits"]
    assert torch.equal(found, expected)


def test_a_module_in_evaluation_mode_is_not_copied_for_eager():
    module = pictures()
    assert Forms(module, rows()).plain is module


def test_forms_are_made_once():
    forms = Forms(pictures(), rows())
    assert forms.channels_last is forms.channels_last
    assert forms.folded is forms.folded


def test_channels_last_is_what_it_says():
    weight = Forms(pictures(), rows()).channels_last[1].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_folding_leaves_no_batch_norm():
    folded = Forms(pictures(), rows()).folded
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())


def test_only_the_network_of_a_deployable_is_traced():
    class Careful(nn.Module):
        """Looks at its rows, which cannot be traced."""

        def forward(self, given):
            if tuple(given.shape[1:]) != (COLUMNS,):
                raise ValueError("other rows")
            return given

    module = Deployable(preprocess=Careful(), network=pictures(), width=WIDTH).eval()
    expected = teacher("eager", module)(Batch(inputs=rows()))["logits"]
    torch.testing.assert_close(teacher("folded", module)(Batch(inputs=rows()))["logits"], expected)


class Branching(nn.Module):
    """Its forward depends on the numbers, so no trace of it is the whole."""

    def __init__(self):
        super().__init__()
        self.net = pictures()

    def forward(self, given):
        return self.net(given) if given.sum() > 0 else -self.net(given)


@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [
        ("channels_last", nn.Linear(COLUMNS, 2), "no convolution of images"),
        ("folded", nn.Linear(COLUMNS, 2), "no batch norm"),
        (
            "folded",
            nn.Sequential(nn.BatchNorm1d(COLUMNS), nn.Linear(COLUMNS, 2)),
            "right behind a convolution",
        ),
        ("folded", Branching(), "cannot be traced"),
        ("onnxruntime", Branching(), "data-dependent"),
    ],
)
def test_what_cannot_be_had_says_why(name, module, reason):
    with pytest.raises(ModelError, match=reason):
        teacher(name, module.eval())


def test_a_module_that_cannot_be_copied_says_so():
    module = pictures()
    module.kept = torch.ones(2, requires_grad=True) * 2  # a tensor with a history
    with pytest.raises(ModelError, match="deepcopy"):
        teacher("channels_last", module)


def test_a_single_row_is_enough_of_an_example():
    found = teacher("onnxruntime", count=1)(Batch(inputs=rows()))["logits"]
    assert found.shape == (9, WIDTH)


def test_eager_is_the_first_as_it_is_the_measure_of_the_others():
    assert next(iter(BACKENDS)) == "eager"
    assert BACKENDS["eager"].pays_from == 0.0


def test_our_residual_network_keeps_its_answers_in_every_form():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CifarResNet(channels=3, width=5, depth=8, base=4).eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = Batch(inputs=images)
    expected = prepare("eager", Forms(network, images), output="logits")(batch)["logits"]
    found = prepare("channels_last", Forms(network, images), output="logits")(batch)["logits"]
    torch.testing.assert_close(found, expected)
