"""A small fine-tuned classifier that was never tuned: random weights, a tokenizer made here."""

import shutil

import torch
from tokenizers import Tokenizer as Library
from tokenizers.processors import TemplateProcessing

from understudy.data.tokenizers import train_tokenizer


def make_classifier(folder, texts, *, labels, size=100, positions=48, each_token=False, **more):
    """A folder as `save_pretrained` writes it, of a BERT with a head for these labels."""
    import transformers

    library = Library.from_str(train_tokenizer(list(texts), size=size).content)
    sep = library.token_to_id("[SEP]")
    library.post_processor = TemplateProcessing(
        single="[SEP] $A [SEP]", pair="[MASK] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[SEP]", sep), ("[MASK]", library.token_to_id("[MASK]"))],
    )  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, pad_token="[PAD]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=positions,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=positions,
        initializer_range=0.4,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **more,
    )
    kind = "BertForTokenClassification" if each_token else "BertForSequenceClassification"
    torch.manual_seed(0)
    shutil.rmtree(folder, ignore_errors=True)
    getattr(transformers, kind)(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def own_logits(folder, texts, pairs=None):
    """What transformers itself says of texts: its tokenizer, its padding, its model."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = tokenizer(
        list(texts), None if pairs is None else list(pairs), padding=True, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        return model(**rows).logits


def as_on_the_hub(folder, home, name, commit):
    """Put a copy of the folder where the hub's library keeps what it has fetched."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)
