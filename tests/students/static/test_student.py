"""The static student of a recipe, and the probe that vectors like its are judged by."""

import numpy as np
import pytest
import torch

from understudy.students.probes import probe_hits
from understudy.students.static.student import Static


def test_what_is_left_out_adds_nothing_and_what_is_saved_says_the_same():
    torch.manual_seed(0)
    network = Static(vocabulary=12, pad=0, width=3)
    vectors = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    weights = np.linspace(0.1, 1.0, 12, dtype=np.float32)
    network.begin(vectors, weights, [1, 2])
    plain, framed = torch.tensor([[5, 6, 0, 0]]), torch.tensor([[1, 5, 6, 2]])
    torch.testing.assert_close(network(plain), network(framed))
    table = network.folded()
    assert not table[[0, 1, 2]].any()
    whole = table[5] + table[6]
    expected = whole / np.linalg.norm(whole)
    np.testing.assert_allclose(network(framed)[0].detach().numpy(), expected, rtol=1e-5)
    # A text of nothing but ends has no direction.
    assert network(torch.tensor([[1, 2, 0]])).tolist() == [[0.0, 0.0, 0.0]]
    again = Static(vocabulary=12, pad=0, width=3)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(framed), network(framed))


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        ({"strength": 0.0}, "`strength > 0` must hold, but got strength=0.0"),
        ({"frequency": float("nan")}, "`frequency > 0` must hold"),
        ({"steps": 0}, "`steps >= 1` must hold"),
        ({"pad": 12}, "`0 <= pad < vocabulary` must hold"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, law):
    with pytest.raises(ValueError, match=law):
        Static(**{"vocabulary": 12, "pad": 0, "width": 3} | arguments)


def test_a_probe_reads_what_a_straight_cut_can_read_and_no_more():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((400, 6))
    straight = (rows[:, 0] > 0).astype(np.int64)
    crossed = (rows[:, 0] * rows[:, 1] > 0).astype(np.int64)
    for labels, low, high in ((straight, 0.9, 1.0), (crossed, 0.3, 0.7)):
        hits = probe_hits(rows[:300], labels[:300], rows[300:], labels[300:])
        assert set(hits) <= {0.0, 1.0}
        assert low <= hits.mean() <= high
