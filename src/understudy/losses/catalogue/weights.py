"""The rows of the constraints on the student's weights."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.orthogonal import Orthogonality, orthogonality
from understudy.losses.weights import L2SP, NormBall, l2_sp, norm_ball

_TASKS: Final = ("classification", "regression", "embedding")

WEIGHTS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "l2_sp": Row(
            loss=L2SP,
            function=l2_sp,
            needs=(),
            reads="weights",
            labels=False,
            family="weights",
            paper="Li, Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer "
            "Learning, s. 3",
            authors=Authors(
                source="the paper, section 3, L2-SP",
                note="alpha may be the term's weight, or stand beside a weight of 1",
            ),
            usual_weight="0.01 beside the terms that teach, with beta as large as alpha",
            tasks=_TASKS,
            whole=None,
            control=True,
        ),
        "norm_ball": Row(
            loss=NormBall,
            function=norm_ball,
            needs=(),
            reads="weights",
            labels=False,
            family="weights",
            paper="Gouk, Hospedales and Pontil 2021, Distance-Based Regularisation of Deep "
            "Networks for Fine-Tuning, s. 4",
            authors=Authors(
                source="the paper, section 4, where weights are projected: hold: projection",
                note="the penalty outside the ball is the soft form; they also have another norm, "
                "the largest sum of a row",
            ),
            usual_weight="1 beside the terms that teach",
            tasks=_TASKS,
            whole=None,
            control=True,
        ),
        "orthogonality": Row(
            loss=Orthogonality,
            function=orthogonality,
            needs=(),
            reads="weights",
            labels=False,
            family="weights",
            paper="Bansal, Chen and Wang 2018, Can We Gain More from Orthogonality "
            "Regularizations in Training Deep CNNs?, s. 3",
            authors=Authors(
                source="the paper, section 3: SO, DSO, MC and SRIP",
                note="they take the columns' side always, which adds a constant where it is the "
                "larger one; SRIP begins with a random vector there, and with the longest column "
                "here",
            ),
            usual_weight="0.0001 beside the terms that teach",
            tasks=_TASKS,
            whole=None,
            control=True,
        ),
    }
)
