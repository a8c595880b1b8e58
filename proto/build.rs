//! Compiles the .proto files with protox, so that no system protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let files =
        ["log", "ledger", "feed", "admin", "raft"].map(|name| format!("dovetail/v1/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For gRPC reflection.
    fs::write(out.join("dovetail.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".dovetail.v1.BackupPart.content")
        .bytes(".dovetail.v1.ExportPiece.data")
        .bytes(".dovetail.v1.LedgerRow.entry")
        .bytes(".dovetail.v1.RaftMessage.payload")
        .bytes(".dovetail.v1.SnapshotUpdate.canonical")
        .compile_fds(descriptors)?;
    Ok(())
}
