"""Soft orthogonality, in its four published forms."""

import numpy as np
import pytest
import torch

from conformance.weights import WeightCase, WeightLaws
from understudy.losses import Orthogonality, orthogonality


def residuals(own, *, larger=False):
    """G - I of every matrix, of its smaller or its larger side."""
    found = []
    for weight in own.values():
        if weight.ndim > 1:
            matrix = weight.reshape(len(weight), -1)
            if (matrix.shape[0] > matrix.shape[1]) != larger:
                matrix = matrix.T
            found.append(matrix @ matrix.T - np.eye(len(matrix)))
    return found


def soft(own, start):
    del start
    return sum(float((r**2).sum()) for r in residuals(own))


def double(own, start):
    return soft(own, start) + sum(float((r**2).sum()) for r in residuals(own, larger=True))


def coherence(own, start):
    del start
    return sum(float(np.abs(r).max()) for r in residuals(own))


def spectral(own, start):
    del start
    total = 0.0
    for rest in residuals(own):
        vector = rest[:, (rest**2).sum(axis=0).argmax()]
        once = rest @ vector
        total += float(np.linalg.norm(rest @ once) / np.linalg.norm(once))
    return total


REFERENCES = {"soft": soft, "double": double, "coherence": coherence}


@pytest.mark.parametrize("form", REFERENCES)
class TestOrthogonality(WeightLaws):
    @pytest.fixture
    def case(self, form):
        return WeightCase(loss=Orthogonality(form=form), reference=REFERENCES[form], home=False)


class TestSpectral(WeightLaws):
    @pytest.fixture
    def case(self):
        return WeightCase(loss=Orthogonality(form="spectral"), reference=spectral, home=False)

    def test_the_gradient_is_that_of_finite_differences(self, case):
        """The first vector is a constant, as the authors' random one is."""
        weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        weight.requires_grad_()
        case.loss({"w": weight}, {}).backward()
        rest = (weight @ weight.T - torch.eye(3)).detach()
        vector = rest[:, rest.square().sum(dim=0).argmax()]
        again = weight.detach().requires_grad_()
        own = again @ again.T - torch.eye(3)
        once = own @ vector
        ((own @ once).norm() / once.norm()).backward()
        torch.testing.assert_close(weight.grad, again.grad)


@pytest.mark.parametrize("form", ["soft", "coherence", "spectral"])
@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (4, 2, 3, 3)])
def test_an_orthogonal_matrix_costs_nothing(form, shape):
    weight = torch.nn.init.orthogonal_(torch.empty(*shape, dtype=torch.float64))
    assert float(orthogonality({"w": weight}, {}, form=form, skip=())) == pytest.approx(0, abs=1e-6)


def test_spectral_comes_close_to_the_largest_singular_value():
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(8, 20, generator=generator, dtype=torch.float64)
    exact = torch.linalg.matrix_norm(weight @ weight.T - torch.eye(8), ord=2)
    found = orthogonality({"w": weight}, {}, form="spectral", skip=())
    assert 0.8 * exact < found <= exact * (1 + 1e-9)


def test_the_larger_side_is_the_same_plus_a_constant():
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    one = orthogonality({"w": weight}, {}, form="soft", skip=())
    both = orthogonality({"w": weight}, {}, form="double", skip=())
    assert float(both - one) == pytest.approx(float(one) + 4)


def test_vectors_and_embeddings_have_no_angles():
    generator = torch.Generator().manual_seed(4)
    weights = {
        "bias": torch.randn(5, generator=generator),
        "token": torch.randn(1, 1, 8, generator=generator),
        "answer.weight": torch.randn(1, 8, generator=generator),
        "embeddings.word_embeddings.weight": torch.randn(9, 4, generator=generator),
        "transformer.wte.weight": torch.randn(9, 4, generator=generator),
    }
    assert float(Orthogonality()(weights, {})) == 0
    assert float(Orthogonality(skip=())(weights, {})) > 0


def test_an_unknown_form_is_refused(monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="`form` must be one of soft, double, coherence, spectral"):
        Orthogonality(form="hard")
    assert "form=soft" in repr(Orthogonality())
