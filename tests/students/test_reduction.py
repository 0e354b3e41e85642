import pytest
import torch

from understudy.errors import ModelError
from understudy.students.importance.reduction import pooled, reduction


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_maps_tokens_and_vectors_become_vectors():
    maps, tokens, vectors = normal(2, 3, 4, 5), normal(2, 7, 6), normal(2, 9)
    torch.testing.assert_close(pooled(maps), maps.mean((2, 3)))
    torch.testing.assert_close(pooled(tokens), tokens.mean(1))
    torch.testing.assert_close(pooled(vectors), vectors)
    assert pooled(normal(2, 3, 4, 5, 6)).shape == (2, 3)


def test_attention_looks_where_features_are_large():
    tokens = torch.zeros(1, 4, 2)
    tokens[0, 1] = torch.tensor([3.0, 4.0])
    # Lengths 0, 5, 0, 0 over their mean 1.25 are 0, 4, 0, 0.
    share = torch.tensor([0.0, 4.0, 0.0, 0.0]).softmax(0)[1]
    found = pooled(tokens, attention=True)
    torch.testing.assert_close(found, share * torch.tensor([[3.0, 4.0]]))
    assert float(found.norm()) > float(pooled(tokens).norm())


def test_attention_does_not_depend_on_the_unit_and_stands_zeros():
    tokens = normal(2, 5, 3)
    large = pooled(1000 * tokens, attention=True)
    torch.testing.assert_close(large, 1000 * pooled(tokens, attention=True), rtol=1e-4, atol=1e-3)
    assert bool(pooled(torch.zeros(2, 5, 3), attention=True).isfinite().all())


def test_principal_components_are_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    features = normal(50, 6) @ normal(6, 6, seed=1)
    found = reduction(features, "pca", components=3)(features)
    other = decomposition.PCA(n_components=3, svd_solver="full").fit_transform(features.numpy())
    torch.testing.assert_close(
        found.abs().float(), torch.from_numpy(other).abs(), atol=1e-3, rtol=0
    )


def test_discriminants_find_the_one_direction_that_tells_classes():
    classes = torch.arange(90) % 3
    features = 10 * normal(90, 5)
    # The third column varies least, and alone knows the class.
    features[:, 2] = 3.0 * classes + 0.1 * normal(90, seed=4)
    found = reduction(features, "lda", components=1, classes=classes)(features)[:, 0]
    centres = torch.stack([found[classes == k].mean() for k in range(3)])
    spread = max(float(found[classes == k].std()) for k in range(3))
    assert float(centres.sort().values.diff().min()) > 3 * spread
    first = reduction(features, "pca", components=1)(features)[:, 0]
    apart = torch.stack([first[classes == k].mean() for k in range(3)]).std()
    assert float(apart) < float(first.std())


def test_there_are_no_more_discriminants_than_classes_but_one():
    features, classes = normal(40, 6), torch.arange(40) % 3
    assert reduction(features, "lda", components=9, classes=classes)(features).shape == (40, 2)
    assert reduction(features, "pca", components=99)(features).shape == (40, 6)
    # Fewer rows than features.
    few = reduction(features[:4], "lda", components=2, classes=classes[:4])(features)
    assert bool(few.isfinite().all())


def test_what_was_learned_on_some_rows_is_applied_to_others():
    features = normal(60, 4)
    learned = reduction(features[:30], "pca", components=2)
    torch.testing.assert_close(learned(features)[30:], learned(features[30:]))
    assert torch.equal(reduction(features, "none", components=2)(features), features)


def test_classes_are_needed_where_they_are_told_apart():
    features = normal(10, 4)
    with pytest.raises(ModelError, match="needs a class per row, but got none"):
        reduction(features, "lda", components=1)
    with pytest.raises(ModelError, match="two classes or more"):
        reduction(features, "lda", components=1, classes=torch.zeros(10, dtype=torch.int64))
    with pytest.raises(ModelError, match="components >= 1"):
        reduction(features, "pca", components=0)
    with pytest.raises(ModelError, match="must be"):
        pooled(torch.zeros(3))
