"""What is the user's own: files, modules and names."""

import pytest

from understudy.build.targets import TargetError, resolve


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
