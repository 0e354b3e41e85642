"""A hundred labels for the student, all for the teacher: the README's table."""

from on_recipe import ROOT, measure

if __name__ == "__main__":
    measure("few_labels", reduced=[], full=[], seeds=5, page=ROOT / "README.md")
