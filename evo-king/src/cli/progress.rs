//! How a command that takes long shows what it does: on stderr, as a line that redraws itself on a
//! terminal and as plain lines elsewhere.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use crate::check::{Progress, Step, silent};

/// Packages between two plain lines.
const PLAIN_EVERY: usize = 1_000;

/// A line for the person who gave the command.
#[expect(clippy::print_stderr, reason = "progress of a command")]
pub(super) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// How the progress of a check is shown.
pub(super) enum Shown {
    /// To a program, which waits for the result only.
    Silent,
    Lines,
    Bar(ProgressBar),
}

impl Shown {
    pub(super) fn new(silent: bool, terminal: bool) -> Self {
        match (silent, terminal) {
            (true, _) => Self::Silent,
            (false, false) => Self::Lines,
            (false, true) => {
                let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}")
                    .expect("the template is right");
                Self::Bar(ProgressBar::no_length().with_style(style))
            }
        }
    }

    /// What is told of each step.
    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::Silent => silent(),
            Self::Lines => Arc::new(|step| {
                if let Some(line) = line(step) {
                    say(line);
                }
            }),
            Self::Bar(bar) => {
                let bar = bar.clone();
                Arc::new(move |step| draw(&bar, step))
            }
        }
    }

    /// Leaves the terminal to the result.
    pub(super) fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn what(step: Step) -> &'static str {
    match step {
        Step::Database => "Reading the database …",
        Step::References => "Looking at what refers to what …",
        Step::Packages(..) => "Comparing packages with their digests …",
    }
}

/// The line for a step, unless the one before says enough.
fn line(step: Step) -> Option<String> {
    match step {
        Step::Database | Step::References => Some(what(step).to_owned()),
        Step::Packages(done, of) => (done == of || done.is_multiple_of(PLAIN_EVERY))
            .then(|| format!("{} {done} of {of}", what(step))),
    }
}

fn draw(bar: &ProgressBar, step: Step) {
    bar.set_message(what(step));
    if let Step::Packages(done, of) = step {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    } else {
        bar.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_at_the_beginning_now_and_then_and_at_the_end() {
        let told = (0..=2_500).filter(|done| line(Step::Packages(*done, 2_500)).is_some());
        assert_eq!(told.collect::<Vec<_>>(), [0, 1_000, 2_000, 2_500]);
        let last = line(Step::Packages(2_500, 2_500)).unwrap();
        assert!(last.ends_with("2500 of 2500"), "{last}");
    }

    #[test]
    fn a_terminal_has_a_bar_that_stands_where_the_check_does() {
        let shown = Shown::new(false, true);
        let Shown::Bar(bar) = &shown else { panic!("a terminal has no bar") };
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        let progress = shown.progress();
        progress(Step::Database);
        assert_eq!(bar.message(), "Reading the database …");
        progress(Step::Packages(3, 7));
        assert_eq!((bar.position(), bar.length()), (3, Some(7)));
        assert!(matches!(Shown::new(true, true), Shown::Silent));
    }
}
