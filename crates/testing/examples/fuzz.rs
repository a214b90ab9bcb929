//! Fuzzes one target: `fuzz TARGET SECONDS [SEED]`. It changes, cuts, repeats and mixes the seeds.
//! Failing inputs are written to `fuzz/seeds/TARGET/`, where `cargo test` replays them.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::{
    panic::catch_unwind,
    path::Path,
    time::{Duration, Instant},
};

/// Words that are significant to one of the parsers.
const WORDS: &[&str] = &[
    "$set",
    "$inc",
    "$push",
    "$each",
    "$sort",
    "$slice",
    "$pull",
    "$in",
    "$nin",
    "$and",
    "$or",
    "$nor",
    "$not",
    "$elemMatch",
    "$all",
    "$size",
    "$type",
    "$mod",
    "$exists",
    "$regex",
    "$options",
    "$expr",
    "$match",
    "$group",
    "$unwind",
    "$project",
    "$addFields",
    "$reduce",
    "$map",
    "$filter",
    "$$ROOT",
    "$$this",
    "$$value",
    "$oid",
    "$date",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$regularExpression",
    "a.b",
    "a.0.b",
    "a.$",
    "a.$[]",
    "_id",
    "null",
    "true",
    "-1",
    "1e400",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "\"",
    "\\u0000",
    "\\ud800",
    "eyJ",
    ".",
    "=",
];

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.next(seeds.len())].clone();
    for _ in 0..=random.next(6) {
        let at = random.next(bytes.len() + 1);
        match random.next(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.next(8),
            1 if at < bytes.len() => bytes[at] = random.next(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + random.next(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + random.next(32)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part.repeat(1 + random.next(8)));
            }
            5 => {
                let other = &seeds[random.next(seeds.len())];
                let from = random.next(other.len() + 1);
                let to = (from + random.next(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let word = WORDS[random.next(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    // Otherwise only one in a thousand would have a valid document length.
    if random.next(2) == 0 && bytes.len() >= 5 && bytes.last() == Some(&0) {
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let target = arguments.first().expect("a target").clone();
    assert!(targets::TARGETS.contains(&target.as_str()), "there is no target {target}");
    let seconds: u64 = arguments.get(1).map_or(60, |seconds| seconds.parse().expect("seconds"));
    let seed: u64 = arguments.get(2).map_or(1, |seed| seed.parse().expect("a seed"));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(&target);
    let read =
        |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.expect("an entry").path()).expect("a seed");
    let seeds: Vec<Vec<u8>> = std::fs::read_dir(&directory).expect("the seeds of the target").map(read).collect();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (begun, mut count, mut slowest, mut failed) = (Instant::now(), 0u64, Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(seconds) && failed < 5 {
        let bytes = changed(&seeds, &mut random);
        let started = Instant::now();
        if catch_unwind(|| targets::run(&target, &bytes)).is_err() {
            failed += 1;
            std::fs::write(directory.join(format!("found-{seed}-{count}")), &bytes).expect("writing the failing input");
        }
        slowest = slowest.max(started.elapsed());
        count += 1;
    }
    println!("{target}: {count} runs in {seconds} s, slowest {} ms, {failed} failed", slowest.as_millis());
    std::process::exit(i32::from(failed > 0));
}
