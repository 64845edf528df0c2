#!/usr/bin/env bash
# Runs every test, quickest first, stops at the first failure, and ends with one line that sums them up.
# Everything but the chaos crate is built as one set, so that no crate is built twice with different features;
# the chaos crate alone turns on the planted bugs of farm-core.
set -euo pipefail
cd "$(dirname "$0")/.."

ALL=(--locked --workspace --exclude farm-chaos)
CHAOS=(--locked -p farm-chaos)
# What the fuzzer finds worth keeping is also put to the program in the kernel.
export FARM_FUZZ_SECONDS=${FARM_FUZZ_SECONDS:-10}
export FARM_FUZZ_CORPUS=${FARM_FUZZ_CORPUS:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz-corpus}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

step() {
    printf '\n=== %s\n' "$1"
    shift
    "$@" 2>&1 | tee -a "$log"
}

sum_up() {
    awk '
        /^test result: / {
            for (i = 1; i < NF; i++) {
                if ($(i + 1) == "passed;") passed += $i
                if ($(i + 1) == "failed;") failed += $i
                if ($(i + 1) == "ignored;") ignored += $i
            }
        }
        END {
            verdict = (status == 0 && failed == 0) ? "ok" : "FAILED"
            printf "\ntest result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out; finished in %ds\n",
                verdict, passed, failed, ignored, seconds
        }' status="$1" seconds="$SECONDS" "$log"
}

# A failed step ends the chain: `set -e` does not reach into a function that is tested.
run() {
    # --all-targets takes in what the tests need: the same features as the tests, and the binaries they start.
    step "build" cargo build "${ALL[@]}" --all-targets &&
        step "build of the next feature level" cargo build "${ALL[@]}" --features farmd/next --bin farmd-next &&
        step "unit tests" cargo test "${ALL[@]}" --lib --bins &&
        step "examples in the documentation" cargo test "${ALL[@]}" --doc &&
        step "planted bugs of the core" cargo test --locked -p farm-core --features planted --test suite planted &&
        step "simulation and model checks" cargo test "${CHAOS[@]}" &&
        step "fuzzing, a few seconds" scripts/fuzz.sh &&
        step "tests of the parts, then end to end" cargo test "${ALL[@]}" --test '*'
}

status=0
run || status=$?
sum_up "$status"
exit "$status"
