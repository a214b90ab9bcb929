//! Shrinks a case in which two servers differ to the smallest similar case.

use bson::{Bson, Document};

use testing::case::Case;

/// Returns all cases that are one step simpler, the largest steps first.
pub(crate) fn simpler(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    for place in 0..case.documents.len() {
        let mut documents = case.documents.clone();
        documents.remove(place);
        found.push(Case { documents, ..case.clone() });
    }
    for value in simpler_fields(&case.command, 1) {
        found.push(Case { command: value, ..case.clone() });
    }
    for (place, document) in case.documents.iter().enumerate() {
        for simpler in simpler_fields(document, 1) {
            let mut documents = case.documents.clone();
            documents[place] = simpler;
            found.push(Case { documents, ..case.clone() });
        }
    }
    found
}

/// Returns the documents with one field less or one simpler field. The first `kept` fields stay as
/// they are.
fn simpler_fields(document: &Document, kept: usize) -> Vec<Document> {
    let fields: Vec<(&String, &Bson)> = document.iter().collect();
    let with = |place: usize, value: Option<Bson>| -> Document {
        let each = fields.iter().enumerate().filter_map(|(other, (name, old))| {
            let value = if other == place { value.clone()? } else { (*old).clone() };
            Some(((*name).clone(), value))
        });
        each.collect()
    };
    let mut found: Vec<Document> = (kept..fields.len()).map(|place| with(place, None)).collect();
    for (place, (_, value)) in fields.iter().enumerate().skip(kept) {
        found.extend(simpler_values(value).into_iter().map(|value| with(place, Some(value))));
    }
    found
}

fn simpler_values(value: &Bson) -> Vec<Bson> {
    match value {
        Bson::Document(fields) => {
            // An inner value may suffice in place of the document.
            let mut found: Vec<Bson> = fields.values().cloned().collect();
            found.extend(simpler_fields(fields, 0).into_iter().map(Bson::Document));
            found
        }
        Bson::Array(items) => {
            let mut found = items.clone();
            for place in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(place);
                found.push(Bson::Array(fewer));
                for simpler in simpler_values(&items[place]) {
                    let mut others = items.clone();
                    others[place] = simpler;
                    found.push(Bson::Array(others));
                }
            }
            found
        }
        Bson::Int32(1) | Bson::Boolean(_) => Vec::new(),
        Bson::String(text) if text.starts_with('$') => vec![Bson::Int32(1)],
        Bson::String(text) if text.is_empty() => vec![Bson::Int32(1)],
        Bson::String(_) => vec![Bson::Int32(1), Bson::String("a".into())],
        _ => vec![Bson::Int32(1)],
    }
    .into_iter()
    .filter(|simpler| simpler != value)
    .collect()
}
