"""Every method teaches: by itself, without hard labels, on the recipe that shows it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from understudy import build, losses, models
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit, probe
from understudy.features.hooks import capture
from understudy.models.deployable import Deployable
from understudy.objective import Objective, control_objective
from understudy.pipeline.carrying import carry, keep
from understudy.recipe import LearningRate, Optimizer, Source, Training, load
from understudy.students.reused_head import reused_head
from understudy.tasks import Classification, Embedding
from understudy.teachers.torch_module import TorchTeacher

FOLDER = Path(__file__).parent.parent / "recipes" / "methods"
# Terms on vectors are shown on texts; here they learn the ten numbers of a classifier of digits.
VECTORS = sorted(kind for kind, row in losses.CATALOGUE.items() if row.reads == "embedding")
SHOWN = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
RECIPES = {name: path for name, path in SHOWN.items() if name not in VECTORS}
TASK = Classification(classes=tuple("0123456789"))
FACTS = {"channels": 1, "height": 8, "image_width": 8, "width": 10}
ROWS, EPOCHS = 512, 8
NOT_METHODS = {"hard_label", "hard_value", "soft_value", "paraphraser"}
# They teach nothing, but hold the student's weights while others do.
CONSTRAINTS = {kind for kind, row in losses.CATALOGUE.items() if row.reads == "weights"}


class Scale(torch.nn.Module):
    def forward(self, rows):
        return rows / 16


@cache
def checked(name):
    """The recipe of a method, read and checked once for all tests: fifty take five seconds."""
    return build.checked(RECIPES[name])[0]


@cache
def digits():
    data = load_digits()
    inputs = torch.tensor(data.images[:ROWS], dtype=torch.float32).unsqueeze(1)
    return inputs, torch.tensor(data.target[:ROWS], dtype=torch.int64)


def loader(seed=0):
    inputs, labels = digits()
    return MemoryLoader(
        inputs=inputs,
        labels=labels,
        ids=torch.arange(ROWS),
        positions=np.arange(ROWS),
        batch_size=64,
        seed=seed,
    )


def training(epochs):
    return Training(
        epochs=epochs,
        optimizer=Optimizer(learning_rate=0.005),
        schedule=LearningRate(kind="constant", warm_up=0.0),
    )


def network(entry, seed):
    torch.manual_seed(seed)
    given = entry.parameters
    known = models.CATALOGUE[entry.kind]
    facts = {k: v for k, v in FACTS.items() if k in known.__init__.__annotations__}
    made = known(**facts, **given)
    return Deployable(preprocess=Scale(), network=made, width=10)


@cache
def teacher_like(written):
    """A teacher that has learned, shared by all recipes that describe the same one."""
    recipe = checked(written)
    module = network(recipe.teacher.model, seed=1)
    fit(
        student=module,
        objective=control_objective([], task=TASK),
        teacher=None,
        training=training(6),
        loader=loader(),
        validation=None,
        validate=None,
    )
    return module.eval()


def teacher_of(name):
    model = checked(name).teacher.model
    same = [n for n in RECIPES if checked(n).teacher.model == model]
    return teacher_like(same[0])


def student_of(recipe, teacher):
    student = network(recipe.student.model, seed=0)
    reused = recipe.student.reused_head
    if reused is None:
        return student, {}
    made = reused_head(
        student.network, teacher.network, digits()[0][:2] / 16, seed=0, **reused.model_dump()
    )
    student.network = made.module
    return student, made.provenance


def without_labels(entry):
    row = losses.CATALOGUE[entry.kind]
    alone = row.control and entry.kind not in CONSTRAINTS
    return entry.model_copy(update={"weight": 0.0}) if alone else entry


def objective_of(phase, student, teacher, provenance):
    entries = [without_labels(entry) for entry in phase.objective]
    rows = digits()[0][:2]
    matched = [
        build.match(
            entry,
            student=student,
            teacher=teacher,
            rows=rows,
            told=lambda spots: build.captured(teacher, spots, rows),
            provenance=provenance,
        )
        if build.reads_layers(entry)
        else None
        for entry in entries
    ]
    plain = build.terms(entries, Source(), matched=matched)
    known = {"ids": torch.arange(ROWS), "labels": digits()[1]}
    terms = build.with_adapters(entries, plain, matched=matched, known=known, seed=0)
    spots = sorted({pair.teacher for term in terms for pair in term.pairs})
    asked = TorchTeacher(teacher, output="logits", spots=spots)
    return Objective(terms, task=TASK, offers=asked.offers), asked


def test_there_is_a_recipe_for_every_method_and_none_besides():
    assert set(SHOWN) == set(losses.CATALOGUE) - NOT_METHODS | {"fitnet"}


def reaches_the_first_layer(term, objective, student, asked):
    batch = next(iter(loader()))
    first = next(p for p in student.parameters() if p.requires_grad)
    with capture(student.network, objective.spots) as captured:
        answers = student.train()(batch.inputs)
    told = asked(batch)
    features = captured.found()
    means = objective.means(answers, told, batch, epoch=5.0, epochs=10, features=features)
    (gradient,) = torch.autograd.grad(means[term.name], [first])
    return float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_a_constraint_holds_the_student_that_it_is_on(name):
    recipe = checked(name)
    (phase,) = recipe.phases
    teacher = teacher_of(name)
    apart = {}
    for held in (False, True):
        entries = [
            # A thousandfold, since this training is short.
            e.model_copy(update={"weight": 1000 * e.weight * held}) if e.kind == name else e
            for e in phase.objective
        ]
        student, _ = student_of(recipe, teacher)
        objective, asked = objective_of(
            phase.model_copy(update={"objective": tuple(entries)}), student, teacher, {}
        )
        fitted = fit(
            student=student,
            objective=objective,
            teacher=asked,
            training=training(EPOCHS),
            loader=loader(),
            validation=None,
            validate=None,
        )
        apart[held] = fitted.points[-1]["parts"][name]
    assert apart[False] > 0.1
    assert apart[True] < 0.9 * apart[False]


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in CONSTRAINTS])
def test_its_term_falls_and_moves_the_students_first_layer(name, tmp_path):
    recipe = checked(name)
    teacher = teacher_of(name)
    student, provenance = student_of(recipe, teacher)
    fallen = {}
    for number, phase in enumerate(recipe.phases):
        folder = tmp_path / f"phase-{number}"
        folder.mkdir()
        objective, asked = objective_of(phase, student, teacher, provenance)
        carry(objective, [tmp_path / f"phase-{n}" for n in range(number)])
        probe(
            student=student,
            objective=objective,
            teacher=asked,
            loader=loader(),
            epochs=EPOCHS,
        )
        taught = [t for t in objective.terms if objective.weight(t.name, epoch=5.0, epochs=10)]
        for term in taught:
            assert not term.teaches or reaches_the_first_layer(term, objective, student, asked)
        fitted = fit(
            student=student,
            objective=objective,
            teacher=asked,
            training=training(EPOCHS),
            loader=loader(),
            validation=None,
            validate=None,
        )
        keep(objective, folder)
        for term in taught:
            values = [point["parts"][term.name] for point in fitted.points]
            fallen[term.name] = (values[0] - values[-1]) / abs(values[0])
    assert fallen
    assert min(fallen.values()) >= 0.1, fallen


@pytest.mark.parametrize("name", VECTORS)
def test_a_term_on_vectors_falls_and_moves_the_students_first_layer(name):
    (phase,) = load(SHOWN[name])[0].phases
    teacher = teacher_of("soft_target")
    student, _ = student_of(checked("soft_target"), teacher)
    asked = TorchTeacher(teacher, output="embedding")
    terms = build.terms(phase.objective, Source())
    task = Embedding(dimension=10)
    objective = Objective(terms, task=task, offers=asked.offers)
    for term in objective.terms:
        assert reaches_the_first_layer(term, objective, student, asked)
    fitted = fit(
        student=student,
        objective=objective,
        teacher=asked,
        training=training(EPOCHS),
        loader=loader(),
        validation=None,
        validate=None,
    )
    for term in objective.terms:
        values = [point["parts"][term.name] for point in fitted.points]
        assert (values[0] - values[-1]) / values[0] >= 0.1, term.name
