//! Asks another node's lease thread whether datagrams come to its port: for whoever looks for what is wrong. It is a
//! question beside the leases, and changes nothing about them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::datagram::{DATAGRAM_MAX, LeaseMessage, Nonce, Sealer};

/// A datagram may be lost, more than these are not.
const TRIES: usize = 4;
/// The lease thread answers within a few ms, on a busy machine too.
const WAIT: Duration = Duration::from_millis(250);

/// Whether `to` answers a call from the address `own`; else why not.
///
/// # Errors
/// Why it cannot be asked.
pub async fn answers(own: IpAddr, to: SocketAddr, sealer: &Sealer) -> Result<Result<(), String>, String> {
    match exchange(own, to, sealer).await {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Ok(Err(format!("no answer to {TRIES} datagrams"))),
        Err(error) if is_of_the_way(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// An answer of the network, or of the other host: nobody listens, or a firewall says no.
fn is_of_the_way(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    [ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&error.kind())
}

async fn exchange(own: IpAddr, to: SocketAddr, sealer: &Sealer) -> io::Result<bool> {
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(to).await?;
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let call = sealer.seal(&LeaseMessage::Call(nonce));
    for _ in 0..TRIES {
        socket.send(&call).await?;
        if let Ok(heard) = timeout(WAIT, echo(&socket, sealer, nonce)).await {
            return heard.map(|()| true);
        }
    }
    Ok(false)
}

async fn echo(socket: &UdpSocket, sealer: &Sealer, nonce: Nonce) -> io::Result<()> {
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if sealer.open(&buffer[..length]) == Ok(LeaseMessage::Echo(nonce)) {
            return Ok(());
        }
    }
}
