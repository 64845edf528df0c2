//! What a node says over HTTP, as a load balancer asks it: with one request and a short patience.

use std::net::IpAddr;

use anyhow::{Context, Result};
use farm_lab::{Lab, Place, shell};

use crate::farm::LIMIT;

/// The port of every node's HTTP server.
pub const HTTP_PORT: u16 = 9010;
/// What curl adds behind the body.
const BEHIND: &str = "\n%{http_code} %{content_type}";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status code.
    pub code: u16,
    /// Its type, with parameters.
    pub kind: String,
    /// Its text.
    pub body: String,
}

/// Asks `ip`, as `from` reaches it, for `path`.
///
/// # Errors
/// Nobody answers within seconds.
pub fn ask(lab: &Lab, from: Place, ip: IpAddr, path: &str) -> Result<Answer> {
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let url = format!("http://{host}:{HTTP_PORT}{path}");
    let said =
        shell::run(lab.command(from, "curl")?.args(["-s", "-S", "-g", "-m", "3", "-w", BEHIND, &url]))?;
    let (body, end) = said.rsplit_once('\n').context("a status behind the body")?;
    let (code, kind) = end.split_once(' ').context("code and type")?;
    Ok(Answer { code: code.parse()?, kind: kind.trim().into(), body: body.into() })
}

/// Asks `node` on itself, which nothing on the network can keep from it.
///
/// # Errors
/// It does not answer.
pub fn ask_itself(lab: &Lab, node: Place, path: &str) -> Result<Answer> {
    ask(lab, node, IpAddr::from([127, 0, 0, 1]), path)
}

/// What a load balancer knows of a module on `node`.
///
/// # Errors
/// The node does not answer.
pub fn ready(lab: &Lab, node: Place, module: &str) -> Result<Answer> {
    ask_itself(lab, node, &format!("/var/modules/{module}/ready.txt"))
}

/// Waits until `node` is (not) to be given clients of the module, and returns what it says.
///
/// # Errors
/// It goes on as before.
pub fn await_ready(lab: &Lab, node: Place, module: &str, wanted: bool) -> Result<Answer> {
    let code = if wanted { 200 } else { 404 };
    let what = format!("{node} answers {code} for {module}");
    shell::await_value(&what, LIMIT, || Ok(Some(ready(lab, node, module)?).filter(|a| a.code == code)))
}
