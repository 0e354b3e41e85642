"""The deployed student of vectors as folders: for sentence-transformers, and for NumPy alone.

Every folder is read back and asked for texts, and must give the vectors that the student gives.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import nn

from understudy.deployed import Deployed
from understudy.deployed.static import StaticModel
from understudy.deployed.texts import Tokenizer
from understudy.errors import ExportError, ModelError
from understudy.export.sentence_onnx import ONNX, save_sentence_onnx
from understudy.export.static_encoder import save_static, save_static_int8
from understudy.folders import make_folder, read_json, write_atomic, write_json
from understudy.models.deployable import Deployable
from understudy.pipeline.own_tokens import encoder_folder
from understudy.pipeline.work import Work
from understudy.students.static.student import Static
from understudy.teachers.sentence_encoder import (
    load_sentence_encoder,
    save_sentence_encoder,
    transformer_folder,
)
from understudy.teachers.sentence_model import SentenceModel
from understudy.teachers.sentence_tokenizer import read_tokenizer

FOLDER, INT8_FOLDER = "sentence_transformers", "static_int8"
TEXTS = 64
# Vectors have length 1; sums in another order move the sixth digit.
CLOSE = 1e-4
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def save_folders(
    work: Work, module: Deployable, onnx: Path, folder: Path
) -> tuple[dict[str, Any], list[str]]:
    """Write the folders beside the ONNX file; how far each is from the student, and notes.

    Args:
        work: the run.
        module: the deployed student.
        onnx: its file.
        folder: of the stage.

    Raises:
        ExportError: a folder does not give the student's vectors.
    """
    tokenizer = work.material.tokenizer
    assert tokenizer is not None
    home, notes = folder / FOLDER, list[str]()
    texts = _short_texts(work, tokenizer)
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(tokenizer(texts))).float().numpy()
    found: dict[str, Any] = {}
    try:
        read = _own_form(work, module.network, tokenizer, home, folder)
    except (ModelError, ExportError) as error:
        notes.append(
            f"{FOLDER} runs the ONNX file (`trust_remote_code=True`), since {_short(error)}"
        )
        read = None
    if read is None:
        save_sentence_onnx(onnx, tokenizer, home, width=module.width)
        read = {FOLDER: _onnx_embed(home, tokenizer)}
    for name, embed in read.items():
        apart = float(np.abs(embed(texts) - expected).max())
        found[name] = {"rows": len(texts), "max_difference": apart, "same_answer": None}
        if not apart <= CLOSE and name != INT8_FOLDER:
            raise ExportError(
                f"the folder {name} must give the student's vectors, but they differ by up to "
                f"{apart:.2g} (at most {CLOSE:g}): deploy the ONNX file, and report this"
            )
    return found, notes


def _own_form(
    work: Work, network: nn.Module, tokenizer: Tokenizer, home: Path, folder: Path
) -> dict[str, Embed] | None:
    """What reads the folders back, where sentence-transformers has modules for the network."""
    if isinstance(network, Static):
        description = json.loads(tokenizer.content)
        save_static(network.folded(), description, home)
        save_static_int8(network.folded(), description, folder / INT8_FOLDER)
        return {
            FOLDER: StaticModel.open(home).embed,
            INT8_FOLDER: StaticModel.open(folder / INT8_FOLDER).embed,
        }
    source = encoder_folder(work.recipe.teacher.model, work.place)
    if not isinstance(network, SentenceModel) or source is None:
        return None
    tokens = read_tokenizer(transformer_folder(source)).cut_at(tokenizer.length)
    save_sentence_encoder(network.inside, tokens, home)
    if network.axes is not None:
        _add_dense(network.axes.detach().T.contiguous(), home)
    return {FOLDER: _transformer_embed(home)}


def _add_dense(weight: torch.Tensor, home: Path) -> None:
    """Put a projection behind the pooling; lengths are brought to 1 after it alone."""
    part = home / "2_Dense"
    make_folder(part)
    about = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(part / "config.json", about)
    write_atomic(part / "model.safetensors", save_tensors({"linear.weight": weight}))
    modules = read_json(home / "modules.json")[:2]
    for number, kind in ((2, "Dense"), (3, "Normalize")):
        told = {"idx": number, "name": str(number), "path": f"{number}_{kind}"}
        modules.append(told | {"type": f"sentence_transformers.models.{kind}"})
    write_json(home / "modules.json", modules)


def _transformer_embed(home: Path) -> Embed:
    """What a folder of a transformer gives, read back from its files."""
    encoder, tokens = load_sentence_encoder(home, projected=True)
    dense = home / "2_Dense" / "model.safetensors"
    weight = load_file(dense)["linear.weight"] if dense.is_file() else None

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors = encoder(torch.from_numpy(tokens(texts)))
            vectors = vectors if weight is None else vectors @ weight.T
            found = nn.functional.normalize(vectors, dim=1).numpy()
        return np.asarray(found, np.float32)

    return embed


def _onnx_embed(home: Path, tokenizer: Tokenizer) -> Embed:
    content = (home / "tokenizer.json").read_text(encoding="utf-8")
    own = Tokenizer(content, pad=tokenizer.pad, length=tokenizer.length)
    session = Deployed.open(home / ONNX)
    return lambda texts: session.predict(own(texts))


def _short_texts(work: Work, tokenizer: Tokenizer) -> list[str]:
    """Some texts that no form of the student cuts."""
    splits, rows = work.material.splits, work.material.rows
    positions = splits.validation if len(splits.validation) >= 16 else splits.train
    assert rows.texts is not None
    texts = [rows.texts[at][0] for at in positions]
    whole = [text for text in texts if not tokenizer.cut([text])]
    return (whole or texts)[:TEXTS]


def _short(error: Exception) -> str:
    return str(error).splitlines()[0].partition(":")[0]
