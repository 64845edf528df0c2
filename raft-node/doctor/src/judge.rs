//! What facts about one node mean. Pure.

mod links;
mod machine;
mod network;

use crate::{Facts, Finding};

/// Everything that is to be said, the worst first.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let filter = machine::OF_THE_FILTER.iter().filter(|_| facts.serves);
    let machine = filter.chain(&machine::CHECKS).flat_map(|check| check(facts));
    let links = facts.links.iter().flat_map(|link| links::judge(link, facts));
    let mut findings: Vec<Finding> = machine.chain(links).chain(network::judge(facts)).collect();
    // In the order of the checks where they are equally bad.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

#[cfg(test)]
mod tests;
