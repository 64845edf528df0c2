//! nft apart from the follower: it is another process, other rulesets may hold it up, and who serves whom must not wait
//! for it. One job at a time; the guard's own time-out ends what hangs.

use std::io;

use farm_dataplane::guard::{Guard, GuardError, GuardState};
use tokio::task::{JoinHandle, spawn_blocking};

/// What came of a job.
#[derive(Debug)]
pub enum Done {
    /// What the kernel has, compared with this guard.
    Looked(Guard, Result<GuardState, GuardError>),
    /// Whether this guard is in force again.
    PutBack(Guard, Result<(), GuardError>),
    /// The job itself ended badly.
    Failed(GuardError),
}

#[derive(Debug)]
enum Job {
    Look(Guard),
    PutBack(Guard),
}

impl Job {
    fn run(self) -> Done {
        match self {
            Self::Look(guard) => {
                let state = guard.present();
                Done::Looked(guard, state)
            }
            Self::PutBack(guard) => {
                let put = guard.reinstall();
                Done::PutBack(guard, put)
            }
        }
    }
}

/// The job that is under way, and the one after it.
#[derive(Debug, Default)]
pub struct Guarding {
    job: Option<JoinHandle<Done>>,
    next: Option<Job>,
}

impl Guarding {
    /// Asks about `guard`. What happens while something is under way is looked at after it.
    pub fn look(&mut self, guard: Option<Guard>) {
        if let Some(guard) = guard.filter(|_| self.next.is_none()) {
            self.begin(Job::Look(guard));
        }
    }

    /// Puts `guard` back, which matters more than to ask.
    pub fn put_back(&mut self, guard: Guard) {
        self.begin(Job::PutBack(guard));
    }

    fn begin(&mut self, job: Job) {
        if self.job.is_none() {
            self.job = Some(spawn_blocking(|| job.run()));
        } else {
            self.next = Some(job);
        }
    }

    /// What came of the job, once it has ended; never where there is none. Nothing is lost with a cancelled await.
    pub async fn done(&mut self) -> Done {
        let Some(job) = &mut self.job else { return std::future::pending().await };
        let ended = job.await;
        self.job = None;
        if let Some(next) = self.next.take() {
            self.begin(next);
        }
        ended.unwrap_or_else(|error| Done::Failed(GuardError::Run(io::Error::other(error))))
    }
}
