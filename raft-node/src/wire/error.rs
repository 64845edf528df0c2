//! Why bytes were not understood.

/// A message that does not say what its type needs. `field` is `Message.field` of the `.proto` file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are no protobuf message.
    #[error("these bytes are not a protobuf message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field that must be set is not.
    #[error("{field} is not set")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// An enum value or oneof that this version does not know: the sender is newer, or the bytes are damaged.
    #[error("{field} has a value this version does not know ({value}); upgrade this node")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// A value outside of what the field may hold.
    #[error("{field} is {value}, but must be {must}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        must: &'static str,
    },
}

impl WireError {
    pub(crate) fn invalid(field: &'static str, value: impl ToString, must: &'static str) -> Self {
        Self::Invalid { field, value: value.to_string(), must }
    }

    pub(crate) fn unknown(field: &'static str, value: impl ToString) -> Self {
        Self::Unknown { field, value: value.to_string() }
    }
}
