//! Where faults meet the cluster.

pub mod sim;
