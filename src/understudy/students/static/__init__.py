"""A student without any layer: a vector per token, added up.

`bags` is the sparse matrix of texts and tokens, `closed_form` finds the vectors by a regression,
`encoder` is the module that learns them further.
"""

from understudy.students.static.bags import Bags
from understudy.students.static.closed_form import (
    ClosedForm,
    fit_token_vectors,
    principal_axes,
    sif_weights,
)
from understudy.students.static.encoder import StaticEncoder
from understudy.students.static.prior import single_token_vectors

__all__ = [
    "Bags",
    "ClosedForm",
    "StaticEncoder",
    "fit_token_vectors",
    "principal_axes",
    "sif_weights",
    "single_token_vectors",
]
