//! What happens to a module when something that is watched goes wrong.

use farm_core::life::Request;

/// What happens on this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Action {
    /// The application is stopped and started.
    Restart,
    /// The module is stopped and started.
    #[default]
    StopStart,
    /// The module is stopped.
    Stop,
    /// The application is stopped, and started again when it is well again.
    Wait,
    /// It is only told.
    NoAction,
}

impl Action {
    /// Those that make sense for what belongs to the application itself.
    pub(crate) const OF_APPLICATION: [(&'static str, Self); 4] = [
        ("restart", Self::Restart),
        ("stopstart", Self::StopStart),
        ("stop", Self::Stop),
        ("noaction", Self::NoAction),
    ];
    /// All of them.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("restart", Self::Restart),
        ("stopstart", Self::StopStart),
        ("stop", Self::Stop),
        ("wait", Self::Wait),
        ("noaction", Self::NoAction),
    ];

    /// As it is written in `module.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::StopStart => "stopstart",
            Self::Stop => "stop",
            Self::Wait => "wait",
            Self::NoAction => "noaction",
        }
    }

    /// What is asked of the module's life; `None`: nothing.
    #[must_use]
    pub const fn request(self) -> Option<Request> {
        match self {
            Self::Restart => Some(Request::Restart),
            Self::StopStart => Some(Request::StopStart),
            Self::Stop => Some(Request::Stop),
            Self::Wait => Some(Request::Wait),
            Self::NoAction => None,
        }
    }
}
