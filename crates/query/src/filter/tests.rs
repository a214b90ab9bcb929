#![allow(clippy::unwrap_used)]

use bson::{Document, doc, raw::RawDocumentBuf};

use super::*;

fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn matches(filter: Document, document: Document) -> bool {
    let (parsed, document) = (Filter::parse(&raw(filter)).unwrap(), raw(document));
    let matches = parsed.matches(&document);
    // A filter that is written for another server must match the same documents.
    let written = parsed.to_document();
    assert_eq!(Filter::parse(&written).unwrap().matches(&document), matches, "{parsed:?} was written as {written:?}");
    matches
}

#[test]
fn matches_as_the_server_does() {
    let yes = true;
    let no = false;
    let cases = [
        // Equality: across numeric types, any item, the whole array, through arrays, by index.
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
        // Null is equal to null and to a missing field, but not to a field that array items lack.
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
        // A negation applies to the whole condition.
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
fn rejects_invalid_filters() {
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
        (doc! { "$where": "true" }, "the query operator $where is not supported by Userkeep"),
        (doc! { "a": { "$near": [1, 2] } }, "the query operator $near is not supported by Userkeep"),
        (
            doc! { "a": { "$regex": "(" } },
            "Regular expression is invalid: PCRE2: error compiling pattern at offset 1: missing closing parenthesis",
        ),
        (doc! { "a": { "$regex": "a", "$options": "q" } }, "invalid flag in regex options: q"),
        (doc! { "a": { "$all": 1 } }, "$all needs an array"),
        (doc! { "a": { "$elemMatch": 1 } }, "$elemMatch needs an Object"),
        (doc! { "a": { "$size": -1 } }, "Failed to parse $size. Expected a non-negative number in: $size: -1"),
        (doc! { "a": { "$mod": [0, 1] } }, "divisor cannot be 0"),
        (doc! { "a": { "$type": "text" } }, "Unknown type name alias: text"),
    ];
    for (filter, message) in refusals {
        assert_eq!(Filter::parse(&raw(filter.clone())).unwrap_err().message, message, "{filter}");
    }
}

#[test]
fn matches_arrays_types_strings_and_bits() {
    let (yes, no) = (true, false);
    let cases = [
        (doc! { "a": { "$all": [1, 2] } }, doc! { "a": [2, 3, 1] }, yes),
        (doc! { "a": { "$all": [1, 4] } }, doc! { "a": [2, 3, 1] }, no),
        (doc! { "a": { "$all": [] } }, doc! { "a": [] }, no),
        (
            doc! { "a": { "$all": [{ "$elemMatch": { "b": 1 } }, { "$elemMatch": { "c": 2 } }] } },
            doc! { "a": [{ "b": 1 }, { "c": 2 }] },
            yes,
        ),
        (doc! { "a": { "$elemMatch": { "b": 1, "c": 2 } } }, doc! { "a": [{ "b": 1 }, { "c": 2 }] }, no),
        (doc! { "a.b": { "$elemMatch": { "$gt": 1, "$lt": 3 } } }, doc! { "a": [{ "b": [0, 2] }] }, yes),
        (doc! { "a": { "$elemMatch": { "$gt": 1, "$lt": 3 } } }, doc! { "a": [0, 4] }, no),
        (doc! { "a": { "$not": { "$elemMatch": { "$gt": 1 } } } }, doc! { "a": [0] }, yes),
        (doc! { "a": { "$size": 2 } }, doc! { "a": [1, [2, 3]] }, yes),
        (doc! { "a": { "$size": 2 } }, doc! { "a": [[1, 2]] }, no),
        (doc! { "a": { "$type": "array" } }, doc! { "a": [1] }, yes),
        (doc! { "a": { "$type": ["string", 16] } }, doc! { "a": ["x"] }, yes),
        (doc! { "a": { "$type": "number" } }, doc! { "a": "1" }, no),
        (doc! { "a": { "$mod": [4, 3] } }, doc! { "a": 7.9 }, yes),
        (doc! { "a": { "$mod": [4, -3] } }, doc! { "a": -7_i64 }, yes),
        (doc! { "a": { "$regex": "^b.*r$", "$options": "is" } }, doc! { "a": ["foo", "BA\nR"] }, yes),
        (doc! { "a": { "$not": { "$regex": "x" } } }, doc! { "a": 5 }, yes),
        (doc! { "a": { "$bitsAllSet": [1, 5] } }, doc! { "a": 0b10_0010 }, yes),
        (doc! { "a": { "$bitsAnyClear": 3 } }, doc! { "a": -1 }, no),
        (doc! { "$expr": { "$gt": ["$a", { "$add": ["$b", 1] }] } }, doc! { "a": 3, "b": 1 }, yes),
        (
            doc! { "$expr": { "$in": ["x", { "$map": { "input": "$a", "in": "$$this.n" } }] } },
            doc! { "a": [{ "n": "x" }] },
            yes,
        ),
        (
            doc! { "$jsonSchema": { "required": ["a"], "properties": { "a": { "bsonType": "int", "minimum": 3 } } } },
            doc! { "a": 3 },
            yes,
        ),
        (
            doc! { "$jsonSchema": { "additionalProperties": false, "properties": { "a": {} } } },
            doc! { "a": 1, "b": 1 },
            no,
        ),
        (doc! { "$comment": "why", "a": 1 }, doc! { "a": 1 }, yes),
    ];
    for (filter, document, expected) in cases {
        assert_eq!(matches(filter.clone(), document.clone()), expected, "{filter} on {document}");
    }
}

#[test]
fn reports_the_position_of_the_matching_item() {
    let position = |filter: Document, document: Document| Filter::parse(&raw(filter)).unwrap().position(&raw(document));
    assert_eq!(position(doc! { "a": 5 }, doc! { "a": [4, 5] }), Some(Some(1)));
    assert_eq!(position(doc! { "a.b": 5 }, doc! { "a": [{ "b": [1] }, { "b": [4, 5] }] }), Some(Some(1)));
    assert_eq!(
        position(doc! { "a": { "$elemMatch": { "b": 5 } } }, doc! { "a": [{ "b": 1 }, { "b": 5 }] }),
        Some(Some(1))
    );
    assert_eq!(position(doc! { "a": [5] }, doc! { "a": [5] }), Some(None));
    assert_eq!(position(doc! { "a": 6 }, doc! { "a": [5] }), None);
}

#[test]
fn a_pattern_that_exceeds_the_match_limit_does_not_match() {
    let begun = std::time::Instant::now();
    assert!(!matches(doc! { "a": { "$regex": "^(a+)+$" } }, doc! { "a": format!("{}b", "a".repeat(64)) }));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn lists_operators_at_any_depth() {
    let operators = |filter: Document| {
        let mut names = Vec::new();
        Filter::parse(&raw(filter)).unwrap().operators(&mut |name| names.push(name));
        names
    };
    assert_eq!(
        operators(doc! { "$or": [{ "a": { "$not": { "$elemMatch": { "b": { "$regex": "x" } } } } }] }),
        ["$regex"]
    );
    assert_eq!(operators(doc! { "a": { "$all": [{ "$elemMatch": { "$bitsAllSet": 1 } }] } }), ["$bitsAllSet"]);
    assert_eq!(operators(doc! { "$nor": [{ "$expr": { "$setIsSubset": ["$a", []] } }] }), ["$expr", "$setIsSubset"]);
    assert_eq!(operators(doc! { "a": { "$eq": { "$regex": "a value" } } }), [] as [&str; 0]);
}

#[test]
fn collects_the_equalities_of_and_conditions() {
    let filter = Filter::parse(&raw(
        doc! { "a": 1, "b": { "$eq": 2, "$gt": 0 }, "$and": [{ "c": 3 }], "$or": [{ "d": 4 }, { "e": 5 }] },
    ))
    .unwrap();
    let names: Vec<_> = filter.equalities().into_iter().map(|(path, _)| path.as_str().to_owned()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}
