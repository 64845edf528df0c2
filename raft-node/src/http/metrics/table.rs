//! Families of numbers, written as they come: in the order of the code and of the keys.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::tally::Tally;

/// Labels of a row: names that the code gives, and values from what a cluster is made of.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// What a family is called, in which unit, and what it means.
pub(super) struct Family(pub &'static str, pub Option<Unit>, pub &'static str);

/// The page that is written.
pub(super) struct Page<'a>(pub DescriptorEncoder<'a>);

impl Page<'_> {
    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, family: &Family, value: f64) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
    }

    /// One per label set.
    pub(super) fn gauges<const N: usize>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        let mut written = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        rows.into_iter().try_for_each(|(labels, value)| written.encode_family(&labels)?.encode_gauge(&value))
    }

    /// A number that only grows while the daemon, or its filter, lives.
    pub(super) fn counter(&mut self, family: &Family, value: u64) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        let mut written = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        written.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// One per label set.
    pub(super) fn counters<const N: usize>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        let mut written = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        rows.into_iter().try_for_each(|(labels, value)| {
            written.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// How long something took.
    pub(super) fn histogram(&mut self, family: &Family, tally: &Tally) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        let mut written = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        written.encode_histogram::<NoLabelSet>(tally.sum, tally.count(), &tally.buckets(), None)
    }

    /// One per label set.
    pub(super) fn histograms<const N: usize>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (Labels<N>, Tally)>,
    ) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        let mut written = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        rows.into_iter().try_for_each(|(labels, tally)| {
            let (count, buckets) = (tally.count(), tally.buckets());
            written.encode_family(&labels)?.encode_histogram::<NoLabelSet>(tally.sum, count, &buckets, None)
        })
    }

    /// What is true of this run, in labels.
    pub(super) fn info<const N: usize>(&mut self, family: &Family, labels: &Labels<N>) -> Result<(), Error> {
        let Family(name, unit, help) = family;
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Info)?.encode_info(labels)
    }
}
