"""New heads on frozen features: fitted on few rows, compared with direct computations."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from understudy.errors import DataError, ModelError
from understudy.models import MLP, CifarResNet
from understudy.students.heads import PENALTIES, Head, fit_head, head_spot


def classes(rows=90, width=3, features=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % width
    middles = np.random.default_rng(99).normal(size=(width, features))
    return middles[labels] + noise * rng.normal(size=(rows, features)), labels


def logistic(features, labels, width, **settings):
    return fit_head(features, labels, kind="classification", width=width, **settings)


def ridge(features, labels, **settings):
    return fit_head(features, labels, kind="regression", width=labels.shape[1], **settings)


@pytest.mark.parametrize("width", [2, 3, 7])
def test_a_head_is_the_logistic_regression_of_its_penalty(width):
    features, labels = classes(width=width)
    head = logistic(features, labels, width)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    model = LogisticRegression(C=1 / head.penalty, max_iter=5000, tol=1e-8).fit(standard, labels)
    told = torch.softmax(torch.from_numpy(head(features)), dim=1).numpy()
    np.testing.assert_allclose(told, model.predict_proba(standard), atol=5e-3)


def test_a_regression_head_is_the_ridge_of_its_penalty_in_the_labels_units():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)) * [1, 10, 100, 1, 1] + 7
    labels = features @ rng.normal(size=(5, 2)) + 100 + rng.normal(size=(60, 2))
    head = ridge(features, labels)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    scale = labels.std(axis=0)
    model = Ridge(alpha=head.penalty).fit(standard, (labels - labels.mean(axis=0)) / scale)
    expected = model.predict(standard) * scale + labels.mean(axis=0)
    np.testing.assert_allclose(head(features), expected, rtol=1e-8)


def test_noise_asks_for_a_stronger_penalty_than_a_clean_signal():
    clean = logistic(*classes(noise=0.05, rows=30), 3).penalty
    noisy = logistic(*classes(noise=20.0, rows=30), 3).penalty
    assert clean < noisy
    assert {clean, noisy} <= set(PENALTIES)


def test_the_scale_and_the_origin_of_features_do_not_matter():
    features, labels = classes()
    one = logistic(features, labels, 3)
    other = logistic(1000.0 * features - 500.0, labels, 3)
    assert one.penalty == other.penalty
    np.testing.assert_allclose(one(features), other(1000.0 * features - 500.0), atol=1e-6)


def test_it_predicts_rows_that_it_has_not_seen():
    features, labels = classes(rows=600, noise=0.7)
    head = logistic(features[:60], labels[:60], 3)
    assert (head(features[60:]).argmax(axis=1) == labels[60:]).mean() > 0.85


def test_a_feature_that_does_not_vary_says_nothing():
    features, labels = classes()
    dead = np.concatenate([features, np.full((len(features), 1), 3.0)], axis=1)
    head = logistic(dead, labels, 3)
    moved = dead.copy()
    moved[:, -1] = 1e6
    np.testing.assert_allclose(head(dead), head(moved))
    assert np.isfinite(head(dead)).all()


def test_the_same_seed_gives_the_same_head_and_leaves_the_global_state_alone():
    features, labels = classes()
    np.random.seed(5)  # noqa: NPY002 (the global state itself is looked at)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (logistic(features, labels, 3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_two_rows_of_a_class_are_enough_and_one_is_not():
    features, labels = classes(rows=6)
    assert logistic(features, labels, 3).weight.shape == (3, 6)
    with pytest.raises(DataError, match="two labelled rows of every class"):
        logistic(features[:5], labels[:5], 3)


def test_what_cannot_be_learned_from_is_refused():
    features, labels = classes()
    with pytest.raises(DataError, match="one label per row"):
        logistic(features[:5], labels, 3)
    with pytest.raises(DataError, match="finite"):
        logistic(np.where(features > 1, np.nan, features), labels, 3)
    with pytest.raises(DataError, match="labels from 0"):
        logistic(features, labels + 1, 3)
    with pytest.raises(DataError, match="finite targets"):
        ridge(features, np.full((90, 2), np.nan))


def test_a_head_on_nothing_but_its_bias_answers_its_bias():
    head = Head(weight=np.zeros((2, 3)), bias=np.array([1.0, -1.0]), penalty=1.0)
    np.testing.assert_array_equal(head(np.ones((4, 3))), [[1.0, -1.0]] * 4)


def test_the_spot_is_what_the_last_linear_layer_reads():
    network = CifarResNet(channels=3, width=5, depth=8, base=2).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert head_spot(network, torch.zeros(2, 3, 8, 8)) == "head:input"
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    mlp = MLP(inputs=6, width=3, hidden=[4, 4])
    spot = head_spot(mlp, torch.zeros(2, 6))
    assert mlp.get_submodule(spot.partition(":")[0]).out_features == 3


def test_the_order_of_calls_counts_and_not_that_of_definitions():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, rows):
            return self.last(self.first(rows))

    assert head_spot(Backwards(), torch.zeros(2, 3)) == "last:input"


def test_a_network_without_a_linear_layer_or_of_one_alone_is_refused():
    with pytest.raises(ModelError, match=r"no nn\.Linear runs"):
        head_spot(nn.Sequential(nn.Conv2d(1, 2, 1)), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ModelError, match="no features of its own"):
        head_spot(nn.Linear(3, 2), torch.zeros(2, 3))
