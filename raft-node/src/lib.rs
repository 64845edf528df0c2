//! `farmd`, the daemon of a Farm node: a library with a small `main`.
//!
//! Read it in this order:
//!
//! * [`run`] — sockets, runtimes, signals; the one place that starts things.
//! * [`daemon`] — before and after membership: found, join, resume, leave.
//! * [`rejoin`] — back into a cluster that has gone on without this node.
//! * [`recover`] — one server goes on alone because people say so; the daemon does not run meanwhile.
//! * [`member`] — everything that runs once the node belongs to a cluster.
//! * [`lease`] — the real-time thread: holder, elector, and the only writer of the filter's table.
//! * [`raft`] — the replicated log; the only module that names openraft.
//! * [`proposer`] — the way of a command into the log, from whichever member it starts.
//! * [`tiebreak`] — what decides between two voters: looked at before it is set, and tried.
//! * [`driver`] → [`effects`] — what is observed goes into the core's controller, effects come out.
//! * [`node`] — the applied state, made real on this host: table, guard, virtual IPs, drains.
//! * [`modules`] — applications of modules on this host: scripts, processes, logs.
//! * [`condition`] — what is not green, and since when.
//! * [`http`] — health, metrics and a page: what a browser and a load balancer may ask.
//! * [`doctor`] — what on this machine and on the way to the others keeps it from working well.
//! * [`api`], [`peer`] — what clients and other nodes may ask. [`wire`] parses all of it, once.
#![forbid(unsafe_code)]

pub mod api;
pub mod arguments;
pub mod collect;
pub mod condition;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod drill;
pub mod driver;
pub mod effects;
pub mod file;
pub mod http;
pub mod journal;
mod journald;
pub mod lease;
pub mod look;
pub mod measure;
pub mod member;
pub mod modules;
pub mod node;
pub mod notify;
pub mod peer;
pub mod problem;
pub mod proposer;
pub mod raft;
pub mod realtime;
pub mod recover;
pub mod rejoin;
pub mod replace;
pub mod restart;
pub mod run;
pub mod secret;
pub mod tally;
pub mod tiebreak;
pub mod wire;
