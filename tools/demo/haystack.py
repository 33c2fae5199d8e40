"""A long document from text that every Debian has, and a key to hide in it."""
import glob
import random
from dataclasses import dataclass

# Enough in every installation; what is on a machine decides the text, the seed its order.
TEXTS = ["/usr/share/common-licenses/*", "/usr/share/doc/*/copyright"]
COLOURS = ("red blue green black white silver golden purple orange grey pink brown copper amber scarlet "
           "ivory").split()
THINGS = ("falcon river mountain castle lantern harbor engine garden wolf tiger bridge mirror anchor comet forest "
          "hammer").split()


@dataclass
class Needle:
    """A sentence with a key, in the words that the demo model was trained on."""

    name: str
    key: str

    @property
    def sentence(self) -> str:
        return f"The secret key of the {self.name} is {self.key}."

    @property
    def question(self) -> str:
        return f"What is the secret key of the {self.name}?"


def random_needle(rng: random.Random) -> Needle:
    key = "".join(rng.choice("0123456789") for _ in range(5))
    return Needle(f"{rng.choice(COLOURS)} {rng.choice(THINGS)}", key)


class Haystack:
    def __init__(self, limit_bytes: int = 4_000_000):
        """Reads paragraphs until there are `limit_bytes` of them."""
        seen: dict[str, None] = {}  # in order, each once
        size = 0
        for path in (path for pattern in TEXTS for path in sorted(glob.glob(pattern))):
            if size > limit_bytes:
                break
            try:
                with open(path, encoding="utf-8", errors="ignore") as file:
                    text = file.read()
            except OSError:  # a dangling link, a folder
                continue
            for paragraph in text.split("\n\n"):
                paragraph = "\n".join(line.strip() for line in paragraph.splitlines()).strip()
                if len(paragraph) > 40 and paragraph not in seen:
                    seen[paragraph] = None
                    size += len(paragraph)
        if not seen:
            raise SystemExit(f"demo: no text in {', '.join(TEXTS)}")
        self._paragraphs = list(seen)

    def document(self, rng: random.Random, size: int, needle: Needle) -> tuple[str, float]:
        """About `size` bytes of shuffled paragraphs with the needle between two of them, and how deep it lies (0 to
        1). Paragraphs come again, in another order, where there are too few."""
        chosen: list[str] = []
        have = 0
        while have < size:
            for paragraph in rng.sample(self._paragraphs, len(self._paragraphs)):
                chosen.append(paragraph)
                have += len(paragraph.encode()) + 1
                if have >= size:
                    break
        at = rng.randint(0, len(chosen))
        depth = sum(len(paragraph) for paragraph in chosen[:at]) / sum(len(paragraph) for paragraph in chosen)
        chosen.insert(at, needle.sentence)
        return "\n".join(chosen), depth
