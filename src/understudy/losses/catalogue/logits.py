"""The rows of the losses on logits."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.logits import (
    HardLabel,
    LogitMSE,
    SoftTargetKL,
    hard_label,
    logit_mse,
    soft_target_kl,
)

LOGITS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "hard_label": Row(
            loss=HardLabel,
            function=hard_label,
            needs=(),
            reads="logits",
            labels=True,
            family="logits",
            paper="smoothing: Szegedy et al. 2016, Rethinking the Inception Architecture, s. 7",
            authors=Authors(source="the paper, section 7"),
            usual_weight="1 alone; 0.1 to 0.5 beside soft_target",
            tasks=("classification",),
            whole=None,
            control=True,
        ),
        "soft_target": Row(
            loss=SoftTargetKL,
            function=soft_target_kl,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, s. 2",
            authors=Authors(
                source="the paper, section 2; in code as HobbitLong/RepDistiller, distiller_zoo/KD.py",
                note="some toolkits leave T² out, or divide by the number of classes too",
            ),
            usual_weight="0.9 beside 0.1 on hard_label, at temperature 4",
            tasks=("classification",),
            whole=None,
        ),
        "logit_mse": Row(
            loss=LogitMSE,
            function=logit_mse,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?, s. 2.2",
            authors=Authors(
                source="the paper, section 2.2, where it is half the sum over classes",
                note="the mean over classes, as all toolkits have it",
            ),
            usual_weight="0.1 to 1 beside hard_label",
            tasks=("classification",),
            whole="it compares bare logits, class by class; listed outcomes are log probabilities, "
            "which leave out most classes and the constant that a softmax cannot see",
        ),
    }
)
