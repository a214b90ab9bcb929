use std::time::{Duration, Instant};

use bson::{
    Binary, DateTime, JavaScriptCodeWithScope, RawBson, Regex, Timestamp,
    oid::ObjectId,
    raw::{CString, RawArrayBuf, RawBsonRef, RawDocumentBuf},
    rawdoc,
    spec::BinarySubtype,
};
use proptest::prelude::*;

use super::*;
use crate::{append, budget, budget::Budget, budget::Limits, document::as_document};

/// Creates a document with fields of any names, in order.
fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, RawBson)>) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    for (name, value) in fields {
        append(&mut document, name, &value);
    }
    document
}

fn twice(name: &str) -> RawDocumentBuf {
    fields([(name, RawBson::Int32(1)), ("other", RawBson::Null), (name, RawBson::Int32(2))])
}

fn regex(options: &str) -> RawBson {
    RawBson::RegularExpression(Regex {
        pattern: CString::try_from("a").unwrap(),
        options: CString::try_from(options).unwrap(),
    })
}

fn message(document: &RawDocument) -> String {
    validate(document).unwrap_err().message
}

#[test]
fn rejects_a_duplicate_name_at_any_depth() {
    let scope = bson::raw::RawJavaScriptCodeWithScope { code: "f".into(), scope: twice("s") };
    for (document, path) in [
        (twice("isAdmin"), "isAdmin"),
        (twice(""), ""),
        (rawdoc! { "a": { "b": twice("isAdmin") } }, "a.b.isAdmin"),
        (rawdoc! { "a": [1, [{}, twice("x")]] }, "a.1.1.x"),
        (fields([("code", RawBson::JavaScriptCodeWithScope(scope))]), "code.s"),
    ] {
        let error = validate(&document).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadValue);
        assert_eq!(error.message, format!("the field '{path}' is there twice"));
        validate_form(&document).unwrap();
    }
    // Equal names in different documents are no duplicates, nor are names with a common prefix.
    validate(&rawdoc! { "a": { "a": { "a": 1 } }, "b": { "a": 1 }, "ab": 1, "": 1, "A": 1 }).unwrap();
}

#[test]
fn finds_duplicates_among_few_and_many_names() {
    let names: Vec<String> = (0..3000).map(|number| format!("field{number}")).collect();
    for count in [2, 3, FEW_NAMES - 1, FEW_NAMES, FEW_NAMES + 1, FEW_NAMES * 2, 100, 3000] {
        let all = || names[..count].iter().map(|name| (name.as_str(), RawBson::Null));
        validate(&fields(all())).unwrap();
        for first in [0, 1, count / 2, count - 1] {
            let document = fields(all().chain([(names[first].as_str(), RawBson::Null)]));
            assert_eq!(message(&document), format!("the field 'field{first}' is there twice"), "{count}");
        }
    }
}

#[test]
fn the_cost_is_linear_in_the_number_of_fields() {
    let time = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let document = fields(names.iter().map(|name| (name.as_str(), RawBson::Null)));
        let begun = Instant::now();
        validate(&document).unwrap();
        begun.elapsed()
    };
    time(1000);
    // Pairwise, these would be 2 * 10^10 comparisons.
    assert!(time(200_000) < Duration::from_secs(5));
}

#[test]
fn rejects_unknown_options_of_a_regular_expression() {
    for options in ["", "i", "imsux", "xi"] {
        validate(&fields([("a", regex(options))])).unwrap();
    }
    for (document, flag, path) in [
        (rawdoc! { "a": { "b": regex("zq") } }, "z", "a.b"),
        (rawdoc! { "a": [regex("il")] }, "l", "a.0"),
        (rawdoc! { "a": regex("I") }, "I", "a"),
        (rawdoc! { "a": { "$regex": "a", "$options": "q" } }, "q", "a.$options"),
    ] {
        let error = validate(&document).unwrap_err();
        assert_eq!(error.code, ErrorCode::Location(51108));
        assert_eq!(error.message, format!("invalid flag in regex options: {flag} at '{path}'"));
        validate_form(&document).unwrap();
    }
}

#[test]
fn rejects_the_type_names_of_extended_json() {
    for name in EXTENDED_JSON_NAMES {
        let document = rawdoc! { "a": [fields([("b", RawBson::Null), (name, RawBson::String("x".into()))])] };
        let error = validate(&document).unwrap_err();
        assert_eq!(error.code, ErrorCode::DollarPrefixedFieldName);
        assert!(error.message.starts_with(&format!("the field 'a.0.{name}' has")), "{error}");
        validate_form(&document).unwrap();
    }
    for (update, path) in [
        (rawdoc! { "$set": { "a.$oid": 1 } }, "$set.a.$oid"),
        (rawdoc! { "filter": { "a.$date.b": 1 } }, "filter.a.$date.b"),
        (rawdoc! { "$rename": { "a": "b.$oid" } }, "$rename"),
    ] {
        assert!(message(&update).starts_with(&format!("the field '{path}' has")), "{update:?}");
    }
    validate(&rawdoc! { "$set": { "a.$[].b": 1, "a.$": 1 }, "$rename": { "a": "b" }, "a.$oids": "$oid" }).unwrap();
    for value in [RawBson::Int32(5), RawBson::String("a\0b".into()), RawBson::Document(rawdoc! { "x": 1 })] {
        assert_eq!(message(&rawdoc! { "a": { "$regex": value } }), "$regex has to be a string at 'a.$regex'");
    }
    validate(&rawdoc! { "a": { "$regex": "a", "$options": "i" }, "b": { "$regex": regex("i") } }).unwrap();
    validate(&rawdoc! { "$set": { "a": 1 }, "r": { "$ref": "c", "$id": 1, "$db": "d" }, "$type": 1 }).unwrap();
}

#[test]
fn a_long_path_is_cut() {
    let long = "x".repeat(10_000);
    let document = rawdoc! { "a": fields([(long.as_str(), RawBson::Document(twice("b")))]) };
    assert_eq!(message(&document), "the field 'a…' is there twice");
}

#[test]
fn rejects_malformed_bson_with_the_path() {
    // A field `a` of a document `d`, with the given type and bytes.
    let with = |type_byte: u8, value: &[u8]| {
        let mut inner = vec![0; 4];
        inner.push(type_byte);
        inner.extend(b"a\0");
        inner.extend(value);
        inner.push(0);
        let length = inner.len() as u32;
        inner[..4].copy_from_slice(&length.to_le_bytes());
        let mut outer = vec![0; 4];
        outer.extend(b"\x03d\0");
        outer.extend(inner);
        outer.push(0);
        let length = outer.len() as u32;
        outer[..4].copy_from_slice(&length.to_le_bytes());
        RawDocumentBuf::from_bytes(outer).unwrap()
    };
    for (type_byte, value) in [
        (0x01, &[0; 7][..]),
        (0x01, &[0; 9]),
        (0x02, b"\x02\0\0\0\xffx"),
        (0x02, b"\x02\0\0\0\xff\0"),
        (0x02, b"\0\0\0\0\0"),
        (0x02, b"\xff\xff\xff\xff\0"),
        (0x02, b"\x03\0\0\0a\0"),
        (0x03, b"\x04\0\0\0"),
        (0x03, b"\x05\0\0\0\x01"),
        (0x04, b"\xff\xff\xff\x7f\0"),
        (0x05, b"\xff\xff\xff\xff\0"),
        (0x05, b"\x02\0\0\0\0a"),
        (0x05, b"\x03\0\0\0\x02abc"),
        (0x05, b"\x05\0\0\0\x02\x02\0\0\0a"),
        (0x05, b"\x04\0\0\0\x02\xff\xff\xff\xff"),
        (0x08, b"\x02"),
        (0x0b, b"a\0i"),
        (0x0b, b"\xff\0i\0"),
        (0x0c, b"\x02\0\0\0a\0\0\0\0"),
        (0x0f, b"\x0e\0\0\0\x01\0\0\0\0\x06\0\0\0\0\0"),
        (0x0f, b"\x0f\0\0\0\x01\0\0\0\0\x05\0\0\0\0\0"),
        (0x0f, b"\x04\0\0\0"),
        (0x14, &[0; 8]),
        (0x00, &[]),
    ] {
        let document = with(type_byte, value);
        for error in [validate(&document).unwrap_err(), validate_form(&document).unwrap_err()] {
            assert_eq!(error.code, ErrorCode::InvalidBson, "{type_byte:#x} {value:?}: {error}");
            assert!(error.message.contains("'d.a'") || error.message.contains("'d'"), "{error}");
        }
    }
    for (type_byte, value) in [
        (0x05, &b"\0\0\0\0\x04"[..]),
        (0x05, b"\x04\0\0\0\x02\0\0\0\0"),
        (0x09, &[0xff; 8]),
        (0x0c, b"\x02\0\0\0a\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        (0x13, &[0xff; 16]),
    ] {
        validate(&with(type_byte, value)).unwrap();
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let mut document = rawdoc! { "a": 1 };
        for level in 1..levels {
            document = if level % 2 == 0 {
                rawdoc! { "a": document }
            } else {
                rawdoc! { "a": [document] }
            };
        }
        document
    };
    validate(&nested(133)).unwrap();
    assert_eq!(validate(&nested(134)).unwrap_err().code, ErrorCode::Overflow);
}

#[test]
fn charges_the_budget_for_every_element() {
    let document = fields([(
        "a",
        RawBson::Array((0..5000).map(RawBson::Int32).fold(RawArrayBuf::new(), |mut all, item| {
            all.push(item);
            all
        })),
    )]);
    let budget = Budget::new(Limits { steps: Some(1000), ..Limits::default() });
    assert_eq!(budget.enter(|| validate(&document)).unwrap_err().code, ErrorCode::MaxTimeMsExpired);
    let text = rawdoc! { "a": "x".repeat(1 << 20) };
    let budget = Budget::new(Limits { steps: Some(1000), ..Limits::default() });
    assert!(budget.enter(|| validate(&text)).is_err());
    assert!(budget::spend(1));
}

/// Reads a document with the `bson` crate, at any depth. True if all of it can be read.
fn can_be_read(document: &RawDocument) -> bool {
    document.iter_elements().all(|element| match element.and_then(|element| element.value()) {
        Ok(RawBsonRef::Document(inner)) => can_be_read(inner),
        Ok(RawBsonRef::Array(inner)) => can_be_read(as_document(inner)),
        Ok(RawBsonRef::JavaScriptCodeWithScope(code)) => can_be_read(code.scope),
        read => read.is_ok(),
    })
}

fn some_of_all() -> RawDocumentBuf {
    rawdoc! {
        "text": "aé", "double": 1.5, "document": { "a": [1, [true, null], "b"] }, "id": ObjectId::from_bytes([1; 12]),
        "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
        "old": Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2] },
        "date": DateTime::from_millis(-1), "regex": regex("im"), "code": RawBson::JavaScriptCode("f".into()),
        "symbol": RawBson::Symbol("s".into()), "long": 1_i64, "min": RawBson::MinKey, "undefined": RawBson::Undefined,
        "scoped": RawBson::try_from(bson::Bson::from(JavaScriptCodeWithScope { code: "f".into(), scope: bson::doc! { "x": 1 } })).unwrap(),
        "timestamp": Timestamp { time: 1, increment: 2 }, "decimal": "1".parse::<bson::Decimal128>().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    /// Changes bytes at a few places: the `bson` crate can read every document that is still
    /// valid.
    #[test]
    fn a_valid_document_can_be_read(changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0_u8..20]), 0..4)) {
        let mut bytes = some_of_all().into_bytes();
        let length = bytes.len();
        for (place, byte) in changes {
            bytes[4 + place.index(length - 5)] = byte;
        }
        let document = RawDocument::from_bytes(&bytes).unwrap();
        prop_assert_eq!(validate_form(document).is_ok(), can_be_read(document));
        if validate(document).is_ok() {
            prop_assert!(can_be_read(document));
        }
    }

    /// Compares the detection of duplicate names with a set.
    #[test]
    fn finds_duplicates_as_a_set_does(names in prop::collection::vec("[ab]{0,4}|[a-c]é", 0..40)) {
        let document = fields(names.iter().map(|name| (name.as_str(), RawBson::Null)));
        let set: std::collections::HashSet<_> = names.iter().collect();
        prop_assert_eq!(validate(&document).is_ok(), set.len() == names.len());
    }
}
