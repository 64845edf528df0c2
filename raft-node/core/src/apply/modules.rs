//! Commands about modules, services and weights.

use std::collections::BTreeSet;

use super::definition::kind_conflict;
use super::nodes::{check_name, own_addresses};
use super::{Done, Refusal, ensure, happened};
use crate::event::{Event, Kind, mode_name, protocol_name};
use crate::id::NodeId;
use crate::limits;
use crate::model::{
    BucketState, Mode, Module, ModuleKind, ModuleName, Node, Readiness, Role, Service, VirtualIp, Weight,
    is_unicast,
};
use crate::state::{ClusterState, Retired, ServiceKey};
use crate::time::Span;

impl ClusterState {
    pub(super) fn module_put(&mut self, name: &ModuleName, kind: ModuleKind) -> Done {
        match self.modules.get(name) {
            Some(module) => {
                ensure(module.kind == kind, || kind_conflict(name))?;
                Ok((Vec::new(), None))
            }
            None => {
                let module = self.new_module(name, kind)?;
                self.modules.insert(name.clone(), module);
                happened(Kind::ModuleCreated { module: name.clone() })
            }
        }
    }

    pub(super) fn module_remove(&mut self, name: &ModuleName) -> Done {
        let module = self.modules.get(name).ok_or_else(|| unknown_module(name))?;
        let application = module.definition.as_ref().and_then(|d| d.application.as_ref());
        let runs =
            application.and_then(|on| on.iter().find(|(_, readiness)| **readiness != Readiness::Closed));
        if let Some((node, _)) = runs {
            let fact = format!("{name} runs on {}: stop it first", self.name_of(*node));
            return Err(Refusal::new("module_runs", fact, format!("farmctl module stop {name} --wait")));
        }
        let module = self.modules.remove(name).ok_or_else(|| unknown_module(name))?;
        let parties = parties(&module);
        for (vip, protocol, port) in module.services.keys() {
            self.retire((*vip, *protocol, *port), &parties);
        }
        happened(Kind::ModuleRemoved { module: name.clone() })
    }

    pub(super) fn service_add(&mut self, name: &ModuleName, service: &Service, mode: Mode) -> Done {
        self.check_undefined(name)?;
        self.add_service(name, service, mode)
    }

    pub(super) fn add_service(&mut self, name: &ModuleName, service: &Service, mode: Mode) -> Done {
        self.check_service(name, service, mode)?;
        let (known, module) = match self.modules.get(name) {
            Some(module) => (true, module.clone()),
            None => (false, self.new_module(name, ModuleKind::Farm)?),
        };
        ensure(module.kind == ModuleKind::Farm, || {
            let fact = format!("{name} is a light module: it has no virtual IP");
            Refusal::new("module_kind", fact, "farmctl service list")
        })?;
        let module = self.modules.entry(name.clone()).or_insert(module);
        module.vips.insert(service.vip, mode);
        module.services.insert(key(service), service.criterion);
        let created = (!known).then(|| Kind::ModuleCreated { module: name.clone() });
        let (vip, protocol, port) = key(service);
        let added = Kind::ServiceAdded { module: name.clone(), vip, protocol, port, mode };
        let events = created.into_iter().chain([added]).map(|kind| Event { kind, cause: None }).collect();
        Ok((events, None))
    }

    pub(super) fn service_remove(&mut self, name: &ModuleName, service: &Service) -> Done {
        self.check_undefined(name)?;
        self.remove_service(name, service)
    }

    /// What a definition says is changed by another one, or the next that is applied would undo it.
    fn check_undefined(&self, name: &ModuleName) -> Result<(), Refusal> {
        let defined = self.modules.get(name).is_some_and(|m| m.definition.is_some());
        ensure(!defined, || {
            let fact = format!("the services of {name} stand in its definition");
            Refusal::new("module_defined", fact, format!("farmctl module export {name} DIR"))
        })
    }

    pub(super) fn remove_service(&mut self, name: &ModuleName, service: &Service) -> Done {
        let module = self.modules.get_mut(name).ok_or_else(|| unknown_module(name))?;
        let (vip, protocol, port) = key(service);
        ensure(module.services.remove(&key(service)).is_some(), || {
            let fact = format!("{name} has no service {vip} {} port {port}", protocol_name(protocol));
            Refusal::new("unknown_service", fact, "farmctl service list")
        })?;
        if !module.services.keys().any(|(ip, _, _)| *ip == vip) {
            module.vips.remove(&vip);
        }
        let parties = parties(module);
        self.retire(key(service), &parties);
        happened(Kind::ServiceRemoved { module: name.clone(), vip, protocol, port })
    }

    pub(super) fn weight_set(&mut self, name: &ModuleName, node: NodeId, weight: Weight) -> Done {
        let member = self.member(node)?;
        let member_name = member.name.clone();
        ensure(member.role == Role::Server, || {
            let fact = format!("{member_name} is a witness: it serves nothing");
            Refusal::new("witness", fact, "farmctl node list")
        })?;
        let module = self.modules.get_mut(name).ok_or_else(|| unknown_module(name))?;
        module.weights.insert(node, weight);
        happened(Kind::WeightSet { module: name.clone(), name: member_name, weight })
    }

    pub(super) fn drain_set(&mut self, name: &ModuleName, limit: Span) -> Done {
        ensure(limit <= limits::DRAIN, || {
            let fact = format!("a drain of {limit} is longer than {}, the longest", limits::DRAIN);
            Refusal::new("drain_too_long", fact, format!("farmctl module set {name} --drain 24h"))
        })?;
        let module = self.modules.get_mut(name).ok_or_else(|| unknown_module(name))?;
        module.drain = Some(limit);
        happened(Kind::DrainSet { module: name.clone(), limit })
    }

    fn retire(&mut self, service: ServiceKey, parties: &BTreeSet<NodeId>) {
        if !parties.is_empty() {
            self.retired.insert(service, Retired { unfenced: parties.clone(), pending: Vec::new() });
        }
    }

    pub(super) fn new_module(&self, name: &ModuleName, kind: ModuleKind) -> Result<Module, Refusal> {
        check_name("module", &name.0)?;
        let free = (0..limits::MODULES).find(|s| self.modules.values().all(|m| usize::from(m.slot) != *s));
        let slot = free.and_then(|s| u8::try_from(s).ok()).ok_or_else(|| {
            let fact = format!("the cluster has {} modules, the most", limits::MODULES);
            Refusal::new("too_many_modules", fact, "farmctl service list")
        })?;
        Ok(Module::new(kind, slot, self.buckets))
    }

    fn check_service(&self, name: &ModuleName, service: &Service, mode: Mode) -> Result<(), Refusal> {
        let vip = service.vip;
        ensure(service.port > 0, || {
            Refusal::new("port_zero", "port 0 cannot be served", "farmctl service add --help")
        })?;
        self.check_vip(vip)?;
        if let Some((owner, module)) = self.module_of(vip) {
            ensure(owner == name, || {
                let fact = format!("{vip} belongs to module {owner}; a virtual IP has one module");
                Refusal::new("vip_taken", fact, "farmctl service list")
            })?;
            check_same_vip(module, service, mode)?;
        }
        self.check_covered(name, vip)?;
        self.check_room(vip)?;
        self.check_retired(service)
    }

    /// A node serves a module whole or not at all: one must reach the clients of all its virtual IPs.
    fn check_covered(&self, name: &ModuleName, vip: VirtualIp) -> Result<(), Refusal> {
        let others = self.modules.get(name).into_iter().flat_map(|m| m.vips.keys());
        let all: Vec<VirtualIp> = others.copied().chain([vip]).collect();
        let serves = |n: &Node| n.role == Role::Server && all.iter().all(|vip| n.reaches(*vip));
        ensure(self.nodes.values().any(serves), || {
            let fact =
                format!("no server has links in the subnets of {vip} and of all other virtual IPs of {name}");
            Refusal::new("module_uncovered", fact, "farmctl node list")
        })
    }

    fn check_vip(&self, vip: VirtualIp) -> Result<(), Refusal> {
        let ip = vip.ip;
        ensure(is_unicast(ip), || {
            let fact = format!("{ip} cannot be a virtual IP: it is no unicast address of a network");
            Refusal::new("vip_not_unicast", fact, "farmctl service add --help")
        })?;
        if let Some(node) = self.nodes.values().find(|n| own_addresses(n).any(|own| own == ip)) {
            let fact = format!("{ip} is an address of {}; a virtual IP must be unused", node.name);
            return Err(Refusal::new("vip_is_node_address", fact, "farmctl node list"));
        }
        ensure(self.nodes.values().any(|n| n.reaches(vip)), || {
            let fact = format!("{vip} lies in no subnet of a member's service links");
            Refusal::new("vip_uncovered", fact, "farmctl node list")
        })
    }

    fn check_room(&self, vip: VirtualIp) -> Result<(), Refusal> {
        let vips = self.modules.values().map(|m| m.vips.len()).sum::<usize>();
        ensure(vips < limits::VIPS || self.module_of(vip).is_some(), || {
            let fact = format!("the cluster has {} virtual IPs, the most", limits::VIPS);
            Refusal::new("too_many_vips", fact, "farmctl service list")
        })?;
        let services = self.modules.values().map(|m| m.services.len()).sum::<usize>();
        ensure(services < limits::SERVICES, || {
            let fact = format!("the cluster has {} services, the most", limits::SERVICES);
            Refusal::new("too_many_services", fact, "farmctl service list")
        })
    }

    /// A removed service comes back only when no node can still serve it by an older table; a virtual IP that went
    /// with its last service, only when that holds for all its services.
    fn check_retired(&self, service: &Service) -> Result<(), Refusal> {
        let carried = self.module_of(service.vip).is_some();
        let bars = |k: &ServiceKey| *k == key(service) || (!carried && k.0 == service.vip);
        let waiting = self.retired.iter().find(|(k, _)| bars(k)).map(|(_, r)| r);
        waiting.map_or(Ok(()), |retired| {
            let nodes = retired.unfenced.iter().copied().chain(retired.pending.iter().map(|p| p.node));
            let names: Vec<String> = nodes.map(|n| self.name_of(n)).collect();
            let fact = format!(
                "{} port {} was removed moments ago and {} may not know it yet; try again in a second",
                service.vip,
                service.port,
                names.join(", ")
            );
            Err(Refusal::new("service_retiring", fact, "farmctl service list"))
        })
    }
}

fn check_same_vip(module: &Module, service: &Service, mode: Mode) -> Result<(), Refusal> {
    let vip = service.vip;
    let has = module.vips.get(&vip).copied();
    ensure(has.is_none_or(|m| m == mode), || {
        let fact =
            format!("{vip} is delivered in {} mode, not {}", has.map_or("no", mode_name), mode_name(mode));
        Refusal::new("mode_conflict", fact, "farmctl service list")
    })?;
    ensure(!module.services.contains_key(&key(service)), || {
        let fact =
            format!("{vip} {} port {} is served already", protocol_name(service.protocol), service.port);
        Refusal::new("service_exists", fact, "farmctl service list")
    })
}

pub(super) fn unknown_module(name: &ModuleName) -> Refusal {
    Refusal::new("unknown_module", format!("there is no module {name}"), "farmctl service list")
}

pub(super) const fn key(service: &Service) -> ServiceKey {
    (service.vip, service.protocol, service.port)
}

fn parties(module: &Module) -> BTreeSet<NodeId> {
    module.assignment.iter().flat_map(BucketState::parties).collect()
}
