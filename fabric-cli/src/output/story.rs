//! What happens meanwhile, on standard error: a line per step, each mark with words beside it.

use std::io::IsTerminal as _;

/// Tells the story of an action, unless it is asked to be quiet.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    quiet: bool,
    colour: bool,
}

impl Story {
    /// `quiet` leaves all but failures out. Colour only on a terminal and without `NO_COLOR`.
    pub fn new(quiet: bool) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { quiet, colour }
    }

    /// A step that succeeded: `✓ subject   what was found`.
    pub fn done(&self, subject: &str, what: &str) {
        self.say("32", "✓", subject, what);
    }

    /// A step that succeeded with a reservation.
    pub fn warn(&self, subject: &str, what: &str) {
        self.say("33", "!", subject, what);
    }

    /// A plain line.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            write(text);
        }
    }

    /// A failure; shown even when quiet.
    pub fn fail(&self, text: &str) {
        write(&format!("{} {text}", self.mark("31", "✗")));
    }

    fn say(self, colour: &str, mark: &str, subject: &str, what: &str) {
        if !self.quiet {
            write(format!("  {} {subject:<10} {what}", self.mark(colour, mark)).trim_end());
        }
    }

    fn mark(self, colour: &str, mark: &str) -> String {
        if self.colour { format!("\u{1b}[{colour}m{mark}\u{1b}[0m") } else { mark.to_owned() }
    }
}

#[expect(clippy::print_stderr, reason = "the story of a command line tool")]
fn write(line: &str) {
    eprintln!("{line}");
}
