"""An exported encoder as a folder of sentence-transformers, whatever its network is.

That library has modules for transformers and for tables of vectors. Any other network travels as
its ONNX file, with a module of a few lines that runs it. Libraries ask before they run what a
folder brings along: `SentenceTransformer(folder, trust_remote_code=True)`.
"""

import shutil
from pathlib import Path

from understudy.deployed.texts import Tokenizer
from understudy.errors import ExportError
from understudy.folders import make_folder, write_atomic, write_json

ONNX, _MODULE = "encoder.onnx", "onnx_encoder"
_CODE = '''"""Texts to vectors by an ONNX file, as a module of sentence-transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer

try:
    from sentence_transformers.base.modules import Module
except ImportError:  # before version 6
    from sentence_transformers.models import Module


class OnnxEncoder(Module):
    """Runs `encoder.onnx`; nothing in it can be trained."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)
        self.about = json.loads((self.folder / "onnx_encoder.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.about["length"])
        path = str(self.folder / "encoder.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def preprocess(self, inputs, prompt=None, **kwargs):
        texts = [(prompt or "") + text for text in inputs]
        rows = [one.ids for one in self.tokenizer.encode_batch(texts)]
        ids = np.full((len(rows), max(1, *map(len, rows))), self.about["pad"], np.int64)
        for row, one in zip(ids, rows):
            row[: len(one)] = one
        return {"input_ids": torch.from_numpy(ids)}

    def tokenize(self, texts, **kwargs):
        return self.preprocess(texts, **kwargs)

    def forward(self, features, **kwargs):
        known = self.session.get_inputs()[0]
        ids = features["input_ids"].cpu().numpy()
        ids = ids.astype(np.int32 if known.type == "tensor(int32)" else np.int64)
        (vectors, *_) = self.session.run(None, {known.name: ids})
        features["sentence_embedding"] = torch.from_numpy(vectors).to(features["input_ids"].device)
        return features

    def get_embedding_dimension(self):
        return self.about["width"]

    get_sentence_embedding_dimension = get_embedding_dimension

    @property
    def max_seq_length(self):
        return self.about["length"]

    def save(self, output_path, *args, **kwargs):
        for name in ("encoder.onnx", "tokenizer.json", "onnx_encoder.json", "onnx_encoder.py"):
            shutil.copyfile(self.folder / name, Path(output_path) / name)

    @classmethod
    def load(cls, model_name_or_path, subfolder="", **kwargs):
        return cls(Path(model_name_or_path) / subfolder)
'''


def save_sentence_onnx(onnx: Path, tokenizer: Tokenizer, folder: Path, *, width: int) -> Path:
    """Write a folder that sentence-transformers reads, around an exported encoder.

    Args:
        onnx: rows of token ids of any length in, vectors out.
        tokenizer: that gives the ids.
        folder: made where it is not there.
        width: numbers per vector.

    Returns:
        The folder.

    Raises:
        ExportError: there is no such file.
        RunError: the folder cannot be written.
    """
    if not onnx.is_file():
        raise ExportError(f"there must be an exported encoder, but there is no {onnx}")
    make_folder(folder)
    shutil.copyfile(onnx, folder / ONNX)
    write_atomic(folder / "tokenizer.json", tokenizer.content)
    write_atomic(folder / f"{_MODULE}.py", _CODE)
    about = {"pad": tokenizer.pad, "length": tokenizer.length, "width": width}
    write_json(folder / f"{_MODULE}.json", about)
    module = {"idx": 0, "name": "0", "path": "", "type": f"{_MODULE}.OnnxEncoder"}
    write_json(folder / "modules.json", [module])
    return folder
