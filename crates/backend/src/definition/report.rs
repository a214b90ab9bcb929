use std::{collections::HashSet, fmt};

/// The severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// An error: the definition does not load.
    Refused,
    /// A warning: the definition loads, and this part of it is not used.
    Reported,
}

/// A problem of a definition. It displays as `FILE at PATH: MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The severity.
    pub severity: Severity,
    /// The path of the file in the definition's directory.
    pub file: String,
    /// The JSON path in the file; empty for the whole file.
    pub path: String,
    /// The message, without the place.
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

/// The error of a definition that does not load, with all reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    /// The directory that the definition was read from.
    pub origin: String,
    /// The problems that keep it from loading.
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
    /// The files and JSON paths with an error.
    refused: HashSet<(String, String)>,
}

impl Report {
    pub(super) fn refuse(&mut self, file: &str, path: &str, message: &str) {
        self.add(Severity::Refused, file, path, message);
    }

    pub(super) fn note(&mut self, file: &str, path: &str, message: &str) {
        self.add(Severity::Reported, file, path, message);
    }

    /// Adds a problem, unless the same place has an error already: that is its consequence.
    pub(super) fn add(&mut self, severity: Severity, file: &str, path: &str, message: &str) {
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
