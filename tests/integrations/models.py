"""Small models with weights of their own, rows of tokens, and trainers that train a step or two."""

import copy
from pathlib import Path

import torch
import transformers
from torch import nn

from understudy.integrations.transformers import TokenCollator, distilled

VOCABULARY = 24
LENGTHS = (5, 9, 12, 3, 7, 2, 11, 6)


def llama(width=8, *, vocabulary=VOCABULARY, seed=0, **settings):
    """A causal model in float64; weights far from 0, so that its answers differ."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=32, pad_token_id=0, initializer_range=0.5, **settings,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).double().eval()


class Bare(nn.Module):
    """The same model, of which nobody can see the head: its logits are read."""

    def __init__(self, model):
        super().__init__()
        self.inside = model

    def forward(self, input_ids, attention_mask=None, labels=None):
        answer = self.inside(input_ids=input_ids, attention_mask=attention_mask)
        return {"logits": answer.logits}


class Words:
    """A tokenizer, as far as it is asked here."""

    def __init__(self, words):
        self.words = words

    def get_vocab(self):
        return self.words


def rows(*, prompts=True):
    """Rows of different lengths; the first tokens of some are a prompt."""
    draw = torch.Generator().manual_seed(3)
    found = []
    for number, length in enumerate(LENGTHS):
        tokens = torch.randint(1, VOCABULARY, (length,), generator=draw).tolist()
        prompt = number % 3 if prompts else 0
        mask = [int(at >= prompt) for at in range(length)]
        found.append({"id": number, "input_ids": tokens, "completion_mask": mask})
    return found


class Watch(transformers.TrainerCallback):
    """Keeps the gradients of every optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **rest):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters()})


def trainer(folder, student, objective, given, *, batch=8, parts=1, steps=1, **options):
    """A distilled trainer, ready to train."""
    made = {name: options.pop(name) for name in ("teacher", "teacher_tokenizer") if name in options}
    named = {name: options.pop(name) for name in ("processing_class", "compute_metrics",
             "compute_loss_func", "eval_dataset", "data_collator") if name in options}  # fmt: skip
    named.setdefault("data_collator", TokenCollator())
    arguments = transformers.TrainingArguments(
        output_dir=str(Path(folder) / "out"), per_device_train_batch_size=batch,
        gradient_accumulation_steps=parts, max_steps=steps, use_cpu=True, report_to=[],
        save_strategy="no", logging_steps=1, disable_tqdm=True, optim="sgd", learning_rate=0.1,
        lr_scheduler_type="constant", max_grad_norm=0.0, train_sampling_strategy="sequential",
        dataloader_pin_memory=False, **options,
    )  # fmt: skip
    kind = distilled(transformers.Trainer, objective=objective, **made)
    return kind(model=student, args=arguments, train_dataset=given, **named)


def gradients(folder, student, objective, given, **options):
    """The gradients of the first step, and what it logged."""
    found, watch = trainer(folder, copy.deepcopy(student), objective, given, **options), Watch()
    found.add_callback(watch)
    found.train()
    return watch.steps[0], found.state.log_history[0]
