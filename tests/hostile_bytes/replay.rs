//! The fuzz targets without a fuzzer: seeds and checked-in corpus once through every one of them.
//!
//! What `scripts/fuzz` found and somebody kept in `fuzz/corpus` stays found: CI needs neither cargo-fuzz nor a sanitizer for
//! it. It looks for nothing new.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::hex;
use super::support::now;
use super::targets::{TARGETS, seeds};

/// An input that takes longer is a finding of its own: none is larger than some kilobytes.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

fn fuzz_directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

/// A file of the fuzz directory.
fn table(path: &str) -> toml::Table {
    fs::read_to_string(fuzz_directory().join(path)).expect("it is there").parse().expect("it is TOML")
}

/// The inputs kept for a target, each with its file's name.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = fuzz_directory().join("corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("it can be listed").path();
            (path.display().to_string(), fs::read(&path).expect("it can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn every_target_keeps_its_promises_on_seeds_and_corpus() {
    for target in TARGETS {
        let made = seeds::of(target.name).into_iter().enumerate();
        let made = made.map(|(index, seed)| (format!("seed {index} of {}", target.name), seed));
        let mut inputs: Vec<(String, Vec<u8>)> = made.chain(kept(target.name)).collect();
        let seeds_only = seeds::of(target.name).len();
        assert!(seeds_only > 0 && inputs.len() > seeds_only, "{} has seeds and a corpus", target.name);
        // Short inputs are where ends are missed.
        for (name, input) in inputs.clone() {
            let cuts = (0..input.len().min(64)).map(|end| (format!("{name} cut at {end}"), input[..end].to_vec()));
            inputs.extend(cuts);
        }
        let began = now();
        for (name, input) in &inputs {
            let before = now();
            (target.run)(input);
            let took = now() - before;
            assert!(took < INPUT_TIME_MAX, "{name} took {took:?}: {}", hex(input));
        }
        println!("{}: {} inputs in {:?}", target.name, inputs.len(), now() - began);
    }
}

#[test]
fn every_target_has_a_binary_and_every_binary_a_target() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let manifest = table("Cargo.toml");
    let binaries = manifest["bin"].as_array().expect("a list of binaries");
    let listed: BTreeSet<String> =
        binaries.iter().map(|bin| bin["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(listed, names, "binaries of fuzz/Cargo.toml");
    for name in &names {
        let path = fuzz_directory().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains(&format!("::{name}(")), "{} calls its target", path.display());
    }
    let entries = fs::read_dir(fuzz_directory().join("corpus")).expect("it is there");
    let corpora: BTreeSet<String> =
        entries.map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(corpora, names, "directories of fuzz/corpus");
}

/// The targets are a workspace of their own: what the broker depends on has to be locked for them, too.
#[test]
fn the_lock_file_of_the_targets_knows_the_brokers_dependencies() {
    let (manifest, lock) = (table("../Cargo.toml"), table("Cargo.lock"));
    let wanted: BTreeSet<&str> =
        manifest["dependencies"].as_table().expect("a table").keys().map(String::as_str).collect();
    let packages = lock["package"].as_array().expect("a list of packages");
    let broker = packages.iter().find(|package| package["name"].as_str() == Some("corelane")).expect("it is locked");
    let locked = broker["dependencies"].as_array().expect("a list").iter();
    // A version follows where several are locked.
    let locked: BTreeSet<&str> =
        locked.filter_map(toml::Value::as_str).map(|name| name.split(' ').next().unwrap_or(name)).collect();
    assert_eq!(locked, wanted, "scripts/fuzz brings fuzz/Cargo.lock up to date");
}

/// Writes the seeds to where `scripts/fuzz` wants them; without the variable it only proves that they can be made.
#[test]
fn seeds_are_written_for_the_fuzzer() {
    let directory = std::env::var_os("CORELANE_FUZZ_SEEDS");
    for target in TARGETS {
        let seeds = seeds::of(target.name);
        assert!(seeds.iter().all(|seed| seed.len() <= 64 << 10), "seeds of {} are small", target.name);
        let Some(directory) = &directory else { continue };
        let directory = Path::new(directory).join(target.name);
        fs::create_dir_all(&directory).expect("it can be made");
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(format!("seed-{index:03}")), seed).expect("it can be written");
        }
    }
}
