"""The rows of the losses on features."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.boundaries import (
    ActivationBoundary,
    Overhaul,
    activation_boundary,
    overhaul,
)
from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.factors import (
    FactorTransfer,
    Paraphraser,
    factor_transfer,
    paraphraser,
)
from understudy.losses.flow import FSP, SimilarityPreserving, fsp, similarity_preserving
from understudy.losses.hints import MGD, Hint, SimKD, hint, mgd, simkd
from understudy.losses.maps import (
    AttentionTransfer,
    ChannelWise,
    attention_transfer,
    channel_wise,
)
from understudy.losses.review import Review, review
from understudy.losses.selectivity import NST, nst
from understudy.losses.variational import VID, vid

_TASKS: Final = ("classification", "regression")
_WHOLE: Final = "it compares features, not outcomes"

FEATURES: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "hint": Row(
            loss=Hint,
            function=hint,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Romero et al. 2015, FitNets: Hints for Thin Deep Nets, s. 2.2",
            authors=Authors(
                source="the paper, equation 3",
                arguments=MappingProxyType({"form": "sum"}),
                note="their code (adri-romsor/FitNets) has half of a sum over one axis, and the "
                "mean over the others; all later toolkits have the mean, and so has the default",
            ),
            usual_weight="100 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="middle",
            adapter="match",
        ),
        "attention_transfer": Row(
            loss=AttentionTransfer,
            function=attention_transfer,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Zagoruyko and Komodakis 2017, Paying More Attention to Attention, s. 3.1",
            authors=Authors(
                source="szagoruyko/attention-transfer, cifar.py",
                note="the paper has half of the distance, not squared (form: paper); for odd "
                "exponents RepDistiller and mdistiller take no absolute value",
            ),
            usual_weight="1000 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            adapter="pool",
        ),
        "nst": Row(
            loss=NST,
            function=nst,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Huang and Wang 2017, Like What You Like, s. 4",
            authors=Authors(
                source="TuSimple/neuron-selectivity-transfer, symbol/transfer.py",
                arguments=MappingProxyType({"form": "student"}),
                note="they leave out the term of the teacher alone, a constant, so that nothing is "
                "0 at equality; the default has it, as the paper does",
            ),
            usual_weight="50 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            adapter="pool",
        ),
        "fsp": Row(
            loss=FSP,
            function=fsp,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Yim et al. 2017, A Gift from Knowledge Distillation, s. 3.2 and 3.3",
            authors=Authors(
                source="the paper, equations 1 and 2",
                arguments=MappingProxyType({"form": "sum"}),
                note="the paper sums over a matrix; RepDistiller has the mean, as the default, and "
                "average pooling (pool: average)",
            ),
            usual_weight="50 alone, in a first phase",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            adapter="match",
        ),
        "similarity_preserving": Row(
            loss=SimilarityPreserving,
            function=similarity_preserving,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Tung and Mori 2019, Similarity-Preserving Knowledge Distillation, s. 2",
            authors=Authors(
                source="the paper, equation 4; HobbitLong/RepDistiller, distiller_zoo/SP.py, is "
                "marked there as verified by the author",
                note="a row of zeros has no gradient; theirs is about 1e11. torchdistill divides "
                "rows by the sum of their absolute values instead",
            ),
            usual_weight="3000 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            related=True,
        ),
        "paraphraser": Row(
            loss=Paraphraser,
            function=paraphraser,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Kim, Park and Kwak 2018, Paraphrasing Complex Network, s. 3.1",
            authors=Authors(
                source="Jangho-Kim/Factor-Transfer-pytorch, train_factor.py",
            ),
            usual_weight="1 alone, in a first phase before factor_transfer",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="paraphrase",
            teaches=False,
        ),
        "factor_transfer": Row(
            loss=FactorTransfer,
            function=factor_transfer,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Kim, Park and Kwak 2018, Paraphrasing Complex Network, s. 3",
            authors=Authors(
                source="Jangho-Kim/Factor-Transfer-pytorch, train_student.py",
                note="the paper sums where the code has the mean; RepDistiller compares the mean "
                "over channels of the squared factor (form: map), at weight 200. A factor of zeros "
                "has no gradient; theirs is about 1e12",
            ),
            usual_weight="500 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="factors",
        ),
        "activation_boundary": Row(
            loss=ActivationBoundary,
            function=activation_boundary,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Heo et al. 2019, Knowledge Transfer via Distillation of Activation Boundaries, "
            "AAAI, s. 3",
            authors=Authors(
                source="bhheo/AB_distillation, cifar10_AB_distillation.py",
                note="their transfer from ImageNet multiplies by 1/1000 (scale: 0.001); "
                "Knowledge-Distillation-Zoo has the mean, mmrazor no weights of layers",
            ),
            usual_weight="1 alone, in a first phase",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            adapter="connect",
        ),
        "overhaul": Row(
            loss=Overhaul,
            function=overhaul,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Heo et al. 2019, A Comprehensive Overhaul of Feature Distillation, ICCV, s. 3",
            authors=Authors(
                source="clovaai/overhaul-distillation, CIFAR-100/distiller.py and "
                "train_with_distillation.py",
                note="on ImageNet they multiply by 1/10000 (scale: 0.0001); mdistiller has the "
                "1/1000 in its weight instead",
            ),
            usual_weight="1 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            adapter="connect",
        ),
        "vid": Row(
            loss=VID,
            function=vid,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Ahn et al. 2019, Variational Information Distillation, s. 2",
            authors=Authors(
                source="the paper, section 2; HobbitLong/RepDistiller, distiller_zoo/VID.py, is "
                "the author's code",
                note="mdistiller has the same formula, but its variances do not learn",
            ),
            usual_weight="1 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            adapter="variance",
        ),
        "mgd": Row(
            loss=MGD,
            function=mgd,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Yang et al. 2022, Masked Generative Distillation, s. 3",
            authors=Authors(
                source="yzd-v/MGD, cls/mmcls/distillation/losses/mgd.py",
                note="the weight is inside their loss: 0.00007 for classification, 0.00002 and "
                "less for detection and segmentation",
            ),
            usual_weight="0.00007 beside 1 on hard_label",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="generate",
        ),
        "channel_wise": Row(
            loss=ChannelWise,
            function=channel_wise,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Shu et al. 2021, Channel-wise Knowledge Distillation for Dense Prediction, "
            "s. 3.2",
            authors=Authors(
                source="irfanICMLL/TorchDistiller, SemSeg-distill/utils/criterion.py",
                note="they take the logarithm of a softmax, which is -inf for a gap of 104",
            ),
            usual_weight="50 beside 1 on hard_label; 3 on maps of logits",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
            adapter="match",
        ),
        "review": Row(
            loss=Review,
            function=review,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Chen et al. 2021, Distilling Knowledge via Knowledge Review, s. 3",
            authors=Authors(
                source="dvlab-research/ReviewKD, CIFAR-100/model/reviewkd.py",
                note="they look at the height alone, so an oblong map is stretched: sides: both "
                "does not",
            ),
            usual_weight="0.6 to 8 beside 1 on hard_label, risen to over 20 epochs",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            adapter="fuse",
        ),
        "simkd": Row(
            loss=SimKD,
            function=simkd,
            needs=("features",),
            reads="features",
            labels=False,
            family="features",
            paper="Chen et al. 2022, Knowledge Distillation with the Reused Teacher Classifier, "
            "s. 3",
            authors=Authors(source="DefangChen/SimKD, helper/loops.py"),
            usual_weight="1 alone",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            which="last",
        ),
    }
)
