"""A zero-shot teacher of a run: what it is told of classes, and what it finds on training texts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from understudy.contracts import Teacher
from understudy.data.tokens import Tokens
from understudy.deployed import definitions
from understudy.errors import DataError, ModelError
from understudy.evaluate.cost import parameters
from understudy.folders import file_checksum, write_atomic
from understudy.models.deployable import Deployable
from understudy.models.weights import read_weights, weights_fingerprint
from understudy.pipeline.prepare import run_tokenizer
from understudy.pipeline.work import Work
from understudy.recipe import Source, ZeroShotSection
from understudy.tasks import Classification
from understudy.teachers.hf_model import revision
from understudy.teachers.sentence_encoder import load_sentence_encoder
from understudy.teachers.sentence_tokenizer import SentenceTokenizer
from understudy.teachers.text_teacher import TextTeacher
from understudy.teachers.torch_module import TorchTeacher
from understudy.teachers.zero_shot import TextsToLogits, ZeroShot, calibrate, directions

# Training texts that scale and offsets are found on.
TEXTS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What came of the descriptions.

    Attributes:
        module: token ids of the encoder's tokenizer to logits.
        tokenizer: the encoder's own.
        notes: what the reader of the run should know.
    """

    module: ZeroShot
    tokenizer: SentenceTokenizer
    notes: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The fingerprint of the encoder with what was found."""
        return f"{weights_fingerprint(self.module)} {self.module.scale!r}"

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage says of it."""
        count = parameters(self.module)
        notes = list(self.notes)
        return {"kind": "zero_shot", "parameters": count, "seconds": 0.0, "notes": notes}


def encoder_folder(section: ZeroShotSection, place: Source) -> str | Path:
    """Where the encoder lies, or its name on the hub."""
    folder = place.resolve(section.encoder)
    return folder if folder.is_dir() else section.encoder


def encoder_mark(section: ZeroShotSection, place: Source) -> dict[str, str]:
    """What an encoder is a function of: the checksums of what is read, or a name's commit."""
    folder = encoder_folder(section, place)
    if not isinstance(folder, Path):
        return revision(folder)
    files = [f for kind in ("json", "safetensors") for f in sorted(folder.glob(f"**/*.{kind}"))]
    return {str(file.relative_to(folder)): file_checksum(file) for file in files}


def tell(work: Work, section: ZeroShotSection, *, keep: Path) -> Told:
    """Read the descriptions, and find scale and offsets on training texts, without labels.

    What was found is kept in a file: whoever loads the teacher need not find it again.

    Raises:
        DataError: the rows are no single texts, or of other classes.
        ModelError: the encoder cannot be loaded, or cannot tell the classes apart.
    """
    classes = _classes(work, section)
    encoder, tokenizer = load_sentence_encoder(encoder_folder(section, work.place))
    embed = TextsToLogits(encoder, tokenizer)
    told = {name: section.classes[name] for name in classes}
    found = directions(embed, told, template=section.template)
    texts = _some_texts(work)
    work.progress.say(f"teacher: zero-shot, finding scale and offsets on {len(texts)} texts")
    cosines = nn.functional.normalize(embed(texts), dim=1) @ found.T
    prior = _prior(section, classes)
    scale, offsets = calibrate(
        cosines, scale=None if section.scale == "auto" else section.scale, prior=prior
    )
    module = ZeroShot(encoder, found, scale=scale, offsets=offsets).eval()
    shown = ", ".join(f"{n} {float(b):+.2f}" for n, b in zip(classes, offsets, strict=True))
    how = "found on training texts without labels" if section.scale == "auto" else "as told"
    note = (
        f"the teacher is zero-shot: it has seen descriptions of {len(classes)} classes and no "
        f"label. Scale {scale:.3g} ({how}), offsets {shown} "
        + (f"(so that its mean answer is the prior: {section.prior})" if prior else "(no prior)")
    )
    kept = {"classes": found.contiguous(), "offsets": offsets, "scale": torch.tensor([scale])}
    write_atomic(keep, save(kept))
    return Told(module=module, tokenizer=tokenizer, notes=(note,))


def load_zero_shot(
    work: Work, section: ZeroShotSection, path: Path
) -> tuple[Teacher, Deployable | None]:
    """The teacher of a finished stage; a module too where it reads the run's own tokens.

    With another tokenizer it reads the texts of the rows, and their random views are not its.
    """
    module, tokenizer = _read(work, section, path)
    material = work.material
    if reads_tokens(work, tokenizer):
        whole = material.deployable(module).eval()
        return TorchTeacher(whole, output=material.task.output), whole
    assert material.rows.texts is not None
    teacher = TextTeacher(
        TextsToLogits(module, tokenizer),
        texts=material.rows.texts,
        ids=material.rows.ids,
        output=material.task.output,
        width=material.task.width,
    )
    return teacher, None


def alone(work: Work, section: ZeroShotSection, path: Path) -> tuple[Deployable, Tensor]:
    """The network of a teacher that reads its own tokens, and rows of these to take times with.

    Without its tokenizer, as all networks are timed; the texts are those of usual length.
    """
    module, tokenizer = _read(work, section, path)
    texts = sorted(_some_texts(work), key=len)
    middle = len(texts) // 2
    rows = tokenizer(sorted(texts, key=lambda text: abs(len(text) - len(texts[middle])))[:32])
    ids = torch.from_numpy(rows)
    before = Tokens(length=ids.shape[1], vocabulary=int(ids.max()) + 1, pad=tokenizer.pad)
    width = work.material.task.width
    return Deployable(preprocess=before, network=module, width=width).eval(), ids


def _read(work: Work, section: ZeroShotSection, path: Path) -> tuple[ZeroShot, SentenceTokenizer]:
    kept = read_weights(path)
    encoder, tokenizer = load_sentence_encoder(encoder_folder(section, work.place))
    module = ZeroShot(
        encoder, kept["classes"], scale=float(kept["scale"][0]), offsets=kept["offsets"]
    )
    return module.eval(), tokenizer


def reads_tokens(work: Work, tokenizer: SentenceTokenizer) -> bool:
    """Whether the run's tokens are those that the encoder was trained on."""
    tokens = work.material.tokens
    if tokens is None or tokenizer.lower or tokens.length > tokenizer.length:
        return False
    own = definitions.plain(json.dumps(tokenizer.files()["tokenizer.json"]))
    return tokens.pad == tokenizer.pad and own == definitions.plain(run_tokenizer(work).content)


def _classes(work: Work, section: ZeroShotSection) -> tuple[str, ...]:
    material = work.material
    if material.rows.texts is None:
        raise DataError(
            "a zero-shot teacher compares texts with descriptions, but these rows are no texts: "
            "use a `kind: text` source, or another teacher"
        )
    if len(material.rows.columns or ()) > 1:
        raise DataError(
            "a zero-shot teacher reads single texts, but these rows are pairs: leave `pair` out, "
            "or use another teacher"
        )
    assert isinstance(material.task, Classification)  # `build.check` refuses others
    own, described = material.task.classes, tuple(section.classes)
    if set(own) != set(described):
        raise DataError(
            f"`zero_shot.classes` must describe the classes of the rows, {', '.join(own)}, but "
            f"describes {', '.join(described)}: use the same names (`classes` of the source says "
            "how numbered classes are called)"
        )
    return own


def _prior(section: ZeroShotSection, classes: Sequence[str]) -> list[float] | None:
    if section.prior is None:
        return None
    if section.prior == "uniform":
        return [1 / len(classes)] * len(classes)
    total = sum(section.prior.values())
    return [section.prior[name] / total for name in classes]


def _some_texts(work: Work) -> list[str]:
    material = work.material
    assert material.rows.texts is not None
    every = material.splits.train
    some = every[np.linspace(0, len(every) - 1, min(len(every), TEXTS)).astype(np.int64)]
    found = [material.rows.texts[at][0] for at in some]
    if len(found) < 2:
        raise ModelError("a zero-shot teacher needs two training texts or more")
    return found
