//! The daemon's own configuration: what must be known before it can talk to anybody. Everything else is
//! replicated and changed with `farmctl`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use farm_core::limits;
use farm_core::model::{NoVlan, Role, Vlan};
use serde::Deserialize;

use crate::notify::{self, NotifyConfig};
use crate::problem::Problem;

/// Longest node name: it must fit a DNS label (RFC 1035 §2.3.4).
pub const NAME_MAX: usize = 63;

/// `farmd.toml` as it is written.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    role: RoleName,
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    #[serde(default = "default_socket")]
    socket: PathBuf,
    #[serde(default = "default_pin_dir")]
    pin_dir: PathBuf,
    #[serde(default = "default_secret_file")]
    secret_file: PathBuf,
    #[serde(default)]
    address: Vec<AddressLine>,
    #[serde(default)]
    ports: Ports,
    #[serde(default)]
    http: Http,
    #[serde(default)]
    notify: notify::Lines,
    #[serde(default)]
    interfaces: Interfaces,
    #[serde(default)]
    link: Vec<LinkLine>,
    #[serde(default)]
    guard_table: Option<String>,
    #[serde(default)]
    cgroup: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct AddressLine {
    network: String,
    ip: IpAddr,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct LinkLine {
    device: String,
    vlan: VlanValue,
    filter: Option<String>,
}

/// What a node is for, as the configuration and the command line spell it.
#[derive(Deserialize, clap::ValueEnum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Runs modules and serves clients.
    #[default]
    Server,
    /// Votes and grants leases, serves nothing: no filter, no virtual IP, no privileges.
    Witness,
}

/// `30` or `"100.30"`.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum VlanValue {
    Number(i64),
    Text(String),
}

/// An interface that may carry virtual IPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Where the kernel gets the frames, and where the node has its addresses in that network.
    pub device: String,
    /// The VLAN of the network.
    pub vlan: Vlan,
    /// Where the filter sits: on the device itself, or on the interface below, where frames still carry the tags.
    pub filter: String,
}

impl LinkConfig {
    fn untagged(name: &str) -> Self {
        Self { device: name.into(), vlan: Vlan::NONE, filter: name.into() }
    }

    /// The tags that the filter sees.
    #[must_use]
    pub fn tags(&self) -> Vlan {
        if self.filter == self.device { Vlan::NONE } else { self.vlan }
    }
}

/// TCP and UDP ports of the daemon.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// gRPC between nodes.
    pub peer: u16,
    /// Leases (UDP).
    pub lease: u16,
    /// gRPC for clients.
    pub api: u16,
    /// Health, metrics and the page (TCP, HTTP).
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { peer: 7601, lease: 7601, api: 7600, http: 9010 }
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Http {
    listen: Option<Vec<IpAddr>>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Interfaces {
    service: Vec<String>,
    xdp_mode: XdpMode,
}

/// How the filter is attached.
#[derive(Deserialize, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver is known to be sound, generic elsewhere.
    #[default]
    Auto,
    /// Always generic.
    Generic,
    /// Always native.
    Native,
}

/// The valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Unique name of this node.
    pub name: String,
    /// What it is for; of a member the cluster knows it better.
    pub role: Role,
    /// The durable log and the event journal.
    pub data_dir: PathBuf,
    /// Unix socket of the client API.
    pub socket: PathBuf,
    /// Directory for pins in the host's bpffs.
    pub pin_dir: PathBuf,
    /// The shared cluster secret.
    pub secret_file: PathBuf,
    /// Cluster networks of this node.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Ports.
    pub ports: Ports,
    /// Whom to tell that something is not green.
    pub notify: NotifyConfig,
    /// Where health, metrics and the page are served; nowhere if empty.
    pub http: Vec<SocketAddr>,
    /// Interfaces that may carry virtual IPs.
    pub links: Vec<LinkConfig>,
    /// How the filter is attached.
    pub xdp_mode: XdpMode,
    /// Name of the nftables guard table.
    pub guard_table: String,
    /// Directory below the cgroup2 mount in which applications run.
    pub cgroup: String,
}

fn default_data_dir() -> PathBuf {
    "/var/lib/farm".into()
}
fn default_socket() -> PathBuf {
    "/run/farm/farmd.sock".into()
}
fn default_pin_dir() -> PathBuf {
    "/sys/fs/bpf/farm".into()
}
fn default_secret_file() -> PathBuf {
    "/etc/farm/secret".into()
}

impl Config {
    /// Where the log is kept.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// Reads and checks `path`; `role` is in place of the file's.
    ///
    /// # Errors
    /// One [`Problem`] that names the file, the field and the remedy.
    pub fn load(path: &Path, role: Option<RoleName>) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Problem::new(
                "config_missing",
                format!("cannot read the configuration {}: {e}", path.display()),
                format!("cp conf/farmd.toml {}", path.display()),
            )
        })?;
        Self::parse(&text, path, role)
    }

    fn parse(text: &str, path: &Path, role: Option<RoleName>) -> Result<Self, Problem> {
        let edit = |fact: String| {
            let fact = format!("{}: {fact}", path.display());
            Problem::new("config_invalid", fact, format!("farmd --check --config {}", path.display()))
        };
        let file: File = toml::from_str(text).map_err(|e| edit(located(text, &e)))?;
        check_name(&file.name).map_err(&edit)?;
        let addresses = check_addresses(&file.address).map_err(&edit)?;
        check_ports(file.ports).map_err(&edit)?;
        let near = || {
            // Two networks may have the same address of this node, and a trial may be on this one.
            let near: BTreeSet<IpAddr> =
                addresses.values().copied().chain([Ipv4Addr::LOCALHOST.into()]).collect();
            near.into_iter().collect()
        };
        let http = check_http(file.http.listen.unwrap_or_else(near), file.ports.http).map_err(&edit)?;
        let notify = NotifyConfig::check(file.notify).map_err(&edit)?;
        let links = check_links(&file.interfaces.service, file.link).map_err(&edit)?;
        let role = check_role(role.unwrap_or(file.role), &links).map_err(&edit)?;
        Ok(Self {
            role,
            path: path.to_owned(),
            name: file.name,
            data_dir: file.data_dir,
            socket: file.socket,
            pin_dir: file.pin_dir,
            secret_file: file.secret_file,
            addresses,
            ports: file.ports,
            http,
            notify,
            links,
            xdp_mode: file.interfaces.xdp_mode,
            guard_table: file.guard_table.unwrap_or_else(|| "farm".into()),
            cgroup: file.cgroup.unwrap_or_else(|| "farm".into()),
        })
    }
}

/// What is wrong with the text, and with which line of it.
fn located(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', "; ");
    let before = error.span().and_then(|span| text.get(..span.start));
    let number = before.map(|before| before.matches('\n').count());
    match number.and_then(|n| Some((n + 1, text.lines().nth(n)?.trim()))) {
        Some((number, line)) => format!("line {number}, {line}: {message}"),
        None => message,
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && name.len() <= NAME_MAX && name.chars().all(legal) {
        return Ok(());
    }
    Err(format!("name = \"{name}\": a node name is 1 to {NAME_MAX} of a-z, 0-9 and -, a letter first"))
}

fn check_addresses(lines: &[AddressLine]) -> Result<BTreeMap<String, IpAddr>, String> {
    if lines.is_empty() {
        return Err(
            "no [[address]]: a node needs at least one cluster network (network = \"lan\", ip = \"…\")"
                .into(),
        );
    }
    let mut addresses = BTreeMap::new();
    for line in lines {
        if line.ip.is_unspecified() || line.ip.is_multicast() {
            return Err(format!("[[address]] ip = \"{}\": not an address of one node", line.ip));
        }
        if addresses.insert(line.network.clone(), line.ip).is_some() {
            return Err(format!("[[address]] network = \"{}\" is given twice", line.network));
        }
    }
    Ok(addresses)
}

fn check_links(service: &[String], lines: Vec<LinkLine>) -> Result<Vec<LinkConfig>, String> {
    let mut links: Vec<LinkConfig> = service.iter().map(|name| LinkConfig::untagged(name)).collect();
    for line in lines {
        let LinkLine { device, vlan, filter } = line;
        let text = match vlan {
            VlanValue::Number(number) => number.to_string(),
            VlanValue::Text(text) => text,
        };
        let wrong = |why: String| format!("[[link]] device = \"{device}\", vlan = {text}: {why}");
        let vlan: Vlan = text.parse().map_err(|error: NoVlan| wrong(error.to_string()))?;
        if vlan.is_none() {
            return Err(wrong("a link without a VLAN belongs into [interfaces] service".into()));
        }
        links.push(LinkConfig { filter: filter.unwrap_or_else(|| device.clone()), device, vlan });
    }
    check_distinct(&links)?;
    Ok(links)
}

fn check_role(role: RoleName, links: &[LinkConfig]) -> Result<Role, String> {
    match (role, links) {
        (RoleName::Server, _) => Ok(Role::Server),
        (RoleName::Witness, []) => Ok(Role::Witness),
        (RoleName::Witness, [link, ..]) => Err(format!(
            "{} is for virtual IPs, and a witness serves none: take [interfaces] service and [[link]] out",
            link.device
        )),
    }
}

fn check_distinct(links: &[LinkConfig]) -> Result<(), String> {
    if links.len() > limits::LINKS {
        return Err(format!("{} service interfaces and links; the most are {}", links.len(), limits::LINKS));
    }
    for (at, link) in links.iter().enumerate() {
        let same =
            |l: &&LinkConfig| l.device == link.device || (&l.filter, l.tags()) == (&link.filter, link.tags());
        if let Some(other) = links[..at].iter().find(same) {
            let (first, second) = (&other.device, &link.device);
            return Err(match first == second {
                true => format!("{first} is named twice in [interfaces] service and [[link]]"),
                false => format!(
                    "{first} and {second} are the same frames: VLAN {} on {}",
                    link.tags(),
                    link.filter
                ),
            });
        }
    }
    Ok(())
}

fn check_ports(ports: Ports) -> Result<(), String> {
    if [ports.peer, ports.lease, ports.api, ports.http].contains(&0) {
        return Err("[ports]: 0 is not a port".into());
    }
    let tcp = [("peer", ports.peer), ("api", ports.api), ("http", ports.http)];
    for (at, (name, port)) in tcp.iter().enumerate() {
        if let Some((other, _)) = tcp[..at].iter().find(|(_, p)| p == port) {
            return Err(format!("[ports]: {other} and {name} are both {port}"));
        }
    }
    Ok(())
}

fn check_http(listen: Vec<IpAddr>, port: u16) -> Result<Vec<SocketAddr>, String> {
    for (at, ip) in listen.iter().enumerate() {
        if ip.is_multicast() {
            return Err(format!("[http] listen: {ip} is not an address of one node"));
        }
        if listen[..at].contains(ip) {
            return Err(format!("[http] listen: {ip} is given twice"));
        }
    }
    Ok(listen.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"node1\"\n[[address]]\nnetwork = \"lan\"\nip = \"10.0.0.1\"\n";

    fn fact(text: &str) -> String {
        Config::parse(text, Path::new("/etc/farm/farmd.toml"), None).expect_err("must be refused").fact
    }

    #[test]
    fn the_smallest_file_is_enough() {
        let config = Config::parse(GOOD, Path::new("x"), None).expect("valid");
        assert_eq!((config.ports.peer, config.ports.api), (7601, 7600));
        assert_eq!(config.xdp_mode, XdpMode::Auto);
    }

    #[test]
    fn http_is_near_unless_the_file_says_otherwise() {
        let listen =
            |more: &str| Config::parse(&format!("{GOOD}{more}"), Path::new("x"), None).expect("valid").http;
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(listen(""), [at("10.0.0.1:9010"), at("127.0.0.1:9010")]);
        assert_eq!(listen("[ports]\nhttp = 81\n[http]\nlisten = [\"10.0.0.1\"]\n"), [at("10.0.0.1:81")]);
        assert!(listen("[http]\nlisten = []\n").is_empty(), "switched off");
        let trial = GOOD.replace("10.0.0.1", "127.0.0.1");
        let trial = Config::parse(&trial, Path::new("x"), None).expect("valid").http;
        assert_eq!(trial, [at("127.0.0.1:9010")], "once");
    }

    #[test]
    fn the_example_is_valid() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/farmd.toml"));
        let config = Config::load(path, None).expect("the example that is shipped");
        assert!(!config.addresses.is_empty() && !config.links.is_empty());
    }

    #[test]
    fn a_vlan_is_a_link_of_its_own() {
        let text = format!(
            "{GOOD}[interfaces]\nservice = [\"eth0\"]\n[[link]]\ndevice = \"eth0.30\"\nvlan = 30\nfilter = \"eth0\"\n\
             [[link]]\ndevice = \"q\"\nvlan = \"100.30\"\n"
        );
        let links = Config::parse(&text, Path::new("x"), None).expect("valid").links;
        let told: Vec<_> =
            links.iter().map(|l| (l.device.as_str(), l.vlan.to_string(), l.tags().to_string())).collect();
        let wanted = [("eth0", "0", "0"), ("eth0.30", "30", "30"), ("q", "100.30", "0")];
        assert_eq!(told, wanted.map(|(device, vlan, tags)| (device, vlan.to_owned(), tags.to_owned())));
    }

    #[test]
    fn each_mistake_of_a_link_is_named() {
        let link =
            |lines: &str| fact(&format!("{GOOD}[interfaces]\nservice = [\"eth0\"]\n[[link]]\n{lines}\n"));
        assert!(link("device = \"d\"").contains("vlan"));
        for vlan in ["4095", "-1", "\"30.0\"", "\"a\""] {
            assert!(link(&format!("device = \"d\"\nvlan = {vlan}")).contains("1 to 4094"), "{vlan}");
        }
        assert!(link("device = \"d\"\nvlan = 0").contains("[interfaces] service"));
        assert!(link("device = \"eth0\"\nvlan = 30").contains("eth0 is named twice"));
        let twice = "device = \"d\"\nvlan = 30\nfilter = \"eth0\"\n[[link]]\ndevice = \"e\"\nvlan = 30\nfilter = \"eth0\"";
        assert!(link(twice).contains("d and e are the same frames: VLAN 30 on eth0"));
        let many: String = (1..=4).map(|n| format!("device = \"d{n}\"\nvlan = {n}\n[[link]]\n")).collect();
        assert!(link(many.trim_end_matches("[[link]]\n")).contains("the most are 4"));
    }

    #[test]
    fn each_mistake_is_named() {
        assert!(fact(&GOOD.replace("node1", "Node 1")).contains("Node 1"));
        assert!(fact("name = \"a\"").contains("[[address]]"));
        assert!(fact(&format!("colour = 1\n{GOOD}")).contains("colour"));
        assert!(fact(&GOOD.replace("10.0.0.1", "0.0.0.0")).contains("0.0.0.0"));
        assert!(fact(&GOOD.replace("10.0.0.1", "ten")).contains("ip"));
        assert!(fact(&format!("{GOOD}[ports]\npeer = 7600\n")).contains("peer and api are both 7600"));
        assert!(fact(&format!("{GOOD}[ports]\nhttp = 7600\n")).contains("api and http are both 7600"));
        assert!(fact(&format!("{GOOD}[http]\nlisten = [\"::1\", \"::1\"]\n")).contains("::1 is given twice"));
        assert!(fact(&format!("{GOOD}[http]\nlisten = [\"224.0.0.1\"]\n")).contains("224.0.0.1"));
        assert!(fact(&format!("{GOOD}{}", GOOD.split_once('\n').expect("lines").1)).contains("twice"));
    }

    #[test]
    fn a_witness_has_no_interface_for_virtual_ips() {
        let parse = |text: &str, role| Config::parse(text, Path::new("x"), role);
        assert_eq!(parse(GOOD, None).expect("a server").role, Role::Server);
        assert_eq!(parse(GOOD, Some(RoleName::Witness)).expect("valid").role, Role::Witness);
        let named = format!("role = \"witness\"\n{GOOD}");
        assert_eq!(parse(&named, None).expect("valid").role, Role::Witness);
        assert_eq!(parse(&named, Some(RoleName::Server)).expect("valid").role, Role::Server);
        let serving = format!("{named}[interfaces]\nservice = [\"eth0\"]\n");
        assert!(fact(&serving).contains("eth0 is for virtual IPs, and a witness serves none"));
        assert!(fact(&format!("role = \"judge\"\n{GOOD}")).contains("unknown variant `judge`"));
        let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/witness.toml"));
        assert_eq!(Config::load(example, None).expect("the example that is shipped").role, Role::Witness);
    }
}
