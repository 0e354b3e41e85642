"""A sentence encoder's folder as one network, and what is read off it without its weights."""

import numpy as np
import pytest
import torch

from pipeline.encoders import encoder_folder, sentences
from understudy.errors import ModelError
from understudy.students.static import principal_axes
from understudy.teachers.sentence_encoder import load_sentence_encoder
from understudy.teachers.sentence_model import (
    SentenceModel,
    known_ids,
    own_tokenizer,
    sentence_width,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(encoder_folder(tmp_path_factory.mktemp("encoder") / "encoder"))


def model(folder, **changes):
    tokens = own_tokenizer(folder)
    facts = {"vocabulary": tokens.vocabulary, "pad": tokens.pad, "length": 32, "width": 16}
    return SentenceModel(folder=folder, **facts | changes).eval()


def test_it_gives_what_the_encoder_of_the_folder_gives(folder):
    tokens, texts = own_tokenizer(folder), sentences(5)
    encoder, own = load_sentence_encoder(folder)
    with torch.no_grad():
        found = model(folder)(torch.from_numpy(tokens(texts)).long())
        expected = encoder(torch.from_numpy(own(texts)))
    torch.testing.assert_close(found, expected)
    assert (sentence_width(folder), known_ids(folder)) == (16, tokens.vocabulary)


def test_on_its_principal_axes_it_keeps_most_of_the_angles(folder):
    tokens, texts = own_tokenizer(folder), sentences(60)
    ids = torch.from_numpy(tokens(texts)).long()
    narrow = model(folder, width=8)
    with torch.no_grad():
        whole = model(folder)(ids).numpy()
        first = narrow(ids).numpy()
        narrow.turn(principal_axes(whole, width=8))
        turned = narrow(ids).numpy()

    def apart(vectors):
        return float(np.abs(vectors @ vectors.T - whole @ whole.T).mean())

    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1, rtol=1e-5)
    assert apart(turned) < 0.5 * apart(first)


def test_a_row_of_padding_alone_has_a_finite_answer(folder):
    pad = own_tokenizer(folder).pad
    rows = torch.tensor([[5, 6, 7], [pad, pad, pad]])
    found = model(folder)(rows)
    assert found.isfinite().all()
    torch.testing.assert_close(found[:1], model(folder)(rows[:1]))
    assert found[1].abs().max() == 0


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"width": 17}, "`1 <= dimension <= 16` must hold"),
        ({"vocabulary": 500}, "tokenizer and model must belong together"),
        ({"length": 64}, "texts must not be longer than the model"),
    ],
)
def test_what_does_not_belong_together_is_refused(folder, changes, law):
    with pytest.raises(ModelError, match=law):
        model(folder, **changes)
