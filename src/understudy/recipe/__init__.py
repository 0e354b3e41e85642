"""A recipe: a run written down as YAML, typed and strict. No torch here."""

from understudy.recipe.cuts import (
    Cut,
    DepthCut,
    Importance,
    LowRankCut,
    ScratchCut,
    SharingCut,
    WidthCut,
)
from understudy.recipe.load import BrokenRecipeError, Source, load, loads, validate
from understudy.recipe.models import MemberSection, StudentSection, TeacherSection
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
    Recipe,
    TransferSection,
    default_objective,
)
from understudy.recipe.steps import (
    CutStep,
    DistilStep,
    Learning,
    Link,
    Phase,
    PruneStep,
    QuantizeStep,
    Step,
)
from understudy.recipe.write import starter, to_data, to_yaml

__all__ = [
    "BrokenRecipeError",
    "Cut",
    "CutStep",
    "DepthCut",
    "DistilStep",
    "EarlyStopping",
    "Entry",
    "FoundLayers",
    "Importance",
    "LabelsSection",
    "LayerPair",
    "Learning",
    "LearningRate",
    "Link",
    "LowRankCut",
    "MemberSection",
    "Optimizer",
    "Phase",
    "PruneStep",
    "QuantizeStep",
    "Recipe",
    "Schedule",
    "ScratchCut",
    "SharingCut",
    "Source",
    "Step",
    "StudentSection",
    "TeacherSection",
    "TermEntry",
    "Training",
    "TransferSection",
    "WidthCut",
    "default_objective",
    "load",
    "loads",
    "starter",
    "to_data",
    "to_yaml",
    "validate",
]
