//! The wire and disk formats of Farm. Nothing but generated code: meaning lives in the `.proto` files,
//! conversion into the core's types lives in `farmd::wire`.
#![allow(missing_docs, clippy::all)]
#![forbid(unsafe_code)]

/// Package `farm.v1`.
pub mod v1 {
    tonic::include_proto!("farm.v1");
}

/// What `farm/v1/*.proto` says, for reflection (a `google.protobuf.FileDescriptorSet`).
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/farm.bin"));
