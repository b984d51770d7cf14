//! Writes the code of the crate `expertmesh`. protox compiles protos in Rust: no protoc is needed.
//!
//!     expertmesh-generate PROTO_ROOT OUTPUT_DIR
use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [root, out] = arguments.as_slice() else {
        return Err("usage: expertmesh-generate PROTO_ROOT OUTPUT_DIR".into());
    };
    let mut protos = Vec::new();
    for entry in fs::read_dir(root.join("expertmesh/v1"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            protos.push(path);
        }
    }
    protos.sort();
    let descriptors = protox::compile(&protos, [root])?;
    fs::write(out.join("expertmesh.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .out_dir(out)
        .build_server(false)
        // Tensors are not copied, and maps always have the same bytes.
        .bytes(".expertmesh.v1.Tensor")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
