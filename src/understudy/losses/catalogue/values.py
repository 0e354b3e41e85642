"""The rows of the losses on real numbers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue.row import Authors, Row
from understudy.losses.values import HardValue, SoftValue, hard_value, soft_value

VALUES: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "hard_value": Row(
            loss=HardValue,
            function=hard_value,
            needs=(),
            reads="values",
            labels=True,
            family="values",
            paper="none: the ordinary squared error",
            authors=Authors(source="the definition"),
            usual_weight="1 alone; 0.5 beside soft_value",
            tasks=("regression",),
            whole=None,
            control=True,
        ),
        "soft_value": Row(
            loss=SoftValue,
            function=soft_value,
            needs=("values",),
            reads="values",
            labels=False,
            family="values",
            paper="Bucila, Caruana and Niculescu-Mizil 2006, Model Compression",
            authors=Authors(source="the definition"),
            usual_weight="0.5 beside 0.5 on hard_value; 1 where rows have no label",
            tasks=("regression",),
            whole="values are not a distribution: there are no outcomes to list",
        ),
    }
)
