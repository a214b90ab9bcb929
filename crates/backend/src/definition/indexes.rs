//! Reads `indexes.json`, Userkeep's addition to the export.

use query::Path;
use serde_json::Value;
use store::Index;

use super::report::Report;

/// Reads a list of indexes in the format of `createIndexes`, as Extended JSON.
pub(super) fn read(path: &str, value: &Value, report: &mut Report) -> Vec<Index> {
    let Value::Array(items) = value else {
        report.refuse(
            path,
            "",
            "expected a list of indexes, each as createIndexes takes it: [{ \"key\": { \"field\": 1 } }]",
        );
        return Vec::new();
    };
    // The indexes to create, with their places in the file.
    let mut indexes: Vec<(usize, Index)> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let index = bson::Bson::try_from(item.clone())
            .ok()
            .and_then(|item| bson::raw::RawDocumentBuf::try_from(item.as_document()?.clone()).ok())
            .ok_or_else(|| "expected an index in Extended JSON".to_owned())
            .and_then(|item| {
                query::validate(&item).map_err(|error| error.to_string())?;
                let index = Index::parse(&item).map_err(|error| error.to_string())?;
                Ok(is_new(&index, &indexes)?.then_some(index))
            });
        match index {
            // The index on `_id` counts too, and one problem stands for all that are too many.
            Ok(Some(_)) if indexes.len() + 1 >= MOST_INDEXES => {
                let message =
                    format!("too many indexes: a collection has up to {MOST_INDEXES}, including the one on _id");
                report.refuse(path, &format!("$[{place}]"), &message);
                break;
            }
            Ok(Some(index)) => indexes.push((place, index)),
            Ok(None) => {}
            Err(message) => report.refuse(path, &format!("$[{place}]"), &message),
        }
    }
    indexes.into_iter().map(|(_, index)| index).collect()
}

/// Returns true if an index is to be created beside the earlier ones of its file, and false if it
/// exists already.
///
/// # Errors
/// If no store can create the index.
fn is_new(index: &Index, earlier: &[(usize, Index)]) -> Result<bool, String> {
    if let [(path, _)] = index.keys.fields()
        && *path == Path::new("_id")
    {
        let is_ascending = index.keys == query::KeyPattern::of(Path::new("_id"));
        let message = "the index on _id alone is ascending, and every collection has it";
        return if is_ascending { Ok(false) } else { Err(message.to_owned()) };
    }
    if index.name == "_id_" {
        return Err("the index name '_id_' is for the index on _id alone".to_owned());
    }
    for (place, other) in earlier {
        if other == index {
            return Ok(false);
        }
        if other.name == index.name {
            return Err(format!("the index $[{place}] has the same name '{}'", index.name));
        }
        let options = |index: &Index| (index.keys.clone(), index.partial.clone(), index.unique, index.sparse);
        if options(other) == options(index) {
            return Err(format!("the index $[{place}] has the same fields and options"));
        }
    }
    Ok(true)
}

/// The maximum number of indexes of a collection
/// (<https://www.mongodb.com/docs/manual/reference/limits/#indexes>).
const MOST_INDEXES: usize = 64;
