"""A run that was stopped and resumed does what an undisturbed one does; its export is a published checkpoint."""
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import sentencepiece
import torch
from safetensors.torch import load_file

REPO = pathlib.Path(__file__).parents[2]
TRAIN = REPO / "tools/train"
MODEL = REPO / "tools/demo/sala-12m"


def train(tmp_path, name, config, *launcher):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, *launcher, TRAIN / "train.py", "--config", path, "--data", tmp_path, "--out", tmp_path / name,
               "--device=cpu", "--workers=0"]
    return lambda *more: subprocess.run([*command, *more], check=True)


def configuration(tmp_path, **phases):
    """Two steps of each phase of tiny.json; their data in tmp_path."""
    sp = sentencepiece.SentencePieceProcessor(model_file=str(MODEL / "tokenizer.model"))
    np.array(sp.encode((REPO / "LICENSE").read_text()) * 4, np.uint16).tofile(tmp_path / "train.u16")
    shutil.copy(MODEL / "tokenizer.model", tmp_path)
    config = json.loads((TRAIN / "tiny.json").read_text())
    config["phases"] = [phase | {"steps": 2, "chat_share": 0.0} | phases for phase in config["phases"]]
    return config


def test_processes_share_a_step(tmp_path):
    # Every process's mean is over as many tokens, and the average of the means that of all.
    config = configuration(tmp_path, text_share=1.0) | {"selection_weight": 0.0}
    train(tmp_path, "one", config)()
    train(tmp_path, "two", config, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")()
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=False) for name in ("one", "two"))
    assert one["step"] == two["step"] == 4
    for name, tensor in one["model"].items():
        torch.testing.assert_close(two["model"][name], tensor, rtol=0, atol=2e-4)  # orthogonalising is in BF16
    np.testing.assert_allclose(two["log"][-1][5:8], one["log"][-1][5:8], rtol=1e-3)


def test_resuming_changes_nothing(tmp_path):
    config = configuration(tmp_path) | {"tokens_per_step": 1024}
    whole, parts = train(tmp_path, "whole", config), train(tmp_path, "parts", config)
    whole()
    for seconds in range(1, 60):  # until it got to its first step, then to the end
        parts(f"--stop_after={seconds}")
        if torch.load(tmp_path / "parts/state.pt", weights_only=False)["step"]:
            break
    parts()
    states = [torch.load(tmp_path / name / "state.pt", weights_only=False) for name in ("whole", "parts")]
    assert [state["step"] for state in states] == [4, 4]
    for name, tensor in states[0]["model"].items():
        torch.testing.assert_close(states[1]["model"][name], tensor, rtol=1e-5, atol=1e-6)
    assert [row[5:] for row in states[0]["log"]] == [row[5:] for row in states[1]["log"]]

    subprocess.run([sys.executable, TRAIN / "checkpoint.py", "--state", tmp_path / "whole/state.pt", "--data", tmp_path, "--out",
                    tmp_path / "export"], check=True)
    exported = load_file(tmp_path / "export/model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    assert exported["model.layers.1.self_attn.o_gate.weight"].shape == (64, 64)
    assert json.loads((tmp_path / "export/config.json").read_text())["mixer_types"] == config["model"]["mixer_types"]
