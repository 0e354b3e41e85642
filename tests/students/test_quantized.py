import copy

import numpy as np
import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.export.onnx import export_onnx
from understudy.export.parity import check_parity
from understudy.export.quantize import quantize_int8
from understudy.models import MLP, CifarResNet, VisionTransformer
from understudy.students.quantized.aware import finish_aware, prepare_aware
from understudy.students.quantized.rounded import Rounded


def pictures(count=64, size=16):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def resnet(seed=0):
    torch.manual_seed(seed)
    net = CifarResNet(channels=3, width=10, depth=8, base=8)
    with torch.no_grad():
        for _ in range(3):
            net(pictures())
    return net.eval()


def vit():
    torch.manual_seed(0)
    return VisionTransformer(
        channels=3, height=16, image_width=16, width=10, patch=4, dim=32, depth=2, heads=2
    ).eval()


def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = transformers.BertModel(config), nn.Linear(32, 4)

        def forward(self, ids):
            return self.head(self.encoder(input_ids=ids).last_hidden_state.mean(1))

    return Encoder().eval()


def tokens(count=64):
    return torch.randint(0, 60, (count, 7), generator=torch.Generator().manual_seed(1))


def step(network, rows, targets, rate=0.01):
    """One step of plain descent; the loss before it."""
    network.train()
    loss = (network(rows) - targets).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(rate * parameter.grad)
                parameter.grad = None
    return loss.item()


def trained(network, rows, steps=4):
    with torch.no_grad():
        targets = network(rows)
    aware = prepare_aware(network, rows)
    for _ in range(steps):
        step(aware, rows, targets * 1.1)
    return aware.eval()


def test_the_network_is_left_as_it_was():
    net = resnet().train()
    net.stem.eval()
    before = copy.deepcopy(net)
    state = torch.get_rng_state()
    prepare_aware(net, pictures())
    assert torch.equal(torch.get_rng_state(), state)
    assert [one.training for one in net.modules()] == [one.training for one in before.modules()]
    assert [type(one) for one in net.modules()] == [type(one) for one in before.modules()]
    for one, other in zip(net.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_paths_and_parameters_keep_their_names():
    net = resnet()
    aware = prepare_aware(net, pictures())
    paths = {path for path, _ in net.named_modules()}
    assert paths <= {path for path, _ in aware.named_modules()}
    own = [name for name, _ in aware.named_parameters()]
    assert own == [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize("make", [resnet, vit])
def test_it_answers_nearly_as_before_and_exactly_so_when_finished(make):
    net, rows = make(), pictures()
    aware = prepare_aware(net, rows)
    finished, ranges = finish_aware(aware)
    with torch.no_grad():
        expected = net(rows)
        torch.testing.assert_close(finished(rows), expected, atol=1e-4, rtol=1e-4)
        difference = (aware(rows) - expected).abs()
    assert 0 < difference.mean() < 0.1 * expected.std()
    assert len(ranges) == sum(isinstance(one, nn.Conv2d | nn.Linear) for one in net.modules())
    assert not any(isinstance(one, Rounded) for one in finished.modules())
    assert type(finished.head) is nn.Linear


@pytest.mark.parametrize(
    ("make", "rows"), [(resnet, pictures()), (vit, pictures()), (bert, tokens())]
)
def test_training_goes_on_exactly_after_a_resume(make, rows):
    net = make()
    with torch.no_grad():
        targets = net(rows) * 1.1
    straight = prepare_aware(net, rows)
    for _ in range(4):
        step(straight, rows, targets)
    half = prepare_aware(net, rows)
    for _ in range(2):
        step(half, rows, targets)
    saved = {name: value.clone() for name, value in half.state_dict().items()}
    # Prepared anew from other weights and other rows: all that differs is in the state.
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.7)
    resumed = prepare_aware(other, rows[:9])
    resumed.load_state_dict(saved)
    for _ in range(2):
        step(resumed, rows, targets)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_it_learns():
    net, rows = resnet(), pictures()
    with torch.no_grad():
        targets = net(rows).flip(0)
    aware = prepare_aware(net, rows)
    losses = [step(aware, rows, targets, rate=0.5) for _ in range(15)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("make", "rows", "near"),
    [(resnet, pictures(256), 0.012), (vit, pictures(256), 0.02), (bert, tokens(256), 0.012)],
)
def test_the_int8_file_answers_as_what_was_trained(make, rows, near, tmp_path):
    net = make()
    aware = trained(net, rows)
    finished, ranges = finish_aware(aware)
    fp32 = export_onnx(finished, rows[:3], tmp_path / "fp32.onnx", metadata={})
    int8 = quantize_int8(
        fp32, tmp_path / "int8.onnx", calibration=rows[:64].numpy(), learned=ranges
    )
    with torch.no_grad():
        expected = aware(rows).numpy()
    found = check_parity(expected, int8, rows.numpy(), atol=np.inf, rtol=0.0)
    assert found.same_argmax is not None
    assert found.same_argmax >= 0.95  # an untrained network's classes nearly tie
    from understudy.deployed import Deployed

    answers = Deployed.open(int8, threads=1).predict(rows.numpy())
    assert np.abs(answers - expected).mean() < near * expected.std()


def test_learned_ranges_and_not_the_calibration_are_in_the_file(tmp_path):
    torch.manual_seed(0)
    net, rows = MLP(inputs=8, width=3, hidden=(16,)).eval(), torch.randn(64, 8)
    finished, ranges = finish_aware(prepare_aware(net, rows))
    fp32 = export_onnx(finished, rows[:3], tmp_path / "fp32.onnx", metadata={})
    files = [
        quantize_int8(
            fp32, tmp_path / "m.onnx", calibration=(rows * scale).numpy(), learned=learned
        ).read_bytes()
        for learned in (ranges, ())
        for scale in (1.0, 9.0)
    ]
    assert files[0] == files[1]
    assert files[2] != files[3]


def test_pruned_weights_stay_zero_where_that_is_asked():
    net, rows = resnet(), pictures()
    with torch.no_grad():
        weight = net.stages[0][0].conv1.weight
        weight[weight.abs() < weight.abs().median()] = 0
        zero = weight == 0
        targets = net(rows).flip(0)
    for keep in (True, False):
        aware = prepare_aware(net, rows, keep_zeros=keep)
        for _ in range(3):
            step(aware, rows, targets)
        finished, _ = finish_aware(aware)
        assert bool((finished.stages[0][0].conv1.weight[zero] == 0).all()) == keep


def test_shared_blocks_and_factors_stay_what_they_are():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(8, 3, bias=False), nn.Linear(3, 8), nn.ReLU())
    net, rows = nn.Sequential(block, block, nn.Linear(8, 2)), torch.randn(32, 8)
    aware = prepare_aware(net, rows)
    assert aware[0] is aware[1]
    finished, ranges = finish_aware(aware)
    assert finished[0] is finished[1]
    assert len(ranges) == 3
    assert len(list(aware.parameters())) == len(list(net.parameters()))


def test_a_table_of_positions_is_not_rounded_as_the_exporter_looks_it_up():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(60, 8), nn.Embedding(7, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, ids):
            places = self.places(torch.arange(ids.shape[1])[None])
            return self.head((self.words(ids) + places).mean(1))

    aware = prepare_aware(Positions().eval(), tokens())
    assert isinstance(aware.words, Rounded)
    assert not isinstance(aware.places, Rounded)


def test_what_cannot_be_prepared_is_refused():
    net, rows = resnet(), pictures(4)
    aware = prepare_aware(net, rows)
    with pytest.raises(ModelError, match="is prepared for eight bits already"):
        prepare_aware(aware, rows)
    with pytest.raises(ModelError, match=r"does not take these .* rows \[4, 2, 16, 16\]"):
        prepare_aware(net, rows[:, :2])
    with pytest.raises(ModelError, match="need rows, but got 0"):
        prepare_aware(net, rows[:0])
    with pytest.raises(ModelError, match=r"must be finite, but `stem\.0` takes or gives"):
        prepare_aware(net, rows / 0)
    with pytest.raises(ModelError, match="no linear layer, convolution or embedding"):
        prepare_aware(nn.Sequential(nn.ReLU()), rows)
    with pytest.raises(ModelError, match="was not prepared for eight bits"):
        finish_aware(net)
    with pytest.raises(ValueError, match="0 <= share <= 1"):
        prepare_aware(net, rows, share=2.0)
