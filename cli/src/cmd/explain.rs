//! `farmctl explain`

use clap::Args;
use farm_proto::v1;

use super::names;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{ClientAddress, ServiceAddress, vlan};
use crate::{render, view};

/// Who serves a client, and why: asks the loaded program and the pure function of the answering node.
#[derive(Debug, Args)]
pub struct Explain {
    /// The client; the port matters where the criterion is source-port
    #[arg(value_name = "CLIENT[:PORT]")]
    client: ClientAddress,
    /// The service; tcp when not said
    #[arg(value_name = "VIP:PORT[/tcp|/udp]")]
    service: ServiceAddress,
    /// VLAN of the virtual IP's network
    #[arg(long, value_parser = vlan, value_name = "ID")]
    vlan: Option<String>,
}

impl Explain {
    fn named(&self) -> String {
        format!("{}{}", self.service, render::in_vlan(self.vlan.as_deref().unwrap_or_default()))
    }

    fn request(&self) -> v1::ExplainRequest {
        v1::ExplainRequest {
            client: self.client.ip.to_string(),
            client_port: self.client.port.into(),
            vip: self.service.at.ip().to_string(),
            protocol: v1::Protocol::from(self.service.protocol).into(),
            port: self.service.at.port().into(),
            vlan: self.vlan.clone().unwrap_or_default(),
        }
    }
}

pub(super) async fn run(command: Explain, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let answer = daemon.call(ORDINARY, async |mut c| c.explain(command.request()).await).await?;
    if out.json {
        out.json(&view::Explain::from(&answer))?;
    } else {
        let names = names(&daemon).await;
        out.text(&render::explain(&command.client, &command.named(), &answer, &names))?;
    }
    Ok(if answer.agree == Some(false) { Exit::Disagree } else { Exit::Done })
}
