//! Compiles the protocol without `protoc`.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["records", "worker", "operator"].map(|name| format!("tidegate/v1/{name}.proto"));
    let set = protox::compile(files, ["proto"])?;
    let descriptor = PathBuf::from(env::var("OUT_DIR")?).join("tidegate.bin");
    fs::write(descriptor, protox::prost::Message::encode_to_vec(&set))?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
