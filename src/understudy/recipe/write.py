"""A recipe back to YAML and plain data, and the commented starter that `init` writes."""

from typing import Any

import yaml

from understudy.recipe.lines import NUMBER
from understudy.recipe.sections import Recipe

STARTER = """\
# yaml-language-server: $schema=./understudy.schema.json
# A run of Understudy, written down. Check it with `understudy check {file}`, run it with
# `understudy run {file}`. What is left out has a default; `understudy schema` lists them all.

task: {{kind: classification}}

data:
  source: {{kind: digits}}       # or arrays, idx, csv, parquet, images, custom
  test: 0.45                   # share of rows kept for the one final examination
  validation: 0.1              # share of the other rows, for choosing
  labelled: 100                # the student sees 100 hard labels; on the other rows only the
                               # teacher speaks. Remove the line to give it every label.

teacher:                       # `weights: file.safetensors` instead of `training` loads one
  model: {{kind: convnet}}
  training: {{epochs: 30, batch_size: 64}}

student:
  model: {{kind: mlp, hidden: [32]}}

steps:
  - kind: distil
    objective:
      - {{kind: hard_label, weight: 0.1}}
      - {{kind: soft_target, weight: 0.9, temperature: 4}}
    training:
      epochs: 60
      batch_size: 64
      optimizer: {{kind: adamw, learning_rate: 0.005}}

budget:                        # a student outside is never recommended
  parameters: 2650

seeds: 5                       # student and control are trained once per seed
"""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever our reader, or an older one, would take for something else than a text."""


_Dumper.add_implicit_resolver(*NUMBER)


def starter(file: str) -> str:
    """A commented recipe that runs as it is."""
    return STARTER.format(file=file)


def to_data(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data, defaults included."""
    return recipe.model_dump(mode="json")


def to_yaml(recipe: Recipe) -> str:
    """A recipe as YAML, defaults included; reading it back gives an equal recipe."""
    return yaml.dump(to_data(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
