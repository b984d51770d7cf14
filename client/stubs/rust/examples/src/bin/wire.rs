//! Checks that generated Rust code writes and reads the bytes of the contract.
//!
//!     wire MESSAGES
//!
//! MESSAGES is tests/golden/wire/messages.txt, which is described in make_wire_golden.py. prost has
//! no JSON: what a line says is read by the contract's descriptors, and goes through the stubs.
use std::{env, error::Error, fs, process::ExitCode};

use expertmesh::v1;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

/// Reads bytes with the generated code of a message and writes them with it.
fn through(name: &str, data: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    macro_rules! of {
        ($($message:ident)*) => {
            match name {
                $(stringify!($message) => Ok(v1::$message::decode(data)?.encode_to_vec()),)*
                _ => Err(format!("{name}: no such message").into()),
            }
        };
    }
    of!(Tensor ForwardRequest ForwardResponse DescribeModelRequest DescribeModelResponse
        NodeDescription Topology GetTopologyResponse WatchTopologyRequest WatchTopologyResponse
        GetLoadResponse DrainNodeRequest)
}

fn from_hex(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digits = hex.trim_start_matches('-');
    (0..digits.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&digits[at..at + 2], 16)?))
        .collect()
}

fn check(pool: &DescriptorPool, line: &str) -> Result<(), Box<dyn Error>> {
    let columns: Vec<&str> = line.splitn(4, ' ').collect();
    let [name, direction, hex, content] = columns.as_slice() else {
        return Err(format!("not four columns: {line}").into());
    };
    let kind = pool
        .get_message_by_name(&format!("expertmesh.v1.{name}"))
        .ok_or_else(|| format!("{name}: no such message"))?;
    let mut json = serde_json::Deserializer::from_str(content);
    let wanted = DynamicMessage::deserialize(kind.clone(), &mut json)?;
    let golden = from_hex(hex)?;
    if *direction == "both" {
        let written = through(name, &wanted.encode_to_vec())?;
        if written != golden {
            return Err(format!("{name}: did not write {hex}").into());
        }
    }
    // What a later version added is no field of the generated code, and so is left out.
    let read = DynamicMessage::decode(kind, through(name, &golden)?.as_slice())?;
    if read != wanted {
        return Err(format!("{name}: read {read} from {hex}, expected {content}").into());
    }
    Ok(())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(file) = env::args().nth(1) else {
        eprintln!("usage: wire MESSAGES");
        return Ok(ExitCode::from(2));
    };
    let pool = DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET)?;
    let text = fs::read_to_string(file)?;
    let (mut lines, mut wrong) = (0, 0);
    for line in text.lines() {
        lines += 1;
        if let Err(problem) = check(&pool, line) {
            println!("{problem}");
            wrong += 1;
        }
    }
    println!("{lines} messages, {wrong} wrong");
    Ok(ExitCode::from(u8::from(wrong > 0 || lines == 0)))
}
