"""What torchao tells at its import is left out where it is no fault, and there alone."""

import logging
import subprocess
import sys

import pytest

from understudy.export.load_notes import without_load_notes

# As on a device that there need not be: only what stands before the import is told otherwise.
TELL = """
import logging
import torch
from torch import nn
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda device: (9, 0)
from understudy.export import float8
nn.Module.to = lambda self, *_, **__: (_ for _ in ()).throw(SystemExit("imported"))
told = []
float8.deepcopy = lambda module: (told.append(1), module)[1]
names = ("torchao", "torch.utils._pytree")
before = [list(logging.getLogger(name).filters) for name in names]
try:
    float8.to_float8(nn.Sequential(nn.Linear(16, 16)))
except SystemExit:
    assert told
import torchao
assert [logging.getLogger(name).filters for name in names] == before
logging.getLogger("torchao").warning("Failed to load /x/_C_odd.so: told again")
"""


def loud(code, *given):
    """What a program tells on standard error."""
    call = [sys.executable, "-c", code, *given]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    return done.stderr.strip().splitlines()


@pytest.mark.parametrize("library", ["transformers", "peft"])
def test_libraries_that_import_it_are_as_quiet(tmp_path, library):
    pytest.importorskip(library)
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=9, intermediate_size=8, **small)
    transformers.BertModel(config).save_pretrained(tmp_path)
    codes = {
        "transformers": "from understudy.teachers.hf_model import load_hf_model\n"
        "load_hf_model(sys.argv[1], answer='states', pad=0)",
        "peft": "import torch\nfrom torch import nn\n"
        "from understudy.students.lora import add_lora, plan_lora\n"
        "net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))\n"
        "add_lora(net, plan_lora(net, torch.rand(4, 8), rank=1))",
    }
    assert loud(f"import sys\n{codes[library]}\n", str(tmp_path)) == []


def test_importing_torchao_tells_nothing_that_is_no_fault_and_what_comes_later_is_told():
    pytest.importorskip("torchao")
    assert loud(TELL) == ["Failed to load /x/_C_odd.so: told again"]


class Kept(logging.Handler):
    """What arrives, by logger."""

    def __init__(self):
        super().__init__()
        self.told = []

    def emit(self, record):
        self.told.append((record.name, record.getMessage()))


def test_only_the_known_notes_are_left_out_and_only_for_as_long_as_it_lasts():
    kept = Kept()
    # As torchao writes it, with the file in the message.
    library = ("torchao", "Failed to load /site/torchao/_C_mxfp8.cpython-310.so: no library")
    enum = ("torch.utils._pytree", "%s is an Enum subclass and is now natively supported", "Kind")
    worth = [
        ("torchao", "Failed to load %s", "the configuration"),
        ("torchao.quantization", "Failed to load %s", "/site/torchao/_C_mxfp8.so: inside"),
        ("torch.utils._pytree", "%s is deprecated", "this"),
    ]
    places = {name for name, *_ in worth}
    for name in places:
        logging.getLogger(name).addHandler(kept)
    try:
        with without_load_notes():
            for name, note, *values in (library, enum, *worth):
                logging.getLogger(name).warning(note, *values)
        # A logger's messages reach its parent's handlers too.
        assert list(dict.fromkeys(kept.told)) == [(n, note % value) for n, note, value in worth]
        kept.told.clear()
        for name, note, *values in (library, enum):
            logging.getLogger(name).warning(note, *values)
        assert len(kept.told) == 2
    finally:
        for name in places:
            logging.getLogger(name).removeHandler(kept)
