//! `farmctl service …`

use std::net::IpAddr;

use clap::{Args, Subcommand};
use farm_proto::v1;

use super::{ask_status, done};
use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{Criterion, Mode, Protocol, module_name, port, vip, vlan};
use crate::{render, view};

/// Virtual IPs and ports.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Add a service; creates the module when it is new
    Add {
        /// Which service
        #[command(flatten)]
        which: Which,
        /// What makes a client's bucket: its address, or address and port
        #[arg(long, default_value = "source-address")]
        criterion: Criterion,
        /// How frames reach the node that accepts them; must agree with other services of the virtual IP
        #[arg(long, default_value = "directed")]
        mode: Mode,
    },
    /// List the services
    List,
    /// Remove a service; the virtual IP goes with its last service
    Remove {
        /// Which service
        #[command(flatten)]
        which: Which,
    },
}

/// What identifies a service.
#[derive(Debug, Args)]
pub struct Which {
    /// Its module
    #[arg(long, value_parser = module_name)]
    module: String,
    /// Its virtual IP
    #[arg(long, value_parser = vip, value_name = "IP")]
    vip: IpAddr,
    /// VLAN of its network, OUTER.INNER for two tags; none when not said
    #[arg(long, value_parser = vlan, value_name = "ID")]
    vlan: Option<String>,
    /// Its transport
    #[arg(long, default_value = "tcp")]
    protocol: Protocol,
    /// Its port
    #[arg(long, value_parser = port, value_name = "N")]
    port: u16,
}

impl Which {
    fn with(&self, criterion: Criterion) -> v1::Service {
        v1::Service {
            vip: self.vip.to_string(),
            protocol: v1::Protocol::from(self.protocol).into(),
            port: self.port.into(),
            criterion: v1::Criterion::from(criterion).into(),
            vlan: self.vlan.clone().unwrap_or_default(),
        }
    }
}

pub(super) async fn run(command: Service, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    match command {
        Service::Add { which, criterion, mode } => add(&which, criterion, mode, global, out).await,
        Service::List => list(global, out).await,
        Service::Remove { which } => remove(&which, global, out).await,
    }
}

async fn add(
    which: &Which,
    criterion: Criterion,
    mode: Mode,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let service = which.with(criterion);
    let said = format!("{} serves {}", which.module, render::service(&service));
    let daemon = Daemon::connect(global).await?;
    let mode = v1::Mode::from(mode).into();
    let request = v1::ServiceAddRequest { module: which.module.clone(), service: Some(service), mode };
    let answer = daemon.call(ORDINARY, async |mut c| c.service_add(request).await).await?;
    done(out, &answer, &said)
}

async fn list(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let services = view::Services::from(&status);
    out.show(&services, || render::services(&status, &services))?;
    Ok(if status.member { Exit::Done } else { Exit::NotMember })
}

async fn remove(which: &Which, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    // The criterion does not identify a service, but a message without one is not well-formed.
    let service = which.with(Criterion::SourceAddress);
    let said = format!("{} no longer serves {}", which.module, render::service(&service));
    let daemon = Daemon::connect(global).await?;
    let request = v1::ServiceRemoveRequest { module: which.module.clone(), service: Some(service) };
    let answer = daemon.call(ORDINARY, async |mut c| c.service_remove(request).await).await?;
    done(out, &answer, &said)
}
