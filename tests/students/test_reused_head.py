"""A student with its teacher's last layer."""

import pytest
import torch
from torch import nn

from conformance.student import StudentCase, StudentLaws
from understudy.deployed import Deployed
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx, stored_parameters
from understudy.models import MLP, CifarResNet, ConvNet, VisionTransformer
from understudy.models.deployable import Deployable
from understudy.students.reused_head import reused_head

IMAGE = {"channels": 1, "width": 5}
SIZE = {"height": 8, "image_width": 8, **IMAGE}
STUDENTS = {
    "resnet": lambda: CifarResNet(depth=8, base=2, **IMAGE),
    "convnet": lambda: ConvNet(filters=(3, 3), hidden=6, **SIZE),
    "vit": lambda: VisionTransformer(patch=4, dim=8, depth=1, heads=2, **SIZE),
    "mlp": lambda: MLP(inputs=64, width=5, hidden=[7]),
}
TEACHERS = {
    "resnet": lambda: CifarResNet(depth=8, base=4, **IMAGE),
    "convnet": lambda: ConvNet(filters=(4, 4), hidden=9, **SIZE),
    "vit": lambda: VisionTransformer(patch=4, dim=12, depth=1, heads=3, **SIZE),
}
# What of the teacher gives what its last layer reads; for the residual network before pooling.
FEATURES = {"resnet": "stages.2", "convnet": "hidden", "vit": "norm"}


def images(count=6):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def build(makes, name, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return makes[name]().eval()


def made(student, teacher, *, seed=0, **options):
    own, goal = build(STUDENTS, student, seed=seed), build(TEACHERS, teacher)
    return reused_head(own, goal, images(), seed=seed, **options)


class TestReusedHead(StudentLaws):
    @pytest.fixture(params=[(s, t) for s in STUDENTS for t in TEACHERS], ids="-".join)
    def case(self, request):
        student, teacher = request.param
        return StudentCase(
            make=lambda seed: made(student, teacher, seed=seed),
            rows=images(),
            width=5,
            parent=frozenset(name for name, _ in TEACHERS[teacher]().named_modules()),
        )

    def test_every_parameter_can_learn(self, case):
        """All but the reused layer's: it is the teacher's, and stays so."""
        student = case.make(0)
        student.module.train()
        student.module(case.rows).square().sum().backward()
        reused = next(own for own, goal in student.provenance.items() if goal == "head")
        for name, parameter in student.module.named_parameters():
            assert (parameter.grad is None) is name.startswith(f"{reused}."), name


@pytest.mark.parametrize("teacher", list(TEACHERS))
@pytest.mark.parametrize("student", list(STUDENTS))
def test_the_reused_layer_is_a_frozen_copy(student, teacher):
    goal = build(TEACHERS, teacher)
    student = reused_head(build(STUDENTS, student), goal, images(), seed=0)
    (path,) = (own for own, name in student.provenance.items() if name == "head")
    reused = student.module.get_submodule(path)
    assert torch.equal(reused.weight, goal.head.weight)
    assert reused.weight.data_ptr() != goal.head.weight.data_ptr()
    assert not any(p.requires_grad for p in reused.parameters())
    assert all(p.requires_grad for p in goal.head.parameters())


@pytest.mark.parametrize("teacher", list(TEACHERS))
def test_provenance_pairs_the_projector_with_what_it_imitates(teacher):
    student = made("convnet", teacher)
    assert student.provenance["head.projector"] == FEATURES[teacher]


def test_vectors_imitate_vectors_where_a_layer_gives_them():
    class Flattening(nn.Sequential):
        def __init__(self):
            pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            super().__init__(nn.Conv2d(1, 6, 3), pool, nn.Linear(6, 5))

    goal = Flattening().eval()
    vector = reused_head(build(STUDENTS, "mlp"), goal, images(), seed=0)
    assert vector.provenance == {"head.projector": "1", "head.classifier": "2"}
    maps = reused_head(build(STUDENTS, "resnet"), goal, images(), seed=0)
    assert maps.provenance == {"stages.2.projector": "0", "head": "2"}


def test_two_residual_networks_have_the_authors_projector():
    student = made("resnet", "resnet")
    assert student.provenance == {"stages.2.projector": "stages.2", "head": "head"}
    projector = student.module.get_submodule("stages.2.projector")
    convolutions = [m for m in projector if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convolutions] == [(1, 1), (3, 3), (1, 1)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(8, 8), (8, 8), (8, 16)]
    assert all(c.bias is None for c in convolutions)
    assert [type(m).__name__ for m in projector] == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


def test_the_answer_is_the_reused_layer_on_the_averaged_projection():
    module = made("resnet", "resnet").module.eval()
    kept = []
    module.get_submodule("stages.2.projector").register_forward_hook(
        lambda layer, args, output: kept.append(output)
    )
    answer = module(images())
    assert kept[0].shape == (6, 16, 2, 2)
    torch.testing.assert_close(answer, module.head(kept[0].mean(dim=(2, 3))))


def test_a_perfect_projection_answers_as_the_teacher():
    teacher = build(TEACHERS, "resnet")
    student = reused_head(teacher, teacher, images(), seed=0, factor=1).module
    stage = student.get_submodule("stages.2")
    stage.projector = nn.Identity()
    assert torch.equal(student.eval()(images()), teacher(images()))


class ByPlaces(nn.Module):
    """A teacher whose last layer reads its map place by place, after a ReLU that is no layer."""

    def __init__(self, size, answers=5):
        super().__init__()
        self.size = size
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.answer = nn.Linear(6 * size[0] * size[1], answers)

    def forward(self, rows):
        maps = nn.functional.adaptive_avg_pool2d(self.body(rows).relu(), self.size)
        return self.answer(maps.flatten(1))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2), (4, 2), (8, 8)])
def test_a_teacher_that_reads_a_map_place_by_place_is_answered_place_by_place(size):
    torch.manual_seed(0)
    goal = ByPlaces(size).eval()
    student = reused_head(Shallow().eval(), goal, images(), seed=0)
    # What the last layer reads is no layer's output here.
    assert student.provenance == {"head": "answer", "head:input": "answer:input"}
    projector = student.module.eval().body.projector
    assert [m.out_channels for m in projector if isinstance(m, nn.Conv2d)] == [3, 3, 6]
    kept = []
    last_map = projector[-2] if size != (1, 1) else projector[-1]
    last_map.register_forward_hook(lambda layer, args, output: kept.append(output))
    answer = student.module(images())
    expected = goal.answer(nn.functional.adaptive_avg_pool2d(kept[0], size).flatten(1))
    torch.testing.assert_close(answer, expected)
    assert kept[0].shape == (6, 6, 8, 8)


def test_places_that_the_students_map_does_not_have_take_a_linear_layer():
    goal = ByPlaces((4, 4)).eval()
    student = reused_head(build(STUDENTS, "resnet"), goal, images(), seed=0)
    assert isinstance(student.module.head.projector, nn.Linear)
    assert student.module.eval()(images()).shape == (6, 5)


def test_a_perfect_projection_by_places_answers_as_the_teacher():
    teacher = ByPlaces((2, 2)).eval()
    student = reused_head(Shallow().eval(), teacher, images(), seed=0).module
    student.body = nn.Sequential(teacher.body, nn.ReLU(), student.body.projector[-1])
    torch.testing.assert_close(student.eval()(images()), teacher(images()))


def test_a_projection_by_places_is_exported(tmp_path):
    student = reused_head(Shallow(), ByPlaces((2, 2)), images(), seed=0)
    deployable = Deployable(preprocess=nn.Identity(), network=student.module, width=5).eval()
    path = export_onnx(deployable, images(2), tmp_path / "student.onnx", metadata={})
    answer = torch.from_numpy(Deployed.open(path).predict(images().numpy()))
    torch.testing.assert_close(answer, deployable(images()).detach(), rtol=1e-4, atol=1e-5)


class Shallow(nn.Module):
    """A student that never makes its map smaller."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(3, 5)

    def forward(self, rows):
        return self.head(self.body(rows).mean(dim=(2, 3)))


def test_a_larger_map_of_the_student_is_averaged_down_to_the_teachers():
    student = reused_head(Shallow().eval(), build(TEACHERS, "resnet"), images(), seed=0)
    sizes = []
    student.module.get_submodule("body.projector").register_forward_hook(
        lambda layer, args, output: sizes.append(tuple(output.shape[2:]))
    )
    student.module.eval()(images())
    assert sizes == [(2, 2)]


def test_a_teacher_with_negative_features_has_no_relu_at_the_end():
    teacher = build(TEACHERS, "resnet")
    teacher.stages[2] = nn.Sequential(teacher.stages[2], nn.BatchNorm2d(16, affine=False))
    teacher.stages[2][1].running_mean.fill_(0.5)
    student = reused_head(build(STUDENTS, "resnet"), teacher, images(), seed=0)
    projector = student.module.get_submodule("stages.2.projector")
    assert isinstance(projector[-1], nn.BatchNorm2d)


def test_the_two_given_are_left_as_they_were():
    own, goal = build(STUDENTS, "resnet").train(), build(TEACHERS, "resnet").train()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (own, goal)]
    reused_head(own, goal, images(), seed=0)
    for module, state in zip((own, goal), before, strict=True):
        assert module.training
        assert module.state_dict().keys() == state.keys()
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
        assert all(not m._forward_hooks for m in module.modules())


@pytest.mark.parametrize("student", ["resnet", "convnet", "vit"])
def test_features_and_projector_learn_and_the_head_does_not(student):
    module = made(student, "resnet").module.train()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module(images()).square().sum().backward()
    optimizer.step()
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert any("projector" in name for name in moved)
    reused = {n for n, p in module.named_parameters() if not p.requires_grad}
    assert len(reused) == 2
    assert not moved & reused


def test_the_exported_file_holds_projector_and_reused_layer(tmp_path):
    student = reused_head(Shallow(), build(TEACHERS, "resnet"), images(), seed=0)
    deployable = Deployable(preprocess=nn.Identity(), network=student.module, width=5).eval()
    path = export_onnx(deployable, images(2), tmp_path / "student.onnx", metadata={})
    answer = torch.from_numpy(Deployed.open(path).predict(images().numpy()))
    torch.testing.assert_close(answer, deployable(images()).detach(), rtol=1e-4, atol=1e-5)
    projector = 3 * 8 + 8 * 8 * 9 + 8 * 16
    assert stored_parameters(path) >= projector + 16 * 5 + 5 + 3 * 9 + 3


def test_networks_inside_a_deployable_are_found():
    def wrapped(network):
        return Deployable(preprocess=nn.Identity(), network=network, width=5).eval()

    student = reused_head(
        wrapped(build(STUDENTS, "resnet")), wrapped(build(TEACHERS, "resnet")), images(), seed=0
    )
    assert student.provenance == {
        "network.stages.2.projector": "network.stages.2",
        "network.head": "network.head",
    }


class OwnNetwork(nn.Module):
    """Somebody's: its last layer is not the one that answers, and it squares before it pools."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3), nn.ReLU())
        self.answer = nn.Linear(channels, 5)
        self.beside = nn.Linear(channels, 2)

    def forward(self, rows):
        maps = self.stem(rows)
        answer = self.answer(self.body(maps).square().mean(dim=(2, 3)))
        return answer, self.beside(maps.mean(dim=(2, 3)))


def test_a_plain_module_works_when_its_layers_are_named():
    torch.manual_seed(0)
    own, goal = OwnNetwork(3), OwnNetwork(6)
    student = reused_head(
        own, goal, images(), seed=0,
        student_head="answer", teacher_head="answer",
        student_features="body", teacher_features="body",
    )  # fmt: skip
    assert student.provenance == {"body.projector": "body", "answer": "answer"}
    answer, beside = student.module.eval()(images())
    assert answer.shape == (6, 5)
    torch.testing.assert_close(beside, own(images())[1])
    assert torch.equal(student.module.answer.weight, goal.answer.weight)


def test_the_wrong_head_is_refused_rather_than_reused():
    with pytest.raises(ModelError, match="give 2 and 5"):
        reused_head(OwnNetwork(3), build(TEACHERS, "resnet"), images(), seed=0)


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"student_head": "heat"}, "no layer `heat`"),
        ({"teacher_features": "stages.9"}, "no layer `stages.9`"),
        ({"student_head": "stem"}, "must be nn.Linear"),
        ({"factor": 0}, "factor >= 1"),
        ({"student_features": "stages.0"}, "just before its last one"),
    ],
)
def test_layers_that_are_not_there_or_do_not_fit_are_refused(options, law):
    with pytest.raises(ModelError, match=law):
        made("resnet", "resnet", **options)


def test_other_widths_and_rows_are_refused():
    own = CifarResNet(depth=8, base=2, channels=1, width=4).eval()
    with pytest.raises(ModelError, match="give 4 and 5"):
        reused_head(own, build(TEACHERS, "resnet"), images(), seed=0)
    with pytest.raises(ModelError, match="student does not take the example rows"):
        reused_head(build(STUDENTS, "resnet"), own, torch.zeros(2, 3, 8, 8), seed=0)


def test_a_network_that_does_not_end_in_a_linear_layer_is_refused():
    body = nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten())
    with pytest.raises(ModelError, match=r"last layer of the student must be nn\.Linear"):
        reused_head(body, build(TEACHERS, "resnet"), images(), seed=0)
    with pytest.raises(ModelError, match="it is one layer"):
        reused_head(nn.Linear(8, 5), nn.Linear(8, 5), torch.zeros(2, 8), seed=0)
    with pytest.raises(ModelError, match="one vector per row"):
        reused_head(nn.Sequential(nn.Linear(8, 5)), nn.Linear(8, 5), torch.zeros(2, 3, 8), seed=0)
