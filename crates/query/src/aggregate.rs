//! Aggregation pipelines (<https://www.mongodb.com/docs/manual/core/aggregation-pipeline/>), run over documents that
//! the caller supplies.

mod collect;
mod computed;
mod group;
mod project;
mod stage;
mod unwind;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{
    Budget, Error, ErrorCode, Filter, Result, Sort, Variables, budget,
    document::{elements, items},
};
use stage::Stage;

pub(crate) use computed::Computed;
pub(crate) use stage::is_stage;

/// A parsed pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    stages: Vec<Stage>,
    /// What each was parsed from.
    sources: Vec<RawDocumentBuf>,
}

/// The most stages of a pipeline, as in the server.
const MAX_STAGES: usize = 1000;

/// What a run of a pipeline is given.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Holds what stages collect. Time and steps are charged to the budget that the thread has entered, so the caller
    /// enters this one whenever it takes a document.
    pub budget: Budget,
}

/// The documents that come out of a pipeline, or of one of its stages.
pub type Documents<'a> = Box<dyn Iterator<Item = Result<RawDocumentBuf>> + 'a>;

impl Pipeline {
    /// Parses an array of stages.
    ///
    /// # Errors
    /// The server's own for a stage that does not exist or is not of its form; `CommandNotSupported` by name for what
    /// this version does not have.
    pub fn parse(stages: &bson::raw::RawArray) -> Result<Self> {
        let pipeline = Self::parse_of_nothing(stages)?;
        if pipeline.stages.iter().any(|stage| matches!(stage, Stage::Documents(_))) {
            return Err(Error::location(73, "$documents is only for an aggregation of no collection"));
        }
        Ok(pipeline)
    }

    /// The same for an aggregation that has no collection, and may begin with `$documents`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and where `$documents` comes later.
    pub fn parse_of_nothing(stages: &bson::raw::RawArray) -> Result<Self> {
        if items(stages).count() > MAX_STAGES {
            let message = format!("Pipeline length must be no longer than {MAX_STAGES} stages");
            return Err(Error::location(7_749_501, message));
        }
        let sources = items(stages).filter_map(|stage| stage.as_document()).map(RawDocument::to_owned).collect();
        let stages: Vec<_> = Self::parse_stages(stages)?;
        if stages.iter().skip(1).any(|stage| matches!(stage, Stage::Documents(_))) {
            return Err(Error::location(40602, "$documents is only valid as the first stage in a pipeline"));
        }
        budget::charge(1)?;
        Ok(Self { stages, sources })
    }

    fn parse_stages(stages: &bson::raw::RawArray) -> Result<Vec<Stage>> {
        items(stages)
            .map(|stage| match stage {
                RawBsonRef::Document(stage) => Stage::parse(stage),
                _ => Err(Error::type_mismatch("Each element of the 'pipeline' array must be an object")),
            })
            .collect()
    }

    /// What its stages were parsed from.
    pub fn stages(&self) -> &[RawDocumentBuf] {
        &self.sources
    }

    /// Names each operator of a filter or an expression in it.
    pub fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        self.stages.iter().for_each(|stage| stage.operators(visit));
    }

    /// Puts in what the variables of its expressions stand for.
    ///
    /// # Errors
    /// 17276 where one is not among them.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.bind(variables))
    }

    /// Splits off a leading `$match`, so that the store can answer it by an index.
    pub fn split_match(mut self) -> (Filter, Self) {
        match self.stages.first_mut() {
            Some(Stage::Match(filter)) => {
                let filter = std::mem::replace(filter, Filter::all());
                self.stages.remove(0);
                self.sources.remove(0);
                (filter, self)
            }
            _ => (Filter::all(), self),
        }
    }

    /// Runs documents through the stages under the budget that the thread has entered; see [`run_on`](Self::run_on).
    ///
    /// # Errors
    /// As [`run_on`](Self::run_on).
    pub fn run<'a>(&'a self, documents: impl Iterator<Item = RawDocumentBuf> + 'a) -> Documents<'a> {
        self.run_on(documents.map(Ok), &Run { budget: budget::entered() })
    }

    /// Runs documents through the stages. Nothing is done before the first document is asked for, and stages that need
    /// all of their input take it then; no other stage holds more than one document.
    ///
    /// # Errors
    /// The first that the input or a stage causes, which ends the documents: 50 when the budget is exhausted, and
    /// `QueryExceededMemoryLimitNoDiskUseAllowed` (292) when stages collect more bytes than it may hold.
    pub fn run_on<'a>(
        &'a self,
        documents: impl Iterator<Item = Result<RawDocumentBuf>> + 'a,
        run: &Run,
    ) -> Documents<'a> {
        let mut documents: Documents<'a> = Box::new(documents);
        for (place, stage) in self.stages.iter().enumerate() {
            documents = match self.first_wanted(place) {
                Some((sort, most)) => Stage::run_first(sort, most, documents, run),
                None => stage.run(documents, run),
            };
        }
        let mut has_failed = false;
        Box::new(std::iter::from_fn(move || {
            let next = if has_failed { None } else { documents.next() };
            has_failed |= matches!(next, Some(Err(_)));
            next
        }))
    }

    /// The sort at a place and how many documents of it are wanted, if a limit follows it.
    fn first_wanted(&self, place: usize) -> Option<(&Sort, u64)> {
        let mut skipped = 0_u64;
        let Some(Stage::Sort(sort)) = self.stages.get(place) else { return None };
        for stage in &self.stages[place + 1..] {
            match stage {
                Stage::Skip(skip) => skipped = skipped.saturating_add(*skip),
                Stage::Limit(limit) => return Some((sort, skipped.saturating_add(*limit))),
                _ => return None,
            }
        }
        None
    }
}

/// The only field of a stage.
fn single_field(stage: &RawDocument) -> Result<(&str, RawBsonRef<'_>)> {
    let mut fields = elements(stage);
    match (fields.next(), fields.next()) {
        (Some(field), None) => Ok(field),
        _ => Err(Error::new(
            ErrorCode::StageFieldCount,
            "A pipeline stage specification object must contain exactly one field.",
        )),
    }
}

#[cfg(test)]
mod tests;
