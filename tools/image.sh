#!/usr/bin/env bash
# Builds the image TARGET of the Dockerfile from programs that are built already, with buildah and without a container
# engine, on a base made by debootstrap. The image is in the storage BUILD_FOLDER/image/storage:
#   tools/image.sh BUILD_FOLDER TARGET NAME
# Needs root, buildah and debootstrap. $MIRROR: where Debian's packages are.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "$1") target=$2 name=$3
mirror=${MIRROR:-http://deb.debian.org/debian}
work=$build/image
base=localhost/salamander-base:bookworm

mkdir -p "$work"
# Containers of its own, in folders of its own; vfs and chroot need nothing from the kernel.
buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
export BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
  rm -rf "$work/base"
  debootstrap --variant=minbase bookworm "$work/base" "$mirror" > "$work/debootstrap.log"
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
  tar -C "$work/base" -cf "$work/base.tar" .
  rm -rf "$work/base"
  container=$(buildah from scratch)
  buildah add -q "$container" "$work/base.tar" / > /dev/null
  rm "$work/base.tar"
  buildah commit -q "$container" "$base" > /dev/null
  buildah rm "$container" > /dev/null
fi

tools/image_programs.sh "$build" "$work/programs"
buildah build --build-arg BASE="$base" --build-context programs="$work/programs" --target "$target" --tag "$name" \
  --file Dockerfile . > "$work/$target.log" 2>&1 || { tail -n 30 "$work/$target.log" >&2; exit 1; }
echo "image: $name, $(buildah images --format '{{.Size}}' "$name"); buildah --root $work/storage --storage-driver vfs images"
