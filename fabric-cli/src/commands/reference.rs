//! `docs/cli.md`, made from the command tree: what it says is what the executable takes.

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;
use crate::failure::Outcome;

/// Prints the reference page.
///
/// # Errors
/// Never.
pub fn run() -> Outcome {
    crate::output::print(page().trim_end());
    Ok(())
}

/// The whole page, Markdown.
pub fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# Command line\n\nMade by `cargo xtask gen` from the command tree; a test holds it to that.\n\n\
         The answer is on standard output, the story on standard error. Exit codes: 0 good, 1 failed, 2 usage, 3 degraded, \
         4 the answer is no, 5 timed out waiting, 130 interrupted. A failure names a code; `fabric explain CODE` says what it means, offline.\n\n\
         Every command takes:\n\n",
    );
    arguments(&mut text, root.get_arguments().filter(|a| a.is_global_set()));
    for command in root.get_subcommands().filter(|c| shown(c)) {
        section(&mut text, command, "fabric");
    }
    text
}

fn shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn section(text: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let children: Vec<&Command> = command.get_subcommands().filter(|c| shown(c)).collect();
    if children.is_empty() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").replace("[OPTIONS]", "[options]");
        line(text, &format!("\n## {name}\n\n{about}.\n\n```\n{usage}\n```"));
        if let Some(examples) = command.get_before_help() {
            let examples = examples.to_string();
            let examples: Vec<&str> = examples.lines().skip(1).map(str::trim).collect();
            line(text, &format!("\n```sh\n{}\n```", examples.join("\n")));
        }
        line(text, "");
        arguments(text, command.get_arguments().filter(|a| !a.is_global_set()));
        return;
    }
    for child in children {
        section(text, child, &name);
    }
}

fn arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let arguments: Vec<&Arg> =
        arguments.filter(|a| !a.is_hide_set() && !matches!(a.get_id().as_str(), "help" | "version")).collect();
    if arguments.is_empty() {
        return;
    }
    line(text, "| argument | meaning | default |\n|---|---|---|");
    for argument in arguments {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<_> = argument.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
        let defaults = defaults.join(",");
        let values: Vec<String> = if argument.get_action().takes_values() {
            argument
                .get_possible_values()
                .iter()
                .filter(|v| !v.is_hide_set())
                .map(|v| v.get_name().to_owned())
                .collect()
        } else {
            Vec::new()
        };
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        line(text, &format!("| `{}` | {help}{values} | {defaults} |", spelling(argument)));
    }
}

fn spelling(argument: &Arg) -> String {
    let value = if argument.get_action().takes_values() {
        let names = argument.get_value_names().map(|n| n.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        names.unwrap_or_default()
    } else {
        String::new()
    };
    let flags: Vec<String> =
        [argument.get_short().map(|s| format!("-{s}")), argument.get_long().map(|l| format!("--{l}"))]
            .into_iter()
            .flatten()
            .collect();
    if flags.is_empty() { value } else { format!("{} {value}", flags.join(", ")).trim_end().to_owned() }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_command(command: &Command, parent: &str, visit: &mut impl FnMut(&Command, &str)) {
        for child in command.get_subcommands().filter(|c| shown(c)) {
            let name = format!("{parent} {}", child.get_name());
            visit(child, &name);
            every_command(child, &name, visit);
        }
    }

    #[test]
    fn page_in_the_tree_is_what_the_executable_takes() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(written.trim_end(), page().trim_end(), "run: cargo xtask gen");
    }

    #[test]
    fn every_command_says_what_it_is_and_what_its_arguments_mean() {
        let mut root = Cli::command();
        root.build();
        let mut seen = 0;
        every_command(&root, "fabric", &mut |command, name| {
            seen += 1;
            assert!(command.get_about().is_some(), "{name} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
            }
        });
        assert!(seen > 20);
    }

    #[test]
    fn daily_verbs_begin_with_three_examples() {
        let mut root = Cli::command();
        root.build();
        for verb in ["up", "connect", "join", "status", "observe", "invite", "apply", "get", "demo"] {
            let command = root.find_subcommand(verb).unwrap_or_else(|| panic!("no verb {verb}"));
            let examples = command.get_before_help().map(ToString::to_string).unwrap_or_default();
            assert_eq!(examples.lines().count(), 4, "{verb}: {examples}");
        }
    }

    #[test]
    fn tree_has_no_contradictions() {
        Cli::command().debug_assert();
    }
}
