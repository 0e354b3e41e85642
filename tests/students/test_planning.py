"""The plan table: what a cut keeps, and what it will cost."""

import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.evaluate.cost import flops, parameters
from understudy.models import MLP, CifarResNet, VisionTransformer
from understudy.students.depth import cut_depth, plan_depth
from understudy.students.low_rank.cutting import cut_low_rank, plan_low_rank
from understudy.students.planning import plan_table

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SIZE = {"channels": 3, "height": 16, "image_width": 16, "width": 10}


def vit(depth=4, mlp_ratio=4.0):
    return VisionTransformer(
        patch=4, dim=32, depth=depth, heads=4, mlp_ratio=mlp_ratio, **SIZE
    ).eval()


def resnet(depth=14, base=8):
    return CifarResNet(channels=3, width=10, depth=depth, base=base).eval()


def by_path(table):
    return {row.path: row for row in table.rows}


def test_a_network_compared_with_itself_is_all_kept():
    network = vit()
    table = plan_table(network, deepcopy(network), IMAGES, before_ms=8.0)
    assert {row.status for row in table.rows} == {"kept"}
    assert table.ms == pytest.approx((8.0, 8.0))
    assert table.parameters == (parameters(network),) * 2


@pytest.mark.parametrize(
    ("before", "after"),
    [(vit(), vit(depth=2)), (resnet(), resnet(base=4)), (vit(), vit(mlp_ratio=1.0))],
)
def test_rows_add_up_to_the_networks(before, after):
    table = plan_table(before, after, IMAGES, before_ms=3.0)
    for side, network in enumerate((before, after)):
        assert sum(row.parameters[side] for row in table.rows) == parameters(network)
        assert sum(row.flops[side] for row in table.rows) == flops(network, IMAGES)
        assert table.parameters[side] == parameters(network)
        assert table.flops[side] == flops(network, IMAGES)
        assert sum(row.ms[side] for row in table.rows) == pytest.approx(table.ms[side])
    assert table.ms[0] == pytest.approx(3.0)
    assert 0 < table.predicted_ms < 3.0


def test_provenance_says_which_blocks_are_left():
    before, after = vit(), vit(depth=2)
    kept = {"blocks.0": "blocks.1", "blocks.1": "blocks.3"}
    rows = by_path(plan_table(before, after, IMAGES, provenance=kept, before_ms=1.0))
    assert [rows[f"blocks.{n}"].status for n in range(4)] == ["dropped", "kept", "dropped", "kept"]
    assert [rows[f"blocks.{n}"].now for n in range(4)] == ["", "blocks.0", "", "blocks.1"]
    assert rows["blocks.2"].parameters[1] == rows["blocks.2"].flops[1] == 0
    assert rows["blocks.2"].ms[1] == 0
    assert rows["blocks.3"].ms[1] == pytest.approx(rows["blocks.3"].ms[0])
    assert rows["patches"].status == rows["head"].status == "kept"


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, rows):
        return rows + torch.relu(self.layer(rows))


def test_what_stands_behind_dropped_blocks_keeps_its_row_under_its_new_number():
    torch.manual_seed(0)
    blocks = [_Block() for _ in range(6)]
    head = [nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3)]
    network, rows = nn.Sequential(nn.Linear(8, 16), *blocks, *head), torch.randn(4, 8)
    plan = plan_depth(network, rows, keep=3)
    student = cut_depth(network, plan, rows)
    table = plan_table(network, student.module, rows, provenance=student.provenance)
    found = {row.path: (row.status, row.now) for row in table.rows if row.path != "(rest)"}
    assert found == {
        "0": ("kept", "0"),
        "1": ("kept", "1"),
        "2": ("dropped", ""),
        "3": ("dropped", ""),
        "4": ("kept", "2"),
        "5": ("dropped", ""),
        "6": ("kept", "3"),
        "7": ("kept", "4"),
        "9": ("kept", "6"),
    }
    assert table.ms[1] < table.ms[0]


class Named(nn.Module):
    """Blocks by attribute: what is cut leaves something in its place that passes rows on."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.back = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, rows):
            return rows + self.back(self.wide(rows).relu())

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = self.Block(), self.Block(), self.Block()
        self.head = nn.Linear(8, 2)

    def forward(self, rows):
        return self.head(self.three(self.two(self.one(rows))))


def test_a_block_that_was_an_attribute_is_dropped_and_costs_nothing():
    network, rows = Named(), torch.randn(4, 8)
    cut = cut_depth(network, plan_depth(network, rows, keep=2), rows)
    table = plan_table(network, cut.module, rows, before_ms=3.0, provenance=cut.provenance)
    found = by_path(table)
    assert [found[path].status for path in ("one", "two", "three")] == ["kept", "dropped", "kept"]
    gone = found["two"]
    assert (gone.now, gone.parameters, gone.flops[1], gone.ms[1]) == ("", (280, 0), 0, 0.0)
    assert sum(row.ms[1] for row in table.rows) == pytest.approx(table.predicted_ms)


def test_a_narrow_residual_network_shows_its_shapes_in_every_stage():
    rows = by_path(plan_table(resnet(), resnet(base=4), IMAGES))
    assert {f"stages.{s}.{n}" for s in range(3) for n in range(2)} <= set(rows)
    row = rows["stages.1.1"]
    assert row.status == "changed"
    assert row.shapes["conv1.weight"] == ((16, 16, 3, 3), (8, 8, 3, 3))
    assert row.flops[1] * 4 == row.flops[0]


def test_factors_stand_in_the_row_of_their_layer():
    network = vit()
    plan = plan_low_rank(network, IMAGES, parameters=0.6, aware=False)
    student = cut_low_rank(network, plan, IMAGES).module
    table = plan_table(network, student, IMAGES, before_ms=2.0)
    row = by_path(table)["blocks.0"]
    assert row.status == "changed"
    (path, rank), *_ = plan.ranks.items()
    name = f"{path.removeprefix('blocks.0.')}.0.weight"
    assert row.shapes[name] == (None, (rank, 32))
    assert table.parameters[1] == plan.parameters_after
    assert sum(r.parameters[1] for r in table.rows) == plan.parameters_after
    assert row.ms[1] < row.ms[0]


def test_shared_blocks_count_their_weights_once_and_their_work_as_often_as_they_run():
    before, after = vit(), vit()
    after.blocks[1] = after.blocks[0]
    table = plan_table(before, after, IMAGES, before_ms=2.0)
    rows = by_path(table)
    assert rows["blocks.1"].status == "shared"
    assert rows["blocks.1"].parameters[1] == 0
    assert table.parameters[1] == parameters(after)
    assert table.flops[0] == table.flops[1]
    assert rows["blocks.0"].ms[1] == pytest.approx(2 * rows["blocks.0"].ms[0])


def test_the_networks_are_left_as_they_were():
    before, after = resnet().train(), resnet(base=4).train()
    before.stages[0].eval()
    modes = [part.training for part in before.modules()]
    weights = {name: value.clone() for name, value in before.state_dict().items()}
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    plan_table(before, after, IMAGES)
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert modes == [part.training for part in before.modules()]
    assert all(torch.equal(weights[n], value) for n, value in before.state_dict().items())
    assert not any(part._forward_hooks for part in before.modules())


def test_one_row_is_enough_and_a_network_without_blocks_is_shown_by_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 2))
    table = plan_table(network, network, IMAGES[:1])
    assert [row.path for row in table.rows] == ["1", "3", "(rest)"]
    assert table.flops == (2 * 768 * 8 + 2 * 8 * 2,) * 2


def test_it_is_plain_data_and_plain_lines():
    table = plan_table(vit(), vit(depth=3, mlp_ratio=2.0), IMAGES, before_ms=4.0)
    data = json.loads(json.dumps(table.to_data()))
    assert data["kind"] == "plan"
    assert data["rows"][1]["shapes"]["mlp.up.weight"] == [[128, 32], [64, 32]]
    lines = table.lines()
    assert "mlp.up.weight [128, 32] -> [64, 32]" in "\n".join(lines)
    assert lines[-1].startswith("total")
    assert any(line.startswith("blocks.3") and "dropped" in line for line in lines)


def test_token_ids_and_hugging_face_encoders():
    transformers = pytest.importorskip("transformers")

    class Encoder(nn.Module):
        def __init__(self, layers):
            super().__init__()
            config = transformers.BertConfig(
                hidden_size=32,
                num_hidden_layers=layers,
                num_attention_heads=2,
                intermediate_size=64,
                vocab_size=50,
            )
            self.encoder = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, ids):
            return self.encoder(ids).last_hidden_state.mean(dim=1)

    before, after, ids = Encoder(4), Encoder(2), torch.arange(24).reshape(3, 8)
    layers = "encoder.encoder.layer"
    kept = {f"{layers}.0": f"{layers}.1", f"{layers}.1": f"{layers}.2"}
    table = plan_table(before, after, ids, provenance=kept)
    rows = by_path(table)
    assert [rows[f"{layers}.{n}"].now for n in range(4)] == ["", f"{layers}.0", f"{layers}.1", ""]
    assert rows["encoder.embeddings.word_embeddings"].status == "kept"
    assert table.flops[0] == 2 * table.flops[1] > 0


def test_rows_that_do_not_fit_are_refused():
    network = MLP(inputs=4, width=2, hidden=[8, 8])
    with pytest.raises(ModelError, match=r"MLP does not take .*preprocessed"):
        plan_table(network, network, torch.zeros(2, 5))


def test_a_table_of_no_rows_is_refused():
    net = nn.Linear(3, 2)
    with pytest.raises(ModelError, match="a row or more"):
        plan_table(net, net, torch.zeros(0, 3))
