#!/usr/bin/env python3
"""Training text, tokenizer and packed tokens from Debian's documentation packages.

    data.py --work WORK [--vocab_size 4096] [--held_out_every 40]

WORK/debs and WORK/unpacked hold the packages, WORK/data the result:
    train.u16, held_out.u16    token ids; a document ends with </s>, a newline is <nl>
    tokenizer.model            SentencePiece BPE with byte fallback, digits split
    sources.json               per package: version, licence, files, characters kept
Needs Debian with `deb` sources, and requirements.txt.
"""
import argparse
import glob
import hashlib
import json
import pathlib
import subprocess
import textwrap
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import sentencepiece

from prose import read_document
from sources import SOURCES

SPECIALS = ["<|im_start|>", "<|im_end|>", "<nl>"]
END_OF_TEXT = 2


def fetch(work: pathlib.Path):
    debs, unpacked = work / "debs", work / "unpacked"
    debs.mkdir(parents=True, exist_ok=True)
    missing = [s.package for s in SOURCES if not list(debs.glob(f"{s.package}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", "-qq", *missing], cwd=debs, check=True)
    for source in SOURCES:
        folder = unpacked / source.package
        if not folder.exists():
            folder.mkdir(parents=True)
            subprocess.run(["dpkg", "-x", next(debs.glob(f"{source.package}_*.deb")), folder], check=True)


def digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def lay_out(lines: list[str], style: int) -> str:
    """A document as text: one paragraph a line, paragraphs set apart, or wrapped as in a text file."""
    if style == 0:
        return "\n".join(lines)
    if style == 1:
        return "\n\n".join(lines)
    return "\n\n".join("\n".join(textwrap.wrap(line, 76)) for line in lines)


def read_documents(work: pathlib.Path):
    """Documents as (name, text) in a fixed order, no paragraph twice, and what each package gave."""
    documents, told, seen = [], [], set()
    with ProcessPoolExecutor() as pool:
        for source in SOURCES:
            root = work / "unpacked" / source.package
            files = sorted({f for pattern in source.include for f in glob.glob(str(root / pattern), recursive=True)
                            if pathlib.Path(f).is_file()})
            kept = 0
            for name, lines in zip(files, pool.map(read_document, map(pathlib.Path, files), chunksize=16)):
                fresh = []
                for line in lines:
                    key = digest("".join(c for c in line.lower() if c.isalpha()))
                    if line.startswith("# "):
                        while fresh and fresh[-1].startswith("# "):
                            fresh.pop()
                        fresh.append(line)
                    elif key not in seen:
                        seen.add(key)
                        fresh.append(line)
                while fresh and fresh[-1].startswith("# "):
                    fresh.pop()
                if sum(map(len, fresh)) < 300:
                    continue
                name = f"{source.package}/{pathlib.Path(name).relative_to(root)}"
                documents.append((name, lay_out(fresh, (0, 0, 1, 1, 2)[digest(name) % 5])))
                kept += len(documents[-1][1])
            version = next((work / "debs").glob(f"{source.package}_*.deb")).name.split("_")[1].replace("%3a", ":")
            told.append({"package": source.package, "version": version, "licence": source.licence, "files": len(files),
                         "characters": kept})
            print(f"{source.package}: {kept / 1e6:.2f} M characters of {len(files)} files", flush=True)
    return documents, told


def train_tokenizer(texts, path: pathlib.Path, vocab_size: int):
    lines = (line for text in texts for line in text.split("\n") if line)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_prefix=str(path.with_suffix("")), vocab_size=vocab_size, model_type="bpe",
        byte_fallback=True, split_digits=True, character_coverage=1.0, normalization_rule_name="identity",
        user_defined_symbols=SPECIALS, input_sentence_size=400_000,
        shuffle_input_sentence=True, num_threads=2, minloglevel=1)
    path.with_suffix(".vocab").unlink()


_tokenizer = None


def open_tokenizer(path):
    global _tokenizer
    _tokenizer = sentencepiece.SentencePieceProcessor(model_file=path)


def encode(text: str) -> np.ndarray:
    newline = _tokenizer.piece_to_id("<nl>")
    ids = []
    for line in _tokenizer.encode(text.split("\n")):
        ids += line + [newline]
    return np.array(ids[:-1] + [END_OF_TEXT], np.uint16)


def pack(texts, tokenizer: pathlib.Path, out: pathlib.Path) -> int:
    with ProcessPoolExecutor(initializer=open_tokenizer, initargs=(str(tokenizer),)) as pool:
        ids = np.concatenate(list(pool.map(encode, texts, chunksize=64)))
    ids.tofile(out)
    return len(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--vocab_size", type=int, default=4096)
    parser.add_argument("--held_out_every", type=int, default=40, help="one document in this many is held out")
    options = parser.parse_args()
    fetch(options.work)
    documents, told = read_documents(options.work)
    data = options.work / "data"
    data.mkdir(exist_ok=True)
    held_out = [text for name, text in documents if digest("split/" + name) % options.held_out_every == 0]
    train = [text for name, text in documents if digest("split/" + name) % options.held_out_every]
    tokenizer = data / "tokenizer.model"
    train_tokenizer(train, tokenizer, options.vocab_size)
    sizes = {name: pack(texts, tokenizer, data / f"{name}.u16") for name, texts in
             (("train", train), ("held_out", held_out))}
    (data / "sources.json").write_text(json.dumps({"tokens": sizes, "documents": [len(train), len(held_out)],
                                                   "packages": told}, indent=1) + "\n")
    print(sizes, len(train), len(held_out), flush=True)


if __name__ == "__main__":
    main()
