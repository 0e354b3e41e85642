"""T5 and BART in a distilled `Trainer`: labels moved right, the same gradient for every cut."""

import copy

import pytest
import torch
import transformers

from integrations.models import gradients, llama, trainer
from understudy.errors import ModelError, TrainingError
from understudy.integrations.transformers import Reverse, TokenObjective

VOCABULARY = 24
OBJECTIVE = TokenObjective(divergence=Reverse(), temperature=2.0, soft_weight=0.7, hard_weight=0.4)


def t5(width=8, *, seed=0):
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=4, d_ff=2 * width, num_layers=1, num_heads=2,
        dropout_rate=0.0, decoder_start_token_id=0, initializer_factor=2.0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).double().eval()


def bart(width=8, *, seed=0):
    torch.manual_seed(seed)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=width, encoder_layers=1, decoder_layers=1, dropout=0.0,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=32, init_std=0.5, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config).double().eval()


def rows():
    """A text without capitals and marks, and what it was: of different lengths."""
    draw = torch.Generator().manual_seed(2)
    found = []
    for length in (5, 9, 3, 7, 4, 8, 2, 6):
        tokens = torch.randint(3, VOCABULARY, (length + 2,), generator=draw)
        found.append({"input_ids": tokens[:length].tolist(), "labels": tokens.tolist()})
    return found


def collate(some):
    def padded(parts, fill):
        longest = max(map(len, parts))
        return torch.tensor([part + [fill] * (longest - len(part)) for part in parts])

    texts = [row["input_ids"] for row in some]
    return {
        "input_ids": padded(texts, 0),
        "attention_mask": padded([[1] * len(text) for text in texts], 0),
        "labels": padded([row["labels"] for row in some], -100),
    }


def begun(model, labels):
    """The labels, moved to the right by hand."""
    start = model.config.decoder_start_token_id
    return torch.tensor([[start, *labels[:-1]]])


def by_hand(student, teacher):
    """The gradient of the mean over all labels, one row after the other, unpadded."""
    student = copy.deepcopy(student).train()
    total, count = 0.0, 0
    for row in rows():
        tokens, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        own, goal = (
            model(input_ids=tokens, decoder_input_ids=begun(model, row["labels"])).logits[0]
            for model in (student, teacher)
        )
        own_at, goal_at = (own / 2).log_softmax(1), (goal.detach() / 2).log_softmax(1)
        total = total + 0.7 * 4 * (own_at.exp() * (own_at - goal_at)).sum()
        total = total - 0.4 * own.log_softmax(1).gather(1, labels[:, None]).sum()
        count += len(labels)
    (total / count).backward()
    return {n: p.grad for n, p in student.named_parameters() if p.grad is not None}, float(
        (total / count).detach()
    )


@pytest.mark.parametrize(("make", "wise"), [(t5, bart), (bart, t5), (t5, t5)])
def test_a_step_is_the_mean_over_all_labels_however_it_is_cut(tmp_path, make, wise):
    student, teacher = make(8), wise(12, seed=1)
    expected, loss = by_hand(student, teacher)
    for batch, parts in ((8, 1), (3, 3)):
        found, told = gradients(
            tmp_path, student, OBJECTIVE, rows(), teacher=teacher, batch=batch, parts=parts,
            data_collator=collate,
        )  # fmt: skip
        assert set(found) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        assert told["loss"] == pytest.approx(loss, rel=1e-6)


def test_it_learns_what_the_teacher_says_and_evaluates(tmp_path):
    student, teacher = t5(8).float(), t5(12, seed=1).float()
    made = trainer(
        tmp_path, student, TokenObjective(), rows(), teacher=teacher, data_collator=collate,
        steps=12, eval_dataset=rows(),
    )  # fmt: skip
    made.train()
    log = [line["divergence"] for line in made.state.log_history if "divergence" in line]
    assert log[-1] < log[0]
    assert made.evaluate()["eval_loss"] == pytest.approx(log[-1], rel=0.5)


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    options = {"data_collator": collate}
    with pytest.raises(ModelError, match="must be one too, but LlamaForCausalLM is none"):
        trainer(tmp_path, t5(), OBJECTIVE, rows(), teacher=llama(8), **options).train()
    with_labels = [row | {"teacher_tail": [0.0]} for row in rows()]

    def stored(some):
        return collate(some) | {"teacher_tail": torch.zeros(len(some), 3)}

    with pytest.raises(TrainingError, match="stored labels are of causal models"):
        trainer(tmp_path, t5(), OBJECTIVE, with_labels, data_collator=stored).train()
