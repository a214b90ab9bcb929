#![allow(clippy::unwrap_used)]

use bson::{Document, doc, raw::RawDocumentBuf};

use super::*;

fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn matches(filter: Document, document: Document) -> bool {
    Filter::parse(&raw(filter)).unwrap().matches(&raw(document))
}

#[test]
fn what_matches_and_what_does_not() {
    let yes = true;
    let no = false;
    let cases = [
        // Equality: across numeric types, any item, the whole array, through documents in arrays, by index.
        (doc! { "a": 1 }, doc! { "a": 1.0 }, yes),
        (doc! { "a": 1 }, doc! { "a": "1" }, no),
        (doc! { "a": 1 }, doc! { "a": [2, 1_i64] }, yes),
        (doc! { "a": [1, 2] }, doc! { "a": [1, 2] }, yes),
        (doc! { "a": [1, 2] }, doc! { "a": [2, 1] }, no),
        (doc! { "a": [1, 2] }, doc! { "a": [[1, 2], 3] }, yes),
        (doc! { "a": { "b": 1, "c": 2 } }, doc! { "a": { "c": 2, "b": 1 } }, no),
        (doc! { "a.b": 1 }, doc! { "a": [{ "b": 0 }, { "b": [1] }] }, yes),
        (doc! { "a.1.b": 1 }, doc! { "a": [{ "b": 1 }, { "b": 2 }] }, no),
        (doc! { "a.0": 1 }, doc! { "a": [1, 2] }, yes),
        (doc! { "a.0.b": 1 }, doc! { "a": [{ "b": 1 }] }, yes),
        (doc! { "a.b": 1 }, doc! { "a": [[{ "b": 1 }]] }, no),
        // Null is equal to null and to a missing field, not to what an array lacks.
        (doc! { "a": null }, doc! { "a": null }, yes),
        (doc! { "a": null }, doc! { "b": 1 }, yes),
        (doc! { "a": null }, doc! { "a": 0 }, no),
        (doc! { "a.b": null }, doc! { "a": 5 }, yes),
        (doc! { "a.b": null }, doc! { "a": [5] }, no),
        (doc! { "a.b": null }, doc! { "a": [{ "b": 1 }, {}] }, yes),
        (doc! { "a": { "$exists": true } }, doc! { "a": null }, yes),
        (doc! { "a": { "$exists": true } }, doc! { "a": [] }, yes),
        (doc! { "a.b": { "$exists": false } }, doc! { "a": [{ "c": 1 }] }, yes),
        // Comparisons stay within a type.
        (doc! { "a": { "$gt": 1 } }, doc! { "a": 1.5 }, yes),
        (doc! { "a": { "$gt": 1 } }, doc! { "a": "z" }, no),
        (doc! { "a": { "$gt": 1 } }, doc! {}, no),
        (doc! { "a": { "$gte": null } }, doc! {}, yes),
        (doc! { "a": { "$gt": null } }, doc! { "a": null }, no),
        (doc! { "a": { "$lt": "b" } }, doc! { "a": ["c", "a"] }, yes),
        (doc! { "a": { "$gte": 1, "$lte": 2 } }, doc! { "a": [0, 3] }, yes),
        (doc! { "a": { "$lt": 1 } }, doc! { "a": f64::NAN }, no),
        (doc! { "a": { "$gte": f64::NAN } }, doc! { "a": f64::NAN }, yes),
        (doc! { "a": { "$gt": bson::Bson::MinKey } }, doc! { "a": "x" }, yes),
        // Negations are of the whole question.
        (doc! { "a": { "$ne": 1 } }, doc! { "a": [1, 2] }, no),
        (doc! { "a": { "$ne": 1 } }, doc! {}, yes),
        (doc! { "a": { "$nin": [1, null] } }, doc! {}, no),
        (doc! { "a": { "$in": [3, "x"] } }, doc! { "a": ["x"] }, yes),
        (doc! { "a": { "$in": [] } }, doc! { "a": 1 }, no),
        (doc! { "a": { "$not": { "$gt": 1 } } }, doc! { "a": "x" }, yes),
        // Logic.
        (doc! { "$or": [{ "a": 1 }, { "b": 1 }] }, doc! { "b": 1 }, yes),
        (doc! { "$nor": [{ "a": 1 }, { "b": 1 }] }, doc! { "b": 1 }, no),
        (doc! { "$and": [{ "a": 1 }, { "$or": [{ "b": 2 }, { "b": 3 }] }] }, doc! { "a": 1, "b": 3 }, yes),
        (doc! { "a": 1, "b": 2 }, doc! { "a": 1, "b": 3 }, no),
        (doc! {}, doc! { "a": 1 }, yes),
    ];
    for (filter, document, expected) in cases {
        assert_eq!(matches(filter.clone(), document.clone()), expected, "{filter} on {document}");
    }
}

#[test]
fn what_is_not_a_filter_is_refused() {
    let refusals = [
        (
            doc! { "$who": 1 },
            "unknown top level operator: $who. If you have a field name that starts with a '$' symbol, consider using $getField or $setField.",
        ),
        (doc! { "a": { "$who": 1 } }, "unknown operator: $who"),
        (doc! { "a": { "$gt": 1, "b": 2 } }, "unknown operator: b"),
        (doc! { "$or": [] }, "$and/$or/$nor must be a nonempty array"),
        (doc! { "$or": {} }, "$or must be an array"),
        (doc! { "$and": [1] }, "$or/$and/$nor entries need to be full objects"),
        (doc! { "a": { "$in": 1 } }, "$in needs an array, got int"),
        (doc! { "a": { "$not": 1 } }, "$not needs a regex or a document"),
        (doc! { "$where": "true" }, "query operator $where is not supported by Userkeep"),
        (doc! { "a": { "$regex": "x" } }, "query operator $regex is not supported by Userkeep"),
        (
            doc! { "a": bson::Regex { pattern: bson::raw::CString::try_from("x").unwrap(), options: bson::raw::CString::try_from("").unwrap() } },
            "a regular expression in a filter is not supported by Userkeep",
        ),
    ];
    for (filter, message) in refusals {
        assert_eq!(Filter::parse(&raw(filter.clone())).unwrap_err().message, message, "{filter}");
    }
}

#[test]
fn equalities_are_what_and_demands() {
    let filter = Filter::parse(&raw(
        doc! { "a": 1, "b": { "$eq": 2, "$gt": 0 }, "$and": [{ "c": 3 }], "$or": [{ "d": 4 }, { "e": 5 }] },
    ))
    .unwrap();
    let names: Vec<_> = filter.equalities().into_iter().map(|(path, _)| path.as_str().to_owned()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}
