"""Questions for the demo model, whose answers are known, and what pods say of themselves."""
import random
import sys
import urllib.request

from chart import REPO

from salamander_client import Client

sys.path.insert(0, str(REPO / "tools/demo"))
from haystack import Haystack, random_needle  # noqa: E402

MODEL = REPO / "tools/demo/sala-12m"


def client(router):
    return Client(f"{router.address}:{router.port('grpc')}")


def question(size, seed):
    rng = random.Random(seed)
    needle = random_needle(rng)
    document, _ = Haystack(400_000).document(rng, size, needle)
    return f"{document}\n{needle.question}", needle.key


def ask(router, size=8000, seed=1):
    """A document of about `size` bytes; the answer must be right."""
    prompt, key = question(size, seed)
    with client(router) as to:
        answer = to.complete(chat=[{"role": "user", "content": prompt}], temperature=0.0, max_tokens=16, timeout=120)
    assert answer.text.strip() == key


def ask_long(router):
    """A prompt of 60,000 bytes, and an answer of hundreds of tokens."""
    prompt, key = question(60_000, 5)
    with client(router) as to:
        answer = to.complete(chat=[{"role": "user", "content": prompt}], temperature=0.0, max_tokens=400, ignore_eos=True,
                             timeout=300)
    assert answer.text.strip().startswith(key)
    assert answer.finished.usage.completion_tokens == 400


def scrape(pod, port="metrics"):
    with urllib.request.urlopen(f"http://{pod.address}:{pod.port(port)}/metrics", timeout=5) as response:
        return response.read().decode()
