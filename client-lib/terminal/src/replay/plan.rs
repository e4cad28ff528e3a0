//! What is to be posted, by whom, where: worked out before anything is sent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::irc::{self, Counts, Fault, Line};
use rove_protocol::limits;

/// Faults told for each file; the counts say how many there are.
const FAULTS_TOLD: usize = 20;
/// Characters of a nick that are kept in its handle: enough to recognise it.
const SLUG: usize = 24;

/// A file that could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    path: PathBuf,
    error: io::Error,
}

/// One file, and the conversation it becomes.
#[derive(Debug, Clone)]
pub struct FilePlan {
    /// Its path as it was given.
    pub path: PathBuf,
    /// The group's title: the file's name.
    pub title: String,
    /// Who is in it, by index into [`Plan::nicks`], in the order of their first words.
    pub members: Vec<usize>,
    /// What is posted: by whom (index into [`Plan::nicks`]), and the line.
    pub lines: Vec<(usize, Line)>,
    /// What else was in the file.
    pub counts: Counts,
    /// What could not be read.
    pub faults: Vec<Fault>,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Every nick of all files; a nick is one client, in however many files it speaks.
    pub nicks: Vec<String>,
    /// The files with something to post.
    pub files: Vec<FilePlan>,
    /// Files in which nobody says anything.
    pub silent: Vec<PathBuf>,
    /// The sums of all files.
    pub counts: Counts,
}

impl Plan {
    /// Reads the files. Nothing of one is lost because of another: all that cannot be read are named together.
    ///
    /// # Errors
    /// Every file that cannot be read.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Vec<FileError>> {
        let mut plan = Self::default();
        let mut errors = Vec::new();
        let mut indices = BTreeMap::new();
        for path in paths {
            match fs::read(path) {
                Ok(bytes) => plan.add(path, &bytes, &mut indices),
                Err(error) => errors.push(FileError { path: path.clone(), error }),
            }
        }
        if errors.is_empty() { Ok(plan) } else { Err(errors) }
    }

    fn add(&mut self, path: &Path, bytes: &[u8], indices: &mut BTreeMap<String, usize>) {
        let transcript = irc::parse(bytes);
        self.counts += transcript.counts;
        if transcript.lines.is_empty() {
            self.silent.push(path.to_owned());
        }
        let mut members = Vec::new();
        for nick in transcript.nicks() {
            let index = *indices.entry(nick.to_owned()).or_insert_with(|| {
                self.nicks.push(nick.to_owned());
                self.nicks.len() - 1
            });
            members.push(index);
        }
        let lines = transcript.lines.into_iter().map(|line| (indices[&line.nick], line)).collect();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.files.push(FilePlan {
            path: path.to_owned(),
            title: title(&name),
            members,
            lines,
            counts: transcript.counts,
            faults: transcript.faults,
        });
    }

    /// Lines to post.
    pub fn lines(&self) -> usize {
        self.files.iter().map(|file| file.lines.len()).sum()
    }

    /// What could not be read, as `FILE:LINE: why`, the first of each file.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        for file in &self.files {
            let path = file.path.display();
            all.extend(
                file.faults.iter().take(FAULTS_TOLD).map(|fault| format!("{path}:{}: {}", fault.number, fault.kind)),
            );
            if file.faults.len() > FAULTS_TOLD {
                all.push(format!("{path}: and {} more malformed lines", file.faults.len() - FAULTS_TOLD));
            }
        }
        all.extend(self.silent.iter().map(|path| format!("{}: nobody says anything in it", path.display())));
        all
    }
}

/// A title is at most so many bytes; it is cut between characters.
fn title(name: &str) -> String {
    let mut end = name.len().min(limits::TITLE);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// A handle for a nick: unique by prefix and index, recognisable by what of the nick any server takes.
pub fn handle(prefix: &str, index: usize, nick: &str) -> String {
    let slug: String =
        nick.chars().filter(char::is_ascii_alphanumeric).take(SLUG).collect::<String>().to_ascii_lowercase();
    if slug.is_empty() { format!("{prefix}-{index}") } else { format!("{prefix}-{index}-{slug}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(files: &[(&str, &str)]) -> Plan {
        let mut plan = Plan::default();
        let mut indices = BTreeMap::new();
        for (name, text) in files {
            plan.add(Path::new(name), text.as_bytes(), &mut indices);
        }
        plan
    }

    #[test]
    fn a_nick_is_one_client_in_every_file() {
        let plan = plan(&[("a/one.txt", "<ada> 1\n<bo> 2\n<ada> 3\n"), ("two.txt", "<cy> 1\n<ada> 2\n")]);
        assert_eq!(plan.nicks, ["ada", "bo", "cy"]);
        assert_eq!(plan.files[0].members, [0, 1]);
        assert_eq!(plan.files[1].members, [2, 0]);
        assert_eq!(plan.files[0].title, "one.txt");
        assert_eq!(plan.lines(), 5);
        let authors: Vec<usize> = plan.files[0].lines.iter().map(|(author, _)| *author).collect();
        assert_eq!(authors, [0, 1, 0]);
    }

    #[test]
    fn complaints_name_file_and_line() {
        let plan = plan(&[("a.txt", "<ada> 1\nnonsense\n"), ("empty.txt", "=== nobody\n")]);
        let complaints = plan.complaints();
        assert!(complaints[0].starts_with("a.txt:2: neither"), "{complaints:?}");
        assert_eq!(complaints[1], "empty.txt: nobody says anything in it");
    }

    #[test]
    fn every_file_that_cannot_be_read_is_named() {
        let errors = Plan::read(&["/nowhere/a".into(), "/nowhere/b".into()]).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[1].to_string().starts_with("/nowhere/b: "));
    }

    #[test]
    fn handles_are_unique_and_short_whatever_the_nick() {
        assert_eq!(handle("r1", 7, "[[Who`ares]]"), "r1-7-whoares");
        assert_eq!(handle("r1", 8, "[[]]"), "r1-8");
        assert!(handle("r0123456789", 123_456, &"x".repeat(500)).len() <= limits::HANDLE);
    }

    #[test]
    fn a_title_is_cut_between_characters() {
        let cut = title(&"ü".repeat(200));
        assert!(cut.len() <= limits::TITLE && cut.chars().all(|character| character == 'ü'));
    }
}
