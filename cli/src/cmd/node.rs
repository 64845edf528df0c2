//! `farmctl node …`

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use farm_proto::v1;

use super::{ask_status, done, drain, names, restart, shutdown};
use crate::args::Global;
use crate::client::{Daemon, LONG, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{HostPort, NetworkAddress, Until, name};
use crate::{render, view};

/// Members of the cluster.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Make this node a member of the cluster that PEER belongs to
    Join {
        /// A member; port 7601 when not given
        #[arg(value_parser = HostPort::peer, value_name = "PEER[:PORT]")]
        peer: HostPort,
    },
    /// Hand a node's buckets over and forget the node
    Leave {
        /// The node; without it, the one that is asked
        #[arg(value_parser = name)]
        name: Option<String>,
    },
    /// Free a node of clients and wait until the last connection has ended; it stays free until
    /// `node maintenance off`, also across restarts
    Drain {
        /// The node; without it, the one that is asked
        #[arg(value_parser = name)]
        name: Option<String>,
        /// How long, and why
        #[command(flatten)]
        terms: Terms,
    },
    /// Replace the running daemon by the program on disk, as after an upgrade; its filter goes on meanwhile
    Restart {
        /// The node; without it, the one that is asked
        #[arg(value_parser = name, conflicts_with = "all")]
        name: Option<String>,
        /// All nodes, one after the other
        #[arg(long)]
        all: bool,
    },
    /// Stop the applications of the node that is asked, as before its machine goes down; what ran starts again with
    /// the machine, where `boot` says so
    Shutdown,
    /// Keep a node free of clients while somebody works on it
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// List the nodes
    List,
    /// Packets by verdict and reason since the filter of the node that is asked was attached
    Counters,
    /// Set addresses of a node, other networks keep theirs; or the room that it stands in
    Set {
        /// The node
        #[arg(value_parser = name)]
        name: String,
        /// Its address on a cluster network; may be repeated
        #[arg(long = "address", required_unless_present_any = ["room", "no_room"], num_args = 1.., value_name = "NET=IP")]
        addresses: Vec<NetworkAddress>,
        /// Nodes of one room may be lost together: `cluster check` says what that would do
        #[arg(long, value_parser = name)]
        room: Option<String>,
        /// It stands in none of the rooms
        #[arg(long, conflicts_with = "room")]
        no_room: bool,
    },
}

/// How long a node is kept free of clients, and why.
#[derive(Debug, Args)]
pub struct Terms {
    /// When it ends by itself: 30m, 2h, or an instant in UTC, 2026-01-31T06:00:00Z
    #[arg(long, value_name = "TIME")]
    pub until: Option<Until>,
    /// Why, for those who look at the status
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub reason: String,
}

/// Maintenance of a node.
#[derive(Debug, Subcommand)]
pub enum Maintenance {
    /// Free a node of clients: what is new goes elsewhere, connections end on it
    On {
        /// The node; without it, the one that is asked
        #[arg(value_parser = name)]
        name: Option<String>,
        /// How long, and why
        #[command(flatten)]
        terms: Terms,
    },
    /// Let a node take part again
    Off {
        /// The node; without it, the one that is asked
        #[arg(value_parser = name)]
        name: Option<String>,
    },
}

pub(super) async fn run(command: Node, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    match command {
        Node::Join { peer } => join(&peer, global, out).await,
        Node::Leave { name } => leave(name, global, out).await,
        Node::Drain { name, terms } => drain::run(name, terms, global, out).await,
        Node::Restart { name, all } => restart::run(name, all, global, out).await,
        Node::Shutdown => shutdown::run(global, out).await,
        Node::Maintenance(Maintenance::On { name, terms }) => maintenance_on(name, terms, global, out).await,
        Node::Maintenance(Maintenance::Off { name }) => maintenance_off(name, global, out).await,
        Node::List => list(global, out).await,
        Node::Counters => counters(global, out).await,
        Node::Set { name, addresses, room, no_room } => {
            let room = room.or_else(|| no_room.then(String::new));
            set(name, addresses, room, global, out).await
        }
    }
}

async fn join(peer: &HostPort, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let peer = resolve(peer).await?.to_string();
    let daemon = Daemon::connect(global).await?;
    let request = v1::JoinClusterRequest { peer };
    let answer = daemon.call(LONG, async |mut c| c.join(request).await).await?;
    out.show(&view::Join::from(&answer), || render::join(&answer))?;
    Ok(Exit::Done)
}

/// A daemon knows addresses only, so that its start depends on no name server.
async fn resolve(peer: &HostPort) -> Result<SocketAddr, Problem> {
    let unknown = |why: String| {
        let fact = format!("{} has no address: {why}", peer.host);
        Problem::new(Exit::Local, "unknown_host", fact, format!("getent hosts {}", peer.host))
    };
    let mut found =
        tokio::net::lookup_host((peer.host.as_str(), peer.port)).await.map_err(|e| unknown(e.to_string()))?;
    found.next().ok_or_else(|| unknown("the name service knows none".into()))
}

async fn leave(name: Option<String>, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let said = name.clone().unwrap_or_else(|| "this node".into());
    // An empty name is the node that is asked.
    let request = v1::LeaveRequest { node: name.unwrap_or_default() };
    let answer = daemon.call(LONG, async |mut c| c.leave(request).await).await?;
    done(out, &answer, &format!("{said} leaves the cluster; its buckets are handed over first"))
}

async fn maintenance_on(
    name: Option<String>,
    terms: Terms,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let said = name.clone().unwrap_or_else(|| "this node".into());
    let daemon = Daemon::connect(global).await?;
    let answer = begin_maintenance(&daemon, name, terms).await?;
    done(out, &answer, &format!("{said} is in maintenance; its connections end on it"))
}

/// The one call of both commands that free a node of clients.
pub(super) async fn begin_maintenance(
    daemon: &Daemon,
    name: Option<String>,
    Terms { until, reason }: Terms,
) -> Result<v1::Done, Error> {
    // An empty name is the node that is asked.
    let node = name.unwrap_or_default();
    let request = v1::MaintenanceOnRequest { node, until_ms: until.map(Until::unix_ms), reason };
    daemon.call(ORDINARY, async |mut c| c.maintenance_on(request).await).await
}

async fn maintenance_off(name: Option<String>, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let said = name.clone().unwrap_or_else(|| "this node".into());
    let request = v1::MaintenanceOffRequest { node: name.unwrap_or_default() };
    let answer = daemon.call(ORDINARY, async |mut c| c.maintenance_off(request).await).await?;
    done(out, &answer, &format!("{said} takes part again"))
}

async fn list(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let nodes = view::Nodes { nodes: status.nodes.iter().map(Into::into).collect() };
    let colour = out.colour;
    out.show(&nodes, || render::node_list(&status, colour))?;
    Ok(if status.member { Exit::Done } else { Exit::NotMember })
}

async fn counters(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let answer = daemon.call(ORDINARY, async |mut c| c.counters(v1::CountersRequest {}).await).await?;
    if out.json {
        out.json(&view::Counters::from(&answer))?;
    } else {
        out.text(&render::counters(&answer, &names(&daemon).await))?;
    }
    Ok(Exit::Done)
}

async fn set(
    name: String,
    addresses: Vec<NetworkAddress>,
    room: Option<String>,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    unique(&addresses)?;
    let daemon = Daemon::connect(global).await?;
    let said = name.clone();
    let addresses =
        addresses.into_iter().map(|a| v1::Address { network: a.network, ip: a.ip.to_string() }).collect();
    let request = v1::NodeSetRequest { node: name, addresses, room };
    let answer = daemon.call(ORDINARY, async |mut c| c.node_set(request).await).await?;
    done(out, &answer, &format!("{said} is set"))
}

/// A network named twice is a mistake: which address was meant?
fn unique(addresses: &[NetworkAddress]) -> Result<(), Problem> {
    let mut seen = std::collections::BTreeSet::new();
    match addresses.iter().find(|a| !seen.insert(&a.network)) {
        None => Ok(()),
        Some(twice) => {
            let fact = format!("--address names the network {} twice", twice.network);
            Err(Problem::new(Exit::Usage, "usage", fact, "farmctl node set --help"))
        }
    }
}
