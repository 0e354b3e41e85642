"""An exported ONNX file at work: its metadata, its answers and its speed.

NumPy and ONNX Runtime only, no torch: this is what runs where a student is deployed. A table is
read with the standard library; a picture needs Pillow, a text the library tokenizers.
"""

from understudy.deployed.answers import answers
from understudy.deployed.rows import load_rows
from understudy.deployed.session import Deployed
from understudy.deployed.texts import text_rows
from understudy.deployed.timing import Latency, available_threads, summarise, time_calls
from understudy.deployed.word_answers import word_answers

__all__ = [
    "Deployed",
    "Latency",
    "answers",
    "available_threads",
    "load_rows",
    "summarise",
    "text_rows",
    "time_calls",
    "word_answers",
]
