"""What a model is worth: its scores, its likeness to the teacher, its cost, and the verdict.

`quality` scores one model on labelled rows, with intervals. `fidelity` compares a student with its
teacher. `cost` measures time and size. `verdict` says whether the teacher helped at all.
"""
