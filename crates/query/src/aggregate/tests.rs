#![allow(clippy::unwrap_used)]

use bson::{Bson, Document, bson, doc};

use super::*;

fn run(pipeline: Bson) -> Result<Vec<Document>> {
    let plants = [
        doc! { "_id": 1, "name": "venus flytrap", "type": "perennial", "n": 1, "tags": ["a", "b"] },
        doc! { "_id": 2, "name": "sweet basil", "type": "annual", "n": 2.5, "tags": [] },
        doc! { "_id": 3, "name": "thai basil", "type": "perennial", "n": 3_i64, "tags": ["c"] },
        doc! { "_id": 4, "name": "petunia", "type": null },
        doc! { "_id": 5, "name": "fern", "n": "x" },
    ];
    let stages = bson::RawBson::try_from(pipeline).unwrap();
    let pipeline = Pipeline::parse(stages.as_array().unwrap())?;
    let documents = plants.into_iter().map(|plant| RawDocumentBuf::try_from(plant).unwrap());
    pipeline.run(documents).map(|document| Ok(Document::try_from(document?).unwrap())).collect()
}

#[test]
fn groups_by_value_and_accumulates() {
    let answer = run(bson!([
        { "$group": { "_id": "$type", "total": { "$sum": 1 }, "sum": { "$sum": "$n" }, "avg": { "$avg": "$n" }, "min": { "$min": "$n" }, "max": { "$max": "$n" },
            "first": { "$first": "$name" }, "last": { "$last": "$name" }, "all": { "$push": "$n" }, "set": { "$addToSet": "$type" } } },
        { "$sort": { "_id": 1 } },
    ]));
    assert_eq!(
        answer.unwrap(),
        [
            doc! { "_id": null, "total": 2, "sum": 0, "avg": null, "min": "x", "max": "x", "first": "petunia", "last": "fern", "all": ["x"], "set": [null] },
            doc! { "_id": "annual", "total": 1, "sum": 2.5, "avg": 2.5, "min": 2.5, "max": 2.5, "first": "sweet basil", "last": "sweet basil", "all": [2.5], "set": ["annual"] },
            doc! { "_id": "perennial", "total": 2, "sum": 4_i64, "avg": 2.0, "min": 1, "max": 3_i64, "first": "venus flytrap", "last": "thai basil", "all": [1, 3_i64], "set": ["perennial"] },
        ]
    );
}

#[test]
fn shapes_documents() {
    assert_eq!(
        run(bson!([{ "$match": { "type": "annual" } }, { "$project": { "_id": 0, "first": { "$arrayElemAt": [{ "$split": ["$name", " "] }, 0] }, "n": 1, "one": { "$literal": 1 } } }])).unwrap(),
        [doc! { "n": 2.5, "first": "sweet", "one": 1 }]
    );
    assert_eq!(
        run(bson!([{ "$limit": 1 }, { "$project": { "_id": 0, "tags.x": { "$literal": true }, "is": { "$literal": false }, "name": "$type" } }])).unwrap(),
        [doc! { "tags": [{ "x": true }, { "x": true }], "is": false, "name": "perennial" }]
    );
    assert_eq!(
        run(bson!([{ "$limit": 1 }, { "$addFields": { "copy": "$name", "deep.x": "$tags", "gone": "$missing" } }, { "$project": { "tags": 0, "name": 0, "type": false } }])).unwrap(),
        [doc! { "_id": 1, "n": 1, "copy": "venus flytrap", "deep": { "x": ["a", "b"] } }]
    );
    assert_eq!(
        run(bson!([{ "$project": { "_id": 1, "tags": 1 } }, { "$unwind": { "path": "$tags", "includeArrayIndex": "at" } }])).unwrap(),
        [doc! { "_id": 1, "tags": "a", "at": 0_i64 }, doc! { "_id": 1, "tags": "b", "at": 1_i64 }, doc! { "_id": 3, "tags": "c", "at": 0_i64 }]
    );
    assert_eq!(
        run(bson!([{ "$unwind": { "path": "$tags", "preserveNullAndEmptyArrays": true } }, { "$count": "n" }]))
            .unwrap(),
        [doc! { "n": 6 }]
    );
    assert_eq!(
        run(bson!([{ "$sort": { "name": -1 } }, { "$skip": 1 }, { "$limit": 1 }, { "$project": { "name": 1 } }]))
            .unwrap(),
        [doc! { "_id": 3, "name": "thai basil" }]
    );
    assert_eq!(run(bson!([{ "$match": { "_id": 9 } }, { "$count": "n" }])).unwrap(), [] as [Document; 0]);
}

#[test]
fn rejects_invalid_and_unsupported_parts_by_name() {
    let refusals = [
        (bson!([{ "$who": {} }]), "Unrecognized pipeline stage name: '$who'."),
        (bson!([{ "$lookup": {} }]), "the pipeline stage $lookup is not supported by Userkeep"),
        (bson!([{ "$out": "x" }]), "the pipeline stage $out is not supported by Userkeep"),
        (
            bson!([{ "$group": { "_id": 1, "x": { "$median": 1 } } }]),
            "the accumulator $median is not supported by Userkeep",
        ),
        (bson!([{ "$group": { "_id": 1, "x": { "$who": 1 } } }]), "unknown group operator '$who'"),
        (bson!([{ "$group": { "x": { "$sum": 1 } } }]), "a group specification must include an _id"),
        (bson!([{ "$project": { "x": { "$dateAdd": {} } } }]), "the expression $dateAdd is not supported by Userkeep"),
        (
            bson!([{ "$addFields": { "x": "$$CLUSTER_TIME" } }]),
            "the variable $$CLUSTER_TIME is not supported by Userkeep",
        ),
        (bson!([{ "$limit": 0 }]), "the limit must be positive"),
        (bson!([{}]), "A pipeline stage specification object must contain exactly one field."),
    ];
    for (pipeline, message) in refusals {
        assert_eq!(run(pipeline.clone()).unwrap_err().message, message, "{pipeline}");
    }
}
