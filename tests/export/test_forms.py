import numpy as np
import pytest

from understudy.deployed import Deployed
from understudy.export.forms import Form, make_form, speed_ratio


@pytest.mark.parametrize("kind", ["int8", "weight_int8", "weight_int4"])
def test_every_form_is_smaller_says_its_precision_and_answers(nets, exported, tmp_path, kind):
    rows = nets["mlp"][1].numpy()
    path = make_form(exported["mlp"], tmp_path / "m.onnx", Form(kind=kind), rows=rows)
    deployed = Deployed.open(path, threads=1)
    assert deployed.metadata["precision"] == kind
    assert path.stat().st_size < 0.7 * exported["mlp"].stat().st_size
    assert deployed.predict(rows).shape == (48, 10)


def test_the_options_of_a_form_reach_the_file(nets, exported, tmp_path):
    rows = np.repeat(nets["mlp"][1].numpy(), 50, 0)
    rows[0, 0] = 200  # an outlier, which one method leaves out
    forms = [
        Form(),
        Form(method="mse"),
        Form(reduce_range=False),
        Form(per_channel=False),
        Form(kind="weight_int4", block=16),
        Form(kind="weight_int4", block=32),
    ]
    files = {
        make_form(exported["mlp"], tmp_path / "m.onnx", form, rows=rows).read_bytes()
        for form in forms
    }
    assert len(files) == len(forms)


def test_a_file_is_as_fast_as_itself_and_slower_than_one_that_does_less(by_hand, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 256)).astype(np.float32)
    files = []
    for count in (1, 12):
        names = ["rows", *(f"hidden{n}" for n in range(count - 1)), "output"]
        nodes = [("MatMul", [names[n], f"w{n}"], names[n + 1]) for n in range(count)]
        weights = {f"w{n}": rng.normal(size=(256, 256)) for n in range(count)}
        files.append(by_hand(256, nodes, weights).rename(tmp_path / f"{count}.onnx"))
    small, large = files
    assert 0.4 < speed_ratio(small, small, rows, batch=64, seconds=0.3) < 2.5
    assert speed_ratio(large, small, rows, batch=64, seconds=0.3) > 3
    assert speed_ratio(small, large, rows, batch=64, seconds=0.3) < 1 / 3
