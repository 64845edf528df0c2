//! `farmctl cluster …`

use clap::Subcommand;
use farm_proto::v1;

use super::{ask_status, done, tiebreak};
use crate::args::Global;
use crate::client::{Daemon, LONG, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{Profile, name};
use crate::{render, view};

/// Found a cluster, look at it, set its timing.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Found a cluster with this node as its first member
    Init {
        /// Name of the cluster
        #[arg(long, default_value = "farm", value_parser = name)]
        name: String,
        /// Timing; without it the node measures itself for a few seconds and proposes one
        #[arg(long)]
        profile: Option<Profile>,
    },
    /// Nodes, shares and what is not green, on one screen
    Status,
    /// What the loss of each node, and of each room, would do now, and what would help. Exit code 8 where the
    /// service would not survive one of them
    Check,
    /// What decides when two voters have lost each other
    TieBreak(tiebreak::TieBreak),
    /// Use what the builds of all members know, after an upgrade; older builds can then no longer take part
    Finalize,
    /// Give the cluster another name
    Rename {
        /// Its name
        #[arg(value_parser = name)]
        name: String,
    },
    /// Set the timing of the whole cluster
    Profile {
        /// The profile
        #[arg(value_name = "NAME")]
        profile: Profile,
    },
}

pub(super) async fn run(command: Cluster, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    match command {
        Cluster::Init { name, profile } => init(name, profile, global, out).await,
        Cluster::Status => show(global, out).await,
        Cluster::Check => check(global, out).await,
        Cluster::TieBreak(command) => tiebreak::run(command, global, out).await,
        Cluster::Finalize => finalize(global, out).await,
        Cluster::Rename { name } => rename(name, global, out).await,
        Cluster::Profile { profile } => set_profile(profile, global, out).await,
    }
}

async fn init(
    name: String,
    profile: Option<Profile>,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let profile = profile.map_or(v1::Profile::Unspecified, Into::into).into();
    let request = v1::InitRequest { name: name.clone(), profile };
    let daemon = Daemon::connect(global).await?;
    let answer = daemon.call(LONG, async |mut c| c.init(request).await).await?;
    out.show(&view::Init::from(&answer), || render::init(&name, &answer))?;
    Ok(Exit::Done)
}

async fn show(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let colour = out.colour;
    out.show(&view::Status::from(&status), || render::status(&status, colour))?;
    Ok(if status.member { Exit::Done } else { Exit::NotMember })
}

async fn check(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::ClusterCheckRequest {};
    let answer = daemon.call(ORDINARY, async |mut c| c.cluster_check(request).await).await?;
    let colour = out.colour;
    out.show(&view::ClusterCheck::from(&answer), || render::losses(&answer, colour))?;
    let survives = answer.losses.iter().all(|loss| loss.reasons.is_empty());
    Ok(if survives { Exit::Done } else { Exit::Failed })
}

/// `farmctl status`.
pub(super) async fn screen(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let colour = out.colour;
    out.show(&view::Status::from(&status), || render::screen(&status, colour))?;
    Ok(if status.member { Exit::Done } else { Exit::NotMember })
}

async fn finalize(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::ClusterFinalizeRequest {};
    let answer = daemon.call(ORDINARY, async |mut c| c.cluster_finalize(request).await).await?;
    done(out, &answer, "all members use what their builds know")
}

async fn rename(name: String, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let said = format!("the cluster is called {name}");
    let daemon = Daemon::connect(global).await?;
    let request = v1::ClusterRenameRequest { name };
    let answer = daemon.call(ORDINARY, async |mut c| c.cluster_rename(request).await).await?;
    done(out, &answer, &said)
}

async fn set_profile(profile: Profile, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let profile = v1::Profile::from(profile).into();
    let daemon = Daemon::connect(global).await?;
    let request = v1::ProfileSetRequest { profile };
    let answer = daemon.call(ORDINARY, async |mut c| c.profile_set(request).await).await?;
    done(out, &answer, &format!("timing profile is {}", view::profile(profile)))
}
