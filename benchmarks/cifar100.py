"""The real ResNet-32 (71.7 %) into our 16-channel ResNet-8.

Reduced: 10,000 rows and 10 epochs. In full: all rows, 30 epochs. Three seeds.
"""

from on_recipe import measure

if __name__ == "__main__":
    reduced = ["data.rows=10000", "steps.0.training.epochs=10"]
    measure("cifar100", reduced=reduced, full=[], seeds=3)
