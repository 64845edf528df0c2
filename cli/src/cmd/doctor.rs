//! `farmctl doctor`

use clap::Args;
use farm_proto::v1;

use crate::args::Global;
use crate::client::{Daemon, LONG};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, view};

/// Examines the nodes: kernel, clock, disk, interfaces, firewall, the way between every two. Takes some seconds,
/// disturbs nothing. Where no daemon runs yet: farmd doctor.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only this node [default: all]
    #[arg(long, value_name = "NODE", default_value = "", hide_default_value = true)]
    node: String,
}

pub(super) async fn run(doctor: Doctor, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::DoctorRequest { node: doctor.node };
    let answer = daemon.call(LONG, async |mut c| c.doctor(request).await).await?;
    out.show(&view::Doctor::from(&answer), || render::doctor(&answer))?;
    let fault = answer.findings.iter().any(|finding| finding.level() == v1::DoctorLevel::Fault);
    Ok(if fault { Exit::Failed } else { Exit::Done })
}
