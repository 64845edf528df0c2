//! The writer process: requests from a reproducible sequence, and its acknowledgements through a pipe.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context, Result, bail};
use farm_store::planted::Faults;
use farm_store::{Done, LogStore, Store, WriteError};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::model::{self, Model};
use crate::common::{cause, options};
use crate::verdict::{Acknowledged, WINDOW};

const REQUEST: u8 = 0;
const SNAPSHOT: u8 = 1;
const MESSAGE: usize = 9;
/// A snapshot is started after every so many requests, if the last one is done.
const SNAPSHOT_EVERY: u64 = 40;

/// The planted bug: sled as documented, whose `flush` reaches the kernel but not the disk.
pub struct FlushOnly;

impl Faults for FlushOnly {
    fn sync(&self, _db: &File) -> std::io::Result<()> {
        Ok(())
    }
}

/// The process: opens the store, whose state is the model's after `from` requests, and goes on from there until it
/// is killed.
pub fn write(dir: &Path, seed: u64, from: u64, planted: bool) -> Result<()> {
    let (mut options, _) = options();
    options.fatal = Arc::new(|reason| panic!("the store failed: {reason}"));
    if planted {
        options.faults = Arc::new(FlushOnly);
    }
    let (store, _) = Store::open(dir, &options)?;
    let pipe = Arc::new(Mutex::new(std::io::stdout()));
    drive(store, seed, from, u64::MAX, move |kind, count| {
        let mut message = vec![kind];
        message.extend_from_slice(&count.to_le_bytes());
        let mut pipe = pipe.lock().expect("no panic under the lock");
        pipe.write_all(&message).and_then(|()| pipe.flush()).expect("the harness reads");
    });
    Ok(())
}

/// Makes requests `from..to` with a window, and a snapshot now and then; returns when all are acknowledged.
pub fn drive(
    mut store: Store,
    seed: u64,
    from: u64,
    to: u64,
    acknowledge: impl Fn(u8, u64) + Send + Sync + Clone + 'static,
) {
    let mut model = Model::after(seed, from);
    assert_eq!(model.differs(&store), None, "the writer starts from request {from}");
    let window = Window::default();
    let uploads = Window::default();
    for number in from..to {
        window.enter(WINDOW);
        let op = model::op(seed, number);
        let done = window.leave_with(REQUEST, number + 1, acknowledge.clone());
        model.request(&mut store, &op, done);
        model.apply(&op);
        if number % SNAPSHOT_EVERY == 0 && uploads.try_enter(1) {
            let done = uploads.leave_with(SNAPSHOT, number + 1, acknowledge.clone());
            store.put_snapshot(model::snapshot(seed, number + 1), done);
        }
    }
    window.drain();
    uploads.drain();
}

/// How many requests are under way.
#[derive(Clone, Default)]
struct Window(Arc<(Mutex<u64>, Condvar)>);

impl Window {
    fn try_enter(&self, limit: u64) -> bool {
        let mut inside = self.0.0.lock().expect("no panic under the lock");
        let free = *inside < limit;
        *inside += u64::from(free);
        free
    }

    fn enter(&self, limit: u64) {
        let inside = self.0.0.lock().expect("no panic under the lock");
        let full = |inside: &mut u64| *inside >= limit;
        *self.0.1.wait_while(inside, full).expect("no panic under the lock") += 1;
    }

    fn drain(&self) {
        let inside = self.0.0.lock().expect("no panic under the lock");
        drop(self.0.1.wait_while(inside, |inside| *inside > 0).expect("no panic under the lock"));
    }

    /// The callback of a request: acknowledges it first, so that the window bounds what is not acknowledged. A
    /// snapshot of a fenced handle is nobody's.
    fn leave_with(&self, kind: u8, count: u64, acknowledge: impl Fn(u8, u64) + Send + 'static) -> Done {
        let window = self.clone();
        Box::new(move |result| {
            match result {
                Ok(()) => acknowledge(kind, count),
                Err(error) if kind == SNAPSHOT && cause(&error) == Some(&WriteError::Fenced) => {}
                Err(error) => panic!("request {count} failed: {error}"),
            }
            *window.0.0.lock().expect("no panic under the lock") -= 1;
            window.0.1.notify_all();
        })
    }
}

/// Takes up one acknowledgement.
pub fn note(acknowledged: &mut Acknowledged, kind: u8, count: u64) {
    match kind {
        REQUEST => acknowledged.requests = count,
        SNAPSHOT => acknowledged.snapshot = count,
        other => panic!("message of kind {other}"),
    }
}

/// The writer process, seen from the harness.
pub struct Writer {
    child: Child,
    pipe: File,
    partial: Vec<u8>,
    /// What has arrived so far.
    pub acknowledged: Acknowledged,
}

impl Writer {
    /// Starts it on a store that holds `from`.
    pub fn start(dir: &Path, seed: u64, from: Acknowledged, planted: bool) -> Result<Self> {
        let planted = if planted { "planted" } else { "sound" };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("writer")
            .arg(dir)
            .args([&seed.to_string(), &from.requests.to_string(), planted])
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = OwnedFd::from(child.stdout.take().context("piped")?);
        Ok(Writer { child, pipe: File::from(pipe), partial: Vec::new(), acknowledged: from })
    }

    /// Waits until so many requests are acknowledged.
    pub fn until(&mut self, requests: u64) -> Result<()> {
        while self.acknowledged.requests < requests {
            if self.receive()? == 0 {
                bail!("the writer ended by itself: {}", self.child.wait()?);
            }
        }
        Ok(())
    }

    /// Stops every thread of it, and takes up what it acknowledged before.
    pub fn freeze(&mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGSTOP)?;
        match waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => self.drain(),
            other => bail!("the writer did not stop: {other:?}"),
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        Ok(kill(self.pid(), Signal::SIGCONT)?)
    }

    /// Kills it, and takes up everything that it ever acknowledged.
    pub fn kill(mut self) -> Result<Acknowledged> {
        self.child.kill()?;
        self.child.wait()?;
        while self.receive()? > 0 {}
        Ok(self.acknowledged)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are positive numbers of 31 bits"))
    }

    fn drain(&mut self) -> Result<()> {
        fcntl(&self.pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let drained = loop {
            match self.receive() {
                Ok(0) => bail!("the writer ended by itself"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        fcntl(&self.pipe, FcntlArg::F_SETFL(OFlag::empty()))?;
        drained
    }

    fn receive(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 4096];
        let read = self.pipe.read(&mut buffer)?;
        self.partial.extend_from_slice(&buffer[..read]);
        let whole = self.partial.len() / MESSAGE * MESSAGE;
        for message in self.partial.drain(..whole).collect::<Vec<_>>().chunks(MESSAGE) {
            let count = u64::from_le_bytes(message[1..].try_into().expect("nine bytes"));
            note(&mut self.acknowledged, message[0], count);
        }
        Ok(read)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Already dead and waited for after `kill`; otherwise the harness is on its way out.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
