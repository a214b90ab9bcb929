//! Tests with arbitrary filters, updates, projections, sorts and pipelines: each returns a result
//! or an error in bounded time, and none panics. For a longer run: `PROPTEST_CASES=10000000 cargo
//! test -p userkeep-query --release --test arbitrary`.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use bson::{
    Bson, DateTime, Document,
    oid::ObjectId,
    raw::{RawBsonRef, RawDocumentBuf},
};
use proptest::prelude::*;
use query::{Filter, Pipeline, Projection, Sort, Update, distinct, validate};
use support::Fixed;

/// Maximum duration of one case, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

const NAMES: &[&str] = &[
    "a",
    "b",
    "a.b",
    "a.0",
    "a.$",
    "a.$[]",
    "a.$[x].b",
    "x",
    "x.b",
    "_id",
    "",
    ".",
    "$",
    "$$",
    "in",
    "if",
    "then",
    "else",
    "input",
    "cond",
    "as",
    "vars",
    "regex",
    "options",
    "find",
    "replacement",
    "branches",
    "case",
    "default",
    "initialValue",
    "newRoot",
    "path",
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$type",
    "$size",
    "$mod",
    "$all",
    "$elemMatch",
    "$not",
    "$and",
    "$or",
    "$nor",
    "$regex",
    "$options",
    "$bitsAllSet",
    "$bitsAnyClear",
    "$expr",
    "$jsonSchema",
    "$comment",
    "properties",
    "required",
    "bsonType",
    "items",
    "pattern",
    "minimum",
    "$set",
    "$unset",
    "$inc",
    "$mul",
    "$min",
    "$max",
    "$rename",
    "$push",
    "$pull",
    "$pullAll",
    "$addToSet",
    "$pop",
    "$bit",
    "$each",
    "$slice",
    "$sort",
    "$position",
    "$setOnInsert",
    "$currentDate",
    "and",
    "xor",
    "$add",
    "$subtract",
    "$multiply",
    "$divide",
    "$pow",
    "$round",
    "$trunc",
    "$log",
    "$concat",
    "$split",
    "$substrBytes",
    "$substrCP",
    "$indexOfBytes",
    "$indexOfCP",
    "$trim",
    "$replaceAll",
    "$regexFindAll",
    "$arrayElemAt",
    "$concatArrays",
    "$range",
    "$reverseArray",
    "$indexOfArray",
    "$map",
    "$filter",
    "$reduce",
    "$let",
    "$cond",
    "$switch",
    "$ifNull",
    "$literal",
    "$mergeObjects",
    "$arrayToObject",
    "$objectToArray",
    "$setUnion",
    "$setDifference",
    "$toInt",
    "$toString",
    "$toDate",
    "$toDecimal",
    "$cmp",
    "$match",
    "$project",
    "$addFields",
    "$replaceWith",
    "$unwind",
    "$group",
    "$limit",
    "$skip",
    "$sum",
    "$avg",
    "$first",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "$a",
    "$a.b",
    "$$this",
    "$$value",
    "$$ROOT",
    "$$x",
    "$",
    "$$",
    "(",
    "^(a+)+$",
    "[a-z]*ä",
    "i",
    "int",
    "number",
    "1e400",
    "2020-01-01T00:00:00Z",
    "ä€😀",
];

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        4 => prop::sample::select(TEXTS).prop_map(|text| Bson::String(text.to_owned())),
        4 => (-3i32..4).prop_map(Bson::Int32),
        1 => any::<i32>().prop_map(Bson::Int32),
        1 => any::<i64>().prop_map(Bson::Int64),
        1 => any::<f64>().prop_map(Bson::Double),
        1 => Just(Bson::Double(f64::NAN)),
        1 => any::<bool>().prop_map(Bson::Boolean),
        1 => Just(Bson::Null),
        1 => Just(Bson::Undefined),
        1 => Just(Bson::MinKey),
        1 => any::<i64>().prop_map(|time| Bson::DateTime(DateTime::from_millis(time))),
        1 => any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(bson::Decimal128::from_bytes(bytes))),
        1 => any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| {
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::BinaryOld, bytes })
        }),
        1 => prop::sample::select(TEXTS).prop_map(|text| {
            Bson::RegularExpression(bson::Regex { pattern: text.try_into().unwrap(), options: "i".try_into().unwrap() })
        }),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
            document(inner).prop_map(Bson::Document),
        ]
    })
}

fn document(value: impl Strategy<Value = Bson>) -> impl Strategy<Value = Document> {
    prop::collection::vec((prop::sample::select(NAMES), value), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn try_all(specification: &RawDocumentBuf, array: &Bson, target: &RawDocumentBuf) {
    let mut matched = Filter::all();
    if let Ok(filter) = Filter::parse(specification) {
        let _ = filter.try_matches(target);
        let _ = filter.position(target);
        filter.operators(&mut |_| {});
        let written = filter.to_document();
        let again = Filter::parse(&written);
        assert!(
            again.as_ref().is_ok_and(|again| again.matches(target) == filter.matches(target)),
            "{filter:?}: {again:?}"
        );
        matched = filter;
    }
    let holder = RawDocumentBuf::try_from(bson::doc! { "array": array.clone() }).unwrap();
    let array = query::get(&holder, "array").unwrap_or(RawBsonRef::Null);
    let filters = array.as_array();
    for (update, filters) in
        [(RawBsonRef::Document(specification), None), (RawBsonRef::Document(specification), filters), (array, None)]
    {
        if let Ok(update) = Update::parse_any(update, filters) {
            let _ = update.apply(target, &matched, &Fixed);
            let _ = update.upsert(&matched, &Fixed);
        }
    }
    if let Ok(projection) = Projection::parse(specification) {
        let _ = projection.apply(target, &matched);
    }
    if let Ok(sort) = Sort::parse(specification) {
        let _ = sort.key(target);
    }
    if let Some(Ok(pipeline)) = array.as_array().map(Pipeline::parse_of_nothing) {
        let _ = pipeline.run(std::iter::once(target.clone())).take(1000).count();
    }
    let _ = distinct([&**target], "a.b");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4000),
    ) })]

    #[test]
    fn any_input_returns_a_result_or_an_error(
        specification in document(value()),
        array in prop::collection::vec(value(), 0..4).prop_map(Bson::Array),
        target in document(value()),
    ) {
        let raw = |document: Document| RawDocumentBuf::try_from(document).unwrap();
        let (specification, target) = (raw(specification), raw(target));
        prop_assume!(validate(&specification).is_ok() && validate(&target).is_ok());
        let begun = Instant::now();
        try_all(&specification, &array, &target);
        prop_assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    }
}

/// Nests each recursive form as deeply as documents may be nested.
#[test]
fn input_of_maximum_depth_returns_a_result_or_an_error() {
    let nested = |wrap: &dyn Fn(Bson) -> Bson| {
        let mut value = Bson::Int32(1);
        let mut levels = 0;
        loop {
            let deeper = wrap(value.clone());
            let holder = RawDocumentBuf::try_from(bson::doc! { "a": deeper.clone() }).unwrap();
            if levels > 400 || validate(&holder).is_err() {
                return value;
            }
            value = deeper;
            levels += 1;
        }
    };
    for wrap in [
        &(|inner| bson::bson!({ "$and": [inner] })) as &dyn Fn(Bson) -> Bson,
        &|inner| bson::bson!({ "$elemMatch": { "a": inner } }),
        &|inner| bson::bson!({ "$not": inner }),
        &|inner| bson::bson!({ "$add": [inner] }),
        &|inner| bson::bson!({ "$cond": [1, inner, 0] }),
        &|inner| bson::bson!({ "$map": { "input": [1], "in": inner } }),
        &|inner| bson::bson!({ "properties": { "a": inner } }),
        &|inner| bson::bson!({ "a": inner }),
        &|inner| bson::bson!([inner]),
    ] {
        let deep = nested(wrap);
        let raw = |document: Document| RawDocumentBuf::try_from(document).unwrap();
        let target = raw(bson::doc! { "a": deep.clone() });
        for specification in [
            bson::doc! { "a": deep.clone() },
            bson::doc! { "$expr": deep.clone() },
            bson::doc! { "$jsonSchema": deep.clone() },
            bson::doc! { "$set": { "a": deep.clone() } },
        ] {
            try_all(&raw(specification), &bson::bson!([{ "$set": { "a": deep.clone() } }]), &target);
        }
    }
}
