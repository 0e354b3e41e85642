"""The demo's recipe: every label for everybody."""

from on_recipe import measure

if __name__ == "__main__":
    measure("digits", reduced=[], full=[], seeds=5)
