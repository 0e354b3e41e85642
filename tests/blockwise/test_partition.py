"""Networks divided into blocks, which put together again answer as before, bit for bit."""

import pytest
import torch
from torch import nn

from understudy import models
from understudy.blockwise.form import Partition, passing, piece, replaced
from understudy.blockwise.partition import partition
from understudy.errors import ModelError
from understudy.evaluate.cost import flops, parameters

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
VECTORS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
TOKENS = torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(2))
TOKENS[0, 5:] = 0
RESNET = [f"stages.{stage}.{number}" for stage in range(3) for number in range(2)]


class Reader(nn.Module):
    def __init__(self, *, batch_first=True):
        super().__init__()
        self.embedding = nn.Embedding(30, 6)
        sizes = zip([6, 8, 8], [8, 8, 8], strict=True)
        self.layers = nn.ModuleList(nn.LSTM(*two, batch_first=batch_first) for two in sizes)
        self.head = nn.Linear(8, 2)
        self.first = batch_first

    def forward(self, tokens):
        stream = self.embedding(tokens if self.first else tokens.T)
        for layer in self.layers:
            stream, _ = layer(stream)
        return self.head(stream.mean(1 if self.first else 0))


class Encoder(nn.Module):
    """A Hugging Face network inside a classifier, as the toolkit's own tests of cuts have it."""

    def __init__(self, inner):
        super().__init__()
        self.encoder = inner
        self.head = nn.Linear(16, 2)

    def forward(self, tokens):
        mask = (tokens != 0).long()
        found = self.encoder(input_ids=tokens, attention_mask=mask)
        return self.head(found.last_hidden_state.mean(1))


class Branching(nn.Module):
    """The first block's answer is used again behind the last."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(6, 2)

    def forward(self, rows):
        first = self.blocks[0](rows)
        return self.head(self.blocks[2](self.blocks[1](first)) + first)


class Stepping(nn.Module):
    """An addition, which is no module, stands between two blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(6, 2)

    def forward(self, rows):
        return self.head(self.blocks[2](self.blocks[1](self.blocks[0](rows)) + 1))


def resnet():
    return models.CifarResNet(channels=3, width=4, depth=14, base=4)


def vit():
    sizes = {"height": 8, "image_width": 8, "patch": 4, "dim": 8, "heads": 2}
    return models.VisionTransformer(channels=3, width=4, depth=3, **sizes)


def mlp():
    return models.MLP(inputs=6, width=2, hidden=[5, 6, 6, 4])


def hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"vocab_size": 30, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{kind}Config")(**sizes, intermediate_size=24)
    return Encoder(getattr(transformers, f"{kind}Model")(config))


def gpt2():
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 30, "n_positions": 16}
    return Encoder(
        transformers.GPT2Model(transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))
    )


def torch_encoder():
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(6, 2)
    )


NETWORKS = {
    "resnet": (resnet, IMAGES),
    "vit": (vit, IMAGES),
    "mlp": (mlp, VECTORS),
    "lstm": (Reader, TOKENS),
    "torch encoder": (torch_encoder, VECTORS),
    "bert": (lambda: hugging_face("Bert"), TOKENS),
    "llama": (lambda: hugging_face("Llama"), TOKENS),
    "gpt2": (gpt2, TOKENS),
}
WAYS = [
    {},
    {"by": "stage"},
    {"by": "flops", "parts": 2},
    {"by": "memory", "parts": 2},
]


def built(make):
    torch.manual_seed(0)
    return make().double().eval()


def divided(network, rows, **way):
    return partition(network, rows, measure=False, **way)


def paths(found):
    return [list(block.paths) for block in found.blocks]


def answer(network, rows):
    with torch.no_grad():
        return network(rows)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.get("by", "block"))
@pytest.mark.parametrize("name", NETWORKS)
def test_the_recomposed_blocks_equal_the_original_exactly(name, way):
    make, rows = NETWORKS[name]
    network = built(make)
    found = divided(network, rows, **way)
    pieces = {block.name: piece(network, block) for block in found.blocks}
    assert torch.equal(answer(replaced(network, found, pieces), rows), answer(network, rows))
    calls = passing(network, found, rows)
    with torch.no_grad():
        for block in found.blocks:
            call = calls[block.name]
            made = pieces[block.name](call.stream, *call.args, **call.kwargs)
            assert torch.equal(made, call.gives)
            assert (block.takes, block.gives) == (call.stream.shape[1:], call.gives.shape[1:])


@pytest.mark.parametrize("name", ["resnet", "vit", "mlp", "bert"])
def test_parameters_and_operations_sum_to_those_of_the_network(name):
    make, rows = NETWORKS[name]
    network = built(make)
    found = divided(network, rows)
    every = [*found.blocks, found.rest]
    assert sum(one.parameters for one in every) == parameters(network)
    assert sum(one.flops for one in every) == flops(network, rows)


def test_recurrent_layers_are_counted_by_their_formula():
    found = divided(built(Reader), TOKENS)
    # 7 steps, 4 gates of 8, from 6 or 8 numbers and 8 states.
    assert [block.flops for block in found.blocks] == [
        2 * 7 * 32 * (6 + 8),
        2 * 7 * 32 * (8 + 8),
        2 * 7 * 32 * (8 + 8),
    ]


def test_by_block_every_repeated_module_is_one():
    found = divided(built(resnet), IMAGES)
    assert paths(found) == [[path] for path in RESNET]
    assert [block.name for block in found.blocks] == RESNET
    assert found.blocks[2].takes == (4, 8, 8)
    assert found.blocks[2].gives == (8, 4, 4)


def test_by_stage_the_units_of_a_container_are_one():
    found = divided(built(resnet), IMAGES, by="stage")
    assert paths(found) == [RESNET[:2], RESNET[2:4], RESNET[4:]]
    assert found.blocks[0].name == "stages.0.0..1"


def test_layers_of_a_sequence_take_their_activations_along():
    found = divided(built(mlp), VECTORS)
    assert paths(found) == [[f"body.{n}", f"body.{n + 1}", f"body.{n + 2}"] for n in (0, 3, 6, 9)]


def test_equal_flops_are_as_equal_as_can_be():
    layers = [8, 8, 8, 32, 8, 8]
    network = built(lambda: models.MLP(inputs=6, width=2, hidden=layers))
    single = [block.flops for block in divided(network, VECTORS).blocks]
    found = divided(network, VECTORS, by="flops", parts=3)
    best = min(
        max(sum(single[:i]), sum(single[i:j]), sum(single[j:]))
        for i in range(1, 5)
        for j in range(i + 1, 6)
    )
    assert max(block.flops for block in found.blocks) == best
    assert sum(block.flops for block in found.blocks) == sum(single)


def test_equal_memory_counts_what_is_given_for_all_rows():
    # Few rows: the weights of the last blocks weigh most; many: the maps of the first.
    network = built(resnet)
    few = divided(network, IMAGES[:2], by="memory", parts=2)
    many = divided(network, IMAGES.repeat(100, 1, 1, 1), by="memory", parts=2)
    assert len(few.blocks[0].paths) > len(many.blocks[0].paths)


def test_blocks_begin_where_the_user_says():
    network = built(resnet)
    found = divided(network, IMAGES, by=["stages.1.1", "stages.0.1"])
    assert paths(found) == [["stages.0.1", "stages.1.0"], ["stages.1.1"]]
    found = divided(network, IMAGES, by=["stem", "stages.1", "stages.2"])
    assert paths(found) == [["stem", "stages.0"], ["stages.1"], ["stages.2"]]
    found = divided(built(mlp), VECTORS, by=["body.0", "body.6"])
    assert paths(found) == [
        [f"body.{number}" for number in range(6)],
        [f"body.{number}" for number in range(6, 12)],
    ]


def test_attention_masks_are_extras():
    found = divided(built(lambda: hugging_face("Bert")), TOKENS)
    assert [block.extras for block in found.blocks] == [("attention_mask",)] * 3


def test_a_cut_off_block_is_timed_by_default():
    found = partition(built(resnet), IMAGES)
    assert all(block.ms is not None and block.ms > 0 for block in found.blocks)
    assert found.rest.ms is not None
    assert Partition.from_data(found.to_data()) == found


def test_a_long_skip_may_cross_blocks_but_not_leave_their_middle():
    network = built(Branching)
    assert len(divided(network, VECTORS).blocks) == 3
    with pytest.raises(ModelError, match=r"`blocks\.0\.\.1` gives its stream alone.*skip connect"):
        divided(network, VECTORS, by=["blocks.0", "blocks.2"])


def test_what_is_no_module_can_stand_between_blocks_but_not_inside():
    network = built(Stepping)
    found = divided(network, VECTORS, by="flops", parts=2)
    assert paths(found) == [["blocks.0", "blocks.1"], ["blocks.2"]]
    with pytest.raises(ModelError, match=r"`blocks\.1` and `blocks\.2` cannot be in one block"):
        divided(network, VECTORS, by="flops", parts=1)
    with pytest.raises(ModelError, match="other than a module stands between them; divide by bl"):
        divided(network, VECTORS, by="stage")
    with pytest.raises(ModelError, match=r"module stands between them, behind `blocks\.1`"):
        divided(network, VECTORS, by=["blocks.0", "blocks.2"])


def test_streams_without_their_rows_first_are_refused():
    with pytest.raises(ModelError, match=r"\[rows, \.\.\.\].*\[7, 2, 6\] for 2 rows.*batch_first"):
        divided(built(lambda: Reader(batch_first=False)), TOKENS)


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ({"by": "size"}, "by='size'"),
        ({"by": "flops"}, "goes with these two only"),
        ({"by": "block", "parts": 2}, "goes with these two only"),
        ({"by": "flops", "parts": 7}, r"parts=7 and 6 units.*choose fewer"),
        ({"by": []}, "name the first module of each block"),
        ({"by": ["stem", "stem"]}, "name the first module of each block"),
        ({"by": ["stages.0.9"]}, r"did you mean `stages\.0\.[01]`"),
        ({"by": ["stages.0", "stages.0.1"]}, r"`stages\.0\.1` is inside `stages\.0`"),
    ],
)
def test_what_cannot_be_asked_is_refused(way, words):
    with pytest.raises(ModelError, match=words):
        divided(built(resnet), IMAGES, **way)


def test_a_network_without_repeated_blocks_is_told_of_tracing():
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with pytest.raises(ModelError, match="as_chain"):
        divided(network, VECTORS)


def test_the_network_is_left_as_found():
    network = built(resnet).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    partition(network, IMAGES, by="flops", parts=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in network.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
