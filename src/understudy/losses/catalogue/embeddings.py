"""The rows of the losses on embeddings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.embeddings import (
    CosineDistance,
    Matryoshka,
    ScoreDistribution,
    cosine_distance,
    matryoshka,
    score_distribution,
)
from understudy.losses.vectors import BatchMargin, EmbeddingMSE, batch_margin, embedding_mse

_TASKS: Final = ("embedding",)
_WHOLE: Final = "a vector is not a distribution: there are no outcomes to list"

EMBEDDINGS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "cosine": Row(
            loss=CosineDistance,
            function=cosine_distance,
            needs=("embedding",),
            reads="embedding",
            labels=False,
            family="embeddings",
            paper="Sanh et al. 2019, DistilBERT, s. 3, there on hidden states",
            authors=Authors(source="the definition"),
            usual_weight="1 alone, or beside 0.3 on score_distribution",
            tasks=_TASKS,
            whole=_WHOLE,
        ),
        "embedding_mse": Row(
            loss=EmbeddingMSE,
            function=embedding_mse,
            needs=("embedding",),
            reads="embedding",
            labels=False,
            family="embeddings",
            paper="Reimers and Gurevych 2020, Making Monolingual Sentence Embeddings Multilingual "
            "using Knowledge Distillation, s. 3",
            authors=Authors(source="UKPLab/sentence-transformers, losses/MSELoss.py"),
            usual_weight="1 alone; half the width where vectors have length 1",
            tasks=_TASKS,
            whole=_WHOLE,
        ),
        "score_distribution": Row(
            loss=ScoreDistribution,
            function=score_distribution,
            needs=("embedding",),
            reads="embedding",
            labels=False,
            family="embeddings",
            paper="Fang et al. 2021, SEED: Self-supervised Distillation for Visual "
            "Representation, s. 3.2",
            authors=Authors(
                source="the paper, section 3.2",
                note="a queue stands there in the place of the batch, the row itself is among the "
                "choices, and the temperatures are 0.2 for the student and 0.01 for the teacher",
            ),
            usual_weight="0.3 beside 1 on cosine",
            tasks=_TASKS,
            whole=_WHOLE,
            related=True,
        ),
        "margin_mse": Row(
            loss=BatchMargin,
            function=batch_margin,
            needs=("embedding",),
            reads="embedding",
            labels=False,
            family="embeddings",
            paper="Hofstätter et al. 2020, Improving Efficient Neural Ranking Models with "
            "Cross-Architecture Knowledge Distillation, s. 3",
            authors=Authors(
                source="sebastian-hofstaetter/neural-ranking-kd, MSMarginLoss",
                note="theirs has one other candidate, which a query was given; here all other rows "
                "of the batch are candidates, and the teacher's nearest is the right one",
            ),
            usual_weight="1 beside 1 on cosine",
            tasks=_TASKS,
            whole=_WHOLE,
            related=True,
        ),
        "matryoshka": Row(
            loss=Matryoshka,
            function=matryoshka,
            needs=("embedding",),
            reads="embedding",
            labels=False,
            family="embeddings",
            paper="Kusupati et al. 2022, Matryoshka Representation Learning, s. 3",
            authors=Authors(
                source="the paper, equation 1",
                note="a sum stands there in the place of the mean: multiply the weight by the "
                "number of widths",
            ),
            usual_weight="1, that of the loss inside it",
            tasks=_TASKS,
            whole=_WHOLE,
        ),
    }
)
