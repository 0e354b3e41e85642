"""The static encoder as a module: what it answers, what it learns, what is refused."""

import jaxtyping
import numpy as np
import pytest
import torch

from understudy.data.sentences import token_rows
from understudy.losses.embeddings import cosine_distance
from understudy.students.static import StaticEncoder


def parts(seed=0, size=8, width=3):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((size, width)).astype(np.float32)
    return vectors, generator.uniform(0.1, 2, size).astype(np.float32)


def rows_of(*ids, pad=0):
    return torch.from_numpy(token_rows(ids, pad=pad))


def test_it_is_the_weighted_mean_of_length_1_whatever_the_padding():
    vectors, weights = parts()
    encoder = StaticEncoder(vectors, pad=0, weights=weights)
    texts = [[1, 2, 2], [3], [7, 6, 5, 4, 1]]
    found = encoder(rows_of(*texts)).detach().numpy()
    for row, tokens in zip(found, texts, strict=True):
        expected = (vectors[tokens] * weights[tokens, None]).sum(axis=0)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)
    longer = encoder(torch.nn.functional.pad(rows_of(*texts), (0, 9))).detach()
    np.testing.assert_allclose(longer, found, atol=1e-6)
    assert encoder.width == 3


def test_without_a_length_of_1_it_is_the_mean_over_tokens():
    vectors, weights = parts()
    encoder = StaticEncoder(vectors, pad=0, weights=weights, normalize=False)
    found = encoder(rows_of([1, 2, 2], [3])).detach().numpy()
    expected = (vectors[[1, 2, 2]] * weights[[1, 2, 2], None]).mean(axis=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_padding_alone_is_zero_and_has_no_gradient_that_is_not_finite(normalize):
    encoder = StaticEncoder(parts()[0], pad=0, normalize=normalize)
    found = encoder(torch.zeros(2, 3, dtype=torch.int64))
    assert (found == 0).all()
    found.sum().backward()
    assert encoder.vectors.grad.isfinite().all()


def test_folded_vectors_are_those_of_an_encoder_without_weights():
    vectors, weights = parts()
    encoder = StaticEncoder(vectors, pad=0, weights=weights)
    folded = encoder.folded()
    assert (folded[0] == 0).all()
    assert np.array_equal(vectors, parts()[0])  # what was passed in is left alone
    rows = rows_of([1, 2, 2], [3], [4, 5, 6, 7])
    same = StaticEncoder(folded, pad=0)(rows)
    torch.testing.assert_close(same, encoder(rows), atol=1e-6, rtol=0)


def test_it_learns_weights_and_vectors_of_a_hidden_encoder():
    truth = StaticEncoder(parts(1)[0], pad=0, weights=parts(1)[1])
    start = StaticEncoder(parts(2)[0], pad=0)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 8, (64, 5), generator=generator)
    goal = truth(rows).detach()
    optimizer = torch.optim.Adam(start.parameters(), lr=0.05)
    before = cosine_distance(start(rows), goal).mean().item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = cosine_distance(start(rows), goal).mean()
        loss.backward()
        optimizer.step()
    assert before > 0.3
    assert loss.item() < 0.01
    assert (start.log_weights[1:] != 0).all()
    assert start.log_weights[0] == 0  # the padding's is never read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": np.ones(7, np.float32)}, "`weights` must be 8 numbers above 0"),
        ({"weights": np.zeros(8, np.float32)}, "`weights` must be 8 numbers above 0"),
        ({"pad": 8}, "`0 <= pad < 8` must hold"),
        ({"pad": -1}, "`0 <= pad < 8` must hold"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, said, monkeypatch):
    # Shapes are only checked in tests; our own messages come after them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=said):
        StaticEncoder(parts()[0], **{"pad": 0, **change})
