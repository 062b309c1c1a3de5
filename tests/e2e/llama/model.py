"""A model of a few hundred tokens for llama.cpp, made of what it is to say: model.py FILE.

The file is GGUF, version 3. The architecture is a llama's with one layer that adds nothing, so the next token follows from the last one alone.
What is said (`says.json`) is cut into pieces that occur once each; each piece is a token, and what comes after it is a number in the
output's weights. Everything else is noise from a fixed seed: where a grammar asks for what is in no chain, the model talks nonsense that
fits the grammar. Which chain begins is the template's doing: it ends the prompt with the chain's name, as a token of its own.
"""

import json
import random
import struct
import sys
from array import array
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 5
ALIGNMENT = 32
CONTEXT = 65536
HEADS = 4
PIECE_BYTES_MAX = 8
# What a token's successor gets before softmax. Noise is a third of one.
CERTAIN, LIKELY = 24.0, 4.6
# What nonsense is made of: no program has a name of these alone (of all letters, the model once called `w`).
NONSENSE, PAUSE, QUOTE = b"jqz", b" ", b'"'
ENDED = "<|end|>"
MARKS = (ENDED, "<|tools|>", "<|system|>", "<|user|>", "<|assistant|>", "<|result|>")
NORMAL, CONTROL = 1, 3
TYPES = {"u32": (4, "<I"), "f32": (6, "<f"), "i32": (5, "<i"), "bool": (7, "<?")}
STRING, ARRAY = 8, 9


def says():
    """What is said by name: the text, and what comes behind it (`end`, `again`, `anything`)."""
    return json.loads((HERE / "says.json").read_text())


def mark(name):
    """The token that begins a chain."""
    return f"<|{name}|>"


def pieces():
    """Each chain's text in pieces of bytes. No piece occurs twice, in any chain, and none is a byte alone: those are tokens already."""
    dice, used, cut = random.Random(SEED), set(), {}
    for name, (text, _then) in says().items():
        cut[name] = cut_up(text.encode(), used, dice)
        used.update(cut[name])
    return cut


def cut_up(text, used, dice):
    for _attempt in range(10_000):
        found, at = [], 0
        while at < len(text):
            size = dice.randint(2, PIECE_BYTES_MAX)
            found.append(text[at : at + size])
            at += size
        if len(set(found)) == len(found) and not used.intersection(found) and len(found[-1]) > 1:
            return found
    raise RuntimeError(f"{text!r} cannot be cut into pieces that occur once")


def shown_bytes():
    """The characters that stand for bytes in this tokenizer's vocabulary: printable ones for themselves, then whatever follows 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(rest)}


class Vocabulary:
    def __init__(self):
        self.shown = shown_bytes()
        self.chains = pieces()
        marks = [*MARKS, *(mark(name) for name in self.chains)]
        spoken = [bytes([byte]) for byte in range(256)] + [piece for chain in self.chains.values() for piece in chain]
        self.tokens = [*marks, *("".join(self.shown[byte] for byte in piece) for piece in spoken)]
        self.types = [CONTROL] * len(marks) + [NORMAL] * len(spoken)
        self.of_piece = {piece: len(marks) + number for number, piece in enumerate(spoken)}
        self.of_mark = {text: number for number, text in enumerate(marks)}

    def successors(self):
        """(token, the next one, how strongly)."""
        letters = [(self.of_piece[bytes([byte])], LIKELY) for byte in NONSENSE]
        anything = [*letters, *((self.of_piece[piece], LIKELY) for piece in (PAUSE, QUOTE))]
        for token in self.of_piece.values():
            if self.types[token] == NORMAL and len(self.tokens[token]) == 1:
                yield from ((token, other, weight) for other, weight in anything)
        for name, chain in self.chains.items():
            line = [self.of_mark[mark(name)], *(self.of_piece[piece] for piece in chain)]
            yield from ((token, other, CERTAIN) for token, other in zip(line, line[1:]))
            then = says()[name][1]
            if then == "end":
                yield line[-1], self.of_mark[ENDED], CERTAIN
            elif then == "again":
                yield line[-1], line[1], CERTAIN
            elif then == "anything":
                yield from ((line[-1], other, weight) for other, weight in letters)
            else:
                raise ValueError(f"{name}: {then!r} cannot come behind it")


def tensors(vocabulary):
    """(name, shape with the fastest dimension first, values)."""
    dice, count = random.Random(SEED), len(vocabulary.tokens)
    width = -(-count // ALIGNMENT) * ALIGNMENT
    # A token is a place of its own; behind the norm there stands the root of the width.
    places = array("f", bytes(4 * width * count))
    for token in range(count):
        places[token * width + token] = 1.0
    out = array("f", (dice.gauss(0, 0.02) for _ in range(width * count)))
    for token, other, weight in vocabulary.successors():
        out[other * width + token] = weight / width**0.5
    ones, hidden = array("f", [1.0] * width), ALIGNMENT
    yield "token_embd.weight", (width, count), places
    yield "output_norm.weight", (width,), ones
    yield "output.weight", (width, count), out
    for name in ("attn_norm", "ffn_norm"):
        yield f"blk.0.{name}.weight", (width,), ones
    for name, shape, silent in (
        ("attn_q", (width, width), False), ("attn_k", (width, width), False), ("attn_v", (width, width), False), ("attn_output", (width, width), True),
        ("ffn_gate", (width, hidden), False), ("ffn_up", (width, hidden), False), ("ffn_down", (hidden, width), True),
    ):
        values = (0.0 if silent else dice.gauss(0, 0.02) for _ in range(shape[0] * shape[1]))
        yield f"blk.0.{name}.weight", shape, array("f", values)


def keys(vocabulary):
    count = len(vocabulary.tokens)
    width = -(-count // ALIGNMENT) * ALIGNMENT
    return {
        "general.architecture": "llama", "general.name": "toy", "general.alignment": ("u32", ALIGNMENT),
        "llama.context_length": ("u32", CONTEXT), "llama.embedding_length": ("u32", width), "llama.block_count": ("u32", 1),
        "llama.feed_forward_length": ("u32", ALIGNMENT), "llama.attention.head_count": ("u32", HEADS), "llama.vocab_size": ("u32", count),
        "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-6), "llama.rope.dimension_count": ("u32", width // HEADS),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": vocabulary.tokens,
        # One that makes no token: a list without any is refused.
        "tokenizer.ggml.token_type": ("i32", vocabulary.types), "tokenizer.ggml.merges": ["q q"],
        "tokenizer.ggml.eos_token_id": ("u32", vocabulary.of_mark[ENDED]), "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.chat_template": (HERE / "template.jinja").read_text(),
    }


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(given):
    """A key's type and value."""
    if isinstance(given, str):
        return struct.pack("<I", STRING) + string(given)
    if isinstance(given, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(given)) + b"".join(map(string, given))
    kind, content = given
    number, form = TYPES[kind]
    if isinstance(content, list):
        return struct.pack("<IIQ", ARRAY, number, len(content)) + b"".join(struct.pack(form, item) for item in content)
    return struct.pack("<I", number) + struct.pack(form, content)


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def written():
    """The whole file."""
    vocabulary = Vocabulary()
    named, told = keys(vocabulary), list(tensors(vocabulary))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(told), len(named))
    head += b"".join(string(name) + value(given) for name, given in named.items())
    offset, body = 0, []
    for name, shape, values in told:
        if sys.byteorder == "big":
            values.byteswap()
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        body.append(padded(values.tobytes()))
        offset += len(body[-1])
    return padded(head) + b"".join(body)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(written())
