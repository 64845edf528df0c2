//! `explain`, in sentences.

use farm_proto::v1;

use super::Names;
use crate::values::ClientAddress;
use crate::view;

/// Who serves `client`, and why.
#[must_use]
pub fn explain(client: &ClientAddress, service: &str, answer: &v1::ExplainResponse, names: &Names) -> String {
    let port = if client.port == 0 { String::new() } else { format!(" port {}", client.port) };
    let stable = answer.phase() == v1::Phase::Stable;
    let change = if stable { String::new() } else { change(answer, names) };
    let by = names.name(answer.answered_by);
    let verdicts = verdicts(answer);
    format!(
        "client {}{port} -> {service}, module {}\n  bucket   {}\n  owner    {}\n{change}  epoch    {}\n  why      {}\n\
         on {by}:\n{verdicts}",
        client.ip,
        answer.module,
        answer.bucket,
        names.name(answer.owner),
        answer.epoch,
        answer.why,
    )
}

fn change(answer: &v1::ExplainResponse, names: &Names) -> String {
    format!("  previous {}\n  step     {}\n", names.name(answer.previous), view::phase(answer.phase))
}

fn verdicts(answer: &v1::ExplainResponse) -> String {
    let (Some(decided), Some(program)) = (&answer.decided, &answer.program) else {
        return "  the loaded program was not asked: no filter on this node\n".into();
    };
    let end = match answer.agree {
        Some(true) => "they agree\n",
        Some(false) | None => {
            "they DISAGREE: the loaded program is not the one this daemon was built with\n  next: systemctl restart farmd\n"
        }
    };
    format!("  program  {program}\n  function {decided}\n{end}")
}
