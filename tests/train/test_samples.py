"""Training sequences and evaluation prompts: of the asked length, with the facts that their questions need."""
import pathlib
import random
import re
import sys

import numpy as np
import pytest
import sentencepiece

REPO = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(REPO / "tools/train"), str(REPO / "tools/eval")]
import samples  # noqa: E402
import wordings  # noqa: E402
from prompts import Prompts  # noqa: E402

TOKENIZER = str(REPO / "tools/demo/sala-12m/tokenizer.model")
SP = sentencepiece.SentencePieceProcessor(model_file=TOKENIZER)
NEWLINE = SP.piece_to_id("<nl>")


@pytest.fixture(scope="module")
def text():
    """The project's licence as four documents of headings and paragraphs."""
    paragraphs = [" ".join(p.split()) for p in (REPO / "LICENSE").read_text().split("\n\n")]
    ids = []
    for number in range(4):
        for at, paragraph in enumerate(p for p in paragraphs if len(p) > 60):
            ids += SP.encode(f"# Section {at}") + [NEWLINE] + SP.encode(paragraph) + [NEWLINE]
        ids[-1] = samples.END_OF_TEXT
    return np.array(ids, np.uint16)


def decode(tokens) -> str:
    return "\n".join(SP.decode(part.tolist()) for part in np.split(tokens, np.flatnonzero(tokens == NEWLINE)))


def phase(**over):
    return {"facts": [1, 12], "questions": 6, "text_share": 0.3, "chat_share": 0.2, **over}


def test_a_batch_is_decided_by_seed_and_step(text):
    sampler = samples.Sampler(text, TOKENIZER)
    first = sampler.batch(1, 7, range(6), 1024, phase())
    again, other = sampler.batch(1, 7, range(6), 1024, phase()), sampler.batch(1, 8, range(6), 1024, phase())
    assert first[0].shape == first[1].shape == (6, 1025)
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("make, count", [(wordings.keys, 8), (wordings.pairs, 8), (wordings.assignments, 16)])
def test_every_answer_is_in_the_text(text, make, count):
    sampler = samples.Sampler(text, TOKENIZER)
    for seed in range(20):
        rng = random.Random(seed)
        task = make(rng, count)
        tokens, kinds = sampler.one_question(rng, 2049, task)
        assert len(tokens) == len(kinds) == 2049
        answer = SP.decode(tokens[kinds == samples.ANSWER][:-1].tolist())  # without <|im_end|>
        assert answer in [a for _, a in task.questions]
        assert all(fact in decode(tokens) for fact in task.facts)


def test_the_last_assignment_is_the_last(text):
    sampler = samples.Sampler(text, TOKENIZER)
    for seed in range(20):
        rng = random.Random(seed)
        task = wordings.assignments(rng, 16)
        tokens, _ = sampler.one_question(rng, 2049, task)
        shown = decode(tokens)
        places = [shown.find(fact) for fact in task.facts]
        assert -1 not in places
        if len(set(task.facts)) == len(task.facts):
            assert places == sorted(places)
        for question, value in task.questions:
            variable = next(v for v in wordings.VARIABLES if re.search(rf"\b{v}\b", question))
            mine = [i for i, fact in enumerate(task.facts) if re.search(rf"\b{variable}\b", fact)]
            assert value in task.facts[mine[-1]]


def given(variable: str, shown: str) -> list[str]:
    """What a variable is set to in a text, in order."""
    wording = "|".join(re.escape(fact).replace(r"\{0\}", variable).replace(r"\{1\}", r"(\d+)") for fact, _ in wordings.ASSIGNMENTS)
    return ["".join(groups) for groups in re.findall(wording, shown)]


def test_a_running_question_asks_for_the_value_as_of_then(text):
    sampler, asked = samples.Sampler(text, TOKENIZER), 0
    for seed in range(20):
        tokens, kinds = sampler._running(random.Random(seed), 4097, 20)
        assert len(tokens) == len(kinds) == 4097
        shown = decode(tokens).replace("<nl>", "")
        turns = re.findall(r"\n ([^\n]*)<\|im_end\|>\n<\|im_start\|> assistant\n (\d+)<\|im_end\|>", shown)
        assert len(turns) == shown.count("assistant\n")
        for question, answer in turns:
            variable = next(v for v in wordings.VARIABLES if re.search(rf"\b{v}\b", question))
            before = shown[:shown.index(f" {question}<|im_end|>\n<|im_start|> assistant\n {answer}<")]
            assert given(variable, before)[-1].startswith(answer)  # a digit of the text may follow
            asked += 1
    assert asked > 40


def test_ordinal_questions_are_answered_from_the_assignments():
    kinds = {"first": lambda values, _: values[0], "before": lambda values, _: values[-2], "number": lambda values, n: values[n - 1],
             "how": lambda values, _: str(len(values))}
    wording = {"first": wordings.FIRST, "before": wordings.BEFORE_LAST, "number": wordings.ORDINAL, "how": wordings.HOW_MANY}
    seen = set()
    for seed in range(40):
        task = wordings.assignments(random.Random(seed), 20, variables=2, ordinals=3)
        for question, answer in task.questions:
            for kind, right in kinds.items():
                for form in wording[kind]:
                    found = re.fullmatch(re.escape(form).replace(r"\{0\}", "(?P<name>[a-z]+)").replace(r"\{1\}", r"(?P<n>\d+)"),
                                         question)
                    if found:
                        values = given(found["name"], "\n".join(task.facts))
                        assert answer == right(values, int(found["n"]) if kind == "number" else 0)
                        seen.add(kind)
    assert seen == set(kinds)


def test_evaluation_prompts_have_the_asked_length_and_depth(text, tmp_path):
    held_out = tmp_path / "held_out.u16"
    text.tofile(held_out)
    prompts = Prompts(str(held_out), TOKENIZER)
    for length in (1024, 4096):
        for depth in (0.0, 0.5, 0.99):
            trial = prompts.keys(random.Random(3), length, depth, count=8)
            assert len(trial.tokens) == length
            fact = SP.encode(f"is {trial.answer}.")
            at = next(i for i in range(length) if trial.tokens[i:i + len(fact)] == fact)
            assert abs(at / length - depth) < 0.1
        assert len(prompts.last_assignment(random.Random(4), length, 20).tokens) == length
