#!/usr/bin/env bash
# Checks that need no build: formatting, who may include whom, file sizes.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

# clang-format of Debian 12 (14), so that machines agree.
if ! git ls-files -z '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run -Werror; then
  echo "lint: run clang-format -i on the files above"
  failed=1
fi
python3 tools/lint_tree.py || failed=1
[ $failed = 0 ] && echo "lint: clean"
exit $failed
