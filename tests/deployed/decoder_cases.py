"""A decoder made by hand: a token is followed by what its row of a table says."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from understudy.data.sentence_pieces import pieces_definition

LETTERS = [" ", "a", "b", "c", "ab", "e", "\u00e9"]
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *LETTERS]
NUMBER = {piece: number for number, piece in enumerate(PIECES)}
TOKENIZER = {
    "content": pieces_definition(
        json.dumps([{"piece": piece, "score": -n} for n, piece in enumerate(PIECES)])
    ),
    "begin": 1,
    "end": 2,
}


def follows(*pairs, strength=9.0):
    """A table in which each token is likely followed by another."""
    table = np.zeros((len(PIECES), len(PIECES)), np.float32)
    for first, second in pairs:
        table[NUMBER[first], NUMBER[second]] = strength
    return table


def decoder_file(path, table, *, context=12, tokenizer=TOKENIZER, decoder=True):
    tokens, past = ["batch", "length"], ["batch", "past"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["tokens", "last"], ["at"], axis=1),
            helper.make_node("Gather", ["table", "at"], ["logits"]),
            helper.make_node("Concat", ["past.0", "tokens"], ["present.0"], axis=1),
        ],
        "bigrams",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, tokens),
            helper.make_tensor_value_info("past.0", TensorProto.INT64, past),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", table.shape[1]]),
            helper.make_tensor_value_info("present.0", TensorProto.INT64, ["batch", "all"]),
        ],
        [
            numpy_helper.from_array(np.array(-1, np.int64), "last"),
            numpy_helper.from_array(table, "table"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    told = {"vocabulary": len(table), "context": context, "stop": [2]}
    texts = {"decoder": told} if decoder else {}
    if tokenizer is not None:
        texts["tokenizer"] = tokenizer
    helper.set_model_props(model, {f"understudy.{k}": json.dumps(v) for k, v in texts.items()})
    onnx.save(model, path)
    return path
