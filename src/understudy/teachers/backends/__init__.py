"""One module, several ways to run it; the fastest that answers alike is taken.

A teacher that is a PyTorch module is asked once for every row, so what counts is rows per second.
`BACKENDS` lists the ways, `choose` times them on the user's own rows, `prepare` makes one.
"""

from understudy.teachers.backends.choosing import alike, choose
from understudy.teachers.backends.chosen import Chosen, Tried
from understudy.teachers.backends.forms import BACKENDS, Backend, Forms, prepare
from understudy.teachers.backends.pieces import InPieces

__all__ = [
    "BACKENDS",
    "Backend",
    "Chosen",
    "Forms",
    "InPieces",
    "Tried",
    "alike",
    "choose",
    "prepare",
]
