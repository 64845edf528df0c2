//! Wires the shells to the core; the one place that starts runtimes.
//!
//! Three worlds share the process and wait for each other as little as can be: the lease thread (real time),
//! Raft (its own runtime, inside [`crate::raft`]) and everything else (this runtime).

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use farm_core::model::Role;
use farm_proto::v1::farm_server::FarmServer;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::service::RoutesBuilder;
use tonic::transport::Server;

use crate::api::standard::Standard;
use crate::api::{Access, Api};
use crate::config::{Config, RoleName};
use crate::daemon::Daemon;
use crate::lease::socket::{LeaseSockets, refused};
use crate::problem::Problem;
use crate::replace::Program;
use crate::restart::Replace;

/// What is logged unless `FARM_LOG` says otherwise; openraft tells every timer at `info`.
const DEFAULT_LOG: &str = "info,openraft=error";

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// The [`Problem`] that kept it from starting.
pub fn run(config: &Path, role: Option<RoleName>) -> Result<(), Problem> {
    let config = Config::load(config, role)?;
    init_logs();
    if config.role == Role::Server {
        farm_dataplane::clock::refuse_time_namespace()
            .map_err(|e| Problem::new("time_namespace", e.to_string(), "systemctl start farmd"))?;
    }
    let program = Program::running().map_err(|e| {
        let fact = format!("cannot tell which program this is: {e}");
        Problem::new("no_program", fact, "mount -t proc proc /proc")
    })?;
    runtime()?.block_on(serve(config, program))
}

/// For everything that is neither the lease thread nor Raft.
pub(crate) fn runtime() -> Result<Runtime, Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("farm-api")
        .enable_all()
        .build();
    runtime.map_err(|e| {
        Problem::new("no_runtime", format!("cannot start threads: {e}"), "systemctl status farmd")
    })
}

fn init_logs() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("FARM_LOG").unwrap_or_else(|_| DEFAULT_LOG.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

async fn serve(config: Config, program: Program) -> Result<(), Problem> {
    let mut stop = signals()?;
    // Who waits for the socket takes it for a daemon that runs.
    crate::node::check_links(&config).await?;
    let unix = bind_unix(&config.socket).await?;
    let tcp = bind_tcp(&config).await?;
    preflight(&config).await?;
    let http = config.http.clone();
    let (replace, mut replaced) = mpsc::channel(1);
    let daemon = Arc::new(Daemon::new(config, program.clone(), replace)?);
    daemon.resume().await?;
    let standard = Standard::new().await;
    let mut apis = serve_apis(&daemon, &standard, unix, tcp)?;
    apis.0.extend(crate::http::serve(&daemon, &http));
    tracing::info!("ready");
    let signal = loop {
        tokio::select! {
            signal = stop.recv() => break signal,
            Some(failed) = replaced.recv() => become_program(&program, failed),
        }
    };
    tracing::info!(signal = signal.unwrap_or("none"), "stopping");
    standard.stopping().await;
    daemon.stop().await;
    drop(apis);
    Ok(())
}

/// Nothing is taken down before: what is pinned goes on, and the lease with it. Returns only where the system refuses.
fn become_program(program: &Program, failed: Replace) {
    tracing::info!(program = %program.path().display(), "becoming");
    let Err(error) = program.exec();
    // Whoever asked may have gone: then nobody waits for it.
    let _ = failed.send(error);
}

/// SIGTERM and SIGINT, as their names.
fn signals() -> Result<tokio::sync::mpsc::Receiver<&'static str>, Problem> {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        let failed =
            |e: std::io::Error| Problem::new("no_signals", format!("cannot wait for {name}: {e}"), "farmd");
        let mut stream = signal(kind).map_err(failed)?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // A second signal changes nothing: the hand-over is already under way.
                let _ = tell.try_send(name);
            }
        });
    }
    Ok(told)
}

/// Fails early, before anything is touched, when a port is taken or an address missing.
async fn preflight(config: &Config) -> Result<(), Problem> {
    LeaseSockets::bind(&config.addresses, config.ports.lease)?;
    for ip in config.addresses.values() {
        let bound = TcpListener::bind((*ip, config.ports.peer)).await;
        bound.map_err(|e| refused(*ip, config.ports.peer, "tcp", &e))?;
    }
    Ok(())
}

async fn bind_tcp(config: &Config) -> Result<Vec<TcpListener>, Problem> {
    let mut listeners = Vec::new();
    for ip in config.addresses.values() {
        let bound = TcpListener::bind(SocketAddr::new(*ip, config.ports.api)).await;
        listeners.push(bound.map_err(|e| refused(*ip, config.ports.api, "tcp", &e))?);
    }
    Ok(listeners)
}

async fn bind_unix(path: &Path) -> Result<UnixListener, Problem> {
    let shown = path.display();
    if UnixStream::connect(path).await.is_ok() {
        let fact = format!("another farmd answers at {shown}");
        return Err(Problem::new("already_running", fact, "systemctl stop farmd"));
    }
    let failed = |e: std::io::Error| {
        let fact = format!("cannot listen on {shown}: {e}");
        Problem::new("socket_failed", fact, format!("mkdir -p {}", path.parent().unwrap_or(path).display()))
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // Nobody answers there: what is left of a daemon that died.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Ends the servers when dropped.
struct Servers(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Servers {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn serve_apis(
    daemon: &Arc<Daemon>,
    standard: &Standard,
    unix: UnixListener,
    tcp: Vec<TcpListener>,
) -> Result<Servers, Problem> {
    let full = Server::builder().add_service(FarmServer::new(Api::new(daemon.clone(), Access::Full)));
    let mut tasks = vec![tokio::spawn(async move {
        if let Err(error) = full.serve_with_incoming(UnixListenerStream::new(unix)).await {
            tracing::error!(%error, "the API on the Unix socket ended");
        }
    })];
    for listener in tcp {
        let mut routes = RoutesBuilder::default();
        routes.add_service(FarmServer::new(Api::new(daemon.clone(), Access::ReadOnly)));
        standard.add_to(&mut routes)?;
        let show = Server::builder().add_routes(routes.routes());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = show.serve_with_incoming(TcpListenerStream::new(listener)).await {
                tracing::error!(%error, "the API on TCP ended");
            }
        }));
    }
    Ok(Servers(tasks))
}
