"""The source `parquet`: tables with types of their own, and encoded images in a column."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from understudy.data import check_rows, csv, parquet
from understudy.errors import DataError


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def save(tmp_path):
    def save(columns, name="rows.parquet", metadata=None):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / name, row_group_size=3)
        return str(tmp_path / name)

    return save


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)


def refused(*laws, **options):
    with pytest.raises(DataError) as caught:
        parquet(**options)
    for law in laws:
        assert law in str(caught.value)


def test_a_table_is_read_as_the_same_table_in_text_is(save, tmp_path):
    (tmp_path / "t.csv").write_text("a,t,y\n1,u,p\n2.5,v,q\n3,u,q\n")
    columns = {"a": [1, 2.5, 3], "t": ["u", "v", "u"], "y": ["p", "q", "q"]}
    rows = parquet(path=save(columns), target="y")
    check_rows(rows)
    assert rows.fingerprint() == csv(path=str(tmp_path / "t.csv"), target="y").fingerprint()


def test_every_plain_type_is_a_number_or_a_category(save):
    columns = {
        "whole": pa.array([1, 2], pa.int8()),
        "truth": [True, False],
        "half": pa.array([1.5, 2], pa.float32()),
        "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
        "coded": pa.array(["u", "v"]).dictionary_encode(),
        "long": pa.array(["u", "v"], pa.large_string()),
        "y": [0, 1],
    }
    rows = parquet(path=save(columns), target="y")
    assert rows.inputs[0].tolist() == [1, 1, 1.5, 1, 0, 0]
    assert [bool(column.categories) for column in rows.columns] == [False] * 4 + [True] * 2
    numbers = parquet(path=save(columns), target="y", columns=["whole"], categorical=["whole"])
    assert numbers.columns[0].categories == ("1", "2")


def test_a_type_that_is_neither_is_named(save):
    columns = {"when": pa.array([1, 2], pa.timestamp("ms")), "y": [0, 1]}
    refused(
        "column `when` must hold numbers or texts, but is of type timestamp[ms]",
        "`columns`",
        path=save(columns),
        target="y",
    )


def test_missing_values_are_found_among_numbers_and_texts(save):
    columns = {"a": [1.0, None, float("nan")], "b": [1, None, 3], "y": [0, 1, None]}
    refused("column `a`: 2 rows", "column `b`: 1 row", path=save(columns), target="y")
    rows = parquet(path=save(columns), target="y", missing="median")
    assert rows.inputs.tolist() == [[1, 1], [1, 2], [1, 3]]
    assert rows.labels.tolist() == [0, 1, -1]


def test_whole_number_targets_can_be_a_regression(save):
    path = save({"a": [1, 2, 3], "y": [10, None, 30]})
    refused("say `task: classification` or `task: regression`", path=path, target="y")
    rows = parquet(path=path, target="y", task="regression")
    np.testing.assert_array_equal(rows.labels, np.float32([[10], [np.nan], [30]]))


def test_a_pattern_takes_files_in_sorted_order(save, tmp_path):
    for name, value in (("train-1", 3.0), ("train-0", 1.0), ("test-0", 9.0)):
        save({"a": [value, value + 1], "y": [0, 1]}, f"{name}.parquet")
    rows = parquet(
        path=str(tmp_path / "train-*.parquet"),
        test_path=str(tmp_path / "test-*.parquet"),
        target="y",
    )
    assert rows.inputs[:, 0].tolist() == [1, 2, 3, 4, 9, 10]
    assert rows.ids.tolist() == list(range(6))
    refused("matches none", path=str(tmp_path / "x-*.parquet"), target="y")
    save({"b": [1], "y": [0]}, "train-2.parquet")
    refused("must have the columns of", path=str(tmp_path / "train-*.parquet"), target="y")


@pytest.mark.parametrize("struct", [True, False])
def test_encoded_images_are_decoded_in_order(save, pictures, struct):
    encoded = [png(picture) for picture in pictures]
    column = [{"bytes": b, "path": f"{n}.png"} for n, b in enumerate(encoded)]
    path = save({"img": column if struct else encoded, "y": [0, 1, 0, 1, 0, 1, 0]})
    rows = parquet(path=path, target="y", image="img")
    check_rows(rows)
    np.testing.assert_array_equal(rows.inputs, pictures)
    assert rows.form == "image"
    assert rows.names == (tuple(f"{n}.png" for n in range(7)) if struct else None)
    assert rows.classes == ("0", "1")


def test_test_images_stand_behind_with_labels_in_the_same_classes(save, pictures):
    encoded = [png(picture) for picture in pictures]
    train = save({"img": encoded[:5], "y": ["b", "a", "b", "a", "a"]})
    test = save({"img": encoded[5:], "y": ["a", "b"]}, "test.parquet")
    rows = parquet(path=train, test_path=test, target="y", image="img")
    np.testing.assert_array_equal(rows.inputs, pictures)
    assert rows.labels.tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert rows.ids.tolist() == list(range(7))
    unlabelled = save({"img": encoded[5:]}, "other.parquet")
    rows = parquet(path=train, test_path=unlabelled, target="y", image="img")
    assert rows.labels[5:].tolist() == [-1, -1]


def test_images_can_be_grey_resized_and_have_real_targets(save, pictures):
    path = save({"img": [png(p) for p in pictures], "y": np.linspace(0.1, 1, 7)})
    rows = parquet(path=path, target="y", image="img", grayscale=True, size=[2, 3])
    assert rows.inputs.shape == (7, 2, 3, 1)
    assert rows.classes is None
    assert rows.targets == ("y",)


def test_images_that_do_not_decode_are_counted_with_examples_or_skipped(save, pictures):
    encoded = [{"bytes": png(picture), "path": f"{n}.png"} for n, picture in enumerate(pictures)]
    encoded[2]["bytes"], encoded[4]["bytes"], encoded[5]["bytes"] = b"no image", None, None
    path = save({"img": encoded, "y": [0, 1, 0, 1, 0, 1, 0], "k": np.arange(7) * 10})
    refused(
        "3 of 7 do not: row 2 `2.png` (cannot identify image file), row 4 `4.png` (it is empty)",
        "`on_bad_rows: skip`",
        path=path,
        target="y",
        image="img",
    )
    options = {"path": path, "target": "y", "image": "img", "on_bad_rows": "skip"}
    rows = parquet(**options)
    assert rows.ids.tolist() == [0, 1, 3, 6]
    assert rows.labels.tolist() == [0, 1, 1, 0]
    assert rows.names == ("0.png", "1.png", "3.png", "6.png")
    assert rows.skipped == 3
    np.testing.assert_array_equal(rows.inputs, pictures[[0, 1, 3, 6]])
    assert parquet(**options, id_column="k").ids.tolist() == [0, 10, 30, 60]
    behind = parquet(**options, test_path=path)
    assert behind.ids.tolist() == [0, 1, 3, 6, 7, 8, 10, 13]


def test_class_names_come_from_the_recipe_from_json_or_from_the_file(save, tmp_path, pictures):
    encoded = [png(picture) for picture in pictures[:2]]
    written = {"info": {"features": {"y": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    plain = save({"img": encoded, "y": [0, 1]})
    hub = save({"img": encoded, "y": [0, 1]}, "hub.parquet", {"huggingface": json.dumps(written)})
    (tmp_path / "list.json").write_text('["ant", "bee"]')
    (tmp_path / "meta.json").write_text('{"fine": ["ant", "bee"], "coarse": ["insect"]}')
    (tmp_path / "bad.json").write_text('{"fine"')
    (tmp_path / "text.json").write_text('{"fine": "ant"}')
    for path, classes in (
        (plain, ["ant", "bee"]),
        (plain, str(tmp_path / "list.json")),
        (plain, f"{tmp_path / 'meta.json'}:fine"),
        (hub, None),
    ):
        rows = parquet(path=path, target="y", image="img", classes=classes)
        assert rows.classes == ("ant", "bee")
    options = {"path": plain, "target": "y", "image": "img"}
    for name, law in (
        ("meta.json", "must name one list of"),
        ("meta.json:x", "meta.json:fine` or `classes:"),
        ("bad.json", "cannot be read as JSON"),
        ("text.json:fine", "must be a list of names, but"),
        ("nothing.json", "does not exist"),
    ):
        refused(law, **options, classes=str(tmp_path / name))


def test_options_that_do_not_belong_together_and_columns_that_are_not_there(save, pictures):
    path = save({"img": [png(pictures[0])] * 2, "y": [0, 1], "n": [1, 2]})
    refused("`size` and `grayscale` need `image`", path=path, target="y", size=[2, 2])
    refused("are for tables", path=path, target="y", image="img", missing="drop")
    refused("did you mean `img`?", path=path, target="y", image="imgs")
    refused("has no column `z`", path=path, target="z", image="img")
    refused("has no column `k`", path=path, target="y", image="img", id_column="k")
    refused("must hold encoded images, as bytes or", path=path, target="y", image="n")
    refused("at least 1 pixel, but got [0, 4]", path=path, target="y", image="img", size=[0, 4])


def test_files_that_are_foreign_or_damaged_are_named(save, tmp_path):
    (tmp_path / "x.parquet").write_text("a,b\n1,2\n")
    refused("cannot be read as Parquet", path=str(tmp_path / "x.parquet"), target="y")
    whole = (tmp_path / "rows.parquet") if save({"a": [1.0] * 999, "y": [0, 1, 2] * 333}) else None
    content = bytearray(whole.read_bytes())
    content[4:900] = bytes(896)
    whole.write_bytes(content)
    refused("is damaged", path=str(whole), target="y")
