#!/usr/bin/env bash
# Looks for a frame that breaks a property of the judgement, guided by the coverage it reaches.
#
#   FARM_FUZZ_SECONDS   how long (default 600)
#   FARM_FUZZ_CORPUS    where the inputs are kept that reach new code (default target/fuzz-corpus)
#
# What it finds goes to dataplane/fuzz/regressions: mend the cause, and commit both.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=${CARGO_TARGET_DIR:-target}
SECONDS_MAX=${FARM_FUZZ_SECONDS:-600}
CORPUS=${FARM_FUZZ_CORPUS:-$TARGET/fuzz-corpus}
SEEDS=$TARGET/fuzz-seeds
REGRESSIONS=dataplane/fuzz/regressions
# No frame of the oracle is longer; headers lie far in front of that.
LENGTH_MAX=600

# The coverage that libFuzzer asks of the compiler, all of it in stable Rust. There is no unsafe code to sanitise.
coverage=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
# Named, so that what runs while building is built without coverage.
triple=$(rustc -vV | sed -n 's/^host: //p')

cargo build --locked -p farm-fuzz --bin seeds
"$TARGET/debug/seeds" "$SEEDS"
RUSTFLAGS="${coverage[*]}" cargo build --locked --profile fuzz -p farm-fuzz --no-default-features \
    --features target --bin judge \
    --target "$triple" --target-dir "$TARGET/fuzz"
mkdir -p "$CORPUS"
exec "$TARGET/fuzz/$triple/fuzz/judge" -max_total_time="$SECONDS_MAX" -max_len="$LENGTH_MAX" \
    -artifact_prefix="$REGRESSIONS/" -print_final_stats=1 "$CORPUS" "$SEEDS" "$REGRESSIONS"
