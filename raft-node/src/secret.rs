//! The shared cluster secret and the keys derived from it. It authenticates datagrams and peers; it is
//! never sent and never printed.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::problem::Problem;

/// Fewest bytes that count as a secret.
const SECRET_MIN: usize = 16;

/// The cluster secret.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads the secret; the file must be readable by its owner only.
    ///
    /// # Errors
    /// `secret_missing`, `secret_open` or `secret_short`, naming the file.
    pub fn load(path: &Path) -> Result<Self, Problem> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|e| {
            let fact = format!(
                "cannot read the cluster secret {shown}: {e}; every node has a copy of the same file"
            );
            Problem::new("secret_missing", fact, format!("scp PEER:{shown} {shown}"))
        })?;
        let mode = std::fs::metadata(path).map(|m| m.permissions().mode() & 0o077).unwrap_or(0);
        if mode != 0 {
            let fact = format!("the cluster secret {shown} can be read by others");
            return Err(Problem::new("secret_open", fact, format!("chmod 600 {shown}")));
        }
        let trimmed = bytes.trim_ascii().to_vec();
        if trimmed.len() < SECRET_MIN {
            let fact =
                format!("the cluster secret {shown} has {} bytes; {SECRET_MIN} are the least", trimmed.len());
            return Err(Problem::new("secret_short", fact, format!("scp PEER:{shown} {shown}")));
        }
        Ok(Self(trimmed))
    }

    /// Reads the secret, or makes one when there is none (only `cluster init` may).
    ///
    /// # Errors
    /// As [`Secret::load`]; `secret_write` when it cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, Problem> {
        match create(path) {
            Ok(()) => Self::load(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Self::load(path),
            Err(e) => {
                let fact = format!("cannot write the cluster secret {}: {e}", path.display());
                Err(Problem::new(
                    "secret_write",
                    fact,
                    format!("df {}", path.parent().unwrap_or(path).display()),
                ))
            }
        }
    }

    /// Key for lease datagrams.
    #[must_use]
    pub fn lease_key(&self) -> [u8; 32] {
        blake3::derive_key("farm 2026 lease datagram v1", &self.0)
    }

    /// Proof that a peer knows the secret, as hex.
    #[must_use]
    pub fn peer_proof(&self) -> String {
        blake3::Hash::from(blake3::derive_key("farm 2026 peer proof v1", &self.0)).to_hex().to_string()
    }
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    writeln!(file, "{}", blake3::Hash::from(random).to_hex())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("secret");
        assert_eq!(Secret::load(&path).expect_err("none yet").code, "secret_missing");
        let first = Secret::load_or_create(&path).expect("made").peer_proof();
        assert_eq!(Secret::load_or_create(&path).expect("kept").peer_proof(), first);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
        assert_eq!(Secret::load(&path).expect_err("open to others").code, "secret_open");
    }
}
