"""Hugging Face models: as the library itself answers, then padding, export, and what is refused."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from conformance.teacher import ROWS, TeacherCase, TeacherLaws
from understudy.deployed import Deployed
from understudy.errors import ExportError, MissingExtraError, ModelError
from understudy.export.onnx import export_onnx
from understudy.teachers.hf_model import TokenModel, load_hf_model
from understudy.teachers.torch_module import TorchTeacher

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
}


def build(kind, **settings):
    """A small network with weights of its own."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.partition('For')[0].removesuffix('Model')}Config")
    return getattr(transformers, kind)(config(**{**SMALL, **settings})).eval()


def ids(rows=3, length=7):
    """Rows of tokens, the second one padded."""
    found = torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(0))
    found[1, 4:] = 0
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders that `save_pretrained` wrote."""
    folder = tmp_path_factory.mktemp("saved")
    kinds = {
        "states": build("BertModel", pad_token_id=0),
        "logits": build("BertForSequenceClassification", pad_token_id=0, num_labels=3),
        "decoder": build("LlamaForCausalLM", num_key_value_heads=1, pad_token_id=None),
    }
    for name, network in kinds.items():
        network.save_pretrained(folder / name)
    return folder, kinds


class TestTokenModelTeaches(TeacherLaws):
    @pytest.fixture
    def case(self):
        network = build("BertForSequenceClassification", pad_token_id=0, num_labels=3)
        module = TokenModel(network, pad=0, answer="logits")
        return TeacherCase(
            teacher=TorchTeacher(module, output="logits"),
            width=3,
            rows=lambda generator: torch.randint(1, 50, (ROWS, 6), generator=generator),
        )

    def test_there_is_no_gradient_and_no_graph(self, case, batch):
        # Token ids have no gradient to ask for.
        for value in case.teacher(batch).values():
            assert not value.requires_grad
            assert value.grad_fn is None
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["states", "logits", "decoder"])
def test_it_answers_as_the_library_does(saved, name):
    folder, kinds = saved
    model = load_hf_model(folder / name)
    rows = ids() if name != "decoder" else ids().clamp(min=1)
    with torch.no_grad():
        told = kinds[name](input_ids=rows, attention_mask=(rows != 0).long())
        expected = told.last_hidden_state if name == "states" else told.logits
        torch.testing.assert_close(model(rows), expected, rtol=0, atol=0)
    assert (model.answer, model.training) == ("states" if name == "states" else "logits", False)


def test_the_model_below_a_head_can_be_asked_for_its_states(saved):
    folder, kinds = saved
    model = load_hf_model(folder / "logits", answer="states")
    with torch.no_grad():
        told = kinds["logits"].bert(input_ids=ids(), attention_mask=(ids() != 0).long())
        torch.testing.assert_close(model(ids()), told.last_hidden_state)


def test_padding_is_read_off_the_ids_and_does_not_matter(saved):
    folder, _ = saved
    model = load_hf_model(folder / "logits")
    assert model.pad == 0
    longer = torch.cat([ids(), torch.zeros(3, 5, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model(longer), model(ids()), rtol=1e-4, atol=1e-6)
        unmasked = TokenModel(model.network, pad=None, answer="logits")
        assert not torch.allclose(unmasked(longer), unmasked(ids()), atol=1e-5)


def test_a_pad_of_ones_own_counts_and_a_model_may_have_none(saved):
    folder, _ = saved
    assert load_hf_model(folder / "decoder").pad is None
    assert load_hf_model(folder / "decoder", pad=7).pad == 7
    model = load_hf_model(folder / "states", pad=9)
    with torch.no_grad():
        rows = ids().masked_fill(ids() == 0, 9)
        torch.testing.assert_close(
            model(rows)[1, :4], load_hf_model(folder / "states")(ids())[1, :4]
        )


@pytest.mark.data
def test_a_real_story_model_goes_on_with_its_story(shared_data):
    model = load_hf_model(shared_data / "stories260k")
    words = json.loads((shared_data / "stories260k" / "vocabulary.json").read_text())
    told = [1]
    with torch.no_grad():
        for _ in range(12):
            told.append(int(model(torch.tensor([told]))[0, -1].argmax()))
    text = "".join(words[number]["piece"] for number in told[1:]).replace("▁", " ")
    assert text.strip().startswith("Once upon a time")


EXPORTED = {
    "classifier": lambda: TokenModel(
        build("BertForSequenceClassification", pad_token_id=0, num_labels=3), pad=0, answer="logits"
    ),
    "decoder": lambda: TokenModel(
        build("LlamaForCausalLM", num_key_value_heads=1, pad_token_id=0), pad=0, answer="logits"
    ),
}


@pytest.mark.parametrize("name", list(EXPORTED))
def test_its_file_takes_other_batches_and_lengths(tmp_path, name):
    model = EXPORTED[name]().eval()
    path = export_onnx(model, ids(), tmp_path / "m.onnx", metadata={}, free_length=True)
    deployed = Deployed.open(path, threads=1)
    assert deployed.input_shape == (None,)
    assert deployed.input_dtype == np.int64
    for batch, length in ((1, 1), (1, 5), (4, 20), (2, 2)):
        rows = torch.randint(1, 50, (batch, length))
        rows[0, 3:] = 0
        with torch.no_grad():
            expected = model(rows).numpy()
        np.testing.assert_allclose(deployed.predict(rows.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_a_length_that_cannot_be_free_is_refused(tmp_path):
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(50, 4)
            self.last = torch.nn.Linear(28, 2)

        def forward(self, rows):
            return self.last(self.table(rows).flatten(1))

    with pytest.raises(ExportError, match=r"cannot be exported|tokens\s+only"):
        export_onnx(Fixed(), ids(), tmp_path / "m.onnx", metadata={}, free_length=True)
    with pytest.raises(ExportError, match="three tokens long or more"):
        export_onnx(
            Fixed(), ids(length=7)[:, :2], tmp_path / "m.onnx", metadata={}, free_length=True
        )


class TestRefusals:
    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(ModelError, match="does not exist: correct the path"):
            load_hf_model(tmp_path / "nowhere")
        with pytest.raises(ModelError, match="does not exist"):
            load_hf_model("./no-such-model-here")

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelError, match=r"must hold `config\.json`"):
            load_hf_model(tmp_path)

    def test_a_name_without_a_network_is_one_clear_line(self, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelError, match="the hub cannot be reached") as refusal:
            load_hf_model("nobody/has-this-model")
        assert "\n" not in str(refusal.value)

    def test_logits_of_a_model_without_a_head(self, saved):
        folder, _ = saved
        with pytest.raises(ModelError, match="saved as BertModel: use `answer: states`"):
            load_hf_model(folder / "states", answer="logits")

    def test_weights_that_would_have_to_be_unpickled(self, saved, tmp_path):
        _, kinds = saved
        kinds["states"].config.save_pretrained(tmp_path)
        torch.save(kinds["states"].state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(ModelError, match="must be a safetensors file"):
            load_hf_model(tmp_path)

    def test_weights_that_do_not_fill_the_model(self, saved, tmp_path):
        _, kinds = saved
        kinds["states"].save_pretrained(tmp_path)
        config = transformers.BertConfig(**{**SMALL, "num_hidden_layers": 3}, pad_token_id=0)
        config.architectures = ["BertModel"]
        config.save_pretrained(tmp_path)
        with pytest.raises(ModelError, match=r"encoder\.layer\.2.* are missing"):
            load_hf_model(tmp_path)

    def test_code_that_came_with_a_model_is_not_run(self, tmp_path):
        (tmp_path / "config.json").write_text(
            '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}'
        )
        (tmp_path / "mine.py").write_text("raise SystemExit('code was run')\n")
        with pytest.raises(ModelError, match="never run"):
            load_hf_model(tmp_path)

    def test_without_the_library_the_extra_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtraError, match=r"understudy\[hf\]"):
            load_hf_model(tmp_path)


def test_nothing_of_the_library_is_loaded_before_it_is_needed():
    source = importlib.util.find_spec("understudy.teachers.hf_model").origin
    with open(source) as file:  # noqa: PTH123 (one line)
        tops = [line for line in file if line.startswith(("import", "from"))]
    assert not [line for line in tops if "transformers" in line]
