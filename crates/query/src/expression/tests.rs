#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bson::{Bson, Document, bson, doc, raw::RawDocumentBuf};

use super::*;

fn evaluate(expression: Bson, document: Document) -> Result<Option<Bson>> {
    let holder = RawDocumentBuf::try_from(doc! { "e": expression }).unwrap();
    let document = RawDocumentBuf::try_from(document).unwrap();
    let value = Expression::parse(crate::get(&holder, "e").unwrap())?.evaluate(&document)?;
    Ok(value.map(|value| Bson::try_from(value).unwrap()))
}

#[test]
fn variables_are_visible_only_in_their_scope() {
    let document = doc! { "list": [1, 2, 3], "by": 10, "nested": [{ "n": 1 }, {}, { "n": 3 }] };
    let cases = [
        (
            bson!({ "$map": { "input": "$list", "as": "x", "in": { "$multiply": ["$$x", "$by"] } } }),
            bson!([10, 20, 30]),
        ),
        (
            bson!({ "$let": { "vars": { "a": 1 }, "in": { "$let": { "vars": { "a": 2, "b": "$$a" }, "in": ["$$a", "$$b"] } } } }),
            bson!([2, 1]),
        ),
        (
            bson!({ "$reduce": { "input": "$list", "initialValue": "", "in": { "$concat": ["$$value", { "$toString": "$$this" }] } } }),
            bson!("123"),
        ),
        (bson!({ "$filter": { "input": "$list", "cond": { "$gt": ["$$this", 1] }, "limit": 1 } }), bson!([2])),
        (bson!("$nested.n"), bson!([1, 3])),
        (bson!({ "$cond": [{ "$in": [2, "$list"] }, "yes", "no"] }), bson!("yes")),
        (
            bson!({ "$switch": { "branches": [{ "case": { "$eq": ["$by", 1] }, "then": 1 }], "default": { "$ifNull": ["$none", 5] } } }),
            bson!(5),
        ),
        (bson!({ "$mergeObjects": [{ "a": 1, "b": 1 }, "$none", { "b": 2 }] }), bson!({ "a": 1, "b": 2 })),
        (
            bson!({ "$regexFind": { "input": "äbc", "regex": "(b)(x)?" } }),
            bson!({ "match": "b", "idx": 1, "captures": ["b", null] }),
        ),
        (bson!({ "$literal": "$by" }), bson!("$by")),
        (bson!({ "$setUnion": [[3, 1], [1.0, 2]] }), bson!([1, 2, 3])),
        (bson!({ "$round": [{ "$divide": [10, 3] }, 2] }), bson!(3.33)),
        (bson!({ "$substrCP": ["äöü", 1, 2] }), bson!("öü")),
    ];
    for (expression, expected) in cases {
        assert_eq!(evaluate(expression.clone(), document.clone()).unwrap(), Some(expected), "{expression}");
    }
    assert_eq!(evaluate(bson!("$$x"), doc! {}).unwrap_err().number(), 17276);
    assert_eq!(evaluate(bson!({ "$who": 1 }), doc! {}).unwrap_err().number(), 168);
}

#[test]
fn accumulators_outside_of_groups_accept_operands_or_one_array() {
    let document = doc! { "a": [1, 5.5, "x", null, [9]], "b": 4, "c": [] };
    for (expression, expected) in [
        (bson!({ "$sum": "$a" }), bson!(6.5)),
        (bson!({ "$sum": ["$a"] }), bson!(6.5)),
        // Among several operands, an array is one value and not a number.
        (bson!({ "$sum": ["$a", "$b", 3] }), bson!(7)),
        (bson!({ "$sum": "$b" }), bson!(4)),
        (bson!({ "$sum": "$none" }), bson!(0)),
        (bson!({ "$sum": [] }), bson!(0)),
        (bson!({ "$avg": "$a" }), bson!(3.25)),
        (bson!({ "$avg": ["$b", 5] }), bson!(4.5)),
        (bson!({ "$avg": "$c" }), bson!(null)),
        (bson!({ "$max": "$a" }), bson!([9])),
        (bson!({ "$max": ["$b", 3, null, "$none"] }), bson!(4)),
        (bson!({ "$min": "$a" }), bson!(1)),
        (bson!({ "$min": ["$a", "$b"] }), bson!(4)),
        (bson!({ "$min": ["$none", null] }), bson!(null)),
    ] {
        assert_eq!(evaluate(expression.clone(), document.clone()).unwrap(), Some(expected), "{expression}");
    }
}

#[test]
fn expressions_are_limited_in_steps_and_memory() {
    let begun = Instant::now();
    let range = bson!({ "$range": [0, 100_000] });
    let twice = |operator: &str| bson!({ "$reduce": { "input": { "$range": [0, 60] }, "initialValue": "$start", "in": { operator: ["$$value", "$$value"] } } });
    let cases = [
        (
            bson!({ "$map": { "input": range.clone(), "in": { "$reduce": { "input": range, "initialValue": 0, "in": { "$add": ["$$value", 1] } } } } }),
            50,
        ),
        (twice("$concat"), 10334),
        (twice("$concatArrays"), 10334),
        (bson!({ "$range": [0, 2_000_000_000] }), 146),
        (bson!({ "$map": { "input": { "$range": [0, 100_000] }, "in": "$$ROOT" } }), 10334),
    ];
    for (place, (expression, code)) in cases.into_iter().enumerate() {
        let start = if place == 2 { bson!([1]) } else { bson!("text") };
        assert_eq!(
            evaluate(expression.clone(), doc! { "start": start, "large": "x".repeat(1_000_000) }).unwrap_err().number(),
            code,
            "{expression}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
