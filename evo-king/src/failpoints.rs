//! Numbered places where king can be killed, for the tests of what it survives. Without the feature
//! `failpoints`, as in every release, nothing of this is in the program.
//!
//! Every commit, every delivery of an effect and every answer passes two of them. The process counts
//! the places that it passes; `EVO_FAIL_POINTS` names what to do about them (see [`config`]).
//!
//! [`config`]: crate::config

#[cfg(not(feature = "failpoints"))]
pub(crate) use off::{arm, passed};
#[cfg(feature = "failpoints")]
pub(crate) use on::{arm, passed};

#[cfg(not(feature = "failpoints"))]
mod off {
    /// Nothing to arm.
    #[expect(clippy::unnecessary_wraps, reason = "it is what the feature has")]
    pub(crate) fn arm() -> std::io::Result<()> {
        Ok(())
    }

    /// Nothing to pass.
    pub(crate) fn passed(_: &'static str) {}
}

#[cfg(feature = "failpoints")]
mod on {
    use std::{
        fs::File,
        io::{self, Write as _},
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use crate::config;

    static COUNT: AtomicU64 = AtomicU64::new(0);
    static ARMED: OnceLock<Armed> = OnceLock::new();

    struct Armed {
        /// Every place is written here, one a line: its number and its name.
        log: File,
        /// The process is killed at this one.
        kill_at: Option<Place>,
    }

    /// One of the places.
    enum Place {
        /// By its number among all.
        Number(u64),
        /// By its name, and how often it is still passed before.
        Named(String, AtomicU64),
    }

    impl Place {
        /// Reads `NUMBER`, or `NAME@NUMBER` for the so-manieth place of a name.
        fn parse(text: &str) -> io::Result<Self> {
            let number = |text: &str| {
                text.parse::<u64>().map_err(|_| {
                    io::Error::other(format!("EVO_FAIL_POINTS: {text:?} is no number"))
                })
            };
            match text.rsplit_once('@') {
                Some((name, nth)) => Ok(Self::Named(name.to_owned(), number(nth)?.into())),
                None => Ok(Self::Number(number(text)?)),
            }
        }

        fn is(&self, number: u64, name: &str) -> bool {
            match self {
                Self::Number(wanted) => *wanted == number,
                Self::Named(wanted, left) => {
                    wanted == name && left.fetch_sub(1, Ordering::Relaxed) == 1
                }
            }
        }
    }

    /// Does from now on what the environment says.
    pub(crate) fn arm() -> io::Result<()> {
        let Some(text) = config::fail_points() else { return Ok(()) };
        let (kill_at, path) = match text.split_once(':') {
            Some((place, path)) if !place.contains('/') => (Some(Place::parse(place)?), path),
            _ => (None, text.as_str()),
        };
        let log = File::options().append(true).create(true).open(path)?;
        ARMED.set(Armed { log, kill_at }).map_err(|_| io::Error::other("armed before"))
    }

    /// The process is at this place.
    pub(crate) fn passed(name: &'static str) {
        let Some(armed) = ARMED.get() else { return };
        let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let line = format!("{number} {name}\n");
        (&armed.log).write_all(line.as_bytes()).expect("the log of the places can be written");
        if armed.kill_at.as_ref().is_some_and(|place| place.is(number, name)) {
            kill(Pid::this(), Signal::SIGKILL).expect("a process may kill itself");
            // Nothing happens on this thread any more.
            loop {
                std::thread::park();
            }
        }
    }
}
