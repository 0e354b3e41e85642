"""A tiny sentence encoder of its own, as a folder, and sentences for it; nothing is downloaded."""

import random

import torch

PEOPLE = ["a man", "two women", "the dog", "a child", "the actor", "some girls"]
DEEDS = ["eats", "sings", "runs", "plays a guitar", "is sleeping", "reads"]
PLACES = ["in the park", "in the rain", "at home", "on a stage", "near the sea"]


def sentences(count=160, seed=0):
    draw = random.Random(seed)
    found = {}
    while len(found) < count:
        parts = [draw.choice(PEOPLE), draw.choice(DEEDS), draw.choice(PLACES)]
        more = draw.choice(["", " today", " again and again", ", says " + draw.choice(PEOPLE)])
        found[" ".join(parts) + more] = None
    return list(found)


def encoder_folder(path, *, width=16, layers=2, vocabulary=90, length=32):
    """A folder of sentence-transformers with random weights that are large enough to tell apart."""
    from tokenizers import BertWordPieceTokenizer, Tokenizer, processors
    from transformers import BertConfig, BertModel

    from understudy.teachers.sentence_encoder import SentenceEncoder, save_sentence_encoder
    from understudy.teachers.sentence_tokenizer import SentenceTokenizer

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(sentences(), vocab_size=vocabulary, show_progress=False)
    library = Tokenizer.from_str(trained.to_str())
    ends = [(name, library.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    library.post_processor = processors.BertProcessing(*ends)
    library.enable_truncation(length)
    tokenizer = SentenceTokenizer(
        library,
        length=length,
        pad=library.token_to_id("[PAD]"),
        lower=True,
        description={
            "tokenizer_config.json": {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": True,
                "model_max_length": length,
                **{f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")},
            }
        },
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=library.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=length,
        initializer_range=0.3,
    )
    encoder = SentenceEncoder(BertModel(config, add_pooling_layer=False), pad=tokenizer.pad)
    return save_sentence_encoder(encoder.eval(), tokenizer, path)
