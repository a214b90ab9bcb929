#![allow(clippy::unwrap_used)]

use bson::{Document, doc, rawdoc};

use super::*;

struct Fixed;

impl Environment for Fixed {
    fn now(&self) -> DateTime {
        DateTime::from_millis(1_700_000_000_000)
    }

    fn new_id(&self) -> ObjectId {
        ObjectId::from_bytes([7; 12])
    }
}

fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn apply(document: Document, update: Document) -> Result<Document> {
    let updated = Update::parse(&raw(update))?.apply(&raw(document), &Filter::all(), &Fixed)?;
    Ok(Document::try_from(updated).unwrap())
}

fn upsert(filter: Document, update: Document) -> Result<Document> {
    let inserted = Update::parse(&raw(update))?.upsert(&Filter::parse(&raw(filter))?, &Fixed)?;
    Ok(Document::try_from(inserted).unwrap())
}

#[test]
fn operators_change_only_their_fields() {
    let before = doc! { "_id": 1, "n": 5, "tags": ["a", "b"], "deep": { "x": 1, "y": [ { "z": 1 } ] }, "last": true };
    let cases = [
        (
            doc! { "$set": { "deep.x": 2, "new.path": 1 } },
            doc! { "_id": 1, "n": 5, "tags": ["a", "b"], "deep": { "x": 2, "y": [ { "z": 1 } ] }, "last": true, "new": { "path": 1 } },
        ),
        (
            doc! { "$unset": { "n": "", "deep.y.0.z": 1, "missing.x": 1 } },
            doc! { "_id": 1, "tags": ["a", "b"], "deep": { "x": 1, "y": [ {} ] }, "last": true },
        ),
        (
            doc! { "$inc": { "n": 1.5, "made": 2_i64 }, "$mul": { "deep.x": 3, "zero": 4 } },
            doc! { "_id": 1, "n": 6.5, "tags": ["a", "b"], "deep": { "x": 3, "y": [ { "z": 1 } ] }, "last": true, "made": 2_i64, "zero": 0 },
        ),
        (
            doc! { "$min": { "n": 3, "deep.x": 2 }, "$max": { "last": false, "z": 1 } },
            doc! { "_id": 1, "n": 3, "tags": ["a", "b"], "deep": { "x": 1, "y": [ { "z": 1 } ] }, "last": true, "z": 1 },
        ),
        (
            doc! { "$rename": { "n": "deep.n", "missing": "other" } },
            doc! { "_id": 1, "tags": ["a", "b"], "deep": { "x": 1, "y": [ { "z": 1 } ], "n": 5 }, "last": true },
        ),
        (
            doc! { "$push": { "tags": "c" }, "$addToSet": { "deep.y": { "$each": [ { "z": 1.0 }, { "z": 2 } ] } } },
            doc! { "_id": 1, "n": 5, "tags": ["a", "b", "c"], "deep": { "x": 1, "y": [ { "z": 1 }, { "z": 2 } ] }, "last": true },
        ),
        (
            doc! { "$push": { "tags": { "$each": ["z", "c"], "$position": 0, "$sort": -1, "$slice": 3 } } },
            doc! { "_id": 1, "n": 5, "tags": ["z", "c", "b"], "deep": { "x": 1, "y": [ { "z": 1 } ] }, "last": true },
        ),
        (
            doc! { "$pull": { "tags": { "$in": ["a", "x"] }, "deep.y": { "z": { "$gte": 1 } } } },
            doc! { "_id": 1, "n": 5, "tags": ["b"], "deep": { "x": 1, "y": [] }, "last": true },
        ),
        (
            doc! { "$currentDate": { "at": true } },
            doc! { "_id": 1, "n": 5, "tags": ["a", "b"], "deep": { "x": 1, "y": [ { "z": 1 } ] }, "last": true, "at": Fixed.now() },
        ),
        (
            doc! { "$set": { "tags.3": "d" } },
            doc! { "_id": 1, "n": 5, "tags": ["a", "b", null, "d"], "deep": { "x": 1, "y": [ { "z": 1 } ] }, "last": true },
        ),
        (doc! { "$setOnInsert": { "n": 1 } }, before.clone()),
        (doc! { "other": 1 }, doc! { "_id": 1, "other": 1 }),
    ];
    for (update, after) in cases {
        assert_eq!(apply(before.clone(), update.clone()).unwrap(), after, "{update}");
    }
}

#[test]
fn rejects_invalid_updates_with_the_servers_code() {
    let cases = [
        (doc! { "$set": { "n.x": 1 } }, ErrorCode::PathNotViable),
        (doc! { "$set": { "tags.x": 1 } }, ErrorCode::PathNotViable),
        (doc! { "$set": { "_id": 2 } }, ErrorCode::ImmutableField),
        (doc! { "$unset": { "_id": 1 } }, ErrorCode::ImmutableField),
        (doc! { "_id": 2, "a": 1 }, ErrorCode::ImmutableField),
        (doc! { "$inc": { "tags": 1 } }, ErrorCode::TypeMismatch),
        (doc! { "$inc": { "n": "1" } }, ErrorCode::TypeMismatch),
        (doc! { "$inc": { "big": 1 } }, ErrorCode::BadValue),
        (doc! { "$push": { "n": 1 } }, ErrorCode::BadValue),
        (doc! { "$pull": { "n": 1 } }, ErrorCode::BadValue),
        (doc! { "$set": { "a": 1, "a.b": 1 } }, ErrorCode::ConflictingUpdateOperators),
        (doc! { "$set": { "a": 1 }, "$inc": { "a": 1 } }, ErrorCode::ConflictingUpdateOperators),
        (doc! { "$rename": { "n": "n" } }, ErrorCode::BadValue),
        (doc! { "$set": { "a..b": 1 } }, ErrorCode::EmptyFieldName),
        (doc! { "$set": 1 }, ErrorCode::FailedToParse),
        (doc! { "$who": { "a": 1 } }, ErrorCode::FailedToParse),
        (doc! { "a": 1, "$set": { "b": 1 } }, ErrorCode::FailedToParse),
        (doc! { "$bit": { "n": { "nand": 1 } } }, ErrorCode::BadValue),
        (doc! { "$set": { "n.$[]": 1 } }, ErrorCode::BadValue),
        (doc! { "$set": { "tags.$": 1 } }, ErrorCode::BadValue),
        (doc! { "$set": { "$a": 1 } }, ErrorCode::DollarPrefixedFieldName),
        (doc! { "$rename": { "n": "_id" } }, ErrorCode::ImmutableField),
        (doc! { "$rename": { "n.x": "y" } }, ErrorCode::PathNotViable),
    ];
    for (update, code) in cases {
        let before = doc! { "_id": 1, "n": 5, "tags": ["a"], "big": i64::MAX };
        let error = apply(before, update.clone()).unwrap_err();
        assert_eq!(error.code, code, "{update}: {error}");
    }
}

#[test]
fn an_integer_widens_on_overflow() {
    assert_eq!(apply(doc! { "n": i32::MAX }, doc! { "$inc": { "n": 1 } }).unwrap(), doc! { "n": 2_147_483_648_i64 });
    let decimal: bson::Decimal128 = "0.1".parse().unwrap();
    let sum: bson::Decimal128 = "0.300000000000000".parse().unwrap();
    assert_eq!(apply(doc! { "n": decimal }, doc! { "$inc": { "n": 0.2 } }).unwrap(), doc! { "n": sum });
}

#[test]
fn an_update_without_changes_keeps_the_bytes() {
    let before = rawdoc! { "_id": 1, "a": { "b": [1, { "c": 2 }] }, "d": 1_i64 };
    for update in [
        doc! { "$set": { "a.b.1.c": 2 } },
        doc! { "$max": { "d": 1 } },
        doc! { "$addToSet": { "a.b": 1 } },
        doc! { "$pull": { "a.b": 9 } },
    ] {
        let after = Update::parse(&raw(update)).unwrap().apply(&before, &Filter::all(), &Fixed).unwrap();
        assert_eq!(after, before);
    }
}

#[test]
fn an_upsert_starts_with_the_filters_equalities() {
    assert_eq!(
        upsert(
            doc! { "userId": "u", "a.b": { "$eq": 1 }, "c": { "$gt": 1 }, "$and": [ { "d": 2 } ] },
            doc! { "$set": { "color": "pink" }, "$setOnInsert": { "first": true } }
        )
        .unwrap(),
        doc! { "_id": Fixed.new_id(), "userId": "u", "a": { "b": 1 }, "d": 2, "color": "pink", "first": true }
    );
    assert_eq!(upsert(doc! { "_id": 5, "x": 1 }, doc! { "y": 2 }).unwrap(), doc! { "_id": 5, "y": 2 });
    assert_eq!(upsert(doc! { "a": 1 }, doc! { "$set": { "_id": 3 } }).unwrap(), doc! { "_id": 3, "a": 1 });
    assert_eq!(
        upsert(doc! { "a": 1, "a.b": 2 }, doc! { "$set": { "x": 1 } }).unwrap_err().code,
        ErrorCode::NotSingleValueField
    );
}
