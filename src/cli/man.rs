//! `unstale man`

use std::io;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::output::{error, line};
use super::{Arguments, Exit};

/// What every page ends with.
const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "Done."),
    ("1", "It failed, or found what it was asked to look for."),
    ("2", "An argument makes no sense."),
    ("69", "A service is unreachable. run never says so: it keeps trying."),
    ("78", "The configuration must be mended first, here or on a server."),
];

/// Print the manual page, or write those of all subcommands into a folder
///
/// `unstale man | man -l -` shows it; `unstale man --dir /usr/local/share/man/man1` installs all.
#[derive(Debug, Args)]
pub(super) struct ManCommand {
    /// Of this subcommand, such as `warm`
    subcommand: Option<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "subcommand")]
    dir: Option<PathBuf>,
}

impl ManCommand {
    pub(super) fn execute(&self) -> Exit {
        let mut program = Arguments::command();
        program.build();
        let wanted = match &self.subcommand {
            None => &program,
            Some(name) => match program.find_subcommand(name) {
                Some(subcommand) => subcommand,
                None => {
                    let names: Vec<&str> = subcommands(&program).map(Command::get_name).collect();
                    error(&format!(
                        "there is no subcommand {name:?}: write one of {}",
                        names.join(", ")
                    ));
                    return Exit::Usage;
                }
            },
        };
        let done = match &self.dir {
            None => page(wanted).map(|page| line(page.trim_end())),
            Some(dir) => every(&program, dir),
        };
        match done {
            Ok(()) => Exit::Done,
            Err(reason) => {
                error(&reason);
                Exit::Failed
            }
        }
    }
}

/// Those that have a page of their own: `help` has none.
fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| command.get_name() != "help")
}

/// `unstale.1`, `unstale-warm.1`, `unstale-config-schema.1`, …
fn every(command: &Command, dir: &std::path::Path) -> Result<(), String> {
    let path = dir.join(format!("{}.1", name(command)));
    std::fs::write(&path, page(command)?)
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    subcommands(command).try_for_each(|command| every(command, dir))
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<String, String> {
    let mut bytes = Vec::new();
    write(command, &mut bytes).map_err(|e| format!("cannot make the page: {e}"))?;
    let text = String::from_utf8(bytes).map_err(|e| format!("cannot make the page: {e}"))?;
    Ok(ascii(&text))
}

/// In characters that every troff reads, whatever encoding it takes a page for.
fn ascii(text: &str) -> String {
    let mut page = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            page.push(c);
        } else {
            page.push_str(&format!("\\[u{:04X}]", u32::from(c)));
        }
    }
    page
}

fn write(command: &Command, to: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone())
        .title(name(command))
        .manual("Unstale")
        .source(concat!("unstale ", env!("CARGO_PKG_VERSION")));
    man.render_title(to)?;
    man.render_name_section(to)?;
    man.render_synopsis_section(to)?;
    man.render_description_section(to)?;
    man.render_options_section(to)?;
    if subcommands(command).next().is_some() {
        man.render_subcommands_section(to)?;
    }
    let mut roff = Roff::default();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUS {
        roff.control("TP", []).text([roman(status)]).text([roman(meaning)]);
    }
    roff.to_writer(to)
}
