#!/bin/bash
# Fuzzes every target, or those that are named: for FUZZ_SECONDS each, or FUZZ_RUNS executions.
# What is found goes to fuzz/target/corpus; fuzz/minimize.sh keeps of it what fuzz/corpus lacks.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fuzz --version >/dev/null 2>&1 || {
    echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz (and a C++ compiler for libFuzzer)" >&2
    exit 1
}
if [ -n "${FUZZ_RUNS:-}" ]; then bound="-runs=$FUZZ_RUNS"; else bound="-max_total_time=${FUZZ_SECONDS:-60}"; fi

# What is fuzzed is what ships: the same versions of everything.
cp Cargo.lock fuzz/Cargo.lock

# Captured messages, each in every context: what no hand could write as well.
golden=fuzz/target/seeds/pgoutput
mkdir -p "$golden"
n=0
for hex in $(awk '$1 == "message" && length($4) < 4000 { print $4 }' tests/golden/*.golden); do
    n=$((n + 1))
    for context in 00 01 02 03; do
        printf '%b' "$(sed 's/../\\x&/g' <<<"$context$hex")" > "$golden/golden-$n-$context"
    done
done

for target in ${*:-$(cargo fuzz list)}; do
    case $target in
        config) longest=2048 ;;
        pgoutput) longest=4096 ;;
        *) longest=512 ;;
    esac
    found=fuzz/target/corpus/$target
    mkdir -p "$found"
    from=("$found")
    for folder in "fuzz/corpus/$target" "fuzz/seeds/$target" "fuzz/target/seeds/$target"; do
        if [ -d "$folder" ]; then from+=("$folder"); fi
    done
    cargo fuzz run --sanitizer "${FUZZ_SANITIZER:-none}" "$target" "${from[@]}" -- \
        -dict="fuzz/dictionaries/$target.dict" -max_len="$longest" -timeout=20 -print_final_stats=1 "$bound"
done
