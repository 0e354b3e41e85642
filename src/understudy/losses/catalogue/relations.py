"""The rows of the losses on relations between examples."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.congruence import CorrelationCongruence, correlation_congruence
from understudy.losses.contrastive import CRD, crd
from understudy.losses.distances import RKDAngle, RKDDistance, rkd_angle, rkd_distance
from understudy.losses.similarities import CKA, PKT, cka, pkt

_TASKS: Final = ("classification", "regression")
_WHOLE: Final = "it compares features, not outcomes"

RELATIONS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "rkd_distance": Row(
            loss=RKDDistance,
            function=rkd_distance,
            needs=("features",),
            reads="features",
            labels=False,
            family="relations",
            paper="Park et al. 2019, Relational Knowledge Distillation, s. 3.2.1",
            authors=Authors(
                source="lenscloth/RKD, metric/loss.py, RkdDistance",
                note="equal where no two rows are: two equal ones are at distance 1e-6 there, and "
                "in the mean; some toolkits bring rows to length 1 first, or count the diagonal",
            ),
            usual_weight="25 beside 50 on rkd_angle",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="flat",
            related=True,
        ),
        "rkd_angle": Row(
            loss=RKDAngle,
            function=rkd_angle,
            needs=("features",),
            reads="features",
            labels=False,
            family="relations",
            paper="Park et al. 2019, Relational Knowledge Distillation, s. 3.2.2",
            authors=Authors(
                source="lenscloth/RKD, metric/loss.py, RKdAngle",
                note="equal where no two rows nearly are; the gradient of those is 1e9 there",
            ),
            usual_weight="50 beside 25 on rkd_distance",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="flat",
            related=True,
        ),
        "pkt": Row(
            loss=PKT,
            function=pkt,
            needs=("features",),
            reads="features",
            labels=False,
            family="relations",
            paper="Passalis and Tefas 2018, Probabilistic Knowledge Transfer, s. 3",
            authors=Authors(
                source="passalis/probabilistic_kt, nn/pkt.py, cosine_similarity_loss",
                note="a sum over one axis instead of the mean wants 30000 / batch as its weight; "
                "AberHu/Knowledge-Distillation-Zoo has 1e-6 in place of 1e-7",
            ),
            usual_weight="30000 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="flat",
            related=True,
        ),
        "correlation_congruence": Row(
            loss=CorrelationCongruence,
            function=correlation_congruence,
            needs=("features",),
            reads="features",
            labels=False,
            family="relations",
            paper="Peng et al. 2019, Correlation Congruence for Knowledge Distillation, s. 3.3",
            authors=Authors(
                source="HobbitLong/RepDistiller, distiller_zoo/CC.py, after what an author sent",
                arguments=MappingProxyType({"form": "neighbours"}),
                note="they published none of it themselves. It depends on the order of the batch, "
                "so the default is the paper's, sections 3.3 and 3.4: form: kernel",
            ),
            usual_weight="100 beside soft_target; 0.02 with form=neighbours",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="embed",
            related=True,
        ),
        "crd": Row(
            loss=CRD,
            function=crd,
            needs=("features",),
            reads="features",
            labels=False,
            family="relations",
            paper="Tian et al. 2020, Contrastive Representation Distillation, s. 3.2",
            authors=Authors(
                source="HobbitLong/RepDistiller, crd/criterion.py and crd/memory.py",
                note="they draw the negatives of a row without repetition where there are enough; "
                "here each is drawn by itself, which has the same mean",
            ),
            usual_weight="0.8 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="contrast",
        ),
        "cka": Row(
            loss=CKA,
            function=cka,
            needs=("features",),
            reads="features",
            labels=False,
            family="relations",
            paper="Kornblith et al. 2019, Similarity of Neural Network Representations, s. 3",
            authors=Authors(
                source="the paper, section 3, where it is a measure and not a loss",
                note="the plain (biased) estimate of a batch, as a loss 1 - CKA",
            ),
            usual_weight="1 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="flat",
            related=True,
        ),
    }
)
