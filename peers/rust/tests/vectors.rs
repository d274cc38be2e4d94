//! All vectors of tests/vectors.

use std::path::Path;

use conformance::vectors::{self, FOLDERS};

fn run_folder(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let vectors = vectors::all(&root, folder).expect("vectors");
    assert!(vectors.len() >= 10, "{folder} has {} vectors", vectors.len());
    let failures: Vec<String> = (vectors.iter())
        .filter_map(|vector| vectors::run(vector).err().map(|text| format!("{}: {text}", vector.name)))
        .collect();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), vectors.len(), failures.join("\n"));
}

#[test]
fn every_message_reads_as_its_vector_says() {
    run_folder(FOLDERS[0]);
}

#[test]
fn every_value_survives_being_written() {
    run_folder(FOLDERS[1]);
}

#[test]
fn every_frame_reads_and_writes_as_its_vector_says() {
    run_folder(FOLDERS[2]);
}

#[test]
fn every_conversation_goes_as_its_script() {
    run_folder(FOLDERS[3]);
}

#[test]
fn every_fault_is_refused_with_its_code() {
    run_folder(FOLDERS[4]);
}
