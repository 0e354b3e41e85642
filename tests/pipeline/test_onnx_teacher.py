"""An ONNX file teaches: nothing of PyTorch is known of it."""

import numpy as np
import pytest
import torch
from torch import nn

from understudy.errors import ModelError


class Teacher(nn.Module):
    """Takes raw digits `[batch, 8, 8, 1]` of 0..16."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(64, 10)

    def forward(self, rows):
        return self.net(rows.flatten(1).float() / 16)


@pytest.fixture
def teacher(tmp_path):
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from understudy.export.onnx import export_onnx

    images, labels = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=2000).fit(images[:400] / 16, labels[:400])
    module = Teacher()
    with torch.no_grad():
        module.net.weight.copy_(torch.tensor(fitted.coef_))
        module.net.bias.copy_(torch.tensor(fitted.intercept_))
    rows = torch.tensor(images[:4].reshape(-1, 8, 8, 1).astype(np.uint8))
    return export_onnx(module, rows, tmp_path / "teacher.onnx", metadata={})


def test_it_teaches_and_is_measured_from_its_file(teacher, small, run_small):
    data = small(seeds=1)
    data["teacher"] = {"onnx": teacher.name}
    record = run_small(data)
    summary = record.summary()
    assert summary["teacher"]["accuracy"]["value"] > 0.85
    assert summary["teacher"]["parameters"] in (650, 651)  # with the 16 it divides by
    assert summary["teacher"]["bytes"] == teacher.stat().st_size
    assert record.data["models"]["teacher"]["runtime"] == "onnxruntime"


def test_logits_that_are_said_to_be_probabilities_are_refused(teacher, small, run_small):
    data = small(seeds=1)
    data["teacher"] = {"onnx": teacher.name, "answers": "probabilities"}
    with pytest.raises(ModelError, match="answers: logits"):
        run_small(data)
