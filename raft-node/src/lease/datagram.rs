//! One lease message per UDP datagram: protobuf, sealed with a keyed MAC (BLAKE3 in keyed mode).

use farm_core::id::{ClusterId, FeatureLevel};
use farm_core::lease::{Grant, Renewal};
use farm_proto::v1;
use prost::Message;

use crate::wire::Wire;

/// Largest datagram that is read; a lease message has about 120 bytes.
pub const DATAGRAM_MAX: usize = 512;
/// Feature level whose leases these are; a level that changes their meaning raises it.
const LEASE_LEVEL: FeatureLevel = FeatureLevel(1);
/// Bytes of the MAC that travel (128 bits).
const MAC_LEN: usize = 16;

/// Tells the answer to one call from all others.
pub type Nonce = [u8; 16];

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseMessage {
    /// A node asks for its next lease.
    Renewal(Renewal),
    /// An elector grants it.
    Grant(Grant),
    /// Somebody asks whether datagrams come here.
    Call(Nonce),
    /// They do.
    Echo(Nonce),
}

/// Why a datagram was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Not protobuf, or a field is missing.
    #[error("malformed")]
    Malformed,
    /// The MAC does not fit: another cluster's secret, or forged.
    #[error("not authentic")]
    NotAuthentic,
    /// The sender belongs to another cluster.
    #[error("another cluster")]
    ForeignCluster,
    /// The sender speaks a lease protocol that this build does not know.
    #[error("a newer lease protocol")]
    Newer,
}

/// Seals and opens datagrams of one cluster.
#[derive(Clone)]
pub struct Sealer {
    cluster: ClusterId,
    key: [u8; 32],
}

impl Sealer {
    /// For `cluster`, with the key derived from its secret.
    #[must_use]
    pub fn new(cluster: ClusterId, key: [u8; 32]) -> Self {
        Self { cluster, key }
    }

    /// The bytes to send.
    #[must_use]
    pub fn seal(&self, message: &LeaseMessage) -> Vec<u8> {
        let kind = match message {
            LeaseMessage::Renewal(r) => v1::lease_body::Kind::Renewal(r.to_wire()),
            LeaseMessage::Grant(g) => v1::lease_body::Kind::Grant(g.to_wire()),
            LeaseMessage::Call(nonce) => v1::lease_body::Kind::Call(call(nonce)),
            LeaseMessage::Echo(nonce) => v1::lease_body::Kind::Echo(call(nonce)),
        };
        let body = self.enclose(Some(kind), LEASE_LEVEL);
        let mac = self.mac(&body).to_vec();
        v1::Sealed { body: body.into(), mac: mac.into() }.encode_to_vec()
    }

    fn enclose(&self, kind: Option<v1::lease_body::Kind>, level: FeatureLevel) -> Vec<u8> {
        let cluster = self.cluster.0.to_vec().into();
        v1::LeaseBody { cluster, feature_level: level.0, kind }.encode_to_vec()
    }

    /// The message in `bytes`.
    ///
    /// # Errors
    /// [`DatagramError`]; nothing of an unauthentic datagram is interpreted.
    pub fn open(&self, bytes: &[u8]) -> Result<LeaseMessage, DatagramError> {
        let sealed = v1::Sealed::decode(bytes).map_err(|_| DatagramError::Malformed)?;
        let given: [u8; MAC_LEN] = sealed.mac.as_ref().try_into().map_err(|_| DatagramError::Malformed)?;
        if !same(&given, &self.mac(&sealed.body)) {
            return Err(DatagramError::NotAuthentic);
        }
        let body = v1::LeaseBody::decode(sealed.body).map_err(|_| DatagramError::Malformed)?;
        if body.cluster.as_ref() != self.cluster.0 {
            return Err(DatagramError::ForeignCluster);
        }
        if FeatureLevel(body.feature_level) > LEASE_LEVEL {
            return Err(DatagramError::Newer);
        }
        match body.kind.ok_or(DatagramError::Malformed)? {
            v1::lease_body::Kind::Renewal(r) => Renewal::from_wire(r).map(LeaseMessage::Renewal),
            v1::lease_body::Kind::Grant(g) => Grant::from_wire(g).map(LeaseMessage::Grant),
            v1::lease_body::Kind::Call(c) => return nonce(&c).map(LeaseMessage::Call),
            v1::lease_body::Kind::Echo(c) => return nonce(&c).map(LeaseMessage::Echo),
        }
        .map_err(|_| DatagramError::Malformed)
    }

    fn mac(&self, body: &[u8]) -> [u8; MAC_LEN] {
        let full = blake3::keyed_hash(&self.key, body);
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&full.as_bytes()[..MAC_LEN]);
        mac
    }
}

fn call(nonce: &Nonce) -> v1::Call {
    v1::Call { nonce: nonce.to_vec().into() }
}

fn nonce(call: &v1::Call) -> Result<Nonce, DatagramError> {
    call.nonce.as_ref().try_into().map_err(|_| DatagramError::Malformed)
}

/// Compares in a time that does not depend on where the bytes differ.
fn same(a: &[u8; MAC_LEN], b: &[u8; MAC_LEN]) -> bool {
    a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use farm_core::id::{Epoch, Generation, Incarnation, NodeId, Seq};

    use super::*;

    fn renewal() -> LeaseMessage {
        LeaseMessage::Renewal(Renewal {
            generation: Generation { number: 1, survivor: NodeId(1), nonce: 7 },
            node: NodeId(3),
            incarnation: Incarnation([9; 16]),
            seq: Seq(42),
            applied: Epoch(5),
            leased: true,
            lease: farm_core::time::Span::millis(100),
        })
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let sealer = Sealer::new(ClusterId([1; 16]), [2; 32]);
        let bytes = sealer.seal(&renewal());
        assert!(bytes.len() <= DATAGRAM_MAX);
        assert_eq!(sealer.open(&bytes), Ok(renewal()));
        for message in [LeaseMessage::Call([7; 16]), LeaseMessage::Echo([8; 16])] {
            assert_eq!(sealer.open(&sealer.seal(&message)), Ok(message));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let sealer = Sealer::new(ClusterId([1; 16]), [2; 32]);
        let bytes = sealer.seal(&renewal());
        for at in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[at / 8] ^= 1 << (at % 8);
            assert!(sealer.open(&forged).is_err(), "bit {at}");
        }
    }

    #[test]
    fn leases_of_a_newer_kind_are_not_guessed_at() {
        let sealer = Sealer::new(ClusterId([1; 16]), [2; 32]);
        let LeaseMessage::Renewal(known) = renewal() else { unreachable!("it is a renewal") };
        let kind = v1::lease_body::Kind::Renewal(known.to_wire());
        let body = sealer.enclose(Some(kind), FeatureLevel(LEASE_LEVEL.0 + 1));
        let mac = sealer.mac(&body).to_vec();
        let bytes = v1::Sealed { body: body.into(), mac: mac.into() }.encode_to_vec();
        assert_eq!(sealer.open(&bytes), Err(DatagramError::Newer));
    }

    #[test]
    fn another_secret_and_another_cluster_are_refused() {
        let bytes = Sealer::new(ClusterId([1; 16]), [2; 32]).seal(&renewal());
        let other_secret = Sealer::new(ClusterId([1; 16]), [3; 32]);
        assert_eq!(other_secret.open(&bytes), Err(DatagramError::NotAuthentic));
        let other_cluster = Sealer::new(ClusterId([4; 16]), [2; 32]);
        assert_eq!(other_cluster.open(&bytes), Err(DatagramError::ForeignCluster));
    }
}
