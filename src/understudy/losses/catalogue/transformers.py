"""The rows of the losses on transformers: hidden states, attention, relations between tokens."""

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
from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.hidden import PKD, TinyBERTHidden, pkd, tinybert_hidden

_TASKS: Final = ("classification", "regression", "embedding")
_WHOLE: Final = "it compares features, not outcomes"

TRANSFORMERS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "tinybert_hidden": Row(
            loss=TinyBERTHidden,
            function=tinybert_hidden,
            needs=("features",),
            reads="features",
            labels=False,
            family="transformers",
            paper="Jiao et al. 2020, TinyBERT, s. 3, eq. 8 and 9",
            authors=Authors(
                source="huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py",
                note="equal without a mask; their mean counts padding too",
            ),
            usual_weight="1 per pair of layers beside 1 on tinybert_attention",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            adapter="match",
        ),
        "tinybert_attention": Row(
            loss=TinyBERTAttention,
            function=tinybert_attention,
            needs=("features",),
            reads="features",
            labels=False,
            family="transformers",
            paper="Jiao et al. 2020, TinyBERT, s. 3, eq. 7",
            authors=Authors(
                source="huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py",
                note="equal without a mask; their mean counts padding too, as 0 in its keys",
            ),
            usual_weight="1 per pair of layers beside 1 on tinybert_hidden",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="each",
            adapter="heads",
        ),
        "minilm": Row(
            loss=MiniLM,
            function=minilm,
            needs=("features",),
            reads="features",
            labels=False,
            family="transformers",
            paper="Wang et al. 2020, MiniLM, s. 3.1 and 3.2",
            authors=Authors(
                source="the paper, equations 2 to 5; microsoft/unilm has models and no loss",
                note="1 / (heads * tokens) is over the real tokens of each row",
            ),
            usual_weight="1, alone",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            which="last",
            adapter="heads",
            settings=MappingProxyType({"give": "qkv"}),
        ),
        "minilm_v2": Row(
            loss=MiniLMv2,
            function=minilm_v2,
            needs=("features",),
            reads="features",
            labels=False,
            family="transformers",
            paper="Wang et al. 2021, MiniLMv2, s. 3.1, eq. 5 and 6",
            authors=Authors(
                source="the paper, equation 5; microsoft/unilm has models and no loss",
                note="the sum of the three; bloomberg/minilmv2.bb takes their mean (weight 1/3)",
            ),
            usual_weight="1, alone",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            which="last",
            adapter="heads",
            settings=MappingProxyType({"give": "qkv"}),
        ),
        "pkd": Row(
            loss=PKD,
            function=pkd,
            needs=("features",),
            reads="features",
            labels=False,
            family="transformers",
            paper="Sun et al. 2019, Patient Knowledge Distillation, s. 3.2, eq. 7",
            authors=Authors(
                source="intersun/PKD-for-BERT-Model-Compression, src/KD_loss.py, patience_loss",
                note="the mean over columns and over pairs of layers; the paper has both as sums. "
                "Their code rounds the scalar to half precision. A row of zeros has no gradient; "
                "theirs is about 1e12",
            ),
            usual_weight="10 to 1000 beside 0.3 on hard_label and 0.7 on soft_target",
            tasks=_TASKS,
            whole=_WHOLE,
            layers="all",
            adapter="match",
        ),
    }
)
