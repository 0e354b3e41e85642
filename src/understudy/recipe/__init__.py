"""A recipe: a run written down as YAML, typed and strict. No torch here."""

from understudy.recipe.load import BrokenRecipeError, Source, load, loads, validate
from understudy.recipe.parts import (
    EarlyStopping,
    Entry,
    FoundLayers,
    LayerPair,
    LearningRate,
    Optimizer,
    Schedule,
    TermEntry,
    Training,
)
from understudy.recipe.sections import (
    LabelsSection,
    MemberSection,
    Phase,
    Recipe,
    Step,
    TeacherSection,
    default_objective,
)
from understudy.recipe.write import starter, to_data, to_yaml

__all__ = [
    "BrokenRecipeError",
    "EarlyStopping",
    "Entry",
    "FoundLayers",
    "LabelsSection",
    "LayerPair",
    "LearningRate",
    "MemberSection",
    "Optimizer",
    "Phase",
    "Recipe",
    "Schedule",
    "Source",
    "Step",
    "TeacherSection",
    "TermEntry",
    "Training",
    "default_objective",
    "load",
    "loads",
    "starter",
    "to_data",
    "to_yaml",
    "validate",
]
