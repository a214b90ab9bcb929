//! Aggregation pipelines (<https://www.mongodb.com/docs/manual/core/aggregation-pipeline/>). A
//! pipeline runs over documents that the caller supplies.

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

/// A parsed aggregation pipeline.
///
/// ```
/// use bson::rawdoc;
/// use query::Pipeline;
///
/// let stages = rawdoc! { "of": [{ "$match": { "n": { "$gt": 1 } } }, { "$count": "total" }] };
/// let pipeline = Pipeline::parse(stages.get_array("of").unwrap()).unwrap();
/// let documents = [rawdoc! { "n": 1 }, rawdoc! { "n": 2 }, rawdoc! { "n": 3 }];
/// let results: Vec<_> = pipeline.run(documents.into_iter()).map(Result::unwrap).collect();
/// assert_eq!(results, [rawdoc! { "total": 2 }]);
/// ```
#[derive(Debug, Clone)]
pub struct Pipeline {
    stages: Vec<Stage>,
    /// The source document of each stage, in the order of `stages`.
    sources: Vec<RawDocumentBuf>,
}

/// The maximum number of stages in a pipeline, as in the server.
const MAX_STAGES: usize = 1000;

/// The settings of one run of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Accounts for the bytes that blocking stages collect. Time and steps are charged to the
    /// budget that the thread has entered, so the caller enters this budget whenever it takes a
    /// document.
    pub budget: Budget,
}

/// The output of a pipeline or of one of its stages. The iterator ends after its first error.
pub type Documents<'a> = Box<dyn Iterator<Item = Result<RawDocumentBuf>> + 'a>;

impl Pipeline {
    /// Parses an array of stages.
    ///
    /// # Errors
    /// Returns the server's error for an unknown or malformed stage, and `CommandNotSupported`
    /// (115) with the stage's name for a stage that Userkeep does not support. 73 if the pipeline
    /// contains `$documents`.
    pub fn parse(stages: &bson::raw::RawArray) -> Result<Self> {
        let pipeline = Self::parse_of_nothing(stages)?;
        if pipeline.stages.iter().any(|stage| matches!(stage, Stage::Documents(_))) {
            return Err(Error::location(73, "$documents is only allowed in an aggregation without a collection"));
        }
        Ok(pipeline)
    }

    /// Parses the pipeline of an aggregation without a collection, which may begin with
    /// `$documents`.
    ///
    /// # Errors
    /// Fails as [`parse`](Self::parse) does, and with 40602 if `$documents` is not the first
    /// stage.
    pub fn parse_of_nothing(stages: &bson::raw::RawArray) -> Result<Self> {
        if items(stages).count() > MAX_STAGES {
            let message = format!("Pipeline length must be no longer than {MAX_STAGES} stages");
            return Err(Error::location(7_749_501, message));
        }
        let sources = items(stages).filter_map(bson::RawBsonRef::as_document).map(RawDocument::to_owned).collect();
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

    /// Returns the source document of each stage, in order.
    pub fn stages(&self) -> &[RawDocumentBuf] {
        &self.sources
    }

    /// Calls `visit` with the name of each operator in the pipeline's filters and expressions.
    pub fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        self.stages.iter().for_each(|stage| stage.operators(visit));
    }

    /// Replaces the variables in the stages' expressions by their values.
    ///
    /// # Errors
    /// 17276 if an expression uses an undefined variable.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.bind(variables))
    }

    /// Splits off a leading `$match`, so that the store can answer it from an index. Without one,
    /// returns a filter that matches every document.
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

    /// Runs documents through the stages under the budget that the thread has entered; see
    /// [`run_on`](Self::run_on).
    ///
    /// # Errors
    /// Yields the same errors as [`run_on`](Self::run_on).
    pub fn run<'a>(&'a self, documents: impl Iterator<Item = RawDocumentBuf> + 'a) -> Documents<'a> {
        self.run_on(documents.map(Ok), &Run { budget: budget::entered() })
    }

    /// Runs documents through the stages.
    ///
    /// The pipeline is lazy: it does nothing before the caller takes the first document. Blocking
    /// stages (`$sort`, `$group`, `$count`) then read all of their input; every other stage holds
    /// one document at a time.
    ///
    /// # Errors
    /// The iterator ends with the first error of the input or of a stage: `MaxTimeMSExpired` (50)
    /// if the budget is exhausted, and `QueryExceededMemoryLimitNoDiskUseAllowed` (292) if the
    /// stages collect more bytes than the budget allows.
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

    /// Returns the sort at `place` and the number of its first documents that later stages use, if
    /// a limit follows it.
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

/// Returns the only field of a stage.
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
