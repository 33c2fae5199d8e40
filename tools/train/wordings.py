"""The long-context tasks in words: facts to hide in a text, and what to ask about them.

The first wording of a list is the one that tools/demo and tools/eval use; training draws it more often.
"""
import random
from dataclasses import dataclass

COLOURS = ("red blue green black white silver golden purple orange grey pink brown copper amber scarlet "
           "ivory").split()
THINGS = ("falcon river mountain castle lantern harbor engine garden wolf tiger bridge mirror anchor comet forest "
          "hammer").split()
WORDS = ("apple basket candle desert eagle feather glacier helmet island jacket kettle ladder meadow needle ocean pepper "
         "quarry ribbon saddle temple umbrella valley window yellow zebra bottle circle dragon flower guitar honey "
         "iron jungle kitchen lemon marble night orchard pencil rabbit spoon thunder velvet winter").split()
VARIABLES = "alpha beta gamma delta epsilon kappa lambda sigma omega counter total speed level score limit budget".split()

KEYS = [("The secret key of the {0} is {1}.", ["What is the secret key of the {0}?", "Tell me the secret key of the {0}."]),
        ("The access code of the {0} is {1}.", ["What is the access code of the {0}?", "Give me the access code of the {0}."]),
        ("The password for the {0} is {1}.", ["Which password belongs to the {0}?", "What is the password for the {0}?"]),
        ("Remember that the {0} has the number {1}.", ["Which number does the {0} have?", "What is the number of the {0}?"]),
        ("The magic word of the {0} is {1}.", ["What is the magic word of the {0}?"])]
PAIRS = [("{0}: {1}", ["Which value belongs to {0}?", "What is the value of {0}?"]),
         ("{0} = {1}", ["What is {0} equal to?", "What is the value of {0}?"]),
         ("The entry {0} has the value {1}.", ["Which value does the entry {0} have?"])]
ASSIGNMENTS = [("The value of {0} is now {1}.", ["What is the last value of {0}?", "What is the value of {0} at the end?"]),
               ("Set {0} to {1}.", ["What was {0} set to last?", "What is the value of {0} at the end?"]),
               ("{0} = {1}", ["What is the last value of {0}?", "What is {0} at the end?"]),
               ("After this step {0} is {1}.", ["What is {0} after the last step?"])]
FIRST = ["What is the first value of {0}?", "What was {0} set to first?"]
BEFORE_LAST = ["What is the value of {0} before the last?", "Which value did {0} have before its last one?"]
ORDINAL = ["What is value number {1} of {0}?", "Which value did {0} get at time {1}?"]
HOW_MANY = ["How many values did {0} get?", "How often was {0} set?"]
COPY = ['Repeat the sentence that begins with "{0}".', 'Which sentence begins with "{0}"?', 'Copy the sentence "{0} ..."']
EXPLAIN = ["Tell me about {0}.", "Explain: {0}", "Write about {0}.", "What can you say about {0}?", "{0}?"]
CONTINUE = ["Continue this text: {0}", "Go on: {0}", "{0}"]


@dataclass
class Task:
    facts: list[str]  # in the order in which they must appear
    questions: list[tuple[str, str]]  # with the answer
    together: bool = False  # as lines of one list


def pick(rng: random.Random, wordings: list):
    return wordings[0] if rng.random() < 0.4 else rng.choice(wordings)


def names(rng: random.Random, count: int) -> list[str]:
    """Different names; often as alike as they can be, every word of one in others too."""
    kind = rng.random()
    if kind < 0.35:
        return rng.sample([f"{colour} {thing}" for colour in COLOURS for thing in THINGS], count)
    if kind < 0.8:
        side = max(1, round(count ** 0.5))
        colours, things = rng.sample(COLOURS, min(16, side)), rng.sample(THINGS, min(16, -(-count // min(16, side))))
        return rng.sample([f"{colour} {thing}" for colour in colours for thing in things], count)
    thing = rng.choice(THINGS)
    return [f"{thing} {number}" for number in rng.sample(range(100, 1000) if rng.random() < 0.7 else range(1000, 10000), count)]


def value(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.75:
        return "".join(rng.choice("0123456789") for _ in range(5 if kind < 0.6 else rng.randint(3, 8)))
    return " ".join(rng.sample(WORDS, rng.randint(1, 2)))


def keys(rng: random.Random, count: int) -> Task:
    fact, questions = pick(rng, KEYS)
    values = {name: value(rng) for name in names(rng, count)}
    return Task([fact.format(name, v) for name, v in values.items()],
                [(rng.choice(questions).format(name), v) for name, v in values.items()])


def pairs(rng: random.Random, count: int) -> Task:
    fact, questions = pick(rng, PAIRS)
    style = rng.randrange(3)
    if style == 0:
        labels = names(rng, count)
    elif style == 1:
        labels = [f"{rng.choice(WORDS)}-{number}" for number in rng.sample(range(10, 1000), count)]
    else:
        labels = rng.sample([f"{a}-{b}" for a in WORDS for b in THINGS], count)
    values = {label: value(rng) for label in labels}
    return Task([fact.format(label, v) for label, v in values.items()],
                [(rng.choice(questions).format(label), v) for label, v in values.items()], rng.random() < 0.5)


def ordinal(rng: random.Random, variable: str, values: list[str]) -> tuple[str, str]:
    """A question that takes counting the variable's values."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(FIRST).format(variable), values[0]
    if kind == 1 and len(values) > 1:
        return rng.choice(BEFORE_LAST).format(variable), values[-2]
    if kind == 2:
        return rng.choice(HOW_MANY).format(variable), str(len(values))
    number = rng.randint(1, len(values))
    return rng.choice(ORDINAL).format(variable, number), values[number - 1]


@dataclass
class Assignments:
    settings: list[tuple[str, str]]  # variable and value, in their order
    fact: str  # wording
    questions: list[str]  # wordings that ask for the last value


def assigned(rng: random.Random, count: int, variables: int) -> Assignments:
    """`count` assignments spread over `variables`, each of which is set at least once."""
    fact, questions = pick(rng, ASSIGNMENTS)
    names, digits = rng.sample(VARIABLES, min(variables, count, len(VARIABLES))), rng.choice([2, 3, 4, 5, 5])
    order = names + [rng.choice(names) for _ in range(count - len(names))]
    rng.shuffle(order)
    return Assignments([(name, "".join(rng.choice("0123456789") for _ in range(digits))) for name in order], fact, questions)


def assignments(rng: random.Random, count: int, variables: int | None = None, ordinals: int = 0) -> Task:
    """The last value of each variable, and `ordinals` more questions about its others. Most variables are set 4 to 32 times."""
    made = assigned(rng, count, variables or max(1, round(count / rng.randint(4, 32))))
    questions = []
    for name in dict(made.settings):
        values = [value for variable, value in made.settings if variable == name]
        questions.append((rng.choice(made.questions).format(name), values[-1]))
        questions += dict(ordinal(rng, name, values) for _ in range(ordinals)).items()
    return Task([made.fact.format(*setting) for setting in made.settings], questions)
