#!/usr/bin/env bash
# Lays out what the images take from a build: OUT/cpu, and OUT/cuda if the CUDA backend was built (with the library of
# CUDA that it needs). Usage: tools/image_programs.sh BUILD_FOLDER OUT_FOLDER
set -euo pipefail
build=$(realpath "$1") out=$(realpath -m "$2")
rm -rf "$out"
mkdir -p "$out/cpu" "$out/cuda"
for file in salamander salamander-router salamander-prefill-worker salamander-decode-worker salamander-worker \
  libsalamander_sentencepiece.so; do
  install -m 755 "$build/bin/$file" "$out/cpu/"
done
strip --strip-all "$out"/cpu/*
backend=$build/bin/libsalamander_cuda.so
[ -f "$backend" ] || exit 0
cublas=$(ldd "$backend" | awk '$1 ~ /^libcublasLt\.so/ {print $3}')
[ -f "$cublas" ] || { echo "image: no libcublasLt for $backend" >&2; exit 1; }
install -m 755 "$backend" "$out/cuda/"
install -m 644 "$cublas" "$out/cuda/$(basename "$cublas")"
strip --strip-all "$out/cuda/libsalamander_cuda.so"
