"""The one engine: a student, an objective and a teacher in Lightning's loop.

Whatever the method, training is this: no method brings its own trainer. Random numbers are seeded
at the start of every epoch from (seed, epoch), so a run that goes on from an epoch boundary is
bit for bit the run that was never interrupted, dropout included.
"""

from understudy.engine.fitting import OURS, Fitted, fit, quiet_lightning
from understudy.engine.keeper import CHECKPOINT
from understudy.engine.module import Validate, learning_rate_factor
from understudy.engine.on_policy import OnPolicy, Writing
from understudy.engine.precision import Picked, pick
from understudy.engine.probing import BATCHES, Reading, probe

__all__ = [
    "BATCHES",
    "CHECKPOINT",
    "OURS",
    "Fitted",
    "OnPolicy",
    "Picked",
    "Reading",
    "Validate",
    "Writing",
    "fit",
    "learning_rate_factor",
    "pick",
    "probe",
    "quiet_lightning",
]
