"""A recipe's teacher as objects: one model that is asked, or several as one."""

from pathlib import Path

import torch
from torch import nn

from understudy import build
from understudy.contracts import Teacher
from understudy.data.preprocess import Preprocess, fit_preprocess
from understudy.deployed import Deployed
from understudy.errors import ModelError
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_rescale, read_weights
from understudy.pipeline.language import fitting, is_language, own_tokenizer, reads_its_own_tokens
from understudy.pipeline.own_classifier import settle
from understudy.pipeline.work import Work
from understudy.pipeline.zero_shot import load_zero_shot
from understudy.recipe import MemberSection, TeacherSection
from understudy.teachers.ensemble import EnsembleTeacher
from understudy.teachers.predictor import PredictorTeacher
from understudy.teachers.torch_module import TorchTeacher

Section = MemberSection | TeacherSection


def weights_name(number: int) -> str:
    """The file in the stage's folder that holds a member's weights as they were found."""
    return "weights.safetensors" if number == 0 else f"weights-{number}.safetensors"


def load_teacher(work: Work) -> tuple[Teacher, list[Deployable | None]]:
    """The teacher of the finished stage, and per member its module where it has one."""
    teachers, modules = [], []
    for number, section in enumerate(work.recipe.teacher.members):
        teacher, module = load_member(work, section, work.folder / "teacher" / weights_name(number))
        teachers.append(teacher)
        modules.append(module)
    return (teachers[0] if len(teachers) == 1 else EnsembleTeacher(teachers)), modules


def load_member(work: Work, section: Section, weights: Path) -> tuple[Teacher, Deployable | None]:
    """One model that is asked."""
    material = work.material
    output, width = material.task.output, material.task.width
    if section.model is not None:
        module = member_module(work, section)
        load_into(module.network, read_weights(weights), source=str(weights))
        return TorchTeacher(module, output=output), module.eval()
    if section.zero_shot is not None:
        return load_zero_shot(work, section.zero_shot, weights)
    if section.onnx is not None:
        predict = Deployed.open(work.place.resolve(section.onnx)).predict
    elif section.predictor is not None:
        predict = build.predictor(section.predictor, work.place, where="the teacher's predictor")
    else:
        raise ModelError("a teacher needs `model`, `onnx`, `predictor`, `zero_shot` or `ensemble`")
    teacher = PredictorTeacher(
        predict,
        output=output,
        width=width,
        answers=section.answers,
        preprocess=own_preprocess(work, section),
    )
    return teacher, None


def member_module(work: Work, section: Section) -> Deployable:
    """The network of a member, before any weights are read into it."""
    material = work.teaching
    if section.model is None:
        raise ModelError("this teacher has no PyTorch module")
    trained = isinstance(section, TeacherSection) and section.training is not None
    reads_its_own_tokens(work, section.model, who="the teacher")
    make = build.network(section.model, material.facts, work.place, where="the teacher's model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.recipe.data.seed)
        network = make()
        if is_language(work.recipe):
            fitting(work, network, who="the teacher", tokenizer=own_tokenizer(work, section.model))
        settle(work, network, who="the teacher")
        module = material.deployable(network, scaled=trained)
    if section.weights is not None:
        rescale = read_rescale(work.place.resolve(section.weights))
        module.rescale = rescale or module.rescale
    own = own_preprocess(work, section)
    if own is not None:
        module.preprocess = own
    return module.eval()


def own_preprocess(work: Work, section: Section) -> nn.Module | None:
    """How a member wants its rows, where the recipe says that it differs from the student."""
    chosen = section.preprocess
    if chosen is None:
        return None
    material = work.material
    if material.tokens is not None:
        raise ModelError(
            "`preprocess` is for images and tables, but these rows are texts: remove it"
        )
    fitted: Preprocess = fit_preprocess(
        material.rows,
        material.splits.train,
        scale=chosen.scale,
        mean=None if chosen.mean is None else list(chosen.mean),
        std=None if chosen.std is None else list(chosen.std),
    )
    return fitted
