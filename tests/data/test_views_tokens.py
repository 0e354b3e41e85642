"""Views of texts: which tokens go, that the same ones go again, and that marks stay."""

import pytest
import torch

from understudy.data.views import CATALOGUE, Views

PAD, CLS, SEP, MASK = 0, 1, 2, 3
TOLD = {"pad": PAD, "mask": MASK, "special": (PAD, CLS, SEP, MASK)}


def rows(count=200, length=20, longest=24):
    found = torch.zeros(count, longest, dtype=torch.int32)
    found[:, 0] = CLS
    found[:, 1 : length + 1] = torch.arange(10, 10 + length, dtype=torch.int32)
    found[:, length // 2] = SEP
    found[:, length + 1] = SEP
    return found


def shown(kind, given, view=1, seed=0, ids=None, **options):
    chain = Views([CATALOGUE[kind](**options).told(**TOLD)], seed=seed)
    ids = torch.arange(len(given)) if ids is None else ids
    return chain(given, ids, torch.full((len(given),), view))


CASES = [
    ("token_dropout", {"share": 0.3}),
    ("token_dropout", {"share": 0.3, "by": "delete"}),
    ("token_crop", {"smallest": 0.4}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_a_view_is_a_function_of_seed_id_and_number_alone(kind, options):
    given = rows()
    found = shown(kind, given, **options)
    assert torch.equal(shown(kind, given, **options), found)
    turned = torch.arange(200).flip(0)
    assert torch.equal(shown(kind, given, ids=turned, **options), found.flip(0))
    for other in ({"view": 2}, {"seed": 1}):
        assert not torch.equal(shown(kind, given, **options, **other), found)
    assert torch.equal(shown(kind, given, view=0, **options), given)
    assert found.dtype == given.dtype
    assert found.shape == given.shape


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_marks_stay_and_what_is_left_keeps_its_order(kind, options):
    given = rows()
    for before, after in zip(given.tolist(), shown(kind, given, **options).tolist(), strict=True):
        words = [token for token in after if token > MASK]
        assert words
        assert words == sorted(words)
        assert set(words) <= set(before)
        assert [t for t in after if t in (CLS, SEP)] == [CLS, SEP, SEP]
        real = [at for at, token in enumerate(after) if token != PAD]
        assert real == list(range(len(real))), "padding is at the end alone"


def test_as_many_tokens_are_dropped_as_asked_for():
    given = rows(2000)
    words = (given > MASK).sum()
    masked = shown("token_dropout", given, share=0.25)
    assert float((masked == MASK).sum() / words) == pytest.approx(0.25, abs=0.02)
    assert ((masked > MASK).sum() + (masked == MASK).sum()) == words
    deleted = shown("token_dropout", given, share=0.25, by="delete")
    # The same draws, so the same tokens.
    assert (deleted > MASK).sum() == (masked > MASK).sum()


def test_a_text_never_loses_its_last_word():
    given = torch.tensor([[CLS, 10, SEP, PAD]] * 300, dtype=torch.int32)
    for options in ({"share": 0.9}, {"share": 0.9, "by": "delete"}):
        assert torch.equal(shown("token_dropout", given, **options), given)
    assert torch.equal(shown("token_crop", given, smallest=0.1), given)
    empty = torch.zeros(3, 4, dtype=torch.int32)
    for kind, options in CASES:
        assert torch.equal(shown(kind, empty, **options), empty)


def test_a_crop_is_one_piece_of_the_asked_length():
    given = rows(2000)
    given[:, 10] = 30  # one text, without a mark inside
    given = torch.where(given == 30, 20, given)
    found = shown("token_crop", given, smallest=0.4)
    counts = (found > MASK).sum(dim=1)
    assert counts.min() == 9  # of 8 to 20, rounded up
    assert counts.max() == 20
    assert float(counts.float().mean()) == pytest.approx(14.5, abs=0.4)
    first = torch.where(found > MASK, found, 99).amin(dim=1)
    assert first.min() == 10
    assert first.max() > 18


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_texts_of_too_few_tokens_stay_as_they_are(kind, options):
    short, long = rows(length=9), rows()  # 8 and 19 tokens, marks not counted
    given = torch.cat([short, long])
    whole = shown(kind, given, **options)
    found = shown(kind, given, least=9, **options)
    assert torch.equal(found[:200], short)
    assert torch.equal(found[200:], whole[200:]), "the long ones as without it"
    assert torch.equal(shown(kind, given, least=8, **options), whole)


@pytest.mark.parametrize(
    ("kind", "options", "law"),
    [
        ("token_dropout", {"share": 0.0}, "`0 < share < 1`"),
        ("token_dropout", {"share": 1.0}, "`0 < share < 1`"),
        ("token_crop", {"smallest": 0.0}, "`0 < smallest < 1`"),
        ("token_crop", {"least": -1}, "`least >= 0` must hold, but got -1"),
        ("token_dropout", {"least": -1}, "`least >= 0` must hold"),
    ],
)
def test_shares_outside_their_bounds_are_refused(kind, options, law):
    with pytest.raises(ValueError, match=law):
        CATALOGUE[kind](**options)


def test_a_chain_describes_itself_with_the_ids_that_it_knows():
    chain = Views([CATALOGUE["token_crop"]().told(**TOLD)])
    (told,) = chain.describe()["operations"]
    own = {"kind": "cropping", "smallest": 0.5, "least": 0}
    assert told == {**own, "pad": PAD, "special": TOLD["special"]}
