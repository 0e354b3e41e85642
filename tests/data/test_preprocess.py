"""Preprocessing: exact constants from training rows only, and the same inside an exported file."""

import json
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from understudy.data import Column, Rows, digits
from understudy.data.moments import moments
from understudy.data.preprocess import Preprocess, fit_preprocess
from understudy.errors import DataError

COLUMNS = (
    Column(name="age"),
    Column(name="town", categories=("a", "b", "c")),
    Column(name="income"),
    Column(name="sex", categories=("f", "m")),
)


def people(columns=COLUMNS):
    rng = np.random.default_rng(0)
    every = [
        rng.normal(40, 10, 50) if c.categories is None else rng.integers(0, len(c.categories), 50)
        for c in columns
    ]
    return Rows(
        inputs=np.stack(every, axis=1).astype(np.float32),
        labels=None,
        ids=np.arange(50),
        form="table",
        columns=columns,
    )


def pictures(dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3))
    pixels[..., 2] = 7
    return Rows(inputs=pixels.astype(dtype), labels=None, ids=np.arange(40), form="image")


def test_images_are_scaled_channel_by_channel_as_a_float64_reference_says():
    rows, train = pictures(), np.arange(0, 40, 2)
    inside = fit_preprocess(rows, train)
    seen = rows.inputs[train].astype(np.float64) / 255
    mean, std = seen.mean(axis=(0, 1, 2)), seen.std(axis=(0, 1, 2))
    std[2] = 1  # this channel never changes
    wanted = ((rows.inputs / 255 - mean) / std).transpose(0, 3, 1, 2)
    found = inside(torch.from_numpy(rows.inputs))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert inside.facts == {"channels": 3, "height": 5, "image_width": 6, "inputs": 90}


def test_tables_are_standardised_and_their_categories_one_hot():
    rows, train = people(), np.arange(10, 50)
    inside = fit_preprocess(rows, train)
    numbers = rows.inputs[:, [0, 2]].astype(np.float64)
    numbers = (numbers - numbers[train].mean(axis=0)) / numbers[train].std(axis=0)
    groups = [np.eye(3)[rows.inputs[:, 1].astype(int)], np.eye(2)[rows.inputs[:, 3].astype(int)]]
    wanted = np.concatenate([numbers, *groups], axis=1)
    found = inside(torch.from_numpy(rows.inputs))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-6)
    assert inside.facts == {"inputs": 7}


def test_a_code_that_no_category_has_is_a_group_of_zeros():
    inside = fit_preprocess(people(), np.arange(50))
    assert not inside(torch.tensor([[40.0, 9, 40, -1]]))[0, 2:].any()


@pytest.mark.parametrize("chosen", [[0, 2], [1, 3]], ids=["numbers", "categories"])
def test_tables_of_only_one_kind_of_column(chosen):
    rows = people(tuple(COLUMNS[place] for place in chosen))
    inside = fit_preprocess(rows, np.arange(50))
    assert inside(torch.from_numpy(rows.inputs)).shape == (50, inside.facts["inputs"])


def test_a_table_without_described_columns_is_of_numbers():
    rows = people()
    bare = Rows(inputs=rows.inputs, labels=None, ids=rows.ids, form="table")
    assert fit_preprocess(bare, np.arange(50)).facts == {"inputs": 4}


def test_rows_that_do_not_train_do_not_matter():
    rows, train = pictures(), np.arange(20)
    other = rows.inputs.copy()
    other[20:] = 255
    changed = Rows(inputs=other, labels=None, ids=rows.ids, form="image")
    assert fit_preprocess(rows, train).describe() == fit_preprocess(changed, train).describe()


def test_a_column_that_never_changes_is_only_moved():
    rows = Rows(
        inputs=np.full((9, 1), 0.1, np.float32), labels=None, ids=np.arange(9), form="table"
    )
    inside = fit_preprocess(rows, np.arange(9))
    assert inside.describe()["std"] == [1.0]
    np.testing.assert_allclose(inside(torch.tensor([[0.1], [2.1]])), [[0], [2]], atol=1e-6)


def test_moments_are_those_of_all_rows_whatever_the_piece_size(monkeypatch):
    values = np.random.default_rng(0).normal([0, 1e4, -5], size=(101, 3)).astype(np.float32)
    for size in (3, 21, 10_000):
        monkeypatch.setattr("understudy.data.moments._CHUNK_NUMBERS", size)
        mean, std = moments(values, np.arange(101), scale=2.0)
        np.testing.assert_allclose(mean, values.astype(np.float64).mean(axis=0) / 2, rtol=1e-12)
        np.testing.assert_allclose(std, values.astype(np.float64).std(axis=0) / 2, rtol=1e-9)


def test_what_is_given_is_taken_and_the_rest_found():
    rows, train = pictures(), np.arange(40)
    free = fit_preprocess(rows, train).describe()
    given = fit_preprocess(rows, train, mean=[0.1, 0.2, 0.3]).describe()
    assert given["mean"] == [0.1, 0.2, 0.3]
    assert given["std"] == free["std"]
    whole = fit_preprocess(rows, train, scale=1.0, mean=[0.0] * 3, std=[1.0] * 3)
    np.testing.assert_array_equal(
        whole(torch.from_numpy(rows.inputs)), rows.inputs.transpose(0, 3, 1, 2)
    )
    assert fit_preprocess(pictures(np.float32), train).describe()["scale"] == 1


def test_fitted_constants_bring_rows_to_mean_zero_and_spread_one_whatever_the_scale():
    rows = digits()
    pixels = torch.from_numpy(rows.inputs)
    found = [fit_preprocess(rows, np.arange(1797), scale=s)(pixels) for s in (None, 16.0)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-6)
    assert abs(found[0].mean()) < 1e-5
    assert abs(found[0].std() - 1) < 1e-4


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"mean": [0.0]}, "`mean` must have 3 entries, one per channel, but got 1"),
        ({"std": [1.0, 1.0]}, "`std` must have 3 entries"),
        ({"std": [1.0, 0.0, 1.0]}, "`std` must be above 0 and finite"),
        ({"mean": [0.0, float("nan"), 0.0]}, "`mean` must be finite"),
        ({"scale": 0.0}, "`scale` must be above 0, but got 0.0: 255"),
    ],
    ids=str,
)
def test_constants_that_do_not_fit_images_are_refused(options, law):
    with pytest.raises(DataError) as caught:
        fit_preprocess(pictures(), np.arange(40), **options)
    assert law in str(caught.value)


def test_constants_that_do_not_fit_a_table_are_refused():
    with pytest.raises(DataError, match=r"2 entries, one per number column \(`age`, `income`\)"):
        fit_preprocess(people(), np.arange(50), mean=[1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="`scale` is for images"):
        fit_preprocess(people(), np.arange(50), scale=2.0)
    with pytest.raises(DataError, match="at least one training row"):
        fit_preprocess(people(), np.empty(0, np.int64))


@pytest.mark.parametrize("rows", [people(), pictures(), digits()], ids=["table", "rgb", "grey"])
def test_a_description_is_plain_json_and_gives_the_same_thing_again(rows):
    inside = fit_preprocess(rows, np.arange(len(rows)))
    text = json.dumps(inside.describe())
    again = Preprocess.from_description(json.loads(text))
    raw = torch.from_numpy(rows.inputs)
    assert torch.equal(inside(raw), again(raw))
    assert again.facts == inside.facts
    assert again.describe() == inside.describe()
    assert not list(inside.parameters())


def test_a_description_that_does_not_fit_is_refused():
    good = fit_preprocess(pictures(), np.arange(40)).describe()
    for change in ({"form": "sound"}, {"mean": [1.0]}, {"row": [5, 6]}, {"std": [1, 1, -1]}):
        with pytest.raises(DataError, match="must be what `describe` writes"):
            Preprocess.from_description(good | change)
    with pytest.raises(DataError, match="KeyError: 'columns'"):
        Preprocess.from_description({"form": "image"})


def test_identity_leaves_rows_as_they_are():
    inside = Preprocess.identity(row=(3, 4))
    rows = torch.arange(24).reshape(2, 3, 4)
    assert inside(rows) is rows
    assert inside.facts == {"inputs": 12}
    assert Preprocess.from_description(inside.describe())(rows) is rows


def test_constants_that_do_not_fit_the_rows_are_refused_by_the_constructor():
    with pytest.raises(ValueError, match="must have 3 sizes of at least 1"):
        Preprocess(form="image", row=(4, 4), mean=[0.0], std=[1.0])
    with pytest.raises(ValueError, match="every column must be described, but got 1 for 2"):
        Preprocess(form="table", row=(2,), columns=COLUMNS[:1], mean=[0.0], std=[1.0])
    with pytest.raises(ValueError, match="must have 1 entries, but got 1 and 0"):
        Preprocess(form="image", row=(4, 4, 1), mean=[0.0])


def test_rows_of_another_shape_are_refused():
    inside = fit_preprocess(pictures(), np.arange(40))
    with pytest.raises(ValueError, match=r"\[5, 6, 3\], but got rows of shape \[2, 3, 5, 6\]"):
        inside(torch.zeros(2, 3, 5, 6))


@pytest.mark.parametrize(
    "rows",
    [people(), people(COLUMNS[:1]), people(COLUMNS[1:2]), pictures()],
    ids=["table", "numbers", "categories", "images"],
)
def test_an_exported_file_answers_as_the_module_does_at_every_batch_size(rows, tmp_path):
    inside = fit_preprocess(rows, np.arange(len(rows))).eval()
    raw = torch.from_numpy(rows.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            inside,
            (raw[:3],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    program.save(tmp_path / "p.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx")
    name = session.get_inputs()[0].name
    for count in (1, 3, 20):
        (found,) = session.run(None, {name: rows.inputs[:count]})
        np.testing.assert_array_equal(found, inside(raw[:count]).numpy())
