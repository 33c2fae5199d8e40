#!/usr/bin/env bash
# Runs an image that tools/image.sh built: as its own user by buildah, and as the pods of the chart.
#   tests/chart/image_test.sh BUILD_FOLDER NAME
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "$1") name=$2
work=$build/image
buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
export BUILDAH_ISOLATION=chroot
fail() { echo "image test: $1" >&2; exit 1; }

container=$(buildah from "$name")
trap 'buildah rm "$container" > /dev/null' EXIT
inside() { buildah run "$container" -- "$@"; }

[ "$(inside /usr/bin/id -u)" = 65532 ] || fail "runs as user $(inside /usr/bin/id -u), not 65532"
[ "$(buildah inspect --format '{{.OCIv1.Config.Entrypoint}}' "$container")" = "[/opt/salamander/bin/salamander]" ] ||
  fail "another entry point"
inside /opt/salamander/bin/salamander version
for role in router prefill-worker decode-worker worker; do
  told=$(inside /opt/salamander/bin/salamander $role --model=/nope --routers=127.0.0.1:1 2>&1) && fail "$role found a model"
  grep -q "/nope/config.json does not exist" <<< "$told" || fail "$role: $told"
done
root=$(buildah mount "$container")
# Nothing of ours asks for a library that the image lacks.
for file in "$root"/opt/salamander/bin/*; do
  missing=$(chroot "$root" /usr/bin/ldd "${file#"$root"}" | grep "not found" || true)
  [ -z "$missing" ] || fail "$(basename "$file") misses $missing"
done
if [ -f "$root/opt/salamander/bin/libsalamander_cuda.so" ]; then
  # Without a GPU it gets as far as asking the driver: by then the backend is loaded, with all that it needs.
  told=$(buildah run --volume "$PWD/tools/demo/sala-12m:/model:ro" "$container" -- /opt/salamander/bin/salamander worker \
    --model=/model --device=cuda --routers=127.0.0.1:1 2>&1) && fail "a CUDA worker ended well"
  grep -q "driver" <<< "$told" || fail "the CUDA backend: $told"
fi
GRPC_ENABLE_FORK_SUPPORT=0 tests/chart/isolated.sh "$build/venv/bin/python" -m pytest -q -p no:cacheprovider \
  --bin="$build/bin" --image-root="$root" tests/chart/test_boot.py tests/chart/test_boot_both_roles.py
