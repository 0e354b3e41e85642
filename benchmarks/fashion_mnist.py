"""Fashion-MNIST: a convolutional network trained here into one of a thirtieth of its size.

Reduced: 10,000 rows, teacher and student 8 epochs. In full: all rows and the recipe's epochs.
"""

from on_recipe import measure

if __name__ == "__main__":
    reduced = ["data.rows=10000", "teacher.training.epochs=8", "steps.0.training.epochs=8"]
    measure("fashion_mnist", reduced=reduced, full=[], seeds=3)
