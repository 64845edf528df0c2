//! The program in the kernel on the inputs that the fuzzer keeps: those that once broke something, and those that
//! reached code which no other did (in the directory that `FARM_FUZZ_CORPUS` names, as `scripts/fuzz.sh` fills it).

mod program_support;

use std::env;
use std::path::PathBuf;

use farm_common::verdict::{Socket, Verdict};
use farm_fuzz::check::{REAL, outcome};
use farm_fuzz::seeds::{kept, oracle, regressions};
use farm_fuzz::{Case, check};

use program_support::{Kernel, Outcome, in_namespace, port};

/// What user space makes of it.
fn expected(case: &Case) -> Outcome {
    let verdict = check(case).unwrap();
    let (_, frame) = outcome(&REAL, case);
    let action = match verdict {
        Verdict::Pass | Verdict::Accept(_) => "pass",
        Verdict::Forward { .. } | Verdict::Answer => "tx",
        Verdict::Drop(_) => "drop",
    };
    Outcome { action, frame: frame.unwrap() }
}

fn in_the_kernel(kernel: &mut Kernel, case: &Case) -> Outcome {
    case.with_table(|slot| kernel.publish(slot));
    kernel.set_ports(&case.ports());
    // A case is one frame: none before it has told where its fragments go.
    kernel.forget_fragments();
    kernel.run(&case.frame)
}

/// The kernel here has no socket, and runs no frame without a header.
fn fit(case: Case) -> Option<Case> {
    (case.frame.len() >= 14).then_some(Case { socket: Socket::None, ..case })
}

#[test]
fn kernel_and_user_space_agree_on_what_the_fuzzer_kept() {
    let mut cases = kept(&regressions()).unwrap();
    if let Some(corpus) = env::var_os("FARM_FUZZ_CORPUS") {
        let found = kept(&PathBuf::from(&corpus)).unwrap();
        assert!(!found.is_empty(), "{corpus:?} is empty: run scripts/fuzz.sh first");
        cases.extend(found);
    }
    // An interface without links is beyond the oracle's worlds.
    let unlinked = oracle().unwrap().into_iter().step_by(40).map(|case| Case { no_link: true, ..case });
    cases.extend(unlinked.map(|case| ("the oracle".to_owned(), case)));
    in_namespace(|| {
        let mut kernel = Kernel::load(port(1));
        for (name, case) in cases.into_iter().filter_map(|(name, case)| Some((name, fit(case)?))) {
            assert_eq!(in_the_kernel(&mut kernel, &case), expected(&case), "{name}: {case:02x?}");
        }
    });
}
