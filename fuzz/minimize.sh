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
    case $target in
        # What only longer ones reach is a fifteenth, by twice as many bytes.
        config) longest=512 ;;
        *) longest=4096 ;;
    esac
    short=fuzz/target/short/$target
    rm -rf "$short"
    mkdir -p "$short"
    find "${from[@]}" -type f -size "-$((longest + 1))c" -exec cp -t "$short" {} +
    # Which code is reached, not how often: the difference is thousands of files.
    cargo fuzz run --sanitizer "${FUZZ_SANITIZER:-none}" "$target" "$kept" "$short" -- \
        -set_cover_merge=1 -use_counters=0
    rm -r "fuzz/corpus/$target"
    cp -r "$kept" "fuzz/corpus/$target"
    echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs"
done
