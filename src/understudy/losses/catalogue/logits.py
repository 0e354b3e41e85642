"""The rows of the losses on logits."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.correlation import DIST, dist
from understudy.losses.decoupled import DKD, NKD, dkd, nkd
from understudy.losses.divergences import JensenShannon, ReverseKL, jensen_shannon, reverse_kl
from understudy.losses.free import TeacherFree, teacher_free
from understudy.losses.logits import (
    HardLabel,
    LogitMSE,
    SoftTargetKL,
    hard_label,
    logit_mse,
    soft_target_kl,
)
from understudy.losses.multi_level import MultiLevel, multi_level
from understudy.losses.skewed import SkewKL, skew_kl
from understudy.losses.standardized import Standardized, standardize
from understudy.losses.tempered import CTKD, ctkd
from understudy.losses.weighted import WSLD, wsld

_STUDENT_SIDE: Final = (
    "its classes are weighed by the student, who may put mass on any class; listed outcomes tell "
    "the teacher's for some classes only"
)
_BOTH_SIDES: Final = (
    "it asks of every class how far the student's probability is from the teacher's, in both "
    "directions; listed outcomes tell the teacher's for some classes only"
)
_TRUE_CLASS: Final = (
    "it sets the true class apart from the others, and listed outcomes need not name it"
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
                source="the paper, section 2; as coded in HobbitLong/RepDistiller, "
                "distiller_zoo/KD.py",
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
                arguments=MappingProxyType({"form": "half_sum"}),
                note="toolkits have the mean over classes, as the default",
            ),
            usual_weight="0.1 to 1 beside hard_label",
            tasks=("classification",),
            whole="it compares bare logits, class by class; listed outcomes are log probabilities, "
            "which leave out most classes and the constant that a softmax cannot see",
        ),
        "reverse_kl": Row(
            loss=ReverseKL,
            function=reverse_kl,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Gu et al. 2024, MiniLLM, s. 2.1",
            authors=Authors(
                source="jongwooko/distillm, distillm/losses.py, reverse_kl; the paper, s. 2.1, "
                "takes it of whole sequences",
                note="at temperature 1; at any other T² is inside here, and in no published code",
            ),
            usual_weight="1, alone or beside hard_label, at temperature 1",
            tasks=("classification",),
            whole=_STUDENT_SIDE,
        ),
        "jensen_shannon": Row(
            loss=JensenShannon,
            function=jensen_shannon,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Agarwal et al. 2024, On-Policy Distillation of Language Models (GKD), s. 2",
            authors=Authors(
                source="the paper, s. 2; as coded in huggingface/trl, trl/trainer/gkd_trainer.py",
                note="at temperature 1: trl leaves T² out. Early versions of trl blend logarithms "
                "instead of probabilities and exchange the weights, which is another number; "
                "jongwooko/distillm gives beta to the student",
            ),
            usual_weight="1, alone or beside hard_label, at temperature 1; beta 0.1, 0.5 or 0.9",
            tasks=("classification",),
            whole=_BOTH_SIDES,
        ),
        "skew_kl": Row(
            loss=SkewKL,
            function=skew_kl,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Ko et al. 2024, DistiLLM: Towards Streamlined Distillation, s. 3.1",
            authors=Authors(
                source="jongwooko/distillm, distillm/losses.py, skewed_forward_kl",
                arguments=MappingProxyType({"form": "cross_entropy"}),
                note="their forward loss leaves out the teacher's entropy: the same gradient, not "
                "0 at equality. Their skewed_reverse_kl is direction: reverse, in the default form",
            ),
            usual_weight="1, alone or beside hard_label, at temperature 1 and skew 0.1",
            tasks=("classification",),
            whole=_BOTH_SIDES,
        ),
        "dkd": Row(
            loss=DKD,
            function=dkd,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Zhao et al. 2022, Decoupled Knowledge Distillation, s. 3.3, eq. 7",
            authors=Authors(
                source="megvii-research/mdistiller, mdistiller/distillers/DKD.py",
                note="their code is infinite where a probability underflows, from a gap of about "
                "100 in float32",
            ),
            usual_weight="1 beside 1 on hard_label, rising over the first 20 epochs",
            tasks=("classification",),
            whole=_TRUE_CLASS,
            also=("labels",),
        ),
        "nkd": Row(
            loss=NKD,
            function=nkd,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Yang et al. 2023, From KD to Self-KD: A Unified Approach, s. 3.1",
            authors=Authors(
                source="yzd-v/cls_KD, mmcls/distillation/losses/nkd.py",
                note="cross entropies, so not 0 at equality",
            ),
            usual_weight="1 beside 1 on hard_label",
            tasks=("classification",),
            whole=_TRUE_CLASS,
            also=("labels",),
        ),
        "wsld": Row(
            loss=WSLD,
            function=wsld,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Zhou et al. 2021, Rethinking Soft Labels for Knowledge Distillation, s. 4",
            authors=Authors(
                source="bellymonster/Weighted-Soft-Label-Distillation, knowledge_distiller.py",
                note="a cross entropy, so not 0 at equality",
            ),
            usual_weight="2.5 beside 1 on hard_label",
            tasks=("classification",),
            whole=_TRUE_CLASS,
            also=("labels",),
        ),
        "dist": Row(
            loss=DIST,
            function=dist,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Huang et al. 2022, Knowledge Distillation from A Stronger Teacher, s. 3",
            authors=Authors(
                source="hunto/DIST_KD, segmentation/losses/dist_kd.py",
                note="they add 1e-8 to the product of the lengths, so small columns are not 0 at "
                "equality; eps: 0 is Pearson's correlation. Their gradient is about 1 / eps where "
                "all classes of a row, or all rows of a class, are equal, and 0 here. torchdistill "
                "bounds each length",
            ),
            usual_weight="1 beside 1 on hard_label",
            tasks=("classification",),
            whole="a correlation needs the probability of every class, in rows and in columns",
            related=True,
        ),
        "ctkd": Row(
            loss=CTKD,
            function=ctkd,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Li et al. 2023, Curriculum Temperature for Knowledge Distillation, s. 3.1",
            authors=Authors(
                source="zhengli97/CTKD, distiller_zoo/KD.py",
                note="one temperature for all rows, their Global-T; their Instance-T gives each "
                "row its own",
            ),
            usual_weight="0.9 beside 0.1 on hard_label, as soft_target",
            tasks=("classification",),
            whole="the gradient of its temperature needs the teacher's logit of every class",
            adapter="temperature",
        ),
        "multi_level": Row(
            loss=MultiLevel,
            function=multi_level,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Jin, Wang and Lin 2023, Multi-Level Logit Distillation, s. 3",
            authors=Authors(
                source="Jin-Ying/Multi-Level-Logit-Distillation, mdistiller/distillers/KD_ours.py",
                note="their terms on the weakly augmented view. On a strongly augmented view they "
                "use instance alone, at 3, 4 and 5, without the mask, and add 2 and 6 of the weak "
                "one again. The paper's equations have no mask: mask: none",
            ),
            usual_weight="0.9 beside 0.1 on hard_label",
            tasks=("classification",),
            whole="products of rows and of classes need the probability of every class",
            related=True,
        ),
        "standardize": Row(
            loss=Standardized,
            function=standardize,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Sun et al. 2024, Logit Standardization in Knowledge Distillation, s. 4",
            authors=Authors(
                source="sunshangquan/logit-standardization-KD, mdistiller/distillers/KD.py",
                note="of the term in `of`; some copies divide by the biased deviation. A row whose "
                "logits are all equal has no gradient; theirs is about 1 / eps",
            ),
            usual_weight="9 beside 0.1 on hard_label, of soft_target at temperature 2",
            tasks=("classification",),
            whole="the mean and the deviation of a row need the logit of every class",
        ),
        "teacher_free": Row(
            loss=TeacherFree,
            function=teacher_free,
            needs=(),
            reads="logits",
            labels=True,
            family="logits",
            paper="Yuan et al. 2020, Revisiting KD via Label Smoothing Regularization, s. 5",
            authors=Authors(
                source="yuanli2333/Teacher-free-Knowledge-Distillation, my_loss_function.py, "
                "loss_kd_regularization",
                note="it disagrees with the paper, which is form: paper",
            ),
            usual_weight="10 beside 0.9 on hard_label; with form: paper 0.1 to 40 (0.1 times tau²)",
            tasks=("classification",),
            whole=None,
        ),
    }
)
