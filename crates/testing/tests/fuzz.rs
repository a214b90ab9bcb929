//! Replays the seeds of each fuzz target, and the inputs that failed before.
#![allow(clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn the_seeds_of_every_target_pass() {
    for target in targets::TARGETS {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&directory).expect("the seeds of the target") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("a seed");
            targets::run(target, &bytes);
            count += 1;
        }
        assert!(count > 0, "{target} has no seeds");
    }
}
