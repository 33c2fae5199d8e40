"""The training model against the oracle's golden cases, in float64: what is trained is what the engine runs."""
import json
import pathlib
import sys

import numpy as np
import pytest
import torch

REPO = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(REPO / "tools/train"), str(REPO / "tests/oracle")]
import attention  # noqa: E402
import model as training  # noqa: E402
import sala_reference as oracle  # noqa: E402

# Golden logits are float32; what is left is their rounding, relative to the logits' range.
TOLERANCE = 1e-6


def read_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    kinds = {"F32": np.float32, "I32": np.int32}
    tensors = {}
    for name, told in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in told["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], kinds[told["dtype"]]).reshape(told["shape"])
    return tensors


def run(config, weights, tokens):
    model = training.Model(config).double()
    model.load_state_dict({name: torch.from_numpy(w.astype(np.float64)) for name, w in weights.items()})
    length = -(-len(tokens) // attention.CHUNK) * attention.CHUNK
    padded = torch.zeros(1, length, dtype=torch.long)
    padded[0, :len(tokens)] = torch.from_numpy(np.asarray(tokens, np.int64))
    layout = training.make_layout(config, 1, length, "cpu", torch.float64)
    sparse = len(tokens) >= config["sparse_config"]["dense_len"]
    with torch.no_grad():
        hidden, _ = model.hidden(padded, layout, sparse)
        return model.logits(hidden)[:len(tokens)].numpy()


@pytest.mark.parametrize("name", sorted(oracle.CASES))
def test_logits_are_the_oracles(name):
    over, seed, *_ = oracle.CASES[name]
    config = oracle.base_config(**over)
    golden = read_safetensors(REPO / "tests/data/golden" / name / "golden.safetensors")
    logits = run(config, oracle.make_weights(config, seed), golden["prompt"])
    expected = golden["prompt_logits_last16"]
    assert np.abs(logits[-16:] - expected).max() < TOLERANCE * np.ptp(expected)
