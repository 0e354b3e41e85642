"""Constraints that measure from where the weights started, or from zero."""

import numpy as np
import pytest
import torch

from conformance.weights import WeightCase, WeightLaws, weights
from understudy.losses import L2SP, NormBall, l2_sp, norm_ball


def squared(own, start):
    return sum(float(((own[n] - start[n]) ** 2).sum()) for n in own)


class TestL2SP(WeightLaws):
    @pytest.fixture
    def case(self):
        return WeightCase(
            loss=L2SP(), reference=lambda own, start: squared(own, start) / 2, degree=2
        )


class TestL2SPWithNewWeights(WeightLaws):
    @pytest.fixture
    def case(self):
        def reference(own, start):
            old = {n: v for n, v in own.items() if not n.startswith("fc.")}
            return 0.05 * squared(old, start) + 0.005 * float((own["fc.weight"] ** 2).sum())

        return WeightCase(
            loss=L2SP(alpha=0.1, beta=0.01, new=("fc.*",)), reference=reference, home=False
        )


class TestNormBall(WeightLaws):
    @pytest.fixture
    def case(self):
        def reference(own, start):
            far = [np.linalg.norm(own[n] - start[n]) for n in own]
            return sum(max(0.0, d - 0.5) ** 2 for d in far)

        return WeightCase(loss=NormBall(radius=0.5), reference=reference)


class TestNormBallOfTheNetworkAroundZero(WeightLaws):
    @pytest.fixture
    def case(self):
        def reference(own, start):
            del start
            whole = np.sqrt(sum((value**2).sum() for value in own.values()))
            return max(0.0, whole - 2.0) ** 2

        return WeightCase(
            loss=NormBall(radius=2.0, around="zero", per="network"), reference=reference, home=False
        )


def test_without_beta_new_weights_are_free():
    own, start = weights(1), weights(2)
    moved = own | {"fc.weight": own["fc.weight"] * 100}
    free = [l2_sp(w, start, alpha=1.0, beta=0.0, new=["fc.*"]) for w in (own, moved)]
    assert free[0] == free[1]


def test_weights_inside_the_ball_are_free():
    start = weights(1)
    own = {name: (value + 0.001).requires_grad_() for name, value in start.items()}
    value = norm_ball(own, start, radius=1.0, around="start", per="weight", skip=())
    value.backward()
    assert float(value.detach()) == 0
    assert all((w.grad == 0).all() for w in own.values())


@pytest.mark.parametrize("per", ["weight", "network"])
@pytest.mark.parametrize("around", ["start", "zero"])
def test_a_projection_puts_weights_on_the_ball_and_leaves_those_inside_alone(per, around):
    start = weights(1)
    near = start if around == "start" else {n: torch.zeros_like(v) for n, v in start.items()}
    own = {name: value + 0.001 for name, value in near.items()}
    own["fc.weight"] = near["fc.weight"] + 5.0
    before = {name: value.clone() for name, value in own.items()}
    ball = NormBall(radius=0.5, around=around, per=per, hold="projection")
    ball.project(own, start)
    far = {name: float((own[name] - near[name]).norm()) for name in own}
    assert float(ball(own, start)) < 1e-20
    if per == "weight":
        assert far["fc.weight"] == pytest.approx(0.5)
        others = [name for name in own if name != "fc.weight"]
        assert all(torch.equal(own[name], before[name]) for name in others)
    else:
        assert sum(d**2 for d in far.values()) == pytest.approx(0.25)
    again = {name: value.clone() for name, value in own.items()}
    ball.project(again, start)
    for name, value in own.items():
        torch.testing.assert_close(again[name], value, rtol=1e-12, atol=1e-12)


def test_a_penalty_projects_nothing():
    own, start = weights(1), weights(2)
    before = {name: value.clone() for name, value in own.items()}
    NormBall(radius=0.1).project(own, start)
    assert all(torch.equal(own[name], before[name]) for name in own)


def test_skipped_weights_are_outside_every_ball():
    own, start = weights(1), weights(2)
    ball = NormBall(radius=0.1, skip=("*.weight",), hold="projection")
    far = float((own["bias"] - start["bias"]).norm())
    assert float(ball(own, start)) == pytest.approx((far - 0.1) ** 2)
    before = own["fc.weight"].clone()
    ball.project(own, start)
    assert torch.equal(own["fc.weight"], before)


@pytest.mark.parametrize(("make", "law"), [
    (lambda: L2SP(alpha=-1.0), "alpha >= 0"),
    (lambda: L2SP(beta=float("nan")), "beta >= 0"),
    (lambda: NormBall(radius=0.0), "radius > 0"),
    (lambda: NormBall(radius=-1.0), "radius >= 0"),
    (lambda: NormBall(around="here"), "`around` must be one of start, zero"),
    (lambda: NormBall(per="layer"), "`per` must be one of network, weight"),
    (lambda: NormBall(hold="hard"), "`hold` must be one of penalty, projection"),
    (lambda: L2SP(new=("nothing.*",))(weights(1), weights(2)), "`nothing.\\*` names none"),
    (lambda: NormBall(skip=("x",))(weights(1), weights(2)), "`x` names none: the weights are conv"),
    (lambda: L2SP()(weights(1), {}), "every weight must have its start"),
])  # fmt: skip
def test_what_means_nothing_is_refused(make, law, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=law):
        make()


def test_the_constants_are_printed():
    assert "alpha=0.5" in repr(L2SP(alpha=0.5))
    assert "hold=projection" in repr(NormBall(hold="projection"))
