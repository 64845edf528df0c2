#!/usr/bin/env python3
"""Independent oracle of the data plane.

Writes `cases.json`: tables, frames, and for each frame what a node must do with it and what the frame looks
like afterwards. It shares no code with the program: SipHash is written from the paper (Aumasson, Bernstein
2012, appendix A), the tables are packed from the documented layout with `struct`, frames and checksums come
from scapy, and the rules below are a reading of the design's tables "One packet" and "One change".

Regenerate (Debian: apt-get install python3-scapy), then look at the difference before committing it:

    /usr/bin/python3 tests/oracle/oracle.py > tests/oracle/cases.json

No socket exists for any flow here; flows with sockets are tried with real ones in dataplane/tests/program.rs.
"""

import ipaddress
import json
import struct
import sys

from scapy.all import ARP, ICMP, IP, TCP, UDP, Dot1AD, Dot1Q, Ether, IPerror, IPOption_NOP, IPv6, Raw, TCPerror, UDPerror
from scapy.layers.inet import ICMPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6MLReport, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_Redirect,
    ICMPv6ND_RS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig, ICMPv6ParamProblem,
    ICMPv6TimeExceeded, ICMPv6Unknown, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN,
)

# --- numbers of the contract ------------------------------------------------------------------------------

BUCKETS, MODULES, NODES, LINKS = 4096, 32, 64, 4
VIP_CELLS, SERVICE_CELLS, MAC_CELLS = 512, 4096, 4096
STEPS = {"stable": 0, "prepare": 1, "move": 2, "closed": 3, "activate": 4}
MODES = {"directed": 0, "flood": 1}
CRITERIA = {"source-address": 0, "source-port": 1, "source-network": 2}
MARK = 0b000011  # DSCP, pool 2 of RFC 2474
U64 = (1 << 64) - 1

# --- hashes -----------------------------------------------------------------------------------------------


def rotl(x, n):
    return ((x << n) | (x >> (64 - n))) & U64


def siphash24(key, message):
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def sipround():
        v[0] = (v[0] + v[1]) & U64
        v[2] = (v[2] + v[3]) & U64
        v[1] = rotl(v[1], 13) ^ v[0]
        v[3] = rotl(v[3], 16) ^ v[2]
        v[0] = rotl(v[0], 32)
        v[2] = (v[2] + v[1]) & U64
        v[0] = (v[0] + v[3]) & U64
        v[1] = rotl(v[1], 17) ^ v[2]
        v[3] = rotl(v[3], 21) ^ v[0]
        v[2] = rotl(v[2], 32)

    tail = len(message) % 8
    padded = message + bytes(7 - tail) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        sipround()
        sipround()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(4):
        sipround()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# Test vector of the paper.
assert siphash24(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


def bucket(key, client, port):
    message = ipaddress.ip_address(client).packed
    if port is not None:
        message += struct.pack(">H", port)
    return siphash24(key, message) & (BUCKETS - 1)


def cell(seed, high, low, cells):
    """Multiplicative: the upper bits of a product. The factor comes of the seed, above which is the link for virtual
    IPs."""
    factor = seed * 0x9E3779B97F4A7C15 & U64 | 1
    high = high * factor & U64
    return (low + (high ^ high >> 32)) * factor % (U64 + 1) // ((U64 + 1) // cells)


def place(items, cells, cell_bytes):
    """Smallest seed without a collision, and the packed table. `items`: (link, high, low, packed cell)."""
    for seed in range(1 << 16):
        table = {cell(link << 32 | seed, high, low, cells): packed for link, high, low, packed in items}
        if len(table) == len(items):
            return seed, b"".join(table.get(i, bytes(cell_bytes)) for i in range(cells))
    raise AssertionError("no seed")


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


def mapped(address):
    address = ipaddress.ip_address(address)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def pack(world):
    """A table as the kernel sees it, on a little-endian machine."""
    vips = []
    for i, vip in enumerate(world["vips"]):
        high, low = struct.unpack("<QQ", mapped(vip["address"]))
        packed = mapped(vip["address"]) + mac_bytes(vip["vmac"])
        packed += bytes([i + 1, vip["module"], MODES[vip["mode"]], vip["link"]]) + bytes(6)
        vips.append((vip["link"], high, low, packed))
    services = []
    for service in world["services"]:
        key = (service["vip"] + 1) << 24 | service["protocol"] << 16 | service["port"]
        services.append((0, 0, key, struct.pack("<IB3x", key, CRITERIA[service["criterion"]])))
    macs, grid = [], [[bytes(32)] * NODES for _ in range(LINKS)]
    for node in world["nodes"]:
        mac = mac_bytes(node["mac"])
        low = int.from_bytes(mac, "little")
        if all(low != known for _, _, known, _ in macs):
            macs.append((0, 0, low, mac + bytes([node["index"], node["link"]])))
        address = ipaddress.ip_address(node["address"]).packed
        address6 = ipaddress.ip_address(node["address6"]).packed
        grid[node["link"]][node["index"]] = address6 + address + mac + bytes(6)
    vip_seed, vip_table = place(vips, VIP_CELLS, 32)
    service_seed, service_table = place(services, SERVICE_CELLS, 8)
    mac_seed, mac_table = place(macs, MAC_CELLS, 8)
    head = struct.pack("<QQQ", world["deadline"], world["epoch"], world["generation"])
    head += bytes.fromhex(world["hash_key"])
    head += struct.pack("<IIIBB2x", vip_seed, service_seed, mac_seed, world["me"], 0)
    entry = struct.pack("<BBBx", world["current"], world["previous"], STEPS[world["step"]])
    entries = entry * BUCKETS + bytes(4 * BUCKETS * (MODULES - 1))
    return head + vip_table + service_table + b"".join(map(b"".join, grid)) + mac_table + entries


def runs(data):
    """The bytes that are not zero, as (offset, hex, repeat): repeated words are counted, not written out."""
    out, i = [], 0
    while i < len(data):
        word = data[i : i + 4]
        if word == bytes(4):
            i += 4
            continue
        repeat = 1
        while data[i + 4 * repeat : i + 4 * repeat + 4] == word:
            repeat += 1
        if repeat >= 8:
            out.append([i, word.hex(), repeat])
            i += 4 * repeat
            continue
        if out and out[-1][2] == 1 and out[-1][0] + len(out[-1][1]) // 2 == i:
            out[-1][1] += word.hex()
        else:
            out.append([i, word.hex(), 1])
        i += 4
    return out


# --- the cast ---------------------------------------------------------------------------------------------

KEY = bytes.fromhex("8f1c3a5b79e2d4064711c0ffee15600d")
VIP, OTHER_LINK_VIP, VIP6 = "10.77.0.100", "10.78.0.100", "fd77::100"
VMAC, VMAC6 = "02:fa:00:00:01:00", "02:fa:00:00:01:02"
PROOF, PROOF5, PROOF56 = "02:9a:bc:de:f0:12", "02:9a:bc:de:f0:05", "02:9a:bc:de:f0:56"
CLIENT, CLIENT6, CLIENT_MAC = "10.77.0.50", "fd77::50", "02:00:00:00:0c:01"
STRANGER, STRANGER_MAC = "10.77.0.51", "02:00:00:00:99:99"
KNOWN, OTHER, NOWHERE = 7, 8, 9
BROADCAST = "ff:ff:ff:ff:ff:ff"
NODE = {
    n: {"index": n, "link": 0, "address": f"10.77.0.{n}", "address6": f"fd77::{n}", "mac": f"02:00:00:00:00:{n:02x}"}
    for n in (1, 2, 3, 4)
}
TCP_PORT, UDP_PORT, BY_PORT, BY_NETWORK, VLAN_PORT = 80, 53, 443, 8443, 8080
# Networks of the nodes: link, interface, tags (outer << 16 | inner), proof. The interface of the tests is number 1.
PORTS = ((0, 1, 0, PROOF), (1, 9, 0, "02:9a:bc:de:f0:99"), (2, 1, 5, PROOF5), (3, 1, 5 << 16 | 6, PROOF56))


def make_world(mode, step, me, lease=True):
    """Node 1 is P, node 2 is C, nodes 3 and 4 are neither. In `stable` node 2 owns everything."""
    return {
        "me": me,
        "mode": mode,
        "step": step,
        "current": 2,
        "previous": 0 if step == "stable" else 1,
        "deadline": U64 if lease else 1,
        "epoch": 7,
        "generation": 3,
        "hash_key": KEY.hex(),
        "vips": [
            {"address": VIP, "vmac": VMAC, "module": 0, "mode": mode, "link": 0},
            {"address": OTHER_LINK_VIP, "vmac": "02:fa:00:00:01:01", "module": 0, "mode": mode, "link": 1},
            {"address": VIP6, "vmac": VMAC6, "module": 0, "mode": mode, "link": 0},
            {"address": VIP, "vmac": VMAC, "module": 0, "mode": mode, "link": 2},
            {"address": VIP6, "vmac": VMAC6, "module": 0, "mode": mode, "link": 2},
            {"address": VIP, "vmac": VMAC, "module": 0, "mode": mode, "link": 3},
        ],
        "services": [
            {"vip": 0, "protocol": 6, "port": TCP_PORT, "criterion": "source-address"},
            {"vip": 0, "protocol": 6, "port": BY_PORT, "criterion": "source-port"},
            {"vip": 0, "protocol": 6, "port": BY_NETWORK, "criterion": "source-network"},
            {"vip": 0, "protocol": 17, "port": UDP_PORT, "criterion": "source-address"},
            {"vip": 2, "protocol": 6, "port": TCP_PORT, "criterion": "source-address"},
            {"vip": 2, "protocol": 6, "port": BY_PORT, "criterion": "source-port"},
            {"vip": 2, "protocol": 6, "port": BY_NETWORK, "criterion": "source-network"},
            {"vip": 2, "protocol": 17, "port": UDP_PORT, "criterion": "source-address"},
            *({"vip": vip, "protocol": 6, "port": VLAN_PORT, "criterion": "source-address"} for vip in (3, 4, 5)),
            *({"vip": vip, "protocol": 17, "port": UDP_PORT, "criterion": "source-address"} for vip in (3, 4, 5)),
        ],
        "nodes": [NODE[n] for n in sorted(NODE)] + [{**NODE[n], "link": link} for link in (2, 3) for n in sorted(NODE)],
        "ports": [
            {"link": link, "ifindex": ifindex, "vlan": vlan, "mac": NODE[me]["mac"], "proof": proof}
            for link, ifindex, vlan, proof in PORTS
        ],
    }


# --- the rules --------------------------------------------------------------------------------------------

PASS, DROP = ("pass", None), ("drop", None)
NEW, OLD, TCP_FRAGMENT = "new", "old", "tcp-fragment"


def change(mode, step, me, sender, kind):
    """Outcome for a frame of an admissible kind: 'accept', 'drop', or (node, marked) to send it to.

    `sender` is None for a client, else (node, marked). Beyond the table of the design:
    - In flood mode everybody has the client's frame, so what a node sent on is a copy; only C takes one, from
      P's hand, before Activate. P bounces new flows only.
    - Nobody returns to P, unmarked, what P sent; nobody returns to C what C marked: such frames come from
      tables of before a reboot and would go round.
    - A TCP fragment without known ports is P's in an open change. It carries no SYN. With known ports every
      fragment is a frame of its flow.
    - An error about a datagram goes where the next datagram goes.
    """
    P, C = 1, 2
    from_p = sender == (P, True)
    direct = sender is None
    flood = mode == "flood"

    def to(node, marked=False):
        if flood and not (marked and kind == NEW):
            return "drop"
        return (node, marked)

    if flood and not direct and not (me == C and from_p and step in ("prepare", "move")):
        return "drop"
    if step == "closed":
        return "drop"
    if step == "stable":
        return "accept" if me == C else to(C) if direct else "drop"
    if me == P:
        if step == "prepare" or kind == TCP_FRAGMENT:
            return "accept"
        if sender == (C, True) or (sender == (C, False) and kind != NEW):
            return "drop"
        return to(C, marked=True)
    if me == C:
        if step == "activate" and kind == NEW:
            return "accept"
        if from_p:
            return "accept" if kind == NEW else "drop"
        return "drop" if sender == (P, False) else to(P)
    if not direct:
        return "drop"
    return to(C) if step == "activate" else to(P)


def addressed(mode, me, frame, asks=False):
    """A solicitation comes to everybody: ARP by broadcast, neighbour discovery to a group."""
    destination = frame[Ether].dst
    if destination == NODE[me]["mac"]:
        return True
    if asks and (destination.startswith("33:33:") if IPv6 in frame else destination == BROADCAST):
        return True
    return mode == "flood" and destination == (VMAC6 if IPv6 in frame else VMAC)


def set_dscp(frame, dscp):
    if IP in frame:
        frame[IP].tos = dscp << 2 | frame[IP].tos & 3
        del frame[IP].chksum
    elif IPv6 in frame:
        frame[IPv6].tc = dscp << 2 | frame[IPv6].tc & 3


def take_a_hop(frame):
    if IP in frame:
        frame[IP].ttl -= 1
        del frame[IP].chksum
    else:
        frame[IPv6].hlim -= 1


def hops_of(frame):
    return frame[IP].ttl if IP in frame else frame[IPv6].hlim


def dscp_of(frame):
    return (frame[IP].tos if IP in frame else frame[IPv6].tc) >> 2


def outcome(world, frame, sender, kind, proof=PROOF):
    """Action and resulting frame, its tags untouched. `frame` is a scapy frame for the virtual IP, `kind` None if
    unservable."""
    mode, step, me = world["mode"], world["step"], world["me"]
    if kind is None or not addressed(mode, me, frame):
        return DROP
    what = change(mode, step, me, sender, kind)
    if what == "drop" or world["deadline"] != U64:
        return DROP
    out = frame.copy()
    out[Ether].src = NODE[me]["mac"]
    if what == "accept":
        out[Ether].src, out[Ether].dst = proof, NODE[me]["mac"]
        marked = False
    else:
        if hops_of(frame) < 2:
            return DROP
        take_a_hop(out)
        out[Ether].dst, marked = NODE[what[0]]["mac"], what[1]
    if marked:
        set_dscp(out, MARK)
    elif dscp_of(out) == MARK:
        set_dscp(out, 0)
    return ("pass" if what == "accept" else "tx", out)


def arp_outcome(world, frame, sender_is_node):
    """A request for the virtual IP by somebody else."""
    mode, step, me = world["mode"], world["step"], world["me"]
    answers = {"stable": 2, "prepare": 1, "move": 1, "closed": None, "activate": 2}[step]
    if answers is None or world["deadline"] != U64 or not addressed(mode, me, frame, asks=True):
        return DROP
    if answers == me:
        request, mac = frame[ARP], NODE[me]["mac"]
        link = frame.copy()
        link[ARP].underlayer.remove_payload()
        link[Ether].src, link[Ether].dst = mac, request.hwsrc
        answer = link / ARP(
            op=2, hwsrc=mac if mode == "directed" else VMAC, psrc=VIP, hwdst=request.hwsrc, pdst=request.psrc
        )
        padding = bytes(frame)[len(bytes(answer)) :]
        return ("tx", answer / Raw(padding) if padding else answer)
    if mode == "directed" and frame[Ether].dst == NODE[me]["mac"] and not sender_is_node:
        out = frame.copy()
        out[Ether].src, out[Ether].dst = NODE[me]["mac"], NODE[answers]["mac"]
        return ("tx", out)
    return DROP


def nd_outcome(world, frame, sender_is_node, names_asker=True):
    """A neighbour solicitation for the virtual IP by somebody else; one that was sent on must name who asks."""
    mode, step, me = world["mode"], world["step"], world["me"]
    answers = {"stable": 2, "prepare": 1, "move": 1, "closed": None, "activate": 2}[step]
    if answers is None or world["deadline"] != U64 or not addressed(mode, me, frame, asks=True):
        return DROP
    if sender_is_node and not names_asker:
        return DROP
    if answers == me:
        question, mac = frame[IPv6], NODE[me]["mac"]
        free = question.src == "::"
        asker = frame[ICMPv6NDOptSrcLLAddr].lladdr if names_asker else frame[Ether].src
        # One option of ours for all of the asker's; the bytes of the others are no part of the packet any more.
        options = bytes(question)[64 : 40 + question.plen]
        answer = frame.copy()
        answer[IPv6].underlayer.remove_payload()
        answer[Ether].src, answer[Ether].dst = mac, "33:33:00:00:00:01" if free else asker
        answer /= IPv6(src=VIP6, dst="ff02::1" if free else question.src, hlim=255, tc=question.tc, fl=question.fl)
        answer /= ICMPv6ND_NA(R=0, S=0 if free else 1, O=1, tgt=VIP6)
        if options:
            answer /= ICMPv6NDOptDstLLAddr(lladdr=mac if mode == "directed" else VMAC6)
        return ("tx", Ether(bytes(answer) + options[8:]))
    if mode == "directed" and frame[Ether].dst == NODE[me]["mac"] and not sender_is_node:
        out = frame.copy()
        out[Ether].src, out[Ether].dst = NODE[me]["mac"], NODE[answers]["mac"]
        return ("tx", out)
    return DROP


# --- frames -----------------------------------------------------------------------------------------------


def ether(dst, src=CLIENT_MAC):
    return Ether(dst=dst, src=src, type=0x0800)


def packets():
    """(name, scapy IP packet, kind). Kind None: for the virtual IP, but nothing that is served."""
    ip = lambda **k: IP(src=CLIENT, dst=VIP, **k)
    tcp = lambda flags, port=TCP_PORT: TCP(sport=40001, dport=port, flags=flags, seq=7)
    body = Raw(b"0123456789abcdefghijklmn")
    yield "syn", ip() / tcp("S"), NEW
    yield "syn ece cwr", ip(tos=1) / tcp("SEC"), NEW
    yield "syn by port", ip() / tcp("S", BY_PORT), NEW
    yield "syn by network", ip() / tcp("S", BY_NETWORK), NEW
    yield "syn with ip options", ip(options=[IPOption_NOP()] * 12) / tcp("S"), NEW
    yield "syn with sixty bytes of ip header", ip(options=[IPOption_NOP()] * 40) / tcp("S"), NEW
    yield "syn, client set the mark", ip(tos=MARK << 2 | 2) / tcp("S"), NEW
    yield "syn, client set another code point", ip(tos=46 << 2) / tcp("S"), NEW
    yield "ack", ip() / tcp("A"), OLD
    yield "syn-ack", ip() / tcp("SA"), OLD
    yield "syn-rst", ip() / tcp("SR"), OLD
    yield "fin-ack with data", ip() / tcp("FA") / body, OLD
    yield "rst", ip() / tcp("R"), OLD
    yield "udp", ip() / UDP(sport=40002, dport=UDP_PORT) / body, NEW
    yield "echo request", ip() / ICMP(type=8, id=5, seq=1) / body, NEW
    # Nodes know the ports of the later fragments of a packet whose first they saw: here of those with KNOWN.
    yield "udp, first fragment", ip(id=KNOWN, flags="MF") / UDP(sport=40002, dport=UDP_PORT, len=1000) / body, NEW
    yield "udp, last fragment", ip(id=KNOWN, frag=9, proto=17) / body, NEW
    yield "udp, last fragment without the first", ip(id=OTHER, frag=9, proto=17) / body, NEW
    yield "icmp fragment", ip(frag=9, proto=1) / body, NEW
    yield "tcp, first fragment", ip(id=KNOWN, flags="MF") / tcp("A") / body, OLD
    yield "tcp, middle fragment", ip(id=KNOWN, flags="MF", frag=20, proto=6) / body, OLD
    yield "tcp, last fragment", ip(id=KNOWN, frag=40, proto=6) / body, OLD
    yield "tcp, last fragment without the first", ip(id=OTHER, frag=40, proto=6) / body, TCP_FRAGMENT
    yield "tcp, fragmented syn", ip(id=OTHER, flags="MF") / tcp("S") / body, None
    yield "tcp, fragment that overwrites the flags", ip(id=KNOWN, frag=1, proto=6) / body, None
    yield "udp, first fragment for no service", ip(id=NOWHERE, flags="MF") / UDP(sport=9, dport=81, len=99) / body, None
    yield "udp, last fragment for no service", ip(id=NOWHERE, frag=9, proto=17) / body, None
    yield "udp, last fragment of another client", IP(src=STRANGER, dst=VIP, id=NOWHERE, frag=9, proto=17) / body, NEW
    yield "tcp, tiny first fragment", ip(flags="MF", proto=6) / Raw(b"\x9c\x41\x00\x50\x00\x00\x00\x00"), None
    yield "syn to a port without service", ip() / tcp("S", 81), None
    yield "udp to the tcp port", ip() / UDP(sport=40002, dport=TCP_PORT), None
    yield "ospf", ip(proto=89) / body, None
    yield "igmp fragment", ip(proto=2, frag=3) / body, None
    yield "echo reply", ip() / ICMP(type=0, id=5, seq=1), None
    yield "icmp redirect", ip() / ICMP(type=5) / IPerror(src=VIP, dst=CLIENT) / TCPerror(sport=80, dport=1), None
    yield "icmp timestamp", ip() / ICMP(type=13, ts_ori=0, ts_rx=0, ts_tx=0), None
    yield "ack, padded", ip(len=40) / tcp("A") / Raw(bytes(6)), OLD
    yield "syn that ends within its header", ip(len=33) / tcp("S"), None
    yield "ack in the padding", ip(len=20) / tcp("A"), None
    yield "udp that ends within its ports", ip(len=23) / UDP(sport=40002, dport=UDP_PORT), None
    yield "echo request that ends within its header", ip(len=27) / ICMP(type=8), None
    yield "tcp, first fragment with its flags in the padding", ip(id=OTHER, flags="MF", len=28) / tcp("A"), None
    yield "udp, last fragment of nothing", ip(id=KNOWN, frag=9, proto=17, len=20) / body, None
    yield "packet that ends within its own header", ip(len=16) / tcp("A"), None
    yield "ack put together by the kernel", ip(len=0) / tcp("A") / body, OLD
    yield "ack with its last hop", ip(ttl=1) / tcp("A"), OLD
    yield "syn with no hop left", ip(ttl=0) / tcp("S"), NEW
    yield "syn with two hops left", ip(ttl=2) / tcp("S"), NEW
    yield "short tcp", ip(proto=6) / Raw(b"\x9c\x41\x00\x50"), None
    yield "short icmp", ip(proto=1) / Raw(b"\x08\x00\x00"), None
    yield "bad header length", ip(ihl=4) / tcp("S"), None
    yield "version 5", ip(version=5) / tcp("S"), None
    error = lambda **k: IP(src="10.9.9.9", dst=VIP) / ICMP(**k)
    quoted = IPerror(src=VIP, dst=CLIENT)
    yield "unreachable, tcp", error(type=3, code=4) / quoted / TCPerror(sport=80, dport=40001), OLD
    yield "unreachable, tcp by port", error(type=3, code=4) / quoted / TCPerror(sport=443, dport=40001), OLD
    yield "time exceeded, udp", error(type=11) / quoted / UDPerror(sport=53, dport=40002), NEW
    yield "parameter problem, tcp", error(type=12) / quoted / TCPerror(sport=80, dport=40001), OLD
    with_options = IPerror(src=VIP, dst=CLIENT, options=[IPOption_NOP()] * 8)
    yield "unreachable, quoted options", error(type=3, code=1) / with_options / TCPerror(sport=80, dport=40001), OLD
    yield "unreachable, echo reply", error(type=3, code=1) / quoted / ICMPerror(type=0, id=5), OLD
    yield "unreachable, no service", error(type=3, code=1) / quoted / TCPerror(sport=81, dport=40001), None
    foreign = IPerror(src="10.77.0.101", dst=CLIENT)
    yield "unreachable, quotes another sender", error(type=3) / foreign / TCPerror(sport=80, dport=40001), None
    fragment = IPerror(src=VIP, dst=CLIENT, frag=3, proto=6)
    yield "unreachable, quotes a later fragment", error(type=3, code=4) / fragment / Raw(bytes(8)), OLD
    cut = lambda length: IP(src="10.9.9.9", dst=VIP, len=length) / ICMP(type=3, code=4)
    yield "unreachable, quotes what lies behind its end", cut(51) / quoted / TCPerror(sport=80), None
    yield "unreachable, quotes a fragment behind its end", cut(47) / fragment / Raw(bytes(8)), None
    yield "unreachable, quote cut short", error(type=3, code=4) / Raw(bytes(quoted)[:18]), None


def packets6():
    """The same for IPv6 (RFC 8200, RFC 4443)."""
    ip = lambda **k: IPv6(src=CLIENT6, dst=VIP6, **k)
    tcp = lambda flags, port=TCP_PORT: TCP(sport=40001, dport=port, flags=flags, seq=7)
    udp = lambda **k: UDP(sport=40002, dport=UDP_PORT, **k)
    pad = lambda n=4: PadN(optdata=bytes(n))
    body = Raw(b"0123456789abcdefghijklmn")
    yield "syn", ip() / tcp("S"), NEW
    yield "syn by port", ip(tc=1, fl=0xABCDE) / tcp("S", BY_PORT), NEW
    yield "syn by network", ip() / tcp("S", BY_NETWORK), NEW
    yield "syn, client set the mark", ip(tc=MARK << 2 | 2, fl=0xFFFFF) / tcp("S"), NEW
    yield "syn, client set another code point", ip(tc=46 << 2) / tcp("S"), NEW
    yield "ack", ip() / tcp("A"), OLD
    yield "fin-ack with data", ip() / tcp("FA") / body, OLD
    yield "udp", ip() / udp() / body, NEW
    yield "echo request", ip() / ICMPv6EchoRequest(id=5, seq=1) / body, NEW
    yield "syn, hop-by-hop options", ip() / IPv6ExtHdrHopByHop(options=[pad()]) / tcp("S"), NEW
    yield "syn, long destination options", ip() / IPv6ExtHdrDestOpt(options=[pad(248), pad(248)]) / tcp("S"), NEW
    routing = IPv6ExtHdrRouting(type=4, segleft=0)
    yield "ack, routing header", ip() / routing / tcp("A"), OLD
    six = IPv6ExtHdrHopByHop(options=[pad()]) / IPv6ExtHdrDestOpt(options=[pad()]) / routing
    six = six / IPv6ExtHdrFragment(id=9) / IPv6ExtHdrDestOpt(options=[pad()]) / IPv6ExtHdrDestOpt(options=[pad(12)])
    yield "syn, six extension headers", ip() / six / tcp("S"), NEW
    yield "syn, seven extension headers", ip() / six / IPv6ExtHdrDestOpt(options=[pad()]) / tcp("S"), None
    yield "syn, atomic fragment", ip() / IPv6ExtHdrFragment(id=9) / tcp("S"), NEW
    yield "udp, first fragment", ip() / IPv6ExtHdrFragment(m=1, id=9) / udp(len=1000, chksum=1) / body, NEW
    yield "udp, last fragment", ip() / IPv6ExtHdrFragment(offset=9, nh=17, id=9) / body, NEW
    yield "udp, last fragment without the first", ip() / IPv6ExtHdrFragment(offset=9, nh=17, id=9 << 16) / body, NEW
    yield "icmp fragment", ip() / IPv6ExtHdrFragment(offset=9, nh=58, id=9) / body, NEW
    yield "tcp, first fragment", ip() / IPv6ExtHdrFragment(m=1, id=9) / tcp("A") / body, OLD
    yield "tcp, last fragment", ip() / IPv6ExtHdrFragment(offset=40, nh=6, id=9) / body, OLD
    yield "tcp, last fragment without the first", ip() / IPv6ExtHdrFragment(offset=40, nh=6, id=9 << 16) / body, TCP_FRAGMENT
    yield "tcp, fragmented syn", ip() / IPv6ExtHdrFragment(m=1, id=9) / tcp("S") / body, None
    yield "tcp, fragment that overwrites the flags", ip() / IPv6ExtHdrFragment(offset=1, nh=6, id=9) / body, None
    yield "fragment of an extension header", ip() / IPv6ExtHdrFragment(offset=3, nh=60, id=9) / body, None
    yield "syn to a port without service", ip() / tcp("S", 81), None
    yield "ospf", ip(nh=89) / body, None
    yield "esp", ip(nh=50) / body, None
    yield "authentication header", ip(nh=51) / body, None
    yield "no next header", ip(nh=59) / body, None
    yield "icmp for IPv4", ip(nh=1) / Raw(b"\x08" + bytes(7)), None
    yield "echo reply", ip() / ICMPv6EchoReply(id=5, seq=1), None
    yield "redirect", ip(hlim=255) / ICMPv6ND_Redirect(tgt="fd77::1", dst=CLIENT6), None
    yield "router solicitation", ip(hlim=255) / ICMPv6ND_RS(), None
    yield "advertisement to the virtual IP", ip(hlim=255) / ICMPv6ND_NA(tgt=CLIENT6), None
    yield "listener report", ip() / ICMPv6MLReport(), None
    yield "short tcp", ip(nh=6) / Raw(b"\x9c\x41\x00\x50"), None
    yield "short icmp", ip(nh=58) / Raw(b"\x80\x00\x00"), None
    yield "ack, padded", ip(plen=20) / tcp("A") / Raw(bytes(6)), OLD
    yield "syn that ends within its header", ip(plen=13) / tcp("S"), None
    yield "ack in the padding", ip(plen=0) / tcp("A"), None
    yield "udp that ends within its ports", ip(plen=3) / udp(), None
    yield "echo request that ends within its header", ip(plen=7) / ICMPv6EchoRequest(), None
    yield "extension header in the padding", ip(plen=4) / IPv6ExtHdrDestOpt(options=[pad()]) / tcp("S"), None
    split = IPv6ExtHdrFragment(m=1, id=9 << 16)
    yield "tcp, first fragment with its flags in the padding", ip(plen=16) / split / tcp("A"), None
    yield "udp, last fragment of nothing", ip(plen=8) / IPv6ExtHdrFragment(offset=9, nh=17, id=9) / body, None
    big = IPv6ExtHdrHopByHop(options=[pad()])
    yield "ack put together by the kernel", ip(plen=0) / big / tcp("A") / body, OLD
    yield "ack with its last hop", ip(hlim=1) / tcp("A"), OLD
    yield "syn with no hop left", ip(hlim=0) / tcp("S"), NEW
    yield "syn with two hops left", ip(hlim=2) / tcp("S"), NEW
    yield "extension header cut short", ip(nh=60) / Raw(b"\x06"), None
    yield "version 5", ip(version=5) / tcp("S"), None
    error = IPv6(src="fd09::9", dst=VIP6)
    quoted = IPv6(src=VIP6, dst=CLIENT6)
    answer = lambda sport: TCP(sport=sport, dport=40001, flags="A")
    yield "too big, tcp", error / ICMPv6PacketTooBig(mtu=1280) / quoted / answer(80), OLD
    yield "too big, tcp by port", error / ICMPv6PacketTooBig(mtu=1280) / quoted / answer(443), OLD
    yield "unreachable, udp", error / ICMPv6DestUnreach(code=4) / quoted / UDP(sport=53, dport=40002), NEW
    yield "time exceeded, tcp", error / ICMPv6TimeExceeded() / quoted / answer(80), OLD
    yield "parameter problem, tcp", error / ICMPv6ParamProblem() / quoted / answer(80), OLD
    yield "too big, echo reply", error / ICMPv6PacketTooBig() / quoted / ICMPv6EchoReply(id=5), OLD
    yield "too big, quotes a first fragment", error / ICMPv6PacketTooBig() / quoted / IPv6ExtHdrFragment(m=1) / answer(80), OLD
    later = IPv6ExtHdrFragment(offset=9, nh=6)
    yield "too big, quotes a later fragment", error / ICMPv6PacketTooBig() / quoted / later / Raw(bytes(8)), OLD
    yield "too big, no service", error / ICMPv6PacketTooBig() / quoted / answer(81), None
    foreign = IPv6(src="fd77::101", dst=CLIENT6)
    yield "too big, quotes another sender", error / ICMPv6PacketTooBig() / foreign / answer(80), None
    yield "too big, quote cut short", error / ICMPv6PacketTooBig() / Raw(bytes(quoted)[:30]), None
    yield "unknown error", error / ICMPv6Unknown(type=5) / Raw(bytes(quoted)), None


def senders(me):
    """(name, source MAC, sender). Only a frame from a node can count as marked."""
    yield "client", CLIENT_MAC, None
    for n in (1, 2, 4):
        if n != me:
            yield f"node {n}", NODE[n]["mac"], (n, False)
            yield f"node {n}, marked", NODE[n]["mac"], (n, True)


def cases_of_changes(world):
    """Every kind of packet by every sender, for one node in one step."""
    me = world["me"]
    flood = world["mode"] == "flood"
    both = [("", *row) for row in packets()] + [("IPv6 ", *row) for row in packets6()]
    for family, name, packet, kind in both:
        usual = NODE[me]["mac"] if not flood else VMAC6 if family else VMAC
        for who, source, sender in senders(me):
            if sender and sender[1]:
                if "mark" in name or kind is None or "code point" in name:
                    continue
                packet = packet.copy()
                set_dscp(packet, MARK)
            elif sender and "set the mark" in name:
                continue
            destination = NODE[me]["mac"] if sender else usual
            link = Ether(dst=destination, src=source, type=0x86DD) if family else ether(destination, source)
            frame = Ether(bytes(link / packet))
            yield f"{family}{name}, from {who}", frame, outcome(world, frame, sender, kind)


def cases_of_addresses(world):
    """Who may be addressed, nodes as clients, and what is not for a virtual IP."""
    me, mode = world["me"], world["mode"]
    own = NODE[me]["mac"]
    syn = IP(src=CLIENT, dst=VIP) / TCP(sport=40001, dport=TCP_PORT, flags="S")
    for name, destination in (("own", own), ("vmac", VMAC), ("broadcast", BROADCAST), ("other", STRANGER_MAC),
                              ("multicast", "01:00:5e:00:00:01")):
        frame = Ether(bytes(ether(destination) / syn))
        yield f"syn to {name} MAC", frame, outcome(world, frame, None, NEW)
    client = NODE[4 if me != 4 else 3]
    for tos in (0, MARK << 2):
        packet = IP(src=client["address"], dst=VIP, tos=tos) / TCP(sport=40001, dport=TCP_PORT, flags="S")
        frame = Ether(bytes(ether(own, client["mac"]) / packet))
        # What carries the mark counts as bounced.
        yield f"node as a client, tos {tos}", frame, outcome(world, frame, (client["index"], True) if tos else None, NEW)
    if me != 1:
        # The mark says that it was bounced, also of what claims to be P's own.
        bounced = (1, True)
        both = (("", IP(src=NODE[1]["address"], dst=VIP, tos=MARK << 2), 0x0800),
                ("IPv6 ", IPv6(src=NODE[1]["address6"], dst=VIP6, tc=MARK << 2), 0x86DD))
        for family, packet, kind in both:
            frame = Ether(dst=own, src=NODE[1]["mac"], type=kind) / packet / TCP(sport=40001, dport=TCP_PORT, flags="S")
            frame = Ether(bytes(frame))
            yield f"{family}bounced, with the address of node 1", frame, outcome(world, frame, bounced, NEW)
    yield "virtual IP of another link", ether(own) / IP(src=CLIENT, dst=OTHER_LINK_VIP) / TCP(dport=TCP_PORT), PASS
    syn6 = IPv6(src=CLIENT6, dst=VIP6) / TCP(sport=40001, dport=TCP_PORT, flags="S")
    for name, destination in (("own", own), ("vmac", VMAC6), ("IPv4's vmac", VMAC), ("broadcast", BROADCAST),
                              ("other", STRANGER_MAC), ("group", "33:33:ff:00:01:00")):
        frame = Ether(bytes(Ether(dst=destination, src=CLIENT_MAC) / syn6))
        yield f"IPv6 syn to {name} MAC", frame, outcome(world, frame, None, NEW)
    packet = IPv6(src=client["address6"], dst=VIP6) / TCP(sport=40001, dport=TCP_PORT, flags="S")
    frame = Ether(bytes(Ether(dst=own, src=client["mac"]) / packet))
    yield "node as an IPv6 client", frame, outcome(world, frame, None, NEW)
    yield "IPv6 to the node", Ether(dst=own, src=CLIENT_MAC) / IPv6(src="fd77::50", dst="fd77::1") / TCP(dport=80), PASS
    yield "IPv4 to the node", ether(own) / IP(src=CLIENT, dst="10.77.0.1") / TCP(dport=80, flags="S"), PASS
    yield "IPv4 from the virtual IP", ether(own) / IP(src=VIP, dst="10.77.0.1") / TCP(dport=80, flags="S"), PASS
    yield "LLDP", Ether(dst="01:80:c2:00:00:0e", src=CLIENT_MAC, type=0x88CC) / Raw(bytes(46)), PASS
    if (world["step"], me) != ("stable", 2):
        return
    whole = bytes(ether(own) / syn)
    for length in range(14, len(whole)):
        # The destination ends at byte 34, the TCP flags at byte 48: the kernel refuses what we let through.
        frame = Ether(whole[:length])
        expected = PASS if length < 34 else DROP if length < 48 else None
        yield f"syn cut to {length} bytes", frame, expected or cut(world, whole, length)


def cut(world, whole, length):
    action, out = outcome(world, Ether(whole), None, NEW)
    return (action, Ether(bytes(out)[:length])) if out is not None else (action, None)


def cases_of_arp(world):
    me = world["me"]
    own = NODE[me]["mac"]
    client = dict(hwsrc=CLIENT_MAC, psrc=CLIENT)
    usual = (("broadcast", BROADCAST), ("own", own), ("vmac", VMAC), ("other", STRANGER_MAC))
    for name, destination in usual:
        frame = Ether(bytes(Ether(dst=destination, src=CLIENT_MAC) / ARP(op=1, pdst=VIP, **client) / Raw(bytes(18))))
        yield f"request to {name}", frame, arp_outcome(world, frame, False)
    probe = Ether(bytes(Ether(dst=BROADCAST, src=CLIENT_MAC) / ARP(op=1, hwsrc=CLIENT_MAC, psrc="0.0.0.0", pdst=VIP)))
    yield "probe without sender", probe, arp_outcome(world, probe, False)
    n = 4 if me != 4 else 3
    sent_on = Ether(bytes(Ether(dst=own, src=NODE[n]["mac"]) / ARP(op=1, pdst=VIP, **client)))
    yield "request sent on by a node", sent_on, arp_outcome(world, sent_on, True)
    by_node = dict(hwsrc=NODE[n]["mac"], psrc=NODE[n]["address"])
    asks = Ether(bytes(Ether(dst=BROADCAST, src=NODE[n]["mac"]) / ARP(op=1, pdst=VIP, **by_node)))
    yield "request by a node", asks, arp_outcome(world, asks, False)
    unicast = Ether(bytes(Ether(dst=own, src=NODE[n]["mac"]) / ARP(op=1, pdst=VIP, **by_node)))
    yield "unicast request by a node", unicast, arp_outcome(world, unicast, False)
    claims = Ether(bytes(Ether(dst=own, src=NODE[n]["mac"]) / ARP(op=1, hwsrc=CLIENT_MAC, psrc=NODE[n]["address"], pdst=VIP)))
    yield "request sent on by a node, with its address", claims, arp_outcome(world, claims, True)
    group = Ether(dst=BROADCAST, src=CLIENT_MAC) / ARP(op=1, hwsrc=BROADCAST, psrc=CLIENT, pdst=VIP)
    yield "request with a group as sender", group, DROP
    announce = Ether(dst=BROADCAST, src=CLIENT_MAC) / ARP(op=1, hwsrc=CLIENT_MAC, psrc=VIP, pdst=VIP)
    yield "announcement of the virtual IP", announce, PASS
    asks_from = Ether(dst=BROADCAST, src=CLIENT_MAC) / ARP(op=1, hwsrc=CLIENT_MAC, psrc=VIP, pdst="10.77.0.1")
    yield "request whose sender is the virtual IP", asks_from, PASS
    reply = Ether(dst=own, src=CLIENT_MAC) / ARP(op=2, hwsrc=CLIENT_MAC, psrc=CLIENT, pdst=VIP, hwdst=own)
    yield "reply to the virtual IP", reply, PASS
    yield "request for another", Ether(dst=BROADCAST, src=CLIENT_MAC) / ARP(op=1, pdst="10.77.0.1", **client), PASS
    whole = bytes(Ether(dst=BROADCAST, src=CLIENT_MAC) / ARP(op=1, pdst=VIP, **client))
    yield "request cut short", Ether(whole[:41]), PASS


def cases_of_nd(world):
    me = world["me"]
    own, group = NODE[me]["mac"], "33:33:ff:00:01:00"
    by = lambda mac: ICMPv6NDOptSrcLLAddr(lladdr=mac)

    def ask(dst, src=CLIENT_MAC, source=CLIENT6, option=by(CLIENT_MAC), to="ff02::1:ff00:100", hlim=255, code=0, tgt=VIP6):
        question = Ether(dst=dst, src=src) / IPv6(src=source, dst=to, hlim=hlim) / ICMPv6ND_NS(tgt=tgt, code=code)
        return Ether(bytes(question / option if option is not None else question))

    for name, destination in (("group", group), ("own", own), ("vmac", VMAC6), ("other", STRANGER_MAC)):
        to = "ff02::1:ff00:100" if destination == group else VIP6
        frame = ask(destination, to=to)
        yield f"solicitation to {name}", frame, nd_outcome(world, frame, False)
    free = ask(group, source="::", option=None)
    yield "is it free", free, nd_outcome(world, free, False, names_asker=False)
    nameless = ask(own, option=None, to=VIP6)
    yield "unicast solicitation without option", nameless, nd_outcome(world, nameless, False, names_asker=False)
    nonce = b"\x0e\x01abcdef"
    frame = ask(group, option=by(CLIENT_MAC) / Raw(nonce))
    yield "solicitation with a nonce", frame, nd_outcome(world, frame, False)
    frame = ask(group, source="::", option=Raw(nonce))
    yield "is it free, with a nonce", frame, nd_outcome(world, frame, False, names_asker=False)
    answer = b"\x02\x01" + mac_bytes(STRANGER_MAC)
    frame = ask(group, option=by(CLIENT_MAC) / Raw(answer))
    yield "solicitation that names an answer", frame, nd_outcome(world, frame, False)
    frame = ask(group, source="::", option=Raw(answer))
    yield "is it free, naming an answer", frame, nd_outcome(world, frame, False, names_asker=False)
    frame = ask(group, option=by(CLIENT_MAC) / Raw(nonce * 7))
    yield "solicitation with eight options", frame, nd_outcome(world, frame, False)
    yield "solicitation with nine options", ask(group, option=by(CLIENT_MAC) / Raw(nonce * 8)), DROP
    yield "solicitation with half an option", ask(group, option=by(CLIENT_MAC) / Raw(nonce[:4])), DROP
    short = ask(group, option=None)
    short[IPv6].plen = 16
    yield "solicitation without its target", Ether(bytes(short)), DROP
    yield "is it free, asked of one", ask(own, source="::", option=None, to=VIP6), DROP
    n = 4 if me != 4 else 3
    sent_on = ask(own, src=NODE[n]["mac"], to=VIP6)
    yield "solicitation sent on by a node", sent_on, nd_outcome(world, sent_on, True)
    lost = ask(own, src=NODE[n]["mac"], to=VIP6, option=None)
    yield "solicitation sent on, nameless", lost, nd_outcome(world, lost, True, names_asker=False)
    asks = ask(group, src=NODE[n]["mac"], source=NODE[n]["address6"], option=by(NODE[n]["mac"]))
    yield "solicitation by a node", asks, nd_outcome(world, asks, False)
    local = ask(own, src=NODE[n]["mac"], source="fe80::4", option=by(NODE[n]["mac"]), to=VIP6)
    yield "unicast solicitation by a node, link-local", local, nd_outcome(world, local, False)
    yield "solicitation from afar", ask(group, hlim=64), DROP
    yield "solicitation with a code", ask(group, code=1), DROP
    yield "solicitation by a group", ask(group, option=by(BROADCAST)), DROP
    yield "solicitation from a group", ask(group, source="ff02::1"), DROP
    yield "is it free, with a name", ask(group, source="::"), DROP
    yield "solicitation whose sender is the virtual IP", ask(group, source=VIP6), PASS
    yield "solicitation for another", ask(group, tgt="fd77::1"), PASS
    yield "solicitation cut short", Ether(bytes(ask(group))[:77]), PASS
    claim = IPv6(src=VIP6, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=VIP6, R=0, S=0) / ICMPv6NDOptDstLLAddr(lladdr=CLIENT_MAC)
    yield "somebody else's advertisement", Ether(bytes(Ether(dst="33:33:00:00:00:01", src=CLIENT_MAC) / claim)), PASS


def networks():
    """(name, tags, proof): tags of frames that belong to a network with the virtual IPs. `None`: to one without."""
    yield "priority tag", Dot1Q(vlan=0, prio=6), PROOF
    yield "VLAN 5", Dot1Q(vlan=5, prio=3), PROOF5
    yield "VLAN 5, service tag", Dot1AD(vlan=5), PROOF5
    yield "VLAN 5 in a priority tag", Dot1Q(vlan=0) / Dot1Q(vlan=5), PROOF5
    yield "VLAN 5.6", Dot1AD(vlan=5) / Dot1Q(vlan=6), PROOF56
    yield "VLAN 6", Dot1Q(vlan=6), None
    yield "VLAN 6.5", Dot1AD(vlan=6) / Dot1Q(vlan=5), None
    yield "VLAN 5.5", Dot1AD(vlan=5) / Dot1Q(vlan=5), None
    yield "VLAN 4095", Dot1Q(vlan=4095), None
    yield "three tags", Dot1AD(vlan=5) / Dot1Q(vlan=6) / Dot1Q(vlan=0), None


def packets_in_vlan(proof):
    """(name, packet, kind). The service at VLAN_PORT exists behind tags only, all others of TCP only without."""
    port = TCP_PORT if proof == PROOF else VLAN_PORT
    tcp = lambda flags, port=port: TCP(sport=40001, dport=port, flags=flags, seq=7)
    ip, ip6 = IP(src=CLIENT, dst=VIP), IPv6(src=CLIENT6, dst=VIP6)
    body = Raw(b"0123456789abcdefghijklmn")
    yield "syn", ip / tcp("S"), NEW
    yield "syn to another network's service", ip / tcp("S", TCP_PORT + VLAN_PORT - port), None
    yield "ack with sixty bytes of ip header", IP(src=CLIENT, dst=VIP, options=[IPOption_NOP()] * 40) / tcp("A"), OLD
    yield "udp, last fragment", IP(src=CLIENT, dst=VIP, frag=9, proto=17) / body, NEW
    quoted = IPerror(src=VIP, dst=CLIENT, options=[IPOption_NOP()] * 8) / TCPerror(sport=port, dport=40001)
    yield "unreachable", IP(src="10.9.9.9", dst=VIP) / ICMP(type=3, code=4) / quoted, OLD
    if proof == PROOF56:
        return
    yield "IPv6 syn", ip6 / tcp("S"), NEW
    yield "IPv6 syn to another network's service", ip6 / tcp("S", TCP_PORT + VLAN_PORT - port), None
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(20))])
    yield "IPv6 ack with options", ip6 / options / options / tcp("A"), OLD
    quoted = IPv6(src=VIP6, dst=CLIENT6) / tcp("A", 40001)
    quoted[TCP].sport, quoted[TCP].dport = port, 40001
    yield "IPv6 too big", IPv6(src="fd09::9", dst=VIP6) / ICMPv6PacketTooBig(mtu=1280) / quoted, OLD


def cases_of_networks(world):
    """The same address in several VLANs of one interface: each is a virtual IP of its own, or none at all."""
    me = world["me"]
    own = NODE[me]["mac"]
    link = lambda dst, tags, src=CLIENT_MAC: Ether(dst=dst, src=src) / tags.copy()
    for name, tags, proof in networks():
        for what, packet, kind in packets_in_vlan(proof):
            usual = own if world["mode"] == "directed" else VMAC6 if IPv6 in packet else VMAC
            for who, source, sender in senders(me):
                if sender not in (None, (1, True)) or (sender and (kind is None or proof is None)):
                    continue
                marked = packet.copy()
                if sender and sender[1]:
                    set_dscp(marked, MARK)
                frame = Ether(bytes(link(own if sender else usual, tags, source) / marked))
                expected = outcome(world, frame, sender, kind, proof) if proof else PASS
                yield f"{what}, {name}, from {who}", frame, expected
        asks = ARP(op=1, hwsrc=CLIENT_MAC, psrc=CLIENT, pdst=VIP)
        for what, dst in (("request", BROADCAST), ("unicast request", own)):
            frame = Ether(bytes(link(dst, tags) / asks))
            yield f"{what}, {name}", frame, arp_outcome(world, frame, False) if proof else PASS
        if proof == PROOF56:
            continue
        question = IPv6(src=CLIENT6, dst="ff02::1:ff00:100", hlim=255) / ICMPv6ND_NS(tgt=VIP6)
        frame = Ether(bytes(link("33:33:ff:00:01:00", tags) / question / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT_MAC)))
        yield f"solicitation, {name}", frame, nd_outcome(world, frame, False) if proof else PASS
        to_the_node = IP(src=CLIENT, dst="10.77.0.1") / TCP(dport=TCP_PORT, flags="S")
        yield f"to the node, {name}", Ether(bytes(link(own, tags) / to_the_node)), PASS


# --- output -----------------------------------------------------------------------------------------------


def hashes():
    keys = [bytes(16), bytes(range(16)), KEY]
    clients = ["0.0.0.0", CLIENT, "192.0.2.255", "255.255.255.255", "::", "fd77::50", "2001:db8:1:2:3:4:5:6"]
    for key in keys:
        for client in clients:
            for port in (None, 0, 1, 443, 40001, 65535):
                yield [key.hex(), client, port, bucket(key, client, port)]


def buckets_by_network():
    """Clients of a service by network: which bucket."""
    clients = [CLIENT, "192.0.2.255", "::", "fd77::50", "fd77::51", "fd77:0:0:1::50", "2001:db8:1:2:3:4:5:6"]
    for client in clients:
        address = ipaddress.ip_address(client)
        hashed = client if address.version == 4 else ipaddress.ip_network((client, 64), strict=False)[0]
        yield [KEY.hex(), client, bucket(KEY, hashed, None)]


def crowded():
    """Full enough that the first seeds collide."""
    world = make_world("directed", "stable", 2)
    for i in range(50):
        vip = {"address": f"10.77.1.{i}", "vmac": f"02:fa:00:00:02:{i:02x}", "module": 0, "mode": "flood", "link": 1}
        world["vips"].append(vip)
    for i in range(150):
        world["services"].append({"vip": i % len(world["vips"]), "protocol": 17, "port": 2000 + 7 * i, "criterion": "source-port"})
    return world


def worlds():
    yield "crowded", crowded()
    for mode in MODES:
        for step in STEPS:
            for me in (1, 2, 3):
                yield f"{mode} {step} node{me}", make_world(mode, step, me)
        yield f"{mode} stable node2 expired", make_world(mode, "stable", 2, lease=False)
        yield f"{mode} activate node1 expired", make_world(mode, "activate", 1, lease=False)


CASES = (cases_of_changes, cases_of_addresses, cases_of_arp, cases_of_nd, cases_of_networks)


def case(name, frame, expected):
    action, out = expected
    frame = bytes(frame)
    # What is dropped, or not for us, must come out as it went in.
    after = bytes(out) if out is not None else frame
    return [name, frame.hex(), action, None if after == frame else after.hex()]


def main():
    out = sys.stdout
    out.write('{\n"hashes": [\n')
    out.write(",\n".join(json.dumps(row) for row in hashes()))
    out.write('\n],\n"networks": [\n')
    out.write(",\n".join(json.dumps(row) for row in buckets_by_network()))
    out.write('\n],\n"worlds": [\n')
    texts = []
    for name, world in worlds():
        rows = [case(*row) for make in CASES for row in make(world)]
        head = json.dumps({"name": name, **world, "bytes": runs(pack(world))})
        texts.append(head[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}")
    out.write(",\n".join(texts))
    out.write("\n]\n}\n")


if __name__ == "__main__":
    main()
