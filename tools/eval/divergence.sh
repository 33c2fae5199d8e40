#!/usr/bin/env bash
# The logprobs suite through clusters of each codec and of 1 to 4 prefill workers, which it starts on this machine:
#     divergence.sh BIN PYTHON HELD_OUT RESULTS [salamander serve's flags, such as --device=cuda]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 python=$2 held_out=$3 results=$4
shift 4
pid=
trap '[ -z "$pid" ] || kill "$pid"' EXIT
model=$here/../demo/sala-12m
for codec in raw lossless; do
  for workers in 1 2 3 4; do
    coproc serve { exec "$bin/salamander" serve --model="$model" --codec=$codec --prefill_workers=$workers \
      --span_tokens=2048 --listen=127.0.0.1:0 "$@"; }
    pid=$serve_PID
    while read -r word target <&"${serve[0]}"; do [ "$word" = ready ] && break; done
    plural=$([ $workers = 1 ] || echo s)
    "$python" "$here/eval.py" --target "$target" --suite logprobs --label "$codec, $workers prefill worker$plural" \
      --model "$model" --held_out "$held_out" --out "$results"
    kill "$pid"
    wait "$pid"
    pid=
  done
done
