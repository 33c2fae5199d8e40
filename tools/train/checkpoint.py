#!/usr/bin/env python3
"""Writes what train.py made as a checkpoint folder in the published layout, in BF16.

    checkpoint.py --state OUT/state.pt --data WORK/data --out FOLDER
"""
import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

# What the published config.json holds besides what a training configuration chooses.
PUBLISHED = {
    "architectures": ["MiniCPMSALAForCausalLM"], "model_type": "minicpm_sala", "torch_dtype": "bfloat16", "vocab_size": 4096,
    "lightning_scale": "1/sqrt(d)", "lightning_use_rope": True, "attn_use_rope": False, "qk_norm": True,
    "use_output_norm": True, "use_output_gate": True, "attn_use_output_gate": True, "attention_bias": False,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 1048576 + 4096, "tie_word_embeddings": False,
    "scale_emb": 12.0, "scale_depth": 1.4, "mup_denominator": 32, "hidden_act": "silu", "bos_token_id": 1,
    "eos_token_id": [2, 4], "pad_token_id": 2,
}
CHAT_TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                 "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def full_config(chosen):
    return {**PUBLISHED, **chosen}


def read_weights(folder: pathlib.Path):
    """Float32 tensors of a checkpoint folder, by published name."""
    return {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


def write_json(path: pathlib.Path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    state = torch.load(options.state, map_location="cpu", weights_only=False)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state["model"].items()},
              options.out / "model.safetensors", metadata={"format": "pt"})
    config = full_config(state["config"]["model"])
    write_json(options.out / "config.json", config)
    write_json(options.out / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 4], "do_sample": True,
                                                        "temperature": 0.9})
    write_json(options.out / "tokenizer_config.json", {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>",
        "add_bos_token": True, "model_max_length": config["max_position_embeddings"], "chat_template": CHAT_TEMPLATE})
    shutil.copy(options.data / "tokenizer.model", options.out / "tokenizer.model")


if __name__ == "__main__":
    main()
