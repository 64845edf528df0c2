//! The host around the filter: guard → filter with deadline 0 → sysctls → virtual IP; in reverse to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use farm_common::layout;
use farm_core::id::Epoch;
use farm_core::model::{Mode, Role, VirtualIp};
use farm_dataplane::attach::{AttachError, Filter, Options, Port, PortConfig, XdpMode};
use farm_dataplane::bpffs;
use farm_dataplane::explain::Explained;
use farm_dataplane::guard::{Guard, GuardError, GuardState, Rules};
use farm_host::links::LinkInfo;
use farm_host::sysctl::Restore;
use farm_host::{Netlink, address, fdb, links, probe, sysctl};

use super::Elsewhere;
use super::desired::Carried;
use super::discovery::{Announcement, Discovery};
use super::network::{LinkMismatch, mismatch};
use super::news::Means;
use super::watch::Alarm;
use crate::config::{self, Config, LinkConfig};
use crate::lease::{LeaseHandle, Order};

/// Why the host could not be brought into the wanted state.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The guard.
    #[error(transparent)]
    Guard(#[from] farm_dataplane::guard::GuardError),
    /// The filter.
    #[error(transparent)]
    Attach(#[from] farm_dataplane::attach::AttachError),
    /// The state cannot be made a table.
    #[error("cannot render the filter's table: {0}")]
    Table(#[from] farm_core::table::RenderError),
    /// Links, addresses, sysctls.
    #[error(transparent)]
    Host(#[from] farm_host::Error),
    /// A link is not what the configuration says.
    #[error("{0}; see: {cure}", cure = .0.cure())]
    Link(LinkMismatch),
    /// Somebody else configured a virtual IP on this node.
    #[error("{vip} is configured on {device}; remove it there: ip address del {vip} dev {device}")]
    HeldElsewhere {
        /// The virtual IP.
        vip: IpAddr,
        /// The device.
        device: String,
    },
}

/// What others may see of it: status, explain, probes.
pub struct HostView {
    netlink: Netlink,
    config: Vec<LinkConfig>,
    sound: AtomicBool,
    /// Who only looks shares it: loading the probe of `explain` takes long.
    filter: RwLock<Option<Filter>>,
    /// Services without a socket on this node.
    pub elsewhere: Arc<Elsewhere>,
    /// Link of each virtual IP.
    carried: Mutex<BTreeMap<VirtualIp, usize>>,
    /// Why it is not known whether the guard is in place.
    unasked: Mutex<Option<String>>,
}

impl HostView {
    /// Whether guard and filter were in place when last looked at, or are not needed.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.sound.load(Ordering::Relaxed)
    }

    /// Why it is not known whether the guard is in place; the filter was when last looked at.
    #[must_use]
    pub fn guard_trouble(&self) -> Option<String> {
        self.unasked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a filter is attached.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.filter().is_some()
    }

    /// What the loaded program decides about `frame` on `link`; `None` without a filter.
    ///
    /// # Errors
    /// Where the kernel refuses the run.
    pub fn explain(&self, link: u8, frame: &[u8]) -> std::io::Result<Option<Explained>> {
        self.filter().as_ref().map(|f| f.explain(link, frame)).transpose()
    }

    /// The filtered interface through which `vip` is reached.
    #[must_use]
    pub fn port_for(&self, vip: VirtualIp) -> Option<Port> {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner).get(&vip).copied()?;
        self.filter().as_ref()?.ports().get(carried).cloned()
    }

    /// Frames by reason since the filter was attached; `None` without a filter.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn counters(&self) -> std::io::Result<Option<BTreeMap<&'static str, u64>>> {
        self.filter().as_ref().map(Filter::counters).transpose()
    }

    /// Who has asked for a virtual IP; nobody without a filter.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn askers(&self) -> std::io::Result<Vec<(layout::Asker, layout::Asked)>> {
        self.filter().as_ref().map_or_else(|| Ok(Vec::new()), Filter::askers)
    }

    /// Who else has `vip`: a device of this node or a host on the link; `None` when it is free.
    ///
    /// # Errors
    /// When the question cannot be asked.
    pub async fn holder_of(
        &self,
        vip: VirtualIp,
        wait: Duration,
    ) -> Result<Option<String>, farm_host::Error> {
        if let Some(device) = address::held_elsewhere(&self.netlink, vip.ip).await? {
            return Ok(Some(format!("configured on {device} of this node")));
        }
        let all = self.service_links().await?.into_iter().zip(&self.config);
        let there: Vec<_> = all.filter(|(_, config)| config.vlan == vip.vlan).map(|(link, _)| link).collect();
        let Some(link) = links::covering(&there, vip.ip) else { return Ok(None) };
        let holder = probe::address_in_use(link.ifindex, link.mac, vip.ip, wait).await?;
        Ok(holder.map(|mac| {
            format!("{} answers for it on {}", farm_dataplane::guard::format_mac(&mac), link.name)
        }))
    }

    /// The configured service interfaces, in the order of the configuration.
    ///
    /// # Errors
    /// When one does not exist.
    pub async fn service_links(&self) -> Result<Vec<LinkInfo>, farm_host::Error> {
        let mut found = Vec::new();
        for LinkConfig { device, .. } in &self.config {
            found.push(links::by_name(&self.netlink, device).await?);
        }
        Ok(found)
    }

    /// The links as the filter wants them; `links` are the interfaces, in the order of the configuration.
    async fn ports(&self, links: &[LinkInfo]) -> Result<Vec<PortConfig>, farm_host::Error> {
        let mut found = Vec::new();
        for ((config, link), index) in self.config.iter().zip(links).zip(0u8..) {
            let below = links::by_name(&self.netlink, &config.filter).await?;
            let (device, vlan) = (link.name.clone(), config.tags());
            let (ifindex, name, mac) = (below.ifindex, below.name, link.mac);
            found.push(PortConfig { ifindex, name, vlan, device, mac, link: index });
        }
        Ok(found)
    }

    /// What of the links is not as configured.
    async fn mismatches(&self) -> Result<Vec<LinkMismatch>, farm_host::Error> {
        if self.config.iter().all(|link| link.vlan.is_none()) {
            return Ok(Vec::new());
        }
        let all = links::list(&self.netlink).await?;
        let found = self.config.iter().filter_map(|link| mismatch(link, &all).transpose());
        found.collect()
    }

    fn filter(&self) -> RwLockReadGuard<'_, Option<Filter>> {
        // A panic while asking the filter leaves it as it was.
        self.filter.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another filter, or none, in its place and gives the former one back.
    fn exchange(&self, filter: Option<Filter>) -> Option<Filter> {
        std::mem::replace(&mut *self.filter.write().unwrap_or_else(PoisonError::into_inner), filter)
    }
}

/// Owns filter, guard and addresses.
pub struct FilterHost {
    view: Arc<HostView>,
    role: Role,
    options: Options,
    table: String,
    guard: Option<Guard>,
    /// What the guard protects, or will as soon as it is ours.
    vips: BTreeSet<IpAddr>,
    restore: Vec<Restore>,
    discovery: Discovery,
    links: Vec<LinkInfo>,
    /// Whether there was a filter: then one that is not there is lost.
    attached_once: bool,
    /// Epoch of the table that was found when the filter was taken up.
    pinned: Epoch,
}

impl FilterHost {
    /// Nothing is touched yet.
    ///
    /// # Errors
    /// When netlink cannot be opened.
    pub fn new(config: &Config, identity: layout::Identity) -> Result<Self, farm_host::Error> {
        let view = HostView {
            netlink: Netlink::open()?,
            config: config.links.clone(),
            sound: AtomicBool::new(true),
            filter: RwLock::new(None),
            elsewhere: Arc::new(Elsewhere::new(config.pin_dir.clone())),
            carried: Mutex::default(),
            unasked: Mutex::default(),
        };
        let mode = match config.xdp_mode {
            config::XdpMode::Auto => XdpMode::Auto,
            config::XdpMode::Generic => XdpMode::Generic,
            config::XdpMode::Native => XdpMode::Native,
        };
        Ok(Self {
            view: Arc::new(view),
            role: config.role,
            options: Options { pin_dir: config.pin_dir.clone(), identity, ports: Vec::new(), mode },
            table: config.guard_table.clone(),
            guard: None,
            vips: BTreeSet::new(),
            restore: Vec::new(),
            discovery: Discovery::default(),
            links: Vec::new(),
            attached_once: false,
            pinned: Epoch(0),
        })
    }

    /// What others may see.
    #[must_use]
    pub fn view(&self) -> Arc<HostView> {
        self.view.clone()
    }

    /// Whether a filter is attached.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.view.attached()
    }

    /// Whether guard and filter were in place when last looked at or mended.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.view.sound()
    }

    /// Takes up what a daemon that died left here, wanted or not, before any epoch counts as applied: its table may
    /// still hold a lease, and only who has the filter can answer for that. Virtual IPs that are no longer wanted
    /// go with the next [`FilterHost::after`].
    ///
    /// Returns the epoch of the table that was found: a state before it knows less than the table.
    ///
    /// # Errors
    /// [`HostError`]; try again before anything else is done here.
    pub async fn inherit(&mut self, lease: &LeaseHandle) -> Result<Epoch, HostError> {
        // A witness may ask neither nft nor the kernel, and there is nothing.
        if self.role == Role::Witness {
            return Ok(self.pinned);
        }
        if Guard::left_behind(&self.table)?.is_some() {
            self.guard_also(BTreeSet::new())?;
        }
        let pins = &self.options.pin_dir;
        let unread = |error| AttachError::Pin { pin: pins.display().to_string(), error };
        if !self.attached() && bpffs::left_behind(pins).map_err(unread)? {
            self.attach(lease).await?;
        }
        Ok(self.pinned)
    }

    /// Puts virtual IPs back that somebody took off `lo`; returns them.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn restore_addresses(
        &self,
        carried: &BTreeMap<VirtualIp, Carried>,
    ) -> Result<Vec<IpAddr>, HostError> {
        let mut restored = Vec::new();
        for vip in carried.iter().filter(|(_, c)| c.local).map(|(vip, _)| vip.ip) {
            if !address::virtual_present(&self.view.netlink, vip).await? {
                address::add_virtual(&self.view.netlink, vip).await?;
                restored.push(vip);
            }
        }
        Ok(restored)
    }

    /// Makes guard and filter ready for `wanted`, before a table opens any of it.
    ///
    /// # Errors
    /// [`HostError`]; nothing is open that was not before.
    pub async fn before(
        &mut self,
        wanted: &BTreeMap<VirtualIp, Carried>,
        lease: &LeaseHandle,
    ) -> Result<(), HostError> {
        if wanted.is_empty() {
            return Ok(());
        }
        for vip in addresses(wanted) {
            if let Some(device) = address::held_elsewhere(&self.view.netlink, vip).await? {
                return Err(HostError::HeldElsewhere { vip, device });
            }
        }
        self.guard_also(addresses(wanted))?;
        if !self.attached() {
            self.attach(lease).await?;
        }
        Ok(())
    }

    /// Brings addresses from `old` to `new`, after the table that serves them is in force.
    ///
    /// # Errors
    /// [`HostError`] of the first step that failed.
    pub async fn after(
        &mut self,
        old: &BTreeMap<VirtualIp, Carried>,
        new: &BTreeMap<VirtualIp, Carried>,
    ) -> Result<(), HostError> {
        let wanted = addresses(new);
        if old == new && self.vips == wanted {
            return Ok(());
        }
        for inherited in self.vips.difference(&wanted).filter(|ip| !addresses(old).contains(ip)) {
            address::remove_virtual(&self.view.netlink, *inherited).await?;
        }
        for (vip, carried) in old {
            if new.get(vip) != Some(carried) {
                self.withdraw(*vip, carried, new).await?;
            }
        }
        for (vip, carried) in new {
            self.carry(*vip, carried).await?;
        }
        *self.view.carried.lock().unwrap_or_else(PoisonError::into_inner) =
            new.iter().map(|(vip, c)| (*vip, c.link)).collect();
        self.guard_exactly(wanted)
    }

    /// Where it is carried already nothing happens.
    async fn carry(&mut self, vip: VirtualIp, carried: &Carried) -> Result<(), HostError> {
        if carried.mode == Mode::Flood {
            fdb::add_unicast(&self.view.netlink, &carried.interface, carried.vmac).await?;
        }
        if carried.local {
            // Who serves may be the one to answer.
            if let Some(link) = self.links.get(carried.link) {
                self.discovery.join(link, vip)?;
            }
            address::add_virtual(&self.view.netlink, vip.ip).await?;
        }
        Ok(())
    }

    /// The address stays on `lo` where another VLAN's virtual IP has it too.
    async fn withdraw(
        &mut self,
        vip: VirtualIp,
        old: &Carried,
        all: &BTreeMap<VirtualIp, Carried>,
    ) -> Result<(), HostError> {
        let new = all.get(&vip);
        if old.local && !new.is_some_and(|n| n.local) {
            self.discovery.leave(vip);
            if !all.iter().any(|(other, n)| n.local && other.ip == vip.ip) {
                address::remove_virtual(&self.view.netlink, vip.ip).await?;
            }
        }
        let floods = |c: &Carried| c.mode == Mode::Flood;
        if floods(old) && !new.is_some_and(floods) {
            fdb::del_unicast(&self.view.netlink, &old.interface, old.vmac).await?;
        }
        Ok(())
    }

    /// Takes the host back to where it was: addresses, filter, sysctls, guard.
    pub async fn take_down(mut self, carried: &BTreeMap<VirtualIp, Carried>) {
        let mut gone = true;
        for (vip, carried) in carried {
            gone &= done("virtual IP", self.withdraw(*vip, carried, &BTreeMap::new()).await);
        }
        for inherited in self.vips.difference(&addresses(carried)) {
            gone &= done("virtual IP", address::remove_virtual(&self.view.netlink, *inherited).await);
        }
        if let Some(filter) = self.view.exchange(None) {
            gone &= done("filter", filter.detach_and_unpin());
        }
        if !gone {
            tracing::error!("sysctls and guard stay: they keep closed what could not be taken down");
            return;
        }
        for restore in self.restore.drain(..).rev() {
            done("sysctls", restore.restore());
        }
        if let Some(guard) = self.guard.take() {
            done("guard", guard.remove());
        }
    }

    /// The guard as it should be; asking about it and putting it back may take long, and is for others.
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        self.guard.clone()
    }

    /// What is wrong with the guard, in words, given what `asked` said of itself. One that was replaced meanwhile says
    /// nothing. Where nobody knows, the filter alone is relied on: it takes two losses to open the virtual IPs.
    #[must_use]
    pub fn judge_guard(&self, asked: &Guard, state: Result<GuardState, GuardError>) -> Option<String> {
        if self.guard.as_ref().is_none_or(|guard| guard.rules() != asked.rules()) {
            return None;
        }
        let trouble = state.as_ref().err().map(ToString::to_string);
        *self.view.unasked.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        let found = match state {
            Ok(GuardState::Intact { .. }) | Err(_) => return None,
            Ok(GuardState::Missing) => "the guard's nftables table is gone".to_owned(),
            Ok(GuardState::Altered { what }) => format!("the guard's nftables table was changed: {what}"),
        };
        tracing::warn!(found, "the guard is not in place");
        self.view.sound.store(false, Ordering::Relaxed);
        Some(found)
    }

    /// What else is not as it should be, in words; asked of the kernel, and only about what raised the alarm.
    pub async fn inspect(&self, alarm: Alarm) -> Vec<String> {
        let mut found = Vec::new();
        match self.view.filter().as_ref() {
            _ if alarm == Alarm::Ruleset => {}
            Some(filter) => found.extend(filter.verify().iter().map(ToString::to_string)),
            None if self.attached_once => found.push("the filter is not attached".into()),
            None => {}
        }
        // An interface that cannot be asked is the filter's finding.
        let mismatches =
            if self.attached_once { self.view.mismatches().await.unwrap_or_default() } else { Vec::new() };
        found.extend(mismatches.iter().map(ToString::to_string));
        if !found.is_empty() {
            tracing::warn!(?alarm, ?found, "the filter is not in place");
            self.view.sound.store(false, Ordering::Relaxed);
        }
        found
    }

    /// Puts the filter back, and what goes with it, after the guard.
    ///
    /// # Errors
    /// [`HostError`]; the lease stays closed.
    pub async fn repair(
        &mut self,
        carried: &BTreeMap<VirtualIp, Carried>,
        lease: &LeaseHandle,
    ) -> Result<(), HostError> {
        if let Some(wrong) = self.view.mismatches().await?.into_iter().next() {
            return Err(HostError::Link(wrong));
        }
        let sound = self.view.filter().as_ref().is_some_and(|f| f.verify().is_empty());
        if self.attached_once && !sound {
            drop(self.view.exchange(None));
            self.attach(lease).await?;
        }
        self.guard_exactly(addresses(carried))?;
        // A link that was made anew has lost what was set on it.
        for (vip, carried) in carried {
            self.carry(*vip, carried).await?;
        }
        self.view.sound.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn attach(&mut self, lease: &LeaseHandle) -> Result<(), HostError> {
        if let Some(wrong) = self.view.mismatches().await?.into_iter().next() {
            return Err(HostError::Link(wrong));
        }
        self.links = self.view.service_links().await?;
        self.options.ports = self.view.ports(&self.links).await?;
        let (filter, found) = Filter::take_up(&self.options)?;
        self.pinned = Epoch(found.pinned_epoch);
        for link in &self.links {
            self.restore.push(sysctl::prepare(&link.name)?);
        }
        let writer = filter.writer().expect("a filter that was just taken up still has its writer");
        self.view.exchange(Some(filter));
        self.attached_once = true;
        lease.give(Order::Filter(Box::new(writer)));
        // From here on the guard lets through what carries the proof.
        self.sync_guard()
    }

    fn guard_also(&mut self, vips: BTreeSet<IpAddr>) -> Result<(), HostError> {
        self.vips.extend(vips);
        if self.guard.is_none() {
            // A predecessor that died left its guard: its proofs hold until the filter is taken up.
            let guard = Guard::take_up(&self.table, self.vips.clone())?;
            self.vips.clone_from(&guard.rules().vips);
            self.guard = Some(guard);
        } else if self.attached() {
            self.sync_guard()?;
        }
        Ok(())
    }

    fn guard_exactly(&mut self, vips: BTreeSet<IpAddr>) -> Result<(), HostError> {
        self.vips = vips;
        self.sync_guard()
    }

    fn sync_guard(&mut self) -> Result<(), HostError> {
        let proofs = self.view.filter().as_ref().map(Filter::proofs).unwrap_or_default();
        let rules = Rules { vips: self.vips.clone(), proofs };
        match &mut self.guard {
            Some(guard) if *guard.rules() == rules => {}
            Some(guard) => guard.update(rules)?,
            None => {}
        }
        Ok(())
    }

    /// What is needed to tell those who asked; `None` where nothing can be sent.
    pub fn means(&mut self, lease: &LeaseHandle) -> Option<Means> {
        let announcer = self.discovery.announcer()?;
        Some(Means { announcer, view: self.view(), lease: lease.clone(), links: self.links.clone() })
    }

    /// The announcements of all directed virtual IPs, naming this node.
    pub fn announcements(&mut self, carried: &BTreeMap<VirtualIp, Carried>) -> Vec<Announcement> {
        self.discovery.announcements(&self.links, carried)
    }
}

/// What stands on `lo` and in the guard: there the VLAN does not matter.
fn addresses(carried: &BTreeMap<VirtualIp, Carried>) -> BTreeSet<IpAddr> {
    carried.keys().map(|vip| vip.ip).collect()
}

fn done<E: std::fmt::Display>(what: &str, result: Result<(), E>) -> bool {
    result.inspect_err(|error| tracing::warn!(%error, "{what}: not taken down")).is_ok()
}
