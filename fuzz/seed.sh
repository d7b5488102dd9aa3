#!/bin/bash
# Makes the fuzzer's first inputs from the captured messages: each in every context.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p corpus/pgoutput
n=0
for hex in $(awk '$1 == "message" { print $4 }' ../tests/golden/*.golden); do
    n=$((n + 1))
    for context in 00 01 02 03; do
        printf '%b' "$(sed 's/../\\x&/g' <<<"$context$hex")" > "corpus/pgoutput/golden-$n-$context"
    done
done
