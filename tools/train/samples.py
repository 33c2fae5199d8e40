"""Training sequences, made on the fly: plain text, conversations about it, and long-context tasks hidden in it.

A sequence is decided by the seed, the step and its number in the batch; resuming at a step gives what would have come.
"""
import random

import numpy as np
import sentencepiece

import wordings

BEGIN, END_OF_TEXT = 1, 2
NO_LOSS, TEXT, ANSWER, FACT = range(4)  # what a token is to the loss


class Sampler:
    def __init__(self, tokens: np.ndarray, tokenizer: str):
        self._sp = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
        self._tokens = tokens
        piece = self._sp.piece_to_id
        self._newline, self._turn_start, self._turn_end = piece("<nl>"), piece("<|im_start|>"), piece("<|im_end|>")
        pieces = [self._sp.id_to_piece(i) for i in range(self._sp.get_piece_size())]
        self._starts_word = np.array([p.startswith("\u2581") for p in pieces])
        self._ends_sentence = np.array([p == "." for p in pieces])
        hash_mark = self._sp.encode("# A")[0]
        self._headings = np.flatnonzero((tokens[:-1] == self._newline) & (tokens[1:] == hash_mark)) + 1
        self._user = [self._turn_start] + self._sp.encode("user") + [self._newline]
        self._assistant = [self._turn_end, self._newline, self._turn_start] + self._sp.encode("assistant") + [self._newline]

    def batch(self, seed: int, step: int, numbers: range, length: int, phase: dict):
        """tokens and kinds [sequences, length + 1] of the sequences of one step that have these numbers."""
        parts = [self.sequence(random.Random((seed << 40) + (step << 12) + i), length + 1, phase) for i in numbers]
        return np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])

    def sequence(self, rng, size, phase):
        draw = rng.random()
        if draw < phase["text_share"]:
            tokens = np.concatenate([[BEGIN], self._window(rng, size - 1)])
            return tokens.astype(np.int32), np.full(size, TEXT, np.uint8)
        if draw < phase["text_share"] + phase["chat_share"]:
            return self._conversation(rng, size)
        return self._tasks(rng, size, phase)

    def _window(self, rng, size):
        at = rng.randrange(len(self._tokens) - size)
        return self._tokens[at:at + size]

    def _lines(self, rng, size):
        """Text for a prompt: document ends are newlines there."""
        text = self._window(rng, size).astype(np.int32)
        text[text == END_OF_TEXT] = self._newline
        return text

    # -- conversations

    def _turn(self, rng):
        """Question tokens and answer tokens: a section by its heading, or the rest of a paragraph."""
        at = int(self._headings[rng.randrange(len(self._headings))])
        section = self._tokens[at:at + 400].tolist()
        if END_OF_TEXT in section:
            section = section[:section.index(END_OF_TEXT)]
        if self._newline not in section:
            return None
        cut = section.index(self._newline)
        heading, body = self._sp.decode(section[1:cut]).strip(), section[cut:]
        while body and body[0] == self._newline:
            body = body[1:]
        # Whole paragraphs, up to the next heading or what the window holds.
        ends = [i for i, token in enumerate(body) if token == self._newline]
        limit = rng.choice([60, 120, 250])
        ends = [i for i in ends if i <= limit] or ends[:1]
        if not ends or not heading:
            return None
        body = body[:ends[-1]]
        headings = [i for i in range(1, len(body)) if body[i - 1] == self._newline and body[i] == section[0]]
        body = body[:headings[0] - 1] if headings else body
        while body and body[-1] == self._newline:
            body = body[:-1]
        if len(body) < 12:
            return None
        if rng.random() < 0.6:
            return self._sp.encode(rng.choice(wordings.EXPLAIN).format(heading)), body
        words = [i for i in range(6, min(len(body) - 5, 40)) if self._starts_word[body[i]] and self._newline not in body[:i]]
        if not words:
            return None
        cut = rng.choice(words)
        return self._sp.encode(rng.choice(wordings.CONTINUE).format(self._sp.decode(body[:cut]))), body[cut:]

    def _conversation(self, rng, size):
        tokens, kinds = [BEGIN], [NO_LOSS]
        while len(tokens) < size:
            turn = self._turn(rng)
            if turn is None:
                continue
            question, answer = self._user + turn[0] + self._assistant, turn[1] + [self._turn_end]
            tokens += question + answer + [self._newline]
            kinds += [NO_LOSS] * len(question) + [TEXT] * len(answer) + [NO_LOSS]
        return np.array(tokens[:size], np.int32), np.array(kinds[:size], np.uint8)

    # -- tasks

    def _tasks(self, rng, size, phase):
        low, high = phase["facts"]
        count = round(low * (high / low) ** rng.random())
        kind = rng.choices(list(self._mix(phase)), self._mix(phase).values())[0]
        if kind == "running":
            return self._running(rng, size, min(count, 40)) or self.sequence(rng, size, phase)
        if kind == "keys":
            tasks = [wordings.keys(rng, count)]
        elif kind == "pairs":
            tasks = [wordings.pairs(rng, count)]
        elif kind == "assignments":
            tasks = [wordings.assignments(rng, min(count, 96), None, phase.get("ordinals", 0))]
        else:
            tasks = [wordings.keys(rng, max(1, count // 3)), wordings.pairs(rng, max(1, count // 3)),
                     wordings.assignments(rng, max(1, min(16, count // 3)))]
        questions = [q for task in tasks for q in task.questions]
        rng.shuffle(questions)
        return self._place_tasks(rng, size, tasks, questions[:rng.randint(1, phase["questions"])], rng.random() < 0.3) or \
            self.sequence(rng, size, phase)

    def _running(self, rng, size, count):
        """A conversation whose messages each bring more text with assignments and ask for a variable's last value as of then;
        tokens and kinds [size], or None if there is no room."""
        made = wordings.assigned(rng, count, rng.choice([1, 1, 2, 3]))
        facts = [self._sp.encode(made.fact.format(*setting)) for setting in made.settings]
        cuts = sorted({count, *(rng.randint(1, count) for _ in range(rng.randint(1, 11)))})  # facts before each question
        turns = []
        for cut in cuts:
            asked, answer = rng.choice(list(dict(made.settings[:cut]).items()))
            turns.append((self._sp.encode(rng.choice(made.questions).format(asked)), self._sp.encode(answer)))
        around = [self._user + [self._newline] + question + self._assistant + answer + [self._turn_end, self._newline]
                  for question, answer in turns]
        room = size - 1 - sum(map(len, around)) - sum(len(fact) + 1 for fact in facts)
        if room < size // 4:
            return None
        # A message's share of the text is that of the facts it brings, so that they lie evenly.
        text, tokens, kinds, before = self._lines(rng, size), [np.array([BEGIN])], [np.array([NO_LOSS])], 0
        for first, cut, (question, answer) in zip([0, *cuts], cuts, turns):
            share = room * cut // count - room * first // count
            body, body_kinds = self._hide(rng, text[before:], share, [facts[first:cut]], (0, 0))
            asking = [self._newline] + question + self._assistant
            tokens += [self._user, body, asking, answer, [self._turn_end, self._newline]]
            kinds += [[NO_LOSS] * len(self._user), body_kinds, [NO_LOSS] * len(asking), [ANSWER] * len(answer), [ANSWER, NO_LOSS]]
            before += share + len(facts[first:cut])
        tokens, kinds = np.concatenate(tokens)[:size], np.concatenate(kinds)[:size]
        return tokens.astype(np.int32), kinds.astype(np.uint8)

    def one_question(self, rng, size, task):
        """A sequence with one task hidden in it and one of its questions at the end."""
        return self._place_tasks(rng, size, [task], [rng.choice(task.questions)], False)

    def _place_tasks(self, rng, size, tasks, questions, copy):
        """tokens and kinds [size], or None if the tasks leave no room for text."""
        turns = [(self._sp.encode(question), self._sp.encode(answer)) for question, answer in questions]
        facts = [self._facts(task) for task in tasks]
        text = self._lines(rng, size)
        copied, kept = self._copy(rng, text[:size // 2]) if copy else (None, (0, 0))
        if copied:
            turns.insert(rng.randint(0, len(turns)), copied)
        asked, asked_kinds = self._dialogue(turns)
        # Text besides the facts, each of which may need a newline after it.
        room = size - 1 - len(self._user) - len(asked) - sum(len(f) + 1 for group in facts for f in group)
        if room < max(size // 4, kept[1]):
            return None
        body, kinds = self._hide(rng, text, room, facts, kept)
        head = [BEGIN] + self._user
        return (np.concatenate([head, body, asked]).astype(np.int32),
                np.concatenate([[NO_LOSS] * len(head), kinds, asked_kinds]).astype(np.uint8))

    @staticmethod
    def _mix(phase):
        """Shares of the kinds of task; "all" is some of each in one text."""
        return phase.get("mix", {"keys": 0.45, "pairs": 0.13, "assignments": 0.27, "all": 0.15})

    def _facts(self, task):
        """Tokens of each piece to hide, in order."""
        lines = [self._sp.encode(fact) for fact in task.facts]
        if not task.together:
            return lines
        return [[self._newline] + [token for line in lines for token in line + [self._newline]]]

    def _dialogue(self, turns):
        """The first question ends the message that the text is in; each further one is a message of its own."""
        tokens, kinds = [], []
        for question, answer in turns:
            before = [self._newline] + (self._user if tokens else []) + question + self._assistant
            tokens += before + answer + [self._turn_end]
            kinds += [NO_LOSS] * len(before) + [ANSWER] * (len(answer) + 1)
        return tokens, kinds

    def _copy(self, rng, text):
        """A sentence that starts a line, to be asked for by its first words; and where it lies."""
        starts = np.flatnonzero(text[:-1] == self._newline) + 1
        for _ in range(4):
            if not len(starts):
                break
            at = int(rng.choice(starts))
            sentence = text[at:at + 60]
            ends = np.flatnonzero(self._ends_sentence[sentence])
            if not len(ends) or ends[0] < 14 or self._newline in sentence[:ends[0]]:
                continue
            sentence = sentence[:ends[0] + 1].tolist()
            cut = next((i for i in range(6, len(sentence) - 5) if self._starts_word[sentence[i]]), 0)
            if cut:
                question = rng.choice(wordings.COPY).format(self._sp.decode(sentence[:cut]))
                return (self._sp.encode(question), sentence), (at, at + len(sentence))
        return None, (0, 0)

    def _hide(self, rng, text, room, groups, kept):
        """`room` tokens of the text with each group's facts at random places, in their order; none inside `kept`. What
        newlines the facts did not need is text too."""
        cuts = []
        for facts in groups:
            places = sorted(self._place(rng, text[:room], kept) for _ in facts)
            cuts += [(place, fact) for place, fact in zip(places, facts)]
        parts, kinds, before = [], [], 0
        for place, fact in sorted(cuts, key=lambda cut: cut[0]):
            if place and text[place - 1] == self._newline:
                fact = fact + [self._newline]
            else:
                room += 1
            parts += [text[before:place], fact]
            kinds += [np.full(place - before, TEXT), np.full(len(fact), FACT)]
            before = place
        parts.append(text[before:room])
        kinds.append(np.full(room - before, TEXT))
        return np.concatenate(parts), np.concatenate(kinds)

    def _place(self, rng, text, kept):
        at = rng.randint(0, len(text) - 1)
        ahead = text[at:at + 200]
        found = np.flatnonzero(ahead == self._newline) + 1 if rng.random() < 0.5 else np.flatnonzero(self._starts_word[ahead])
        at += int(found[0]) if len(found) else 0
        return kept[1] if kept[0] <= at < kept[1] else at
