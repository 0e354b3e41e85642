"""What is the user's own: files, modules and names."""

import sys

import pytest

from understudy.build.targets import TargetError, resolve, sources


def test_a_file_and_a_module_are_found(tmp_path):
    (tmp_path / "own.py").write_text("def make(depth=1):\n    return depth\n")
    assert resolve("own.py:make", tmp_path)(depth=3) == 3
    assert resolve("collections:OrderedDict", tmp_path)() == {}


def test_two_files_of_one_name_do_not_meet(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "own.py").write_text(f"def make():\n    return {number}\n")
    assert [resolve("own.py:make", tmp_path / n)() for n in ("1", "2")] == [1, 2]


@pytest.mark.parametrize(
    ("target", "law"),
    [
        ("none.py:make", "does not exist"),
        ("own.py:mke", "did you mean `make`"),
        ("own.py:VALUE", "must be callable"),
        ("broken.py:make", "NameError"),
        ("there_is_no_such_module:make", "cannot be imported"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, target, law):
    (tmp_path / "own.py").write_text("VALUE = 3\ndef make():\n    return 1\n")
    (tmp_path / "broken.py").write_text("undefined_name\n")
    with pytest.raises(TargetError, match=law):
        resolve(target, tmp_path)


def test_code_is_told_apart_by_where_it_lies_and_not_by_its_name(tmp_path):
    package = tmp_path / "mine_own"
    for part in ("heads", "layers"):
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").write_text("")
        (package / part / "block.py").write_text(f"def {part}():\n    return 1\n")
    (package / "__init__.py").write_text(
        "from mine_own.heads.block import heads\nfrom mine_own.layers.block import layers\n"
        "def make():\n    return heads() + layers()\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        found = sources("mine_own:make", tmp_path)
        blocks = [f"{part}/block.py" for part in ("heads", "layers")]
        assert sorted(found) == ["__init__.py", *blocks]
        assert len({found[name] for name in blocks}) == 2
        for name in found:
            (package / name).write_text((package / name).read_text() + "# changed\n")
            after = sources("mine_own:make", tmp_path)
            assert {n for n in found if after[n] != found[n]} == {name}
            found = after
    finally:
        sys.path.remove(str(tmp_path))
