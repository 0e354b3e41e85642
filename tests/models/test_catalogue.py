"""What every reference network of numbers keeps to; those of texts are in `test_texts.py`."""

import doctest
import importlib
import inspect

import pytest
import torch
from torch import nn

from understudy import models
from understudy.models import CATALOGUE

KINDS = sorted(kind for kind in CATALOGUE if not kind.startswith("text_"))
ABOUT_THE_DATA = {"inputs", "channels", "height", "image_width", "width"}
SMALL = {
    "mlp": {"inputs": 128, "width": 5, "hidden": [12]},
    "convnet": {"channels": 2, "height": 8, "image_width": 8, "width": 5, "filters": [4, 6]},
    "resnet": {"channels": 2, "width": 5, "depth": 8, "base": 4},
    "vit": {
        "channels": 2,
        "height": 8,
        "image_width": 8,
        "width": 5,
        "patch": 4,
        "dim": 12,
        "depth": 2,
        "heads": 3,
    },
}


def small(kind, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CATALOGUE[kind](**SMALL[kind])


def images(rows, seed=1):
    return torch.randn(rows, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_these_are_the_kinds_and_nothing_can_be_added_while_running():
    texts = ["text_bilstm", "text_cnn", "text_static", "text_transformer"]
    assert sorted(CATALOGUE) == ["convnet", "mlp", "resnet", *texts, "vit"]
    with pytest.raises(TypeError):
        CATALOGUE["mine"] = nn.Linear
    kinds = [*CATALOGUE.values(), *models.CAUSAL.values()]
    assert set(models.__all__) == {"CATALOGUE", "CAUSAL", *(c.__name__ for c in kinds)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_is_a_keyword_with_a_type_and_data_arguments_have_no_default(kind):
    parameters = inspect.signature(CATALOGUE[kind]).parameters
    assert "width" in parameters
    for name, parameter in parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.annotation is not parameter.empty
        if name in ABOUT_THE_DATA:
            assert parameter.default is parameter.empty
            assert parameter.annotation is int


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_it_answers_one_row_of_width_numbers_per_image(kind, rows):
    answers = small(kind).eval()(images(rows))
    assert answers.shape == (rows, 5)
    assert answers.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_every_weight_from_the_first_layer_on(kind):
    network = small(kind)
    network(images(6)).square().sum().backward()
    for name, weights in network.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.isfinite().all(), name
        assert weights.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights_answers_and_gradients(kind):
    pairs = []
    for _ in range(2):
        network = small(kind, seed=3)
        answers = network(images(6))
        answers.square().sum().backward()
        pairs.append((answers.detach(), [w.grad for w in network.parameters()]))
    assert torch.equal(pairs[0][0], pairs[1][0])
    assert all(map(torch.equal, pairs[0][1], pairs[1][1]))
    other = small(kind, seed=4)(images(6))
    assert not torch.equal(pairs[0][0], other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_answered_alike_alone_and_in_any_company(kind):
    network, batch = small(kind).eval(), images(6)
    together = network(batch)
    alone = torch.cat([network(batch[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(network(batch.flip(0)), together.flip(0))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_survive_a_round_trip_through_a_state_dict(kind):
    network, copy = small(kind, seed=0), small(kind, seed=1)
    copy.load_state_dict(network.state_dict())
    assert torch.equal(copy.eval()(images(3)), network.eval()(images(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_images_get_the_same_answer(kind):
    network = small(kind).eval()
    expected = network(images(4))
    as_stored = images(4).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network.to(memory_format=torch.channels_last)(as_stored), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_runs_in_other_precisions(kind, dtype):
    network = small(kind).eval()
    answers = network.to(dtype)(images(4).to(dtype))
    assert answers.dtype == dtype
    assert answers.isfinite().all()


@pytest.mark.parametrize("kind", ["mlp", "convnet", "vit"])
def test_dropout_works_while_training_only(kind):
    network = CATALOGUE[kind](**SMALL[kind], dropout=0.5)
    batch = images(4)
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    assert torch.equal(network(batch), network(batch))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_one_graph_for_any_batch(kind):
    network = small(kind).eval()
    batch = {0: torch.export.Dim("batch")}
    graph = torch.export.export(network, (images(3),), dynamic_shapes=(batch,)).module()
    for rows in (1, 5):
        torch.testing.assert_close(graph(images(rows)), network(images(rows)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [0, -3])
def test_every_size_below_one_is_refused_by_name(kind, bad):
    for name, value in SMALL[kind].items():
        if name == "depth" and kind == "resnet":
            continue
        wrong = [4, bad] if isinstance(value, list) else bad
        law = rf"`{name} >= 1` must hold, but got {name}=(\[4, )?{bad}"
        with pytest.raises(ValueError, match=law):
            CATALOGUE[kind](**{**SMALL[kind], name: wrong})


@pytest.mark.parametrize("kind", ["mlp", "convnet", "vit"])
@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan")])
def test_a_dropout_outside_zero_to_one_is_refused(kind, bad):
    law = f"`0 <= dropout < 1` must hold, but got dropout={bad}"
    with pytest.raises(ValueError, match=law):
        CATALOGUE[kind](**SMALL[kind], dropout=bad)


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet", "vit"])
def test_the_example_in_the_manual_runs(name):
    module = importlib.import_module(f"understudy.models.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
