#!/usr/bin/env bash
# Runs a command with a network and mounts of its own, in which the tests make pods. Needs root, or sudo.
set -euo pipefail
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo --preserve-env)
exec "${as_root[@]}" unshare --net --mount --propagation private -- "$@"
