//! The report of a rehearsal: one page, pure.

use std::net::SocketAddr;
use std::time::Duration;

use farm_proto::v1;
use serde::Serialize;

use crate::probe::Felt;

/// A connection that takes longer waited for something: a lost SYN is sent again after a second (RFC 6298 §2).
const LATE: Duration = Duration::from_millis(100);

/// What clients felt at one service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Clients {
    /// Its address and port.
    pub service: SocketAddr,
    /// New connections.
    pub connections: usize,
    /// Those that took longer than 100 ms.
    pub late: usize,
    /// Those that failed.
    pub failed: usize,
    /// The longest that succeeded, in milliseconds.
    pub slowest_ms: u128,
    /// Connections that were open before.
    pub kept: usize,
    /// Those of them that ended.
    pub ended: usize,
}

impl Clients {
    pub(super) fn of(service: SocketAddr, felt: &Felt) -> Self {
        let took: Vec<Duration> = felt.attempts.iter().filter_map(|attempt| attempt.took).collect();
        Self {
            service,
            connections: felt.attempts.len(),
            late: took.iter().filter(|took| **took > LATE).count(),
            failed: felt.attempts.len() - took.len(),
            slowest_ms: took.iter().max().map_or(0, Duration::as_millis),
            kept: felt.kept,
            ended: felt.ended,
        }
    }

    fn line(&self) -> String {
        let Self { service, connections, late, failed, slowest_ms, kept, ended } = self;
        format!(
            "  {service}: {connections} new connections, {failed} failed, {late} took longer than {} ms, the slowest \
             {slowest_ms} ms; of {kept} open ones {ended} ended\n",
            LATE.as_millis()
        )
    }
}

/// A rehearsal that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Report {
    pub cluster: String,
    pub what: String,
    pub begun: String,
    /// From the end of the outage until all was as before; else what was not.
    pub back: Result<Duration, String>,
    pub clients: Vec<Clients>,
    /// Services whose address is this machine's own.
    pub here: Vec<SocketAddr>,
    pub why: Vec<String>,
}

impl Report {
    /// All is as before, and no new connection failed.
    pub(super) fn passed(&self) -> bool {
        self.back.is_ok() && self.clients.iter().all(|clients| clients.failed == 0)
    }

    pub(super) fn text(&self) -> String {
        let verdict = match (self.passed(), self.clients.is_empty()) {
            (false, _) => "FAILED",
            (true, false) => "PASSED",
            (true, true) => "PASSED, as far as the farm itself can tell: no client watched",
        };
        let back = match &self.back {
            Ok(after) => format!("as before {:.1} s after the end of the outage", after.as_secs_f32()),
            Err(left) => format!("not within a minute: {left}"),
        };
        let mut text = format!(
            "Rehearsal of a failure, cluster {}\n\nResult: {verdict}\nWhat:   {}\nBegun:  {}\nBack:   {back}\n\n\
             What clients felt:\n",
            self.cluster, self.what, self.begun
        );
        self.clients.iter().for_each(|clients| text.push_str(&clients.line()));
        for at in &self.here {
            text.push_str(&format!("  {at}: not measured, this machine has the address itself\n"));
        }
        if self.clients.is_empty() && self.here.is_empty() {
            text.push_str("  no service over TCP to watch\n");
        }
        if !self.here.is_empty() {
            text.push_str("  Run farmctl on a client for that: farmctl drill --help says how.\n");
        }
        if !self.why.is_empty() {
            text.push_str("\nWhat the farm tells:\n");
            self.why.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text
    }
}

/// What fails, in words.
pub(super) fn what(request: &v1::DrillRequest, drill: &v1::DrillResponse, over: bool) -> String {
    let (name, module) = (&drill.name, &request.module);
    let (is_killed, stands) = if over { ("was killed", "stood") } else { ("is killed", "stands") };
    if !module.is_empty() {
        return format!("the application of {module} on {name} {is_killed}");
    }
    let seconds = Duration::from_millis(drill.for_ms).as_secs_f32();
    let leader = if request.leader { ", the leader," } else { "" };
    format!("the daemon of {name}{leader} {stands} still for {seconds} s, as on a machine that hangs")
}

/// What would happen.
pub(super) fn plan(request: &v1::DrillRequest, drill: &v1::DrillResponse) -> String {
    format!(
        "The farm would survive this now: {}. Nothing was done.\nConnections that are open there end, as in a real \
         failure. --yes does it.\n",
        what(request, drill, false)
    )
}

/// The same for programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Rehearsed {
    /// Whether anything failed on purpose, or only would have.
    done: bool,
    what: String,
    node: String,
    for_ms: u64,
    passed: Option<bool>,
    back_after_ms: Option<u128>,
    not_green: Option<String>,
    clients: Vec<Clients>,
    not_measured: Vec<SocketAddr>,
    why: Vec<String>,
}

impl Rehearsed {
    pub(super) fn plan(request: &v1::DrillRequest, drill: &v1::DrillResponse) -> Self {
        Self {
            done: false,
            what: what(request, drill, false),
            node: drill.name.clone(),
            for_ms: drill.for_ms,
            passed: None,
            back_after_ms: None,
            not_green: None,
            clients: Vec::new(),
            not_measured: Vec::new(),
            why: Vec::new(),
        }
    }

    pub(super) fn done(drill: &v1::DrillResponse, report: &Report) -> Self {
        Self {
            done: true,
            what: report.what.clone(),
            node: drill.name.clone(),
            for_ms: drill.for_ms,
            passed: Some(report.passed()),
            back_after_ms: report.back.as_ref().ok().map(Duration::as_millis),
            not_green: report.back.as_ref().err().cloned(),
            clients: report.clients.clone(),
            not_measured: report.here.clone(),
            why: report.why.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Attempt;

    fn felt(took_ms: &[Option<u64>]) -> Felt {
        let attempt = |ms: &Option<u64>| Attempt { took: ms.map(Duration::from_millis) };
        Felt { attempts: took_ms.iter().map(attempt).collect(), kept: 16, ended: 5 }
    }

    fn report(took_ms: &[Option<u64>]) -> Report {
        let at = SocketAddr::from(([192, 0, 2, 100], 80));
        Report {
            cluster: "airport".into(),
            what: "the daemon of node2 stood still for 10 s".into(),
            begun: "2026-01-31T06:00:00Z".into(),
            back: Ok(Duration::from_millis(1500)),
            clients: vec![Clients::of(at, &felt(took_ms))],
            here: Vec::new(),
            why: vec!["Cause: a rehearsal".into()],
        }
    }

    #[test]
    fn one_page_says_whether_it_passed_and_what_clients_felt() {
        let text = report(&[Some(1), Some(1040), Some(2)]).text();
        assert_eq!(
            text,
            "Rehearsal of a failure, cluster airport\n\nResult: PASSED\nWhat:   the daemon of node2 stood still for 10 s\n\
             Begun:  2026-01-31T06:00:00Z\nBack:   as before 1.5 s after the end of the outage\n\nWhat clients felt:\n  \
             192.0.2.100:80: 3 new connections, 0 failed, 1 took longer than 100 ms, the slowest 1040 ms; of 16 open ones 5 \
             ended\n\nWhat the farm tells:\n  Cause: a rehearsal\n"
        );
    }

    #[test]
    fn a_client_that_failed_or_a_farm_that_did_not_come_back_is_no_success() {
        assert!(report(&[Some(1)]).passed());
        assert!(!report(&[Some(1), None]).passed());
        let late = Report { back: Err("node2: node_silent".into()), ..report(&[Some(1)]) };
        assert!(
            !late.passed() && late.text().contains("FAILED") && late.text().contains("node2: node_silent")
        );
        let blind = Report { clients: Vec::new(), here: vec![([192, 0, 2, 100], 80).into()], ..report(&[]) };
        assert!(
            blind.passed()
                && blind.text().contains("no client watched")
                && blind.text().contains("not measured")
        );
    }
}
