"""The student of a seed with its start weights: fresh, cut from the teacher, or given."""

from collections.abc import Mapping

import torch
from torch import nn

from understudy import build
from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.folders import read_json
from understudy.models.deployable import Deployable, inner
from understudy.models.weights import load_into, read_weights
from understudy.pipeline.closed_form import take_start
from understudy.pipeline.cutting import again
from understudy.pipeline.language import fitting, is_language, reads_its_own_tokens
from understudy.pipeline.members import load_teacher
from understudy.pipeline.token_vectors import take_token_vectors
from understudy.pipeline.work import Given, Work
from understudy.students.regularised import with_dropout, with_stochastic_depth
from understudy.students.reused_head import reused_head
from understudy.students.scratch import scratch
from understudy.students.static.student import Static


def begin_plain(work: Work) -> Deployable:
    """The first seed's fresh network as it stands in the recipe, without what a teacher gives."""
    section, facts = work.recipe.student, work.material.facts
    assert section.model is not None
    reads_its_own_tokens(work, section.model, who="the student")
    make = build.network(section.model, facts, work.place, where="the student's model")
    seed = work.recipe.seed_list[0]
    module = scratch(lambda: work.material.deployable(make()), seed=seed).module
    assert isinstance(module, Deployable)
    return module


def fresh_student(work: Work, seed: int) -> Student:
    """The student of a seed with its start weights; the control starts from the same."""
    section = work.recipe.student
    if work.given is not None:
        return _given(work, work.given)
    if section.from_teacher:
        return _inherited(work, seed)
    assert section.model is not None
    reads_its_own_tokens(work, section.model, who="the student")
    make = build.network(
        section.model, work.material.facts, work.place, where="the student's model"
    )
    student = scratch(lambda: work.material.deployable(make()), seed=seed)
    whole = student.module
    if is_language(work.recipe):
        fitting(work, inner(whole), who="the student")
    assert isinstance(whole, Deployable)
    provenance: Mapping[str, str] = {}
    if isinstance(whole.network, Static):
        take_start(work, whole.network)
    if section.token_vectors is not None:
        provenance = take_token_vectors(work, whole)
    if section.reused_head is not None:
        _, modules = load_teacher(work)
        if len(modules) != 1 or modules[0] is None:
            raise ModelError("`reused_head` needs one teacher that is a PyTorch `model`")
        rows = work.material.inputs[torch.from_numpy(work.material.splits.train[:2])]
        made = reused_head(
            whole.network,
            modules[0].network,
            whole.preprocess(rows),
            seed=seed,
            **section.reused_head.model_dump(),
        )
        whole.network, provenance = made.module, {**provenance, **made.provenance}
    return Student(module=regularised(work, whole), provenance=provenance)


def _inherited(work: Work, seed: int) -> Student:
    """The student of a seed as it was cut from the teacher."""
    folder = work.folder / "student"
    plans = read_json(folder / "stage.json")["summary"]["plans"][str(seed)]
    _, modules = load_teacher(work)
    assert modules[0] is not None
    student = again(work, plans, modules[0], seed=seed)
    module = student.module
    assert isinstance(module, Deployable)
    regularised(work, module)
    path = folder / f"seed-{seed}.safetensors"
    load_into(module, read_weights(path), source=str(path))
    return Student(module=module, provenance=student.provenance)


def _given(work: Work, given: Given) -> Student:
    """The student that another room made, around it what the data needs."""
    made = given.make()
    module = regularised(work, work.material.deployable(made.module))
    return Student(module=module, provenance=made.provenance)


def regularised(work: Work, module: Deployable) -> Deployable:
    """With what is left out at random while training."""
    section = work.recipe.student
    network: nn.Module = module.network
    if section.dropout:
        network = with_dropout(network, section.dropout)
    if section.stochastic_depth:
        rows = work.material.inputs[torch.from_numpy(work.material.splits.train[:2])]
        fed = module.preprocess(rows)
        network = with_stochastic_depth(network, fed, section.stochastic_depth)
    module.network = network
    return module
