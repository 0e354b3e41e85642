"""Whether the layers that another task is to read are there, before hours of training."""

import torch
from torch import nn

from understudy.features.hooks import capture
from understudy.models.deployable import Deployable, inner
from understudy.pipeline.chain import dry_run
from understudy.pipeline.fresh import fresh_student
from understudy.pipeline.work import Work


def check_layers(work: Work, teacher: nn.Module | None) -> None:
    """Look for the layers that `transfer` names, in the student as the last step leaves it too.

    Raises:
        ModelError: there is no such layer, or it does not run; the near ones are told.
    """
    section = work.recipe.transfer
    done = (work.folder / "transfer" / "heads" / "stage.json").is_file()
    if section is None or done or not work.crew.leads:
        return
    if section.teacher_features and teacher is not None:
        _run(work, teacher, section.teacher_features)
    if section.features:
        seed = work.recipe.seed_list[0]
        module = fresh_student(work, seed).module
        if isinstance(module, Deployable):
            module = dry_run(work, module, seed=seed)
        _run(work, module, section.features)


def _run(work: Work, module: nn.Module, spot: str) -> None:
    rows = torch.from_numpy(work.material.rows.inputs[work.material.splits.train[:2]])
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), capture(inner(module), [spot]) as captured:
            module(rows)
        captured.found()
    finally:
        for part, mode in modes.items():
            part.training = mode
