//! Calls against a daemon that answers what the test tells it to.

mod common;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{counters, green};
use farm_proto::v1;
use farm_proto::v1::farm_server::{Farm, FarmServer};
use farmctl::args::parse;
use farmctl::error::{Error, Problem};
use farmctl::exit::Exit;
use farmctl::output::Output;
use farmctl::{cmd, told};
use nix::sys::termios::{Termios, tcgetattr};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt, iter};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

/// How the fake daemon answers everything.
#[derive(Clone)]
enum Answers {
    /// As a healthy member; streams end after two messages.
    Good,
    /// With this status.
    Refusal(Status),
    /// As a healthy member; streams never end.
    Steady,
    /// Never.
    Never,
    /// As a daemon that belongs to no cluster.
    Outside,
}

#[derive(Clone)]
struct Fake {
    answers: Answers,
    /// Requests that came, as text.
    asked: Arc<Mutex<Vec<String>>>,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    async fn answer<R: std::fmt::Debug, T>(
        &self,
        request: Request<R>,
        good: T,
    ) -> Result<Response<T>, Status> {
        self.asked.lock().unwrap().push(format!("{:?}", request.into_inner()));
        match &self.answers {
            Answers::Good | Answers::Steady => Ok(Response::new(good)),
            Answers::Refusal(status) => Err(status.clone()),
            Answers::Never => std::future::pending().await,
            Answers::Outside => {
                Err(coded(Code::FailedPrecondition, "not_a_member", "no cluster", "farmctl cluster init"))
            }
        }
    }
}

impl Fake {
    fn streamed<T: Send + 'static>(
        &self,
        some: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Streamed<T> {
        let endless = matches!(self.answers, Answers::Steady);
        if endless { Box::pin(some.chain(tokio_stream::pending())) } else { Box::pin(some) }
    }
}

fn files() -> v1::ModuleFiles {
    let file = |path: &str, content: &[u8], executable| v1::ModuleFile {
        path: path.into(),
        content: content.to_vec().into(),
        executable,
    };
    let files =
        vec![file("bin/start_both", b"#!/bin/sh\n", true), file("module.toml", b"kind = \"farm\"\n", false)];
    v1::ModuleFiles { module: "web".into(), revision: 17, files }
}

fn tie_break() -> v1::TieBreak {
    let failure = "192.0.2.1 answers 0 of 4 pings".into();
    v1::TieBreak {
        kind: v1::TieBreakKind::Exclusive.into(),
        routers: vec![v1::Router { ip: "192.0.2.1".into(), mac: vec![2, 0, 0, 0, 0, 9].into() }],
        address: "192.0.2.99".into(),
        rehearsed: Some(v1::Rehearsal {
            at_ms: 0,
            nodes: vec![1, 2],
            failure,
            profile: v1::Profile::Fast.into(),
        }),
    }
}

fn event(id: &str) -> v1::Event {
    v1::Event {
        id: id.into(),
        node: 1,
        kind: "leader".into(),
        text: "node2 leads".into(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Farm for Fake {
    type CollectStream = Streamed<v1::CollectedPart>;
    type EventsStream = Streamed<v1::Event>;
    type ModuleApplogStream = Streamed<v1::ModuleLogLines>;
    type WatchStream = Streamed<v1::StatusResponse>;

    async fn init(&self, r: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        let (profile, reasons) = (v1::Profile::Fast.into(), vec!["stalls stay below 5 ms".into()]);
        self.answer(r, v1::InitResponse { cluster: vec![1; 16].into(), node: 1, profile, reasons }).await
    }
    async fn join(
        &self,
        r: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let answer = v1::JoinClusterResponse { node: 4, cluster: vec![1; 16].into(), name: "prod".into() };
        self.answer(r, answer).await
    }
    async fn leave(&self, r: Request<v1::LeaveRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn status(&self, r: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        match self.answers {
            Answers::Outside => Ok(Response::new(v1::StatusResponse::default())),
            Answers::Good | Answers::Steady | Answers::Never | Answers::Refusal(_) => {
                self.answer(r, green()).await
            }
        }
    }
    async fn node_set(&self, r: Request<v1::NodeSetRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn service_add(&self, r: Request<v1::ServiceAddRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn service_remove(
        &self,
        r: Request<v1::ServiceRemoveRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn module_weight(&self, r: Request<v1::ModuleWeightRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn cluster_finalize(
        &self,
        r: Request<v1::ClusterFinalizeRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn cluster_rename(
        &self,
        r: Request<v1::ClusterRenameRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn module_apply(
        &self,
        r: Request<v1::ModuleApplyRequest>,
    ) -> Result<Response<v1::ModuleApplyResponse>, Status> {
        let change = v1::ModuleChange {
            text: "drain: as usual → 1m".into(),
            effect: v1::ChangeEffect::AtOnce.into(),
        };
        let wrong = v1::Finding {
            file: "module.toml".into(),
            line: Some(2),
            fact: "unknown field `kolor`".into(),
            remedy: "take it out".into(),
        };
        let said = r.get_ref().files.iter().any(|f| f.content.windows(5).any(|w| w == b"kolor"));
        let answer = match said {
            true => v1::ModuleApplyResponse { findings: vec![wrong], ..Default::default() },
            false => v1::ModuleApplyResponse { changes: vec![change], revision: 17, ..Default::default() },
        };
        self.answer(r, answer).await
    }
    async fn module_rollback(
        &self,
        r: Request<v1::ModuleRollbackRequest>,
    ) -> Result<Response<v1::ModuleApplyResponse>, Status> {
        self.answer(r, v1::ModuleApplyResponse { revision: 18, ..Default::default() }).await
    }
    async fn module_export(
        &self,
        r: Request<v1::ModuleExportRequest>,
    ) -> Result<Response<v1::ModuleFiles>, Status> {
        self.answer(r, files()).await
    }
    async fn module_template(
        &self,
        r: Request<v1::ModuleTemplateRequest>,
    ) -> Result<Response<v1::ModuleFiles>, Status> {
        self.answer(r, files()).await
    }
    async fn module_remove(&self, r: Request<v1::ModuleRemoveRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn module_control(
        &self,
        r: Request<v1::ModuleControlRequest>,
    ) -> Result<Response<v1::ModuleControlResponse>, Status> {
        let node = |node, name: &str, failed: &str| v1::ModuleControlled {
            node,
            name: name.into(),
            failed: failed.into(),
        };
        let nodes = vec![node(1, "node1", ""), node(2, "node2", "it does not answer")];
        self.answer(r, v1::ModuleControlResponse { nodes }).await
    }
    async fn module_applog(
        &self,
        r: Request<v1::ModuleApplogRequest>,
    ) -> Result<Response<Self::ModuleApplogStream>, Status> {
        let lines = |line: &str| v1::ModuleLogLines { lines: vec![line.into()], ..Default::default() };
        let two = iter([Ok(lines("start_both: hello")), Ok(lines("start_both: more"))]);
        self.answer(r, self.streamed(two)).await
    }
    async fn script(&self, r: Request<v1::ScriptRequest>) -> Result<Response<v1::ScriptResponse>, Status> {
        self.answer(r, v1::ScriptResponse { limit_reached: true, loops: 3 }).await
    }
    async fn module_set(&self, r: Request<v1::ModuleSetRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn node_restart(&self, r: Request<v1::NodeRestartRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn maintenance_on(
        &self,
        r: Request<v1::MaintenanceOnRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn maintenance_off(
        &self,
        r: Request<v1::MaintenanceOffRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn profile_set(&self, r: Request<v1::ProfileSetRequest>) -> Result<Response<v1::Done>, Status> {
        self.answer(r, v1::Done { epoch: 43, index: 0 }).await
    }
    async fn explain(&self, r: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        // A client of port 1 is the one that the two verdicts disagree about; of port 2, nothing can be asked.
        let program = match r.get_ref().client_port {
            1 => Some("not_owner"),
            2 => None,
            _ => Some("accept_owner"),
        };
        let decided = program.map(|_| "accept_owner".to_owned());
        let program = program.map(str::to_owned);
        let agree = program.as_ref().map(|_| program == decided);
        self.answer(r, v1::ExplainResponse { owner: 2, decided, program, agree, ..Default::default() }).await
    }
    async fn counters(
        &self,
        r: Request<v1::CountersRequest>,
    ) -> Result<Response<v1::CountersResponse>, Status> {
        self.answer(r, counters()).await
    }
    async fn collect(&self, r: Request<v1::CollectRequest>) -> Result<Response<Self::CollectStream>, Status> {
        let part = |path: &str, missing: &str| v1::CollectedPart {
            node: "node2".into(),
            path: path.into(),
            content: vec![7; 3].into(),
            missing: missing.into(),
        };
        let parts: Streamed<v1::CollectedPart> =
            Box::pin(iter([Ok(part("events.jsonl", "")), Ok(part("machine/dmesg.txt", "not permitted"))]));
        self.answer(r, parts).await
    }
    async fn notify_test(
        &self,
        r: Request<v1::NotifyTestRequest>,
    ) -> Result<Response<v1::NotifyTestResponse>, Status> {
        let ways = vec![v1::NotifyWay { way: "smtp".into(), failed: String::new() }];
        self.answer(r, v1::NotifyTestResponse { ways }).await
    }
    async fn drill(&self, r: Request<v1::DrillRequest>) -> Result<Response<v1::DrillResponse>, Status> {
        let answer = v1::DrillResponse { node: 2, name: "node2".into(), begins_in_ms: 0, for_ms: 10_000 };
        self.answer(r, answer).await
    }
    async fn why(&self, r: Request<v1::WhyRequest>) -> Result<Response<v1::WhyResponse>, Status> {
        let lines = vec!["Cause: node3 does not renew its lease".into(), "Next: farmctl status".into()];
        let silent = vec!["node3".into()];
        let answer =
            v1::WhyResponse { lines, next: "farmctl status".into(), events: vec![event("a")], silent };
        self.answer(r, answer).await
    }

    async fn tie_break_set(
        &self,
        r: Request<v1::TieBreakRequest>,
    ) -> Result<Response<v1::TieBreakResponse>, Status> {
        self.answer(r, v1::TieBreakResponse { tie_break: Some(tie_break()) }).await
    }

    async fn tie_break_rehearse(
        &self,
        r: Request<v1::TieBreakRehearseRequest>,
    ) -> Result<Response<v1::TieBreakResponse>, Status> {
        self.answer(r, v1::TieBreakResponse { tie_break: Some(tie_break()) }).await
    }

    async fn cluster_check(
        &self,
        r: Request<v1::ClusterCheckRequest>,
    ) -> Result<Response<v1::ClusterCheckResponse>, Status> {
        let loss = |node: &str, room: &str, reason: &str, cure: &str| v1::Loss {
            node: node.into(),
            room: room.into(),
            reasons: Some(reason.to_owned()).filter(|r| !r.is_empty()).into_iter().collect(),
            cure: cure.into(),
            gone: false,
        };
        let dark = loss("", "east", "without room east 1 of 3 voters is left", "farmctl doctor");
        let losses = vec![loss("node1", "", "", ""), dark];
        self.answer(r, v1::ClusterCheckResponse { losses, notes: vec!["ask again".into()] }).await
    }

    async fn doctor(&self, r: Request<v1::DoctorRequest>) -> Result<Response<v1::DoctorResponse>, Status> {
        let finding = |level: v1::DoctorLevel, node: &str, remedy: &str| v1::DoctorFinding {
            check: "disk".into(),
            level: level.into(),
            node: node.into(),
            resource: "/var/lib/farm".into(),
            fact: "it is there".into(),
            remedy: remedy.into(),
        };
        // Of node2 alone something is wrong.
        let (fault, ok) = (v1::DoctorLevel::Fault, v1::DoctorLevel::Ok);
        let wrong = (r.get_ref().node == "node2").then(|| finding(fault, "node2", "df"));
        let findings = wrong.into_iter().chain([finding(ok, "node1", "")]).collect();
        self.answer(r, v1::DoctorResponse { findings }).await
    }

    async fn events(&self, r: Request<v1::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let two = iter([Ok(event("a")), Ok(event("b"))]);
        self.answer(r, self.streamed(two)).await
    }
    async fn watch(&self, r: Request<v1::StatusRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let later = v1::StatusResponse { epoch: 43, leader: 1, ..green() };
        let two = iter([Ok(green()), Ok(later)]);
        self.answer(r, self.streamed(two)).await
    }
}

/// A fake daemon behind a socket in a scratch directory; ends with the runtime of its test.
struct Daemon {
    directory: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn start(answers: Answers) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let asked = Arc::default();
        serve(&directory.path().join("farmd.sock"), Fake { answers, asked: Arc::clone(&asked) });
        Self { directory, asked }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("farmd.sock")
    }

    /// Runs `farmctl <line>` against it.
    async fn run(&self, line: &str) -> (Result<Exit, Error>, String) {
        run(&format!("--socket {} {line}", self.socket().display())).await
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().join("\n")
    }
}

/// Serves on the runtime of the caller.
fn serve(socket: &Path, fake: Fake) {
    let listener = UnixListener::bind(socket).unwrap();
    let serving = Server::builder().add_service(FarmServer::new(fake));
    tokio::spawn(serving.serve_with_incoming(UnixListenerStream::new(listener)));
}

/// A fake daemon that can go away: its connections end with its runtime.
struct Mortal(Runtime);

impl Mortal {
    fn start(socket: &Path, answers: Answers) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        serve(socket, Fake { answers, asked: Arc::default() });
        drop(inside);
        Self(runtime)
    }

    fn die(self, socket: &Path) {
        self.0.shutdown_background();
        std::fs::remove_file(socket).unwrap();
    }
}

/// An output whose text can be awaited.
struct Heard(UnboundedSender<String>);

impl std::io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Nobody listens any more at the end of a test.
        let _ = self.0.send(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a command said so far.
struct Said {
    pieces: UnboundedReceiver<String>,
    text: String,
}

impl Said {
    /// Waits until it said `part` after all that was awaited before; what it said up to there.
    async fn until(&mut self, part: &str) -> String {
        while !self.text.contains(part) {
            self.text +=
                &self.pieces.recv().await.unwrap_or_else(|| panic!("{part} is not in {}", self.text));
        }
        let end = self.text.find(part).unwrap() + part.len();
        self.text.drain(..end).collect()
    }
}

/// Runs `farmctl <line>` while `script` listens; how it ended, if it did before `script`.
async fn listen(line: &str, script: impl AsyncFnOnce(&mut Said)) -> Option<Result<Exit, Error>> {
    /// Many times what any of the scripts takes.
    const LIMIT: Duration = Duration::from_secs(30);
    let cli = parse(["farmctl"].into_iter().chain(line.split_whitespace()).map(OsString::from)).unwrap();
    let (send, pieces) = unbounded_channel();
    let mut heard = Heard(send);
    let mut out = Output::plain(&mut heard, false);
    let mut said = Said { pieces, text: String::new() };
    let both = async {
        tokio::select! {
            ended = cmd::run(cli, &mut out) => Some(ended),
            () = script(&mut said) => None,
        }
    };
    tokio::time::timeout(LIMIT, both).await.expect("watch says what is awaited")
}

async fn run(line: &str) -> (Result<Exit, Error>, String) {
    let args = ["farmctl"].into_iter().chain(line.split_whitespace()).map(OsString::from);
    let cli = parse(args).unwrap();
    let json = cli.global.json;
    let mut text = Vec::new();
    let result = cmd::run(cli, &mut Output::plain(&mut text, json)).await;
    (result, String::from_utf8(text).unwrap())
}

fn problem(result: Result<Exit, Error>) -> Problem {
    match result {
        Err(Error::Problem(problem)) => problem,
        other => panic!("not a problem: {other:?}"),
    }
}

fn coded(grpc: Code, code: &str, fact: &str, cure: &str) -> Status {
    let mut status = Status::new(grpc, fact);
    status.metadata_mut().insert("farm-code", code.parse().unwrap());
    status.metadata_mut().insert("farm-cure", cure.parse().unwrap());
    status
}

#[tokio::test]
async fn every_change_says_what_it_did_and_asks_what_it_was_told() {
    let daemon = Daemon::start(Answers::Good);
    let table = [
        (
            "cluster init --name prod --profile fast",
            "cluster prod is founded",
            "name: \"prod\", profile: Fast",
        ),
        ("cluster init", "because stalls stay below 5 ms", "name: \"farm\", profile: Unspecified"),
        ("cluster profile virtual", "timing profile is virtual (epoch 43)", "profile: Virtual"),
        ("node join 192.0.2.1", "node 4 of cluster prod", "peer: \"192.0.2.1:7601\""),
        ("node join 2001:db8::1", "node 4", "peer: \"[2001:db8::1]:7601\""),
        ("node join localhost:7700", "node 4", ":7700"),
        ("node leave", "this node leaves", "node: \"\" }"),
        ("node leave node3", "node3 leaves", "node: \"node3\" }"),
        (
            "node set node1 --address lan=192.0.2.9",
            "node1 is set",
            "network: \"lan\", ip: \"192.0.2.9\" }], room: None",
        ),
        ("node set node1 --room east", "node1 is set", "addresses: [], room: Some(\"east\")"),
        ("node set node1 --no-room", "node1 is set", "room: Some(\"\")"),
        (
            "service add --module web --vip 192.0.2.100 --port 80",
            "web serves 192.0.2.100:80/tcp (epoch 43)",
            "protocol: Tcp, port: 80, criterion: SourceAddress, vlan: \"\" }), mode: Directed",
        ),
        (
            "service add --module dns --vip 192.0.2.100 --port 53 --protocol udp --criterion source-port --mode flood",
            "dns serves 192.0.2.100:53/udp",
            "protocol: Udp, port: 53, criterion: SourcePort, vlan: \"\" }), mode: Flood",
        ),
        (
            "service add --module web --vip 192.0.2.100 --vlan 030 --port 80",
            "web serves 192.0.2.100:80/tcp vlan 30 (epoch 43)",
            "criterion: SourceAddress, vlan: \"30\" })",
        ),
        (
            "service remove --module web --vip 192.0.2.100 --port 80",
            "web no longer serves 192.0.2.100:80/tcp",
            "vip: \"192.0.2.100\", protocol: Tcp, port: 80",
        ),
        ("module weight web node1 0", "node1 has weight 0 for web", "node: \"node1\", weight: 0"),
        ("why shop", "without what node3 would say", "about: \"shop\", at_ms: 0"),
        ("why 5m", "Cause: node3 does not renew", "about: \"\", at_ms: 1"),
        ("notify test", "smtp: taken", "NotifyTestRequest"),
        ("drill node2", "the daemon of node2 stands still for 10 s", "node: \"node2\", leader: false"),
        (
            "drill leader --for 3s",
            "Nothing was done",
            "leader: true, module: \"\", for_ms: 3000, dry_run: true",
        ),
        ("drill app shop --node node2", "application of shop on node2 is killed", "module: \"shop\""),
        ("doctor", "0 faults, 0 warnings; 1 check is ok", "node: \"\""),
        ("events --all", "node", "all: true"),
        ("events --node node2", "node", "node: \"node2\", all: false"),
    ];
    for (line, said, asked) in table {
        daemon.asked.lock().unwrap().clear();
        let (result, text) = daemon.run(line).await;
        assert_eq!(result.unwrap(), Exit::Done, "{line}");
        assert!(text.contains(said), "{line}: {text}");
        assert!(daemon.asked().contains(asked), "{line}: {}", daemon.asked());
    }
}

#[tokio::test]
async fn a_module_is_written_applied_and_taken_back() {
    let daemon = Daemon::start(Answers::Good);
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("web");
    let at = at.display();
    let (result, text) = daemon.run(&format!("module export web {at}")).await;
    assert!(result.is_ok() && text.contains("revision 17 of web is in"), "{text}");
    let again = problem(daemon.run(&format!("module export web {at}")).await.0);
    assert_eq!((again.code.as_str(), again.exit), ("exists", Exit::Local));
    let (result, text) = daemon.run(&format!("module apply {at}")).await;
    assert_eq!(
        (result.unwrap(), text.as_str()),
        (Exit::Done, "  drain: as usual → 1m\nweb is what revision 17 says\n")
    );
    let asked = daemon.asked();
    for part in ["module: \"web\"", "path: \"bin/start_both\"", "executable: true", "path: \"module.toml\""] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
    std::fs::write(scratch.path().join("web/module.toml"), "kolor = 1").unwrap();
    let (result, text) = daemon.run(&format!("module apply {at} --name shop --dry-run")).await;
    let expected = "module.toml:2: unknown field `kolor`; take it out\nshop stays as it is\n";
    assert_eq!((result.unwrap(), text.as_str()), (Exit::Refused, expected));
    let (_, json) = daemon.run(&format!("module apply {at} --json")).await;
    assert!(json.contains("\"file\":\"module.toml\",\"line\":2"), "{json}");
    let empty = scratch.path().display().to_string();
    assert_eq!(problem(daemon.run(&format!("module apply {empty}")).await.0).code, "no_module");
    let (_, text) = daemon.run("module rollback web --revision 12").await;
    assert_eq!(text, "web is like that already\n");
    assert!(daemon.asked().contains("revision: 12"));
}

#[tokio::test]
async fn who_cannot_be_asked_is_named_and_the_others_are_not_held_up() {
    let daemon = Daemon::start(Answers::Good);
    let (result, text) = daemon.run("module stop web --node node2").await;
    let expected = "node1: stop of web\nnode2: no stop of web: it does not answer\n";
    assert_eq!((result.unwrap(), text.as_str()), (Exit::Refused, expected));
    assert!(daemon.asked().contains("node: \"node2\", action: Stop"));
    let (_, text) = daemon.run("module applog web --node node2 --last 5").await;
    assert_eq!(text, "start_both: hello\nstart_both: more\n");
    assert!(daemon.asked().contains("node: \"node2\", last: 5, follow: false"));
    let (result, text) = daemon.run("module applog web --follow").await;
    assert_eq!((problem(result).code.as_str(), text.lines().count()), ("stream_ended", 2));
    let (_, text) = daemon.run("module log web --last 2").await;
    assert_eq!(text.lines().next(), Some("1970-01-01T00:00:00.000Z node1 node2 leads"));
    assert!(daemon.asked().contains("follow: false, last: 2, node: \"\", all: false, module: \"web\""));
    assert_eq!(problem(daemon.run("module show nothing").await.0).code, "unknown_module");
    assert_eq!(problem(daemon.run("script log hello").await.0).code, "bad_token");
}

#[tokio::test]
async fn a_fault_is_told_with_its_remedy_and_in_the_exit_code() {
    let daemon = Daemon::start(Answers::Good);
    let (result, text) = daemon.run("doctor --node node2").await;
    let expected =
        "fault   node2 disk /var/lib/farm: it is there\n        df\n1 fault, 0 warnings; 1 check is ok\n";
    assert_eq!((result.unwrap(), text.as_str()), (Exit::Failed, expected));
    let (result, text) = daemon.run("doctor --node node2 --json").await;
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((result.unwrap(), &object["schema"]), (Exit::Failed, &1.into()));
    let [worst, ok] = &object["findings"].as_array().unwrap()[..] else { panic!("two: {text}") };
    assert_eq!((&worst["level"], &ok["level"]), (&"fault".into(), &"ok".into()));
}

#[tokio::test]
async fn state_comes_as_text_and_as_json() {
    let daemon = Daemon::start(Answers::Good);
    for (line, key) in [
        ("cluster status", "nodes"),
        ("node list", "nodes"),
        ("node counters", "counters"),
        ("service list", "services"),
    ] {
        let (result, text) = daemon.run(line).await;
        assert_eq!(result.unwrap(), Exit::Done);
        assert!(serde_json::from_str::<Value>(&text).is_err() && !text.is_empty());
        let (result, text) = daemon.run(&format!("{line} --json")).await;
        assert_eq!(result.unwrap(), Exit::Done);
        let object: Value = serde_json::from_str(&text).unwrap();
        assert!(object[key].is_array() && object["schema"] == 1, "{line}: {text}");
    }
    let (_, text) = daemon.run("module weight web node1 5 --json").await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["epoch"], 43);
}

#[tokio::test]
async fn explain_asks_for_exactly_the_flow_and_tells_disagreement_to_the_shell() {
    let daemon = Daemon::start(Answers::Good);
    let (result, text) = daemon.run("explain 192.0.2.7:4711 192.0.2.100:53/udp").await;
    assert_eq!(result.unwrap(), Exit::Done);
    assert!(text.contains("owner    node2"), "{text}");
    let asked = daemon.asked();
    assert!(
        asked.contains(
            "client: \"192.0.2.7\", client_port: 4711, vip: \"192.0.2.100\", protocol: Udp, port: 53"
        ),
        "{asked}"
    );
    let (result, _) = daemon.run("explain 192.0.2.7:1 192.0.2.100:53/udp --json").await;
    assert_eq!(result.unwrap(), Exit::Disagree);
    let (result, text) = daemon.run("explain 192.0.2.7:2 192.0.2.100:53/udp").await;
    assert_eq!(result.unwrap(), Exit::Done);
    assert!(text.contains("was not asked") && !text.contains("agree"), "{text}");
}

#[tokio::test]
async fn refusals_keep_code_fact_and_cure() {
    let cases = [
        (Code::FailedPrecondition, "vip_in_use", Exit::Refused),
        (Code::InvalidArgument, "unknown_node", Exit::Refused),
        (Code::Unavailable, "no_leader", Exit::Unknown),
        (Code::Unknown, "outcome_unknown", Exit::Unknown),
        (Code::FailedPrecondition, "not_a_member", Exit::NotMember),
    ];
    for (grpc, code, exit) in cases {
        let daemon =
            Daemon::start(Answers::Refusal(coded(grpc, code, "192.0.2.1 is häßlich", "farmctl node list")));
        let (result, text) = daemon.run("module weight web node1 5").await;
        let problem = problem(result);
        assert_eq!(problem, Problem::new(exit, code, "192.0.2.1 is häßlich", "farmctl node list"));
        assert_eq!(text, "");
        assert_eq!(
            told(&problem, false),
            format!("error[{code}]: 192.0.2.1 is häßlich\n  try: farmctl node list\n")
        );
        let object: Value = serde_json::from_str(&told(&problem, true)).unwrap();
        let error =
            serde_json::json!({ "code": code, "fact": "192.0.2.1 is häßlich", "cure": "farmctl node list" });
        assert_eq!(object["error"], error);
    }
}

#[tokio::test]
async fn a_status_without_a_code_still_has_one() {
    for (status, code, exit) in [
        (Status::unimplemented("no such call"), "unknown_call", Exit::Refused),
        (Status::permission_denied("no"), "refused", Exit::Refused),
        (Status::internal("broken"), "connection_lost", Exit::Unknown),
    ] {
        let daemon = Daemon::start(Answers::Refusal(status));
        let problem = problem(daemon.run("cluster status").await.0);
        assert_eq!((problem.code.as_str(), problem.exit), (code, exit));
        farmctl::args::parse_cure(&problem.cure).unwrap();
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farmd.sock");
    let problem = problem(run(&format!("--socket {} cluster status", path.display())).await.0);
    assert_eq!((problem.code.as_str(), problem.exit), ("unreachable", Exit::Unreachable));
    assert!(problem.fact.contains(path.to_str().unwrap()), "{}", problem.fact);
    assert!(problem.fact.contains("No such file"), "{}", problem.fact);
}

#[tokio::test]
async fn what_one_node_does_not_do_is_refused_and_the_others_did_it() {
    let daemon = Daemon::start(Answers::Good);
    for (line, said, asked) in [
        ("module stop web --no-drain", "node1: stop of web\n", "action: Stop, no_drain: true"),
        (
            "checker off web tcp.a --until 1h",
            "node2: no checker off of tcp.a of web: it does not answer",
            "resource: \"tcp.a\", until_ms: 1",
        ),
        ("checker on web tcp.a --node node2", "checker on of tcp.a", "node: \"node2\", action: CheckOn"),
    ] {
        daemon.asked.lock().unwrap().clear();
        let (result, text) = daemon.run(line).await;
        assert_eq!(result.unwrap(), Exit::Refused, "{line}");
        assert!(text.contains(said), "{line}: {text}");
        assert!(daemon.asked().contains(asked), "{line}: {}", daemon.asked());
    }
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farmd.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let problem = problem(run(&format!("--socket {} node list", path.display())).await.0);
    assert_eq!(problem.exit, Exit::Unreachable);
    assert!(problem.fact.contains("refused"), "{}", problem.fact);
}

#[tokio::test]
async fn a_port_that_nobody_serves_is_unreachable() {
    // Bound but not listening: connections are refused, and nobody else can take the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let problem = problem(run(&format!("--server {address} cluster status")).await.0);
    assert_eq!(problem.exit, Exit::Unreachable);
    assert!(problem.fact.contains(&address.to_string()), "{}", problem.fact);
}

#[tokio::test]
async fn no_answer_in_time_is_an_unknown_outcome() {
    let daemon = Daemon::start(Answers::Never);
    for line in ["module weight web node1 5", "cluster status", "watch", "events", "events --follow"] {
        let problem = problem(daemon.run(&format!("--timeout 500ms {line}")).await.0);
        assert_eq!((problem.code.as_str(), problem.exit), ("timeout", Exit::Unknown), "{line}");
        assert!(problem.fact.contains("500ms"), "{}", problem.fact);
    }
}

#[tokio::test]
async fn a_bounded_stream_ends_well_and_an_endless_one_does_not() {
    let daemon = Daemon::start(Answers::Good);
    let (result, text) = daemon.run("events --json --last 2").await;
    assert_eq!(result.unwrap(), Exit::Done);
    let ids: Vec<Value> =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(daemon.asked().contains("follow: false, last: 2"));

    let (result, text) = daemon.run("events --follow").await;
    let problem = problem(result);
    assert_eq!((problem.code.as_str(), problem.exit), ("stream_ended", Exit::Unreachable));
    assert!(text.contains("node"), "{text}");
}

#[tokio::test]
async fn watch_says_that_the_daemon_went_away_and_goes_on_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("farmd.sock");
    let daemon = Mortal::start(&socket, Answers::Steady);
    let line = format!("--socket {} watch", socket.display());
    let ended = listen(&line, async |said| {
        said.until("epoch 43  leader: node1 (was node2)\n").await;
        daemon.die(&socket);
        let lost = said.until("; asking again\n").await;
        assert!(lost.contains("\nthe daemon went away during the stream"), "{lost}");
        let daemon = Mortal::start(&socket, Answers::Steady);
        let back = said.until("epoch 42  leader: node2 (was node1)\n").await;
        assert_eq!(back.lines().next(), Some("the daemon answers again"), "{back}");
        daemon.die(&socket);
    });
    assert!(ended.await.is_none(), "watch ended by itself");
}

#[tokio::test]
async fn watch_asks_no_longer_than_it_was_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("farmd.sock");
    let daemon = Mortal::start(&socket, Answers::Steady);
    let line = format!("--socket {} --timeout 1s watch", socket.display());
    let ended = listen(&line, async |said| {
        said.until("epoch 43").await;
        daemon.die(&socket);
        std::future::pending().await
    });
    let problem = problem(ended.await.expect("it gave up"));
    assert_eq!((problem.code.as_str(), problem.exit), ("unreachable", Exit::Unreachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_in_json_stays_json_while_the_daemon_is_away() {
    let daemon = Daemon::start(Answers::Good);
    let mut command = Command::new(env!("CARGO_BIN_EXE_farmctl"));
    command.args(["--json", "watch"]).env("FARM_SOCKET", daemon.socket());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(3);
    // The third comes over a second connection.
    let epochs: Vec<Value> =
        lines.map(|l| serde_json::from_str::<Value>(&l.unwrap()).unwrap()["epoch"].clone()).collect();
    assert_eq!(epochs, [42, 43, 42]);
    child.kill().unwrap();
    let told = child.wait_with_output().unwrap().stderr;
    let first = told.split(|b| *b == b'\n').next().unwrap();
    let object: Value = serde_json::from_slice(first).unwrap();
    assert_eq!(object["error"]["code"], "stream_ended");
}

/// `farmctl watch` on a terminal of 80 times 24.
struct OnTerminal {
    child: std::process::Child,
    terminal: std::fs::File,
    /// What it has drawn; ends with the program, as its last holder of the other side.
    drawn: std::sync::mpsc::Receiver<u8>,
}

impl OnTerminal {
    fn watch(socket: &Path) -> (Self, Termios) {
        let size = nix::libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).unwrap();
        let usual = tcgetattr(&pty.master).unwrap();
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_farmctl"));
        command.arg("watch").env("FARM_SOCKET", socket).env("TERM", "xterm").stdin(slave()).stdout(slave());
        let child = command.spawn().unwrap();
        let terminal = std::fs::File::from(pty.master);
        let (tell, drawn) = std::sync::mpsc::channel();
        let reading = terminal.try_clone().unwrap();
        // At its end nobody holds the other side: that is an error, and the end.
        std::thread::spawn(move || {
            BufReader::new(reading).bytes().map_while(Result::ok).try_for_each(|byte| tell.send(byte))
        });
        (Self { child, terminal, drawn }, usual)
    }

    /// Waits until it draws `part`, a word, after all that was awaited before: it jumps over blanks.
    fn until(&self, part: &str) {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        while !seen.ends_with(part.as_bytes()) {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let next = self.drawn.recv_timeout(left);
            seen.push(next.unwrap_or_else(|e| panic!("{part}: {e}: {:?}", String::from_utf8_lossy(&seen))));
        }
    }

    /// How it ends, when the terminal is as it was before.
    fn end(mut self, usual: &Termios) -> Option<i32> {
        self.until("\x1b[?1049l");
        let code = self.child.wait().unwrap().code();
        assert_eq!(tcgetattr(&self.terminal).unwrap(), *usual);
        code
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended, but for a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_fills_a_terminal_and_gives_it_back() {
    let daemon = Daemon::start(Answers::Steady);
    for (key, code) in [("q", 0), ("\x1b", 0), ("\x03", 0)] {
        let (mut watch, usual) = OnTerminal::watch(&daemon.socket());
        watch.until("\x1b[?1049h");
        watch.until("GREEN");
        watch.until("leads");
        assert_ne!(tcgetattr(&watch.terminal).unwrap(), usual, "keys are read one by one");
        watch.terminal.write_all(key.as_bytes()).unwrap();
        assert_eq!(watch.end(&usual), Some(code), "{key:?}");
    }
    let (watch, usual) = OnTerminal::watch(&daemon.socket());
    watch.until("GREEN");
    let id = nix::unistd::Pid::from_raw(watch.child.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(watch.end(&usual), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_says_since_when_it_knows_nothing_and_comes_back_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("farmd.sock");
    let daemon = Mortal::start(&socket, Answers::Steady);
    let (mut watch, usual) = OnTerminal::watch(&socket);
    watch.until("leads");
    daemon.die(&socket);
    watch.until("No news since ");
    watch.until("asking again");
    let daemon =
        Mortal::start(&socket, Answers::Refusal(coded(Code::Unavailable, "not_yet", "it starts", "farmd")));
    daemon.die(&socket);
    let daemon = Mortal::start(&socket, Answers::Steady);
    // Where there were no news the nodes stand again.
    watch.until("NODE");
    watch.terminal.write_all(b"q").unwrap();
    assert_eq!(watch.end(&usual), Some(0));
    daemon.die(&socket);
}

#[tokio::test]
async fn a_daemon_without_a_cluster_is_code_5_and_its_state_is_printed_all_the_same() {
    let daemon = Daemon::start(Answers::Outside);
    for line in ["cluster status", "node list", "service list"] {
        let (result, text) = daemon.run(line).await;
        assert_eq!(result.unwrap(), Exit::NotMember, "{line}");
        assert!(text.contains("farmctl"), "{line}: {text}");
    }
    let (result, text) = daemon.run("cluster status --json").await;
    assert_eq!(result.unwrap(), Exit::NotMember);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["member"], false);
    for line in ["watch", "events", "node counters", "module weight web node1 5"] {
        assert_eq!(problem(daemon.run(line).await.0).exit, Exit::NotMember, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_ends_with_the_code_and_survives_a_closed_pipe() {
    let daemon = Daemon::start(Answers::Good);
    let farmctl = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farmctl"));
        command.env("FARM_SOCKET", daemon.socket());
        command
    };
    let status = farmctl().args(["cluster", "status"]).output().unwrap();
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    assert!(status.stdout.ends_with(b"All green.\n"));

    let gone = farmctl().args(["--socket", "/nonexistent/farmd.sock", "--json", "watch"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(3));
    assert_eq!(serde_json::from_slice::<Value>(&gone.stderr).unwrap()["error"]["code"], "unreachable");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed =
        farmctl().args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((closed.status.code(), closed.stderr.as_slice()), (Some(0), b"".as_slice()));

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = farmctl().args(["version"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(full.status.code(), Some(6));
    assert!(full.stderr.starts_with(b"error[output_failed]"));
}

#[test]
fn lab_and_demo_become_farm_lab_word_for_word() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("farm-lab");
    std::fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 42\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farmctl"));
        command.env("FARM_BIN_DIR", directory.path()).args(args).output().unwrap()
    };
    for (args, passed) in [
        (vec!["lab", "up", "--nodes", "3", "--json"], "up\n--nodes\n3\n--json\n"),
        (
            vec!["lab", "exec", "node1", "--", "farmctl", "--json", "watch"],
            "exec\nnode1\n--\nfarmctl\n--json\nwatch\n",
        ),
        (vec!["lab", "--help"], "--help\n"),
        (vec!["demo", "--json", "--runs", "2"], "demo\n--json\n--runs\n2\n"),
        (vec!["--timeout", "1s", "demo", "--runs", "2"], "demo\n--runs\n2\n"),
    ] {
        let output = run(&args);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), passed, "{args:?}");
        assert_eq!(output.status.code(), Some(42));
    }
    let misplaced = run(&["--json", "demo"]);
    assert_eq!((misplaced.status.code(), misplaced.stdout.as_slice()), (Some(2), b"".as_slice()));
}

#[test]
fn a_missing_farm_lab_is_said_with_its_remedy() {
    let directory = tempfile::tempdir().unwrap();
    // Alone in a directory, so that nothing that was built beside it is found.
    let program = directory.path().join("farmctl");
    std::fs::copy(env!("CARGO_BIN_EXE_farmctl"), &program).unwrap();
    let mut command = Command::new(&program);
    let output = command
        .args(["lab", "up"])
        .env("PATH", directory.path())
        .env_remove("FARM_BIN_DIR")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error[program_not_installed]: farm-lab is not installed"), "{text}");
    assert!(text.ends_with("  try: cargo build -p farm-lab\n"), "{text}");
}
