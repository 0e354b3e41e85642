"""Losses: tensors in, one value per row out, and the one table that lists them by `kind`.

Constraints on weights stand in it too: weights in, one value out.

To add one: a function and a class in the file of what it matches, a row in the table of its family,
a test file, a section in the manual.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.attention import (
    MiniLM,
    MiniLMv2,
    TinyBERTAttention,
    minilm,
    minilm_v2,
    tinybert_attention,
)
from understudy.losses.boundaries import ActivationBoundary, Overhaul, activation_boundary, overhaul
from understudy.losses.catalogue import Authors, Row
from understudy.losses.catalogue.embeddings import EMBEDDINGS
from understudy.losses.catalogue.features import FEATURES
from understudy.losses.catalogue.logits import LOGITS
from understudy.losses.catalogue.relations import RELATIONS
from understudy.losses.catalogue.transformers import TRANSFORMERS
from understudy.losses.catalogue.values import VALUES
from understudy.losses.catalogue.weights import WEIGHTS
from understudy.losses.congruence import CorrelationCongruence, correlation_congruence
from understudy.losses.contrastive import CRD, crd
from understudy.losses.correlation import DIST, dist
from understudy.losses.decoupled import DKD, NKD, dkd, nkd
from understudy.losses.distances import RKDAngle, RKDDistance, rkd_angle, rkd_distance
from understudy.losses.divergences import JensenShannon, ReverseKL, jensen_shannon, reverse_kl
from understudy.losses.embeddings import (
    CosineDistance,
    Matryoshka,
    ScoreDistribution,
    cosine_distance,
    matryoshka,
    score_distribution,
)
from understudy.losses.factors import FactorTransfer, Paraphraser, factor_transfer, paraphraser
from understudy.losses.flow import FSP, SimilarityPreserving, fsp, similarity_preserving
from understudy.losses.free import TeacherFree, teacher_free
from understudy.losses.heads import binary_soft_target_kl, hard_labels
from understudy.losses.hidden import PKD, TinyBERTHidden, pkd, tinybert_hidden
from understudy.losses.hints import MGD, Hint, SimKD, hint, mgd, simkd
from understudy.losses.logits import (
    HardLabel,
    LogitMSE,
    SoftTargetKL,
    hard_label,
    logit_mse,
    soft_target_kl,
)
from understudy.losses.maps import AttentionTransfer, ChannelWise, attention_transfer, channel_wise
from understudy.losses.multi_level import MultiLevel, multi_level
from understudy.losses.orthogonal import Orthogonality, orthogonality
from understudy.losses.review import Review, review
from understudy.losses.selectivity import NST, nst
from understudy.losses.similarities import CKA, PKT, cka, pkt
from understudy.losses.skewed import SkewKL, skew_kl
from understudy.losses.sparse import outcome_kl, sampled_kl
from understudy.losses.standardized import Standardized, standardize
from understudy.losses.tempered import CTKD, ctkd
from understudy.losses.values import HardValue, SoftValue, hard_value, soft_value
from understudy.losses.variational import VID, vid
from understudy.losses.vectors import BatchMargin, EmbeddingMSE, batch_margin, embedding_mse
from understudy.losses.weighted import WSLD, wsld
from understudy.losses.weights import L2SP, NormBall, l2_sp, norm_ball

__all__ = [
    "CATALOGUE",
    "CKA",
    "CRD",
    "CTKD",
    "DIST",
    "DKD",
    "FSP",
    "L2SP",
    "MGD",
    "NKD",
    "NST",
    "PKD",
    "PKT",
    "VID",
    "WSLD",
    "ActivationBoundary",
    "AttentionTransfer",
    "Authors",
    "BatchMargin",
    "ChannelWise",
    "CorrelationCongruence",
    "CosineDistance",
    "EmbeddingMSE",
    "FactorTransfer",
    "HardLabel",
    "HardValue",
    "Hint",
    "JensenShannon",
    "LogitMSE",
    "Matryoshka",
    "MiniLM",
    "MiniLMv2",
    "MultiLevel",
    "NormBall",
    "Orthogonality",
    "Overhaul",
    "Paraphraser",
    "RKDAngle",
    "RKDDistance",
    "ReverseKL",
    "Review",
    "Row",
    "ScoreDistribution",
    "SimKD",
    "SimilarityPreserving",
    "SkewKL",
    "SoftTargetKL",
    "SoftValue",
    "Standardized",
    "TeacherFree",
    "TinyBERTAttention",
    "TinyBERTHidden",
    "activation_boundary",
    "attention_transfer",
    "batch_margin",
    "binary_soft_target_kl",
    "channel_wise",
    "cka",
    "correlation_congruence",
    "cosine_distance",
    "crd",
    "ctkd",
    "dist",
    "dkd",
    "embedding_mse",
    "factor_transfer",
    "fsp",
    "hard_label",
    "hard_labels",
    "hard_value",
    "hint",
    "jensen_shannon",
    "l2_sp",
    "logit_mse",
    "matryoshka",
    "mgd",
    "minilm",
    "minilm_v2",
    "multi_level",
    "nkd",
    "norm_ball",
    "nst",
    "orthogonality",
    "outcome_kl",
    "overhaul",
    "paraphraser",
    "pkd",
    "pkt",
    "reverse_kl",
    "review",
    "rkd_angle",
    "rkd_distance",
    "sampled_kl",
    "score_distribution",
    "similarity_preserving",
    "simkd",
    "skew_kl",
    "soft_target_kl",
    "soft_value",
    "standardize",
    "teacher_free",
    "tinybert_attention",
    "tinybert_hidden",
    "vid",
    "wsld",
]

CATALOGUE: Final[Mapping[str, Row]] = MappingProxyType(
    {
        **LOGITS,
        **VALUES,
        **FEATURES,
        **RELATIONS,
        **TRANSFORMERS,
        **EMBEDDINGS,
        **WEIGHTS,
    }
)
