//! Between the bytes of `farm/v1/*.proto` and the core's types. Whatever comes in is parsed once, here; behind this module
//! nobody meets an unset field, an unknown enum value or an address in text form.

/// Maps an enum of the core to the one on the wire and back; 0 (unset) and unknown numbers are refused.
macro_rules! wire_enum {
    ($core:ident = $proto:ident, $field:literal, { $($value:ident),+ $(,)? }) => {
        impl Wire for $core {
            type Proto = i32;

            fn to_wire(&self) -> i32 {
                match self { $(Self::$value => farm_proto::v1::$proto::$value as i32),+ }
            }

            fn from_wire(number: i32) -> Result<Self, WireError> {
                match farm_proto::v1::$proto::try_from(number) {
                    $(Ok(farm_proto::v1::$proto::$value) => Ok(Self::$value),)+
                    Ok(farm_proto::v1::$proto::Unspecified) => Err(WireError::Missing { field: $field }),
                    Err(_) => Err(WireError::unknown($field, number)),
                }
            }
        }
    };
}

mod command;
mod error;
mod files;
mod ids;
mod lease;
mod model;
mod module;
mod state;
pub(crate) mod text;
mod tiebreak;

pub use error::WireError;
pub use files::{files_from_wire, files_to_wire};
pub use model::maintenance_to_wire;
pub use module::module_to_wire;

/// A core type with a form on the wire and on disk.
pub trait Wire: Sized {
    /// The generated message.
    type Proto;

    /// The message for this value. The same value gives the same bytes.
    fn to_wire(&self) -> Self::Proto;

    /// Parses a message.
    ///
    /// # Errors
    /// The first field that is missing, unknown or out of range.
    fn from_wire(proto: Self::Proto) -> Result<Self, WireError>;
}

/// The bytes of `value`.
pub fn encode<T>(value: &T) -> Vec<u8>
where
    T: Wire,
    T::Proto: prost::Message,
{
    prost::Message::encode_to_vec(&value.to_wire())
}

/// Parses bytes made by [`encode`], here or on another node.
///
/// # Errors
/// Bytes that are not protobuf, and everything that [`Wire::from_wire`] refuses.
pub fn decode<T>(bytes: &[u8]) -> Result<T, WireError>
where
    T: Wire,
    T::Proto: prost::Message + Default,
{
    T::from_wire(<T::Proto as prost::Message>::decode(bytes)?)
}

/// Parses a list.
pub(crate) fn parse_all<T: Wire>(list: Vec<T::Proto>) -> Result<Vec<T>, WireError> {
    list.into_iter().map(T::from_wire).collect()
}

/// Makes the messages of a list.
pub(crate) fn all_to_wire<T: Wire>(list: &[T]) -> Vec<T::Proto> {
    list.iter().map(Wire::to_wire).collect()
}

/// Parses a message that must be there.
pub(crate) fn required<T: Wire>(field: &'static str, proto: Option<T::Proto>) -> Result<T, WireError> {
    T::from_wire(proto.ok_or(WireError::Missing { field })?)
}
