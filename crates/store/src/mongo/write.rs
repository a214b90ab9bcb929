//! Writes that need no check in this process: each is one command of the server.

use bson::{
    Document, RawBson,
    raw::{RawDocument, RawDocumentBuf},
    rawdoc,
};
use mongodb::{
    ClientSession,
    action::Action,
    error::Result as DriverResult,
    options::{Collation, ReturnDocument, UpdateModifications},
};
use query::{Budget, Filter, Update};

use super::{
    MongoStore,
    errors::Failure,
    read::{document, sort_document},
};
use crate::{Change, Error, Modify, Namespace, Outcome, Result, Returning, workers};

/// An update in the form that the server takes.
pub(super) enum Form {
    Operators(RawDocumentBuf),
    Pipeline(Vec<RawDocumentBuf>),
    Replacement(RawDocumentBuf),
}

/// An update in the type that the driver takes.
enum Modification {
    Update(UpdateModifications),
    Replace(RawDocumentBuf),
}

impl Form {
    fn modification(self) -> Result<Modification> {
        Ok(Modification::Update(match self {
            Self::Operators(operators) => UpdateModifications::Document(document(&operators)?),
            Self::Pipeline(stages) => UpdateModifications::Pipeline(all(&stages)?),
            Self::Replacement(replacement) => return Ok(Modification::Replace(replacement)),
        }))
    }
}

/// Returns the form of an update for the server.
pub(super) fn form(update: &Update, multi: bool) -> Form {
    match update {
        Update::Operators(operators) => Form::Operators(operators.to_document().to_owned()),
        Update::Pipeline(pipeline) => Form::Pipeline(pipeline.stages().to_vec()),
        // The server replaces a single document only; App Services replaced all documents that
        // matched.
        Update::Replacement(replacement) if multi => {
            let is_missing = rawdoc! { "$eq": [{ "$type": "$_id" }, "missing"] };
            let kept = rawdoc! { "$cond": [is_missing, {}, { "_id": "$_id" }] };
            let whole = rawdoc! { "$mergeObjects": [kept, { "$literal": replacement.clone() }] };
            Form::Pipeline(vec![rawdoc! { "$replaceWith": whole }])
        }
        Update::Replacement(replacement) => Form::Replacement(replacement.clone()),
    }
}

/// Returns the size of an update as it is sent, in bytes.
pub(super) fn size_of(update: &Update) -> usize {
    match form(update, false) {
        Form::Operators(update) | Form::Replacement(update) => update.as_bytes().len(),
        Form::Pipeline(stages) => stages.iter().map(|stage| stage.as_bytes().len()).sum(),
    }
}

/// Returns the array filters of an update, if it has any.
pub(super) fn array_filters(update: &Update) -> Option<&[RawDocumentBuf]> {
    match update {
        Update::Operators(operators) => Some(operators.array_filters()).filter(|filters| !filters.is_empty()),
        _ => None,
    }
}

fn all(documents: &[RawDocumentBuf]) -> Result<Vec<Document>> {
    documents.iter().map(|raw| document(raw)).collect()
}

/// The parameters of one update or delete command.
pub(super) struct Command<'a> {
    pub(super) modify: &'a Modify,
    /// The caller's filter, or a stricter one that includes the rule.
    pub(super) filter: RawDocumentBuf,
    pub(super) upsert: bool,
    /// True if strings are compared with the simple collation.
    pub(super) is_simple: bool,
    pub(super) budget: &'a Budget,
}

impl MongoStore {
    /// Inserts documents unchanged.
    pub(super) async fn insert(
        &self,
        namespace: &Namespace,
        documents: &[RawDocumentBuf],
        budget: &Budget,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let ids = documents.iter().map(|document| query::get(document, "_id").map_or(RawBson::Null, RawBson::from));
        let outcome = Outcome { inserted_ids: ids.collect(), ..Outcome::default() };
        self.insert_by_command(namespace, documents, budget, session).await?;
        Ok(outcome)
    }

    /// Updates or deletes the documents that a filter matches.
    pub(super) async fn modify(
        &self,
        namespace: &Namespace,
        command: Command<'_>,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        // Only `findAndModify` sorts and returns the document.
        if command.modify.returning != Returning::Nothing || (command.modify.sort.is_some() && !command.modify.multi) {
            return self.find_one_and(namespace, command, session).await;
        }
        self.modify_by_command(namespace, &command, session).await
    }

    /// Runs a change of one document by `findAndModify`, and applies a positional projection in
    /// this process.
    async fn find_one_and(
        &self,
        namespace: &Namespace,
        command: Command<'_>,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let modify = command.modify;
        // `$` in a projection refers to the whole filter, and the server's filter may be larger
        // than the caller's. So this projection is applied here, with the caller's filter.
        let is_here = |projection: &&query::Projection| projection.is_positional();
        let there = modify.projection.as_ref().filter(|projection| !is_here(projection));
        let projection = there.map(|projection| document(projection.to_document())).transpose()?;
        let mut outcome = self.find_one_and_modify(namespace, command, projection, session).await?;
        outcome.document = match (outcome.document.take(), modify.projection.as_ref().filter(is_here)) {
            (Some(document), Some(projection)) => {
                let (projection, filter) = (projection.clone(), modify.filter.clone());
                // The write is done, so its projection does not depend on the rest of the budget.
                let project = move || Ok::<_, Error>(projection.apply(&document, &filter)?);
                Some(workers::run_if_large(&Budget::default(), project).await?)
            }
            (document, _) => document.filter(|_| modify.returning != Returning::Nothing),
        };
        Ok(outcome)
    }

    /// Sends one `findAndModify`, which the driver retries if the connection is lost.
    async fn find_one_and_modify(
        &self,
        namespace: &Namespace,
        command: Command<'_>,
        projection: Option<Document>,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let session = match session {
            Some(session) if command.upsert => {
                return self.upsert_in_transaction(namespace, &command, projection, session).await;
            }
            session => session,
        };
        let Command { modify, filter, upsert, is_simple, budget } = command;
        let filter = document(&filter)?;
        let collection = self.collection(namespace).await?;
        let mut own = match session {
            None => self.causal_session().await?,
            Some(_) => None,
        };
        let session = session.or(own.as_mut());
        let time = self.max_time(budget)?;
        let collation = is_simple.then(simple);
        let sort = sort_document(modify.sort.as_ref())?;
        let after = match modify.returning {
            Returning::After => ReturnDocument::After,
            Returning::Before | Returning::Nothing => ReturnDocument::Before,
        };
        let document: DriverResult<Option<RawDocumentBuf>> = match &modify.change {
            Change::Delete => {
                let delete = collection.find_one_and_delete(filter).max_time(time);
                let delete = delete.optional(sort, mongodb::action::FindOneAndDelete::sort);
                let delete = delete.optional(collation, mongodb::action::FindOneAndDelete::collation);
                let delete = delete.optional(projection, mongodb::action::FindOneAndDelete::projection);
                delete.optional(session, mongodb::action::FindOneAndDelete::session).await
            }
            Change::Update { update, .. } => {
                let filters = array_filters(update).map(all).transpose()?;
                match form(update, false).modification()? {
                    Modification::Update(change) => {
                        let update = collection.find_one_and_update(filter, change).max_time(time);
                        let update = update.upsert(upsert).return_document(after);
                        let update = update.optional(filters, mongodb::action::FindOneAndUpdate::array_filters);
                        let update = update.optional(sort, mongodb::action::FindOneAndUpdate::sort);
                        let update = update.optional(collation, mongodb::action::FindOneAndUpdate::collation);
                        let update = update.optional(projection, mongodb::action::FindOneAndUpdate::projection);
                        update.optional(session, mongodb::action::FindOneAndUpdate::session).await
                    }
                    Modification::Replace(replacement) => {
                        let replace = collection.find_one_and_replace(filter, replacement).max_time(time);
                        let replace = replace.upsert(upsert).return_document(after);
                        let replace = replace.optional(sort, mongodb::action::FindOneAndReplace::sort);
                        let replace = replace.optional(collation, mongodb::action::FindOneAndReplace::collation);
                        let replace = replace.optional(projection, mongodb::action::FindOneAndReplace::projection);
                        replace.optional(session, mongodb::action::FindOneAndReplace::session).await
                    }
                }
            }
        };
        self.shared.note_written(own.as_ref());
        let document = document?;
        let found = u64::from(document.is_some());
        let mut outcome = Outcome { matched: found, document, ..Outcome::default() };
        match &modify.change {
            Change::Delete => outcome.deleted = found,
            Change::Update { .. } => outcome.modified = found,
        }
        Ok(outcome)
    }
}

/// The simple collation, which compares strings byte by byte like the guard, whatever collation
/// the operator has set.
pub(super) fn simple() -> Collation {
    Collation::builder().locale("simple").build()
}

/// Returns the filter for one document by its `_id`.
pub(super) fn by_id(stored: &RawDocument) -> Filter {
    Filter::equals("_id", query::get(stored, "_id").map_or(RawBson::Null, RawBson::from))
}
