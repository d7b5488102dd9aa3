#!/bin/bash
# Makes fuzz/corpus of what it has and of what fuzz/run.sh has found: as few inputs as reach the same code.
set -euo pipefail
cd "$(dirname "$0")/.."
for target in ${*:-$(cargo fuzz list)}; do
    kept=fuzz/target/minimized/$target
    rm -rf "$kept"
    mkdir -p "$kept" "fuzz/corpus/$target"
    from=("fuzz/corpus/$target")
    for folder in "fuzz/target/corpus/$target" "fuzz/target/seeds/$target"; do
        if [ -d "$folder" ]; then from+=("$folder"); fi
    done
    # Which code is reached, not how often: the difference is thousands of files.
    cargo fuzz run --sanitizer "${FUZZ_SANITIZER:-none}" "$target" "$kept" "${from[@]}" -- \
        -set_cover_merge=1 -use_counters=0
    rm -r "fuzz/corpus/$target"
    cp -r "$kept" "fuzz/corpus/$target"
    echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs"
done
