#!/usr/bin/env bash
# Packs programs, GPU tests and benchmarks with the libraries they need into one folder that runs on any x86-64 Linux
# with glibc 2.36 or later and, for CUDA, a driver and cuBLAS 13. Usage: tools/bundle.sh BUILD_FOLDER OUT_FOLDER [FILE…]
# FILE…: of BUILD_FOLDER/bin, these only; a build with -DSALAMANDER_CUDA_LINEINFO=ON has room for its tests alone:
#   tools/bundle.sh build-lineinfo OUT libsalamander_cuda.so cuda_{attend,lightning,select}_test
set -euo pipefail
build=$(realpath "$1") out=$(realpath -m "$2")
root=$(cd "$(dirname "$0")/.." && pwd)
limit_mib=60

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/tests/data"
cd "$build/bin"
# Programs, plugins, and the tests and benchmarks of CUDA.
files=("${@:3}")
[ ${#files[@]} -gt 0 ] || files=(salamander salamander-router salamander-prefill-worker salamander-decode-worker
  salamander-worker libsalamander_sentencepiece.so libsalamander_cuda.so libsalamander_faulty_device.so
  libcuda_plugin_of_another_build.so cuda_*
  engine_cuda_golden_test)
for file in "${files[@]}"; do
  [ -f "$file" ] && cp "$file" "$out/bin/"
done
# The C and C++ runtimes are the machine's own, and so is CUDA: libcublasLt alone is ten times the limit. oneDNN serves
# CPUs without AVX2 only.
for file in "$out"/bin/*; do ldd "$file"; done | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libstdc\+\+|libgcc_s|ld-linux-x86-64|libcublas|libcublasLt|libcuda|libcudart|libnvrtc|libdnnl|libOpenCL)\.so' |
  while read -r library; do install -m 644 "$library" "$out/lib/"; done
# What cuda_loader_test takes for a driver.
[ $# -gt 2 ] || cp -r old_driver "$out/bin/"
# UCX opens its transports by name: copies between processes of one host, beside the TCP and shared memory built in.
ucx=$(ls -d /usr/lib/*/ucx /usr/lib/ucx 2>/dev/null | head -n 1 || true)
if [ -n "$ucx" ]; then
  mkdir -p "$out/lib/ucx"
  install -m 644 "$ucx/libuct_cma.so.0" "$out/lib/ucx/"
fi
find "$out/bin" "$out/lib" -type f -exec strip --strip-all {} +
cp -r "$root/tests/data/golden" "$out/tests/data/"
mkdir -p "$out/model-9b"
cp "$root/tests/gpu/model-9b/config.json" "$out/model-9b/"
cp "$root"/tests/gpu/run "$root"/tests/gpu/*.py "$out/" 2>/dev/null || true
git -C "$root" rev-parse --short=12 HEAD > "$out/COMMIT" 2>/dev/null || echo unknown > "$out/COMMIT"

size=$(du -sk --apparent-size "$out" | cut -f1)
echo "bundle: $out, $((size / 1024)) MiB"
if [ "$size" -ge $((limit_mib * 1024)) ]; then
  echo "bundle: $size KiB, the limit is $limit_mib MiB; the largest files:" >&2
  find "$out" -type f -printf '%s %p\n' | sort -rn | head -n 8 >&2
  exit 1
fi
