//! A server for connections that are checked: it names its node, then sends back what it gets. A process per node,
//! which dies with it, and whose files are not the clients'.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::Lab;
use crate::names::Place;
use crate::record::Role;
use crate::{binaries, shell};

/// Bytes of a question.
pub const BLOCK: usize = 8;
/// A whole crowd may come at once.
const BACKLOG: i32 = 4096;

impl Lab {
    /// Starts the server of `node` on all its addresses and waits until it listens.
    ///
    /// # Errors
    /// The port is taken, or the program is missing.
    pub fn start_echo(&self, node: Place, port: u16) -> Result<()> {
        /// It listens at once; a busy machine gets more.
        const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
        let Place::Node(number) = node else { anyhow::bail!("{node} is no node") };
        let mut command = self.namespace(node).command(binaries::find("farm-lab")?)?;
        command.args(["echo", "--node", &number.to_string(), "--port", &port.to_string()]);
        let log = self.directory(node)?.join("echo.log");
        let process = self.spawn(node, Role::Echo, &mut command, &log)?;
        let target = (node.address(), port);
        shell::await_value(&format!("the echo server of {node} listens"), LIMIT, || {
            ensure!(process.alive(), "it ended: {}", crate::node::tail(&log));
            self.namespace(node).run(|| Ok(std::net::TcpStream::connect(target).ok().map(drop)))
        })
    }
}

/// Serves on `port` of every address for node number `node`; for ever.
///
/// # Errors
/// The port is taken.
pub fn serve(node: u8, port: u16) -> Result<()> {
    let listener = listen(port)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            // A connection that failed before it was accepted is missed by its client.
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, node));
            }
        }
    })
}

fn listen(port: u16) -> Result<std::net::TcpListener> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into()).with_context(|| at.to_string())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Ends with the connection.
async fn answer(mut stream: TcpStream, node: u8) {
    let mut block = [0; BLOCK];
    let mut alive = stream.set_nodelay(true).is_ok() && stream.write_all(&[node]).await.is_ok();
    while alive && stream.read_exact(&mut block).await.is_ok() {
        alive = stream.write_all(&block).await.is_ok();
    }
}
