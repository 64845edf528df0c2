//! The fuzz target: any bytes are a table and a frame, and every property holds of them.
#![no_main]

use farm_fuzz::{Case, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(case) = Case::read(input)
        && let Err(breach) = check(&case)
    {
        panic!("{breach}");
    }
});
