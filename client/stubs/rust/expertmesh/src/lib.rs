//! Expertmesh's contract: messages and clients of the package `expertmesh.v1`.

/// The package `expertmesh.v1`.
pub mod v1 {
    // Comments of the contract are no Markdown.
    #![allow(clippy::all, rustdoc::all)]
    include!("expertmesh.v1.rs");

    /// The contract itself, as a `google.protobuf.FileDescriptorSet`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("expertmesh.v1.bin");
}
