"""Mistakes in `labels` that are seen before anything runs."""

import pytest

from understudy import build
from understudy.errors import RecipeError

RECIPE = """\
teacher: {model: {kind: convnet}, training: {epochs: 1}}
student: {model: {kind: mlp, hidden: [8]}}
data: {source: {kind: digits}, views: [%s]}
labels:
  %s
  on_bad_rows: %s
"""
FLIP = "{kind: flip}"


def mistakes(folder, views, more, on_bad_rows="skip"):
    text = RECIPE % (views, more, on_bad_rows)
    try:
        build.checked(folder / "recipe.yaml", text=text)
    except RecipeError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


@pytest.mark.parametrize(("views", "more", "why", "remedy"), [
    (FLIP, "shard_rows: 64", "random `data.views` without `labels.views`", "set `labels.views: 4`"),
    (FLIP, "use: live", "`use: live`", "remove `use: live`"),
    ("", "use: live", "`use: live`", "remove `use: live`"),
    (FLIP, "codec: {kind: topk}", "random `data.views`", "set `labels.views: 4`"),
])  # fmt: skip
def test_bad_rows_cannot_be_left_out_where_nothing_is_stored(tmp_path, views, more, why, remedy):
    found = [m for m in mistakes(tmp_path, views, more) if "on_bad_rows" in m]
    assert len(found) == 1
    for part in ("line 6", why, remedy, "or remove `on_bad_rows`"):
        assert part in found[0]


@pytest.mark.parametrize(("views", "more", "on_bad_rows"), [
    (FLIP, "views: 2", "skip"), ("", "shard_rows: 64", "skip"), (FLIP, "use: live", "error"),
    (FLIP, "shard_rows: 64", "error"),
])  # fmt: skip
def test_where_they_can_or_need_not_nothing_is_said(tmp_path, views, more, on_bad_rows):
    assert mistakes(tmp_path, views, more, on_bad_rows) == []


@pytest.mark.parametrize("kind", ["hint", "pkt"])
def test_layers_are_stored_whole_beside_answers_that_are_listed(tmp_path, kind):
    text = """\
teacher: {model: {kind: resnet, depth: 8}, training: {epochs: 1}}
student: {model: {kind: resnet, depth: 8}}
labels: {codec: {kind: top_k, k: 3}}
steps: [{objective: [{kind: soft_target}, {kind: %s}]}]
"""
    build.checked(tmp_path / "recipe.yaml", text=text % kind)
    with pytest.raises(RecipeError, match="`logit_mse` cannot read labels of codec `top_k`"):
        build.checked(tmp_path / "recipe.yaml", text=text % "logit_mse")


@pytest.mark.parametrize("codec", ["top_k", "top_p", "sampled"])
def test_outputs_that_do_not_exclude_each_other_are_not_listed(tmp_path, codec):
    text = """\
teacher: {model: {kind: mlp, hidden: [8]}, training: {epochs: 1}}
student: {model: {kind: mlp, hidden: [4]}}
labels: {codec: {kind: %s}}
steps: [{objective: [{kind: soft_target, temperature: 1, head: %s}]}]
"""
    build.checked(tmp_path / "recipe.yaml", text=text % (codec, "softmax"))
    law = f"`soft_target` with `head: sigmoid` cannot read labels of codec `{codec}`"
    with pytest.raises(RecipeError, match=law):
        build.checked(tmp_path / "recipe.yaml", text=text % (codec, "sigmoid"))
