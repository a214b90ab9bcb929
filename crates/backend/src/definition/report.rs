use std::{collections::HashSet, fmt};

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The definition does not load.
    Refused,
    /// It loads without this.
    Reported,
}

/// Something in a definition that is not used as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The file, from the definition's directory.
    pub file: String,
    /// Where in the file, as a JSON path; empty for the whole of it.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(formatter, "{}: {}", self.file, self.message),
            path => write!(formatter, "{} at {path}: {}", self.file, self.message),
        }
    }
}

/// Why a definition does not load: all of the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    /// Where the definition was read from.
    pub origin: String,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl std::error::Error for DefinitionError {}

impl fmt::Display for DefinitionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the app definition in {} cannot be used:", self.origin)?;
        self.problems.iter().try_for_each(|problem| write!(formatter, "\n  {problem}"))
    }
}

#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    /// The files and paths that were refused.
    refused: HashSet<(String, String)>,
}

impl Report {
    pub(super) fn refuse(&mut self, file: &str, path: &str, message: &str) {
        self.add(Severity::Refused, file, path, message);
    }

    pub(super) fn note(&mut self, file: &str, path: &str, message: &str) {
        self.add(Severity::Reported, file, path, message);
    }

    /// What follows from a mistake at the same place is no problem of its own.
    fn add(&mut self, severity: Severity, file: &str, path: &str, message: &str) {
        let place = (file.to_owned(), path.to_owned());
        if self.refused.contains(&place) {
            return;
        }
        if severity == Severity::Refused {
            self.refused.insert(place);
        }
        self.problems.push(Problem { severity, file: file.into(), path: path.into(), message: message.into() });
    }

    /// The problems in the order in which they were found.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
