"""Evaluation prompts of exact lengths: held-out text with facts hidden at chosen depths, and one question."""
import random
from dataclasses import dataclass

import numpy as np
import sentencepiece

BEGIN, END_OF_TEXT = 1, 2
COLOURS = "red blue green black white silver golden purple orange grey pink brown copper amber scarlet ivory".split()
THINGS = "falcon river mountain castle lantern harbor engine garden wolf tiger bridge mirror anchor comet forest hammer".split()


@dataclass
class Trial:
    tokens: list[int]
    answer: str
    depth: float  # of the asked fact, 0 to 1


def digits(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(5))


def key_facts(names, values):
    return [f"The secret key of the {name} is {value}." for name, value in zip(names, values)]


def near_identical(rng: random.Random, count: int) -> list[str]:
    """Names of a square of words: each shares a word with many others."""
    side = round(count ** 0.5)
    colours, things = rng.sample(COLOURS, side), rng.sample(THINGS, -(-count // side))
    return rng.sample([f"{colour} {thing}" for colour in colours for thing in things], count)


class Prompts:
    def __init__(self, held_out: str, tokenizer: str):
        self._sp = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
        piece = self._sp.piece_to_id
        self._newline, turn_start, turn_end = piece("<nl>"), piece("<|im_start|>"), piece("<|im_end|>")
        self.text = np.fromfile(held_out, np.uint16)
        self._starts_word = np.array([self._sp.id_to_piece(i).startswith("\u2581") for i in range(len(self._sp))])
        self._head = [BEGIN, turn_start] + self._sp.encode("user") + [self._newline]
        self._end = [turn_end, self._newline, turn_start] + self._sp.encode("assistant") + [self._newline]
        ends = np.flatnonzero(self.text == END_OF_TEXT)
        self._documents = np.split(self.text, ends + 1)[:-1]

    def _filler(self, rng, size) -> np.ndarray:
        """Held-out documents in random order, again and again if there are too few, from a random place on."""
        parts, have = [], 0
        while have < size + 5000:
            for document in rng.sample(self._documents, len(self._documents)):
                parts.append(document)
                have += len(document)
                if have >= size + 5000:
                    break
        text = np.concatenate(parts)[rng.randrange(5000):][:size].astype(np.int64)
        text[text == END_OF_TEXT] = self._newline
        return text

    def _assemble(self, rng, length, facts, depths, question):
        """A chat prompt of `length` tokens with each fact at its depth, as a sentence between words."""
        facts = [self._sp.encode(fact) for fact in facts]
        tail = [self._newline] + self._sp.encode(question) + self._end
        text = self._filler(rng, length - len(self._head) - len(tail) - sum(map(len, facts)))
        parts, before = [], 0
        for depth, fact in sorted(zip(depths, facts), key=lambda pair: pair[0]):
            at = min(len(text) - 1, int(depth * len(text)))
            ahead = np.flatnonzero(self._starts_word[text[at:at + 200]])
            at = max(before, at + (int(ahead[0]) if len(ahead) else 0))
            parts += [text[before:at].tolist(), fact]
            before = at
        parts.append(text[before:].tolist())
        return self._head + [token for part in parts for token in part] + tail

    def keys(self, rng, length, depth, count=1, distractors=0) -> Trial:
        """`count` keys of near-identical names, the asked one at `depth`. Distractors are numbers of the same name."""
        names = near_identical(rng, count)
        values = [digits(rng) for _ in names]
        facts, depths = key_facts(names, values), [depth] + [rng.random() for _ in names[1:]]
        kinds = ["The phone number", "The price", "The weight", "The serial number", "The room number", "The year"]
        for kind in rng.sample(kinds, distractors):
            facts.append(f"{kind} of the {names[0]} is {digits(rng)}.")
            depths.append(rng.random())
        question = f"What is the secret key of the {names[0]}?"
        return Trial(self._assemble(rng, length, facts, depths, question), values[0], depth)

    def last_assignment(self, rng, length, count) -> Trial:
        """A variable is set `count` times."""
        variable = rng.choice(["alpha", "beta", "gamma", "delta", "counter", "total", "level", "score"])
        values = [digits(rng) for _ in range(count)]
        depths = sorted(rng.random() for _ in values)
        facts = [f"The value of {variable} is now {value}." for value in values]
        question = f"What is the last value of {variable}?"
        return Trial(self._assemble(rng, length, facts, depths, question), values[-1], depths[-1])

    def window(self, rng, size) -> list[int]:
        """Consecutive held-out tokens."""
        at = rng.randrange(len(self.text) - size)
        return self.text[at:at + size].astype(int).tolist()
