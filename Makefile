# The commands of the house. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-bench build demo test test-build test-long test-versions soak faults lint bench bench-readme counts deny fuzz schema clean

export CARGO_BUILD_JOBS ?= $(shell nproc)

# How long the demo runs, and each fuzz target.
DEMO_SECONDS ?= 60
FUZZ_SECONDS ?= 60

# How long the proof on real servers runs, all its cases together, and the faults.
SECONDS ?= 120

# The benchmarks. BENCH_... variables make them smaller: see the head of each.
BENCH ?= $(basename $(notdir $(wildcard benches/*.rs)))

# Which versions of Postgres `make test-long` tries beside the system's own, with which tests.
VERSIONS ?= 16 17 18
OF_VERSIONS = stream tables mapping fault

# cargo nextest runs each test in a process of its own and kills what hangs;
# without it, cargo test does.
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
ifeq ($(NEXTEST),yes)
TEST      = cargo nextest run --locked
TEST_LONG = cargo nextest run --locked --features long-tests --profile long
TEST_SOME = cargo nextest run --locked
TEST_BUILD = cargo nextest run --locked --no-run
DOCTEST   = cargo test --locked --doc
else
# Tests start servers: no more of them at once than .config/nextest.toml has.
TEST      = cargo test --locked --lib --bins --tests -- --test-threads=4
TEST_LONG = cargo test --locked --lib --bins --tests --features long-tests -- --test-threads=4
TEST_SOME = RUST_TEST_THREADS=4 cargo test --locked
TEST_BUILD = cargo test --locked --lib --bins --tests --no-run
DOCTEST   = cargo test --locked --doc
endif

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' \
		| awk -F '\t' '{ printf "  make %-13s %s\n", $$1, $$2 }'

setup: ## install what is missing: Postgres, Redis, a C compiler
	@scripts/setup.sh

setup-tests: ## the same, and what only tests need: promtool, Chromium, valgrind
	@scripts/setup.sh tests

setup-bench: ## the same, and what only benchmarks need: webdis, wrk, valgrind
	@scripts/setup.sh bench

build: setup ## the optimized binary, target/release/unstale
	cargo build --locked --release

# The dev profile: a stranger waits minutes less for it, and the tests share what
# it has built. The demo shows that nothing is stale; how fast it goes is for bench.
demo: setup ## private servers, live load, proof at the end (DEMO_SECONDS=60)
	@cargo build --locked
	@DEMO_SECONDS=$(DEMO_SECONDS) target/debug/unstale demo

test: setup-tests ## every test but the long ones
	$(TEST)
	$(DOCTEST)

test-build: ## builds what `make test` runs
	$(TEST_BUILD)

test-long: setup-tests ## every test, the long ones too, and other versions of Postgres
	$(TEST_LONG)
	$(DOCTEST)
	$(MAKE) test-versions
	$(MAKE) counts

# What depends on the server, on those that this system does not package (VERSIONS="16 17 18").
# scripts/postgres.sh says where one cannot be had; that one is skipped. The whole proof runs where
# a standby can be made, one case of it elsewhere.
test-versions: setup-tests
	@for version in $(VERSIONS); do \
		bin=$$(scripts/postgres.sh $$version) || { echo "skipped: Postgres $$version"; continue; }; \
		echo "Postgres $$version: $$bin"; \
		UNSTALE_PG_BIN=$$bin $(TEST_SOME) $(addprefix --test ,$(OF_VERSIONS)) || exit 1; \
		proof=plain_primary; if [ -x $$bin/pg_basebackup ]; then proof=; fi; \
		UNSTALE_PG_BIN=$$bin $(TEST_SOME) --test proof $$proof || exit 1; \
	done

soak: setup ## the proof that nothing stale is stored, for longer (SECONDS=120)
	@cargo build --locked --bins
	@PROOF_SECONDS=$(SECONDS) cargo test --locked --test proof -- --exact soak --ignored --nocapture

# The schedule of a seed is made of the seed alone; without one any is taken.
faults: setup ## everything goes wrong by a seeded schedule, and nothing is stale (SEED=… SECONDS=120)
	@cargo build --locked --bins
	@FAULTS_SEED=$(SEED) FAULTS_SECONDS=$(SECONDS) cargo test --locked --test faults -- --exact seeds --ignored --nocapture

lint: ## formatting and clippy, as CI wants them
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings

bench: setup-bench ## every benchmark in benches/, or BENCH=api; reports in target/bench/
	@for bench in $(BENCH); do \
		cargo bench --locked --bench "$$bench" || exit 1; \
	done

# Between the two comments stands what the last benchmarks wrote, and nothing by hand.
bench-readme: ## put target/bench/report.md, of the last benchmarks, into README.md
	@test -s target/bench/report.md || { echo "no report: make bench" >&2; exit 1; }
	@awk 'FNR == NR { report = report $$0 "\n"; next } \
		/^<!-- bench: end/ { within = 0 } !within { print } \
		/^<!-- bench: made/ { printf "\n%s\n", report; within = 1 }' \
		target/bench/report.md README.md > target/bench/README.md
	@cp target/bench/README.md README.md

# The build of the tests is judged by each `make test` (tests/counts/). This one takes minutes to
# build and seconds to run. UPDATE_COUNTS=1 writes the baseline.
counts: setup-bench ## instructions and allocations a change, optimized, beside benches/counts/baseline.json
	cargo run --locked --quiet --profile counts --features counts --bin unstale-counts

deny: ## licences, advisories and sources of the dependencies
	@cargo deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is missing: cargo install --locked cargo-deny (some six minutes)" >&2; exit 1; }
	cargo deny --locked check

fuzz: ## every fuzz target (FUZZ_SECONDS=60 each, or FUZZ_RUNS=10000000)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_RUNS=$(FUZZ_RUNS) fuzz/run.sh

schema: ## refresh config/unstale.schema.json and config/openapi.json
	@cargo run --locked --quiet -- config schema > target/unstale.schema.json
	@mv target/unstale.schema.json config/unstale.schema.json
	@cargo run --locked --quiet -- config openapi --config config/unstale.toml > target/openapi.json
	@mv target/openapi.json config/openapi.json

clean: ## remove what was built
	cargo clean
