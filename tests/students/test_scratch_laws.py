"""Fresh students of every built-in network keep the laws of students."""

import pytest
import torch

from conformance.student import StudentCase, StudentLaws
from understudy.models import MLP, CifarResNet, ConvNet, VisionTransformer
from understudy.students.scratch import scratch

IMAGE = {"channels": 1, "width": 5}
NETWORKS = {
    "mlp": lambda: MLP(inputs=64, width=5, hidden=[7]),
    "convnet": lambda: ConvNet(height=8, image_width=8, filters=(4, 4), hidden=6, **IMAGE),
    "resnet": lambda: CifarResNet(depth=8, base=4, **IMAGE),
    "vit": lambda: VisionTransformer(
        height=8, image_width=8, patch=4, dim=8, depth=1, heads=2, **IMAGE
    ),
}


class TestScratch(StudentLaws):
    @pytest.fixture(params=list(NETWORKS))
    def case(self, request):
        make = NETWORKS[request.param]
        rows = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return StudentCase(make=lambda seed: scratch(make, seed=seed), rows=rows, width=5)
