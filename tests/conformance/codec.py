"""The laws that every codec keeps. Inherit `CodecLaws` and give it a `case` fixture.

    class TestTopK(CodecLaws):
        @pytest.fixture
        def case(self) -> CodecCase:
            return CodecCase(codec=TopK(k=3), shape=(10,))

How large its error may be is a test of its own, beside the codec's other ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from understudy.contracts import Outcomes
from understudy.labels.codecs import CATALOGUE, make
from understudy.labels.codecs.form import Codec, Stream

POSITIONS = 37


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecCase:
    """One codec, and what a position that it writes looks like.

    Attributes:
        codec: any of the catalogue.
        shape: of a position.
        scale: deviation of the random numbers that are written.
        rounding: what a position's numbers may change by with the positions beside it.
    """

    codec: Codec
    shape: tuple[int, ...]
    scale: float = 3.0
    rounding: float = 0.0


def cut(parts: Mapping, index: np.ndarray) -> dict:
    """The parts of some positions, as the store cuts them."""
    return {name: cut_one(part, index) for name, part in parts.items()}


def cut_one(part, index):
    if not isinstance(part, Stream):
        return part[index]
    ends = np.cumsum(part.lengths, dtype=np.int64)
    pieces = [part.content[ends[i] - part.lengths[i] : ends[i]] for i in index]
    content = np.concatenate([np.zeros(0, np.uint8), *pieces])
    return Stream(content=content, lengths=part.lengths[index].astype(np.int64))


def join(first, second):
    if not isinstance(first, Stream):
        assert first.dtype == second.dtype
        return np.concatenate([first, second])
    return Stream(
        content=np.concatenate([first.content, second.content]),
        lengths=np.concatenate([first.lengths, second.lengths]),
    )


def pieces(part):
    return [part.content, part.lengths] if isinstance(part, Stream) else [part]


def tensors(decoded) -> dict[str, torch.Tensor]:
    """Everything that was decoded, by name."""
    if not isinstance(decoded, Outcomes):
        return {"values": decoded}
    names = ["ids", "log_mass", "rest", *(["entropy"] if decoded.sampled else [])]
    return {name: getattr(decoded, name) for name in names}


def same(one, other, *, index=slice(None), rounding=0.0):
    for name, tensor in tensors(one).items():
        expected = tensors(other)[name][index]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=rounding)


class CodecLaws:
    """Every test here is a law; `case` is the codec that must keep it."""

    @pytest.fixture
    def case(self) -> CodecCase:
        raise NotImplementedError("a suite of codec laws needs a `case` fixture")

    @pytest.fixture
    def values(self, case):
        draw = np.random.default_rng(11)
        shape = (POSITIONS, *case.shape)
        return (case.scale * draw.standard_normal(shape)).astype(np.float32)

    @pytest.fixture
    def parts(self, case, values):
        return case.codec.encode(values, seed=5)

    @pytest.fixture
    def decoded(self, case, parts):
        return case.codec.decode(parts, shape=case.shape)

    def test_the_catalogue_has_it_under_its_kind(self, case):
        assert isinstance(case.codec, Codec)
        assert type(case.codec) is CATALOGUE[case.codec.kind]

    def test_it_says_its_error_in_one_sentence(self, case):
        assert len(case.codec.error) > 10
        assert "\n" not in case.codec.error

    def test_it_is_made_again_from_a_manifest(self, case, parts, decoded):
        told = json.loads(json.dumps(case.codec.parameters))
        again = make(case.codec.kind, told, case.codec.constants)
        assert again.parameters == case.codec.parameters
        same(again.decode(parts, shape=case.shape), decoded)

    def test_a_shape_that_it_takes_passes_the_check(self, case):
        assert case.codec.check(case.shape) is None

    def test_every_part_has_all_positions(self, parts):
        assert parts
        for part in parts.values():
            assert len(part) == POSITIONS
            if isinstance(part, Stream):
                assert int(part.lengths.astype(np.int64).sum()) == len(part.content)

    def test_one_row_per_position_comes_back(self, case, decoded):
        assert isinstance(decoded, Outcomes) is case.codec.listed
        for tensor in tensors(decoded).values():
            assert len(tensor) == POSITIONS
            assert not tensor.isnan().any()

    def test_the_same_values_give_the_same_bytes(self, case, values, parts):
        kept = values.copy()
        values.setflags(write=False)
        again = case.codec.encode(values, seed=5)
        assert np.array_equal(kept, values)
        assert list(again) == list(parts)
        for name, part in parts.items():
            for one, other in zip(pieces(part), pieces(again[name]), strict=True):
                assert one.dtype == other.dtype
                assert one.tobytes() == other.tobytes()

    def test_values_in_another_memory_order_give_the_same_bytes(self, case, values, parts):
        again = case.codec.encode(np.asfortranarray(values), seed=5)
        for name, part in parts.items():
            for one, other in zip(pieces(part), pieces(again[name]), strict=True):
                assert np.array_equal(one, other)

    def test_parts_are_not_changed_by_decoding(self, case, parts, decoded):
        for part in parts.values():
            for piece in pieces(part):
                piece.setflags(write=False)
        same(case.codec.decode(parts, shape=case.shape), decoded)

    def test_no_position_at_all_is_written_and_read(self, case, values, parts):
        empty = case.codec.encode(values[:0], seed=5)
        assert list(empty) == list(parts)
        for name, part in parts.items():
            if not isinstance(part, Stream):
                assert empty[name].dtype == part.dtype
                assert empty[name].shape[1:] == part.shape[1:]
        for tensor in tensors(case.codec.decode(empty, shape=case.shape)).values():
            assert len(tensor) == 0

    def test_some_positions_are_read_as_in_the_whole(self, case, parts, decoded):
        index = np.array([30, 2, 2, 36, 0, 17])
        some = case.codec.decode(cut(parts, index), shape=case.shape)
        same(some, decoded, index=torch.from_numpy(index), rounding=case.rounding)

    def test_what_was_written_in_turn_is_read_together(self, case, values):
        one, other = (case.codec.encode(v, seed=5) for v in (values[:20], values[20:]))
        parts = {name: join(one[name], other[name]) for name in one}
        together = case.codec.decode(parts, shape=case.shape)
        for own, index in ((one, slice(0, 20)), (other, slice(20, None))):
            alone = case.codec.decode(own, shape=case.shape)
            same(alone, together, index=index, rounding=case.rounding)

    def test_listed_outcomes_are_whole_distributions(self, case, decoded):
        if not case.codec.listed:
            pytest.skip("declared: this codec gives tensors")
        assert decoded.classes == case.shape[0]
        assert decoded.ids.dtype == torch.int64
        assert decoded.log_mass.dtype == decoded.rest.dtype == torch.float32
        assert torch.equal(decoded.ids < 0, decoded.log_mass == -torch.inf)
        assert int(decoded.ids.min()) >= -1
        assert int(decoded.ids.max()) < case.shape[0]
        for row in decoded.ids:
            listed = row[row >= 0]
            assert len(listed.unique()) == len(listed)
        total = decoded.log_mass.double().exp().sum(dim=1) + decoded.rest.double().exp()
        torch.testing.assert_close(total, torch.ones_like(total), atol=3e-6, rtol=0)
