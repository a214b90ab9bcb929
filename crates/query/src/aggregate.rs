//! Aggregation pipelines (<https://www.mongodb.com/docs/manual/core/aggregation-pipeline/>), run over documents that
//! the caller supplies.

mod group;
mod project;
mod stage;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{
    Error, ErrorCode, Filter, Result, Variables,
    document::{elements, items},
};
use stage::Stage;

pub(crate) use project::set_in;
pub(crate) use stage::is_stage;

/// A parsed pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    stages: Vec<Stage>,
    /// What each was parsed from.
    sources: Vec<RawDocumentBuf>,
}

type Documents<'a> = Box<dyn Iterator<Item = Result<RawDocumentBuf>> + 'a>;

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
        let sources = items(stages).filter_map(|stage| stage.as_document()).map(RawDocument::to_owned).collect();
        let stages: Vec<_> = Self::parse_stages(stages)?;
        if stages.iter().skip(1).any(|stage| matches!(stage, Stage::Documents(_))) {
            return Err(Error::location(40602, "$documents is only valid as the first stage in a pipeline"));
        }
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

    /// Runs the documents through the stages. Lazy but for the stages that need all of their input.
    ///
    /// # Errors
    /// The first that a document or a stage causes.
    pub fn run<'a>(&'a self, documents: impl Iterator<Item = RawDocumentBuf> + 'a) -> Documents<'a> {
        let documents: Documents<'a> = Box::new(documents.map(Ok));
        self.stages.iter().fold(documents, |documents, stage| stage.run(documents))
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
