#![allow(clippy::unwrap_used)]

use bson::{
    Binary, Bson, DateTime, JavaScriptCodeWithScope, RawBson, Regex, Timestamp, doc,
    oid::ObjectId,
    raw::{RawBsonRef, RawDocumentBuf},
    rawdoc,
    spec::BinarySubtype,
};
use serde_json::json;

use super::*;

#[test]
fn every_type_is_written_as_the_specification_says_and_read_again() {
    let id = ObjectId::parse_str("63c1b2a1f0e1d2c3b4a59687").unwrap();
    let document = doc! {
        "double": 1.5, "whole": 2.0, "negative zero": -0.0, "large": 1e300, "infinite": f64::NEG_INFINITY,
        "text": "aé\n\"\u{0}", "nested": { "a": [1, { "b": [] }] }, "id": id, "yes": true, "nothing": Bson::Null,
        "binary": Binary { subtype: BinarySubtype::Uuid, bytes: vec![255; 16] },
        "old": Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2] },
        "date": DateTime::from_millis(-1), "undefined": Bson::Undefined, "symbol": Bson::Symbol("s".into()),
        "regex": Regex { pattern: "a.b".try_into().unwrap(), options: "im".try_into().unwrap() },
        "code": Bson::JavaScriptCode("f()".into()),
        "scoped": JavaScriptCodeWithScope { code: "f()".into(), scope: doc! { "x": 1 } },
        "int": i32::MIN, "long": i64::MAX, "timestamp": Timestamp { time: u32::MAX, increment: 2 },
        "decimal": "1E-6176".parse::<bson::Decimal128>().unwrap(), "min": Bson::MinKey, "max": Bson::MaxKey,
    };
    let raw = RawDocumentBuf::try_from(document.clone()).unwrap();
    let written = serde_json::to_value(Canonical(RawBsonRef::Document(&raw))).unwrap();
    assert_eq!(written["double"], json!({ "$numberDouble": "1.5" }));
    assert_eq!(written["whole"], json!({ "$numberDouble": "2.0" }));
    assert_eq!(written["negative zero"], json!({ "$numberDouble": "-0.0" }));
    assert_eq!(written["infinite"], json!({ "$numberDouble": "-Infinity" }));
    assert_eq!(written["date"], json!({ "$date": { "$numberLong": "-1" } }));
    assert_eq!(written["binary"], json!({ "$binary": { "base64": "/////////////////////w==", "subType": "04" } }));
    assert_eq!(written["old"], json!({ "$binary": { "base64": "AQI=", "subType": "02" } }));
    assert_eq!(written["nested"], json!({ "a": [{ "$numberInt": "1" }, { "b": [] }] }));
    assert_eq!(written["scoped"], json!({ "$code": "f()", "$scope": { "x": { "$numberInt": "1" } } }));
    for (key, other) in Bson::Document(document.clone()).into_canonical_extjson().as_object().unwrap() {
        if !matches!(document.get(key), Some(Bson::Double(_))) {
            assert_eq!(&written[key], other, "{key}");
        }
    }
    assert_eq!(read(&serde_json::to_vec(&written).unwrap()).unwrap().into_bson().unwrap(), RawBson::Document(raw));
    let nan = serde_json::to_string(&Canonical(RawBsonRef::Double(f64::NAN))).unwrap();
    assert_eq!(nan, r#"{"$numberDouble":"NaN"}"#);
}

#[test]
fn json_may_be_as_deep_as_documents_and_no_deeper() {
    let nested = |levels: usize| format!("{}1{}", "[{\"\\\"[\":".repeat(levels / 2), "}]".repeat(levels / 2));
    assert!(read(nested(read::MAX_DEPTH).as_bytes()).is_ok());
    let error = read(nested(read::MAX_DEPTH + 2).as_bytes()).unwrap_err();
    assert!(error.message.contains("nested more than 250 levels deep"), "{error}");
    assert!(read("[".repeat(1_000_000).as_bytes()).is_err());
    for (json, place) in [("", "line 1, column 0"), ("{\n x", "line 2, column 2"), ("1 2", "line 1, column 3")] {
        assert!(read(json.as_bytes()).unwrap_err().message.ends_with(place), "{json}");
    }
}

#[test]
fn other_flavours_are_read_too() {
    let read = |json: &str| read(json.as_bytes()).unwrap().into_bson().unwrap();
    for (json, value) in [
        ("5", RawBson::Int32(5)),
        ("-2147483649", RawBson::Int64(-2_147_483_649)),
        ("18446744073709551615", RawBson::Double(18_446_744_073_709_551_615.0)),
        ("1e3", RawBson::Double(1000.0)),
        (r#"{"$date":"2020-01-01T00:00:00Z"}"#, RawBson::DateTime(DateTime::from_millis(1_577_836_800_000))),
        (r#"{"$date":"2020-01-01T01:00:00.5+01:00"}"#, RawBson::DateTime(DateTime::from_millis(1_577_836_800_500))),
        (r#"{"$date":5}"#, RawBson::DateTime(DateTime::from_millis(5))),
        (
            r#"{"$uuid":"00112233-4455-6677-8899-aabbccddeeff"}"#,
            RawBson::Binary(Binary {
                subtype: BinarySubtype::Uuid,
                bytes: (0..16).map(|digit| digit * 0x11).collect(),
            }),
        ),
        (r#"{"$binary":"AQI=","$type":"0"}"#, Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }.into()),
        (r#"{"$dbPointer":{"$ref":"c","$id":{"$oid":"63c1b2a1f0e1d2c3b4a59687"}}}"#, {
            let pointer = json!({ "$dbPointer": { "$ref": "c", "$id": { "$oid": "63c1b2a1f0e1d2c3b4a59687" } } });
            RawBson::try_from(Bson::try_from(pointer).unwrap()).unwrap()
        }),
    ] {
        assert_eq!(read(json), value, "{json}");
    }
    // What only looks like it is a query, an update or a document.
    for document in [
        rawdoc! { "$regex": "a", "$options": "i" },
        rawdoc! { "$set": { "a": 1 } },
        rawdoc! { "a": 1, "$oid": "x" },
        rawdoc! {},
    ] {
        let json = serde_json::to_string(&Canonical(RawBsonRef::Document(&document))).unwrap();
        assert_eq!(read(&json), RawBson::Document(document));
    }
}

#[test]
fn what_is_not_extended_json_is_refused_and_not_shown() {
    for json in [
        r#"{"$oid":"secret"}"#,
        r#"{"$oid":"63c1b2a1f0e1d2c3b4a59687","secret":1}"#,
        r#"{"a":{"$date":"secret"}}"#,
        r#"{"$numberInt":5}"#,
        r#"{"$numberInt":"2147483648"}"#,
        r#"{"$numberLong":"1.5"}"#,
        r#"{"$numberDouble":"inf"}"#,
        r#"{"$numberDecimal":"secret"}"#,
        r#"{"$binary":{"base64":"secret!","subType":"00"}}"#,
        r#"{"$binary":{"base64":"AQI=","subType":"+1"}}"#,
        r#"{"$timestamp":{"t":-1,"i":0}}"#,
        r#"{"$code":"f","$scope":5}"#,
        r#"{"$minKey":2}"#,
        r#"{"nul\u0000":1}"#,
    ] {
        let error = read(json.as_bytes()).unwrap().into_bson().unwrap_err();
        assert_eq!(error.message, "the value is not valid Extended JSON", "{json}");
    }
}

/// What both ways of reading make of an object: the document, or what is wrong with it.
fn read_both(json: &str) -> (Result<RawBson, String>, Result<RawBson, String>) {
    let tree = read(json.as_bytes()).and_then(Json::into_bson).map_err(|error| error.message.into_owned());
    let direct =
        read_document(json.as_bytes(), 1000).map(RawBson::Document).map_err(|error| error.message.into_owned());
    (tree, direct)
}

#[test]
fn reading_directly_gives_the_same_as_reading_through_a_tree() {
    for value in [
        "null",
        "true",
        "5",
        "-5",
        "2147483648",
        "18446744073709551615",
        "1.5e3",
        r#""a\u00e9\n""#,
        "[]",
        "{}",
        r#"[1,[2,{"a":[]}],"x"]"#,
        r#"{"a":{"b":{"c":1}},"d":2}"#,
        r#"{"$set":{"a":1}}"#,
        r#"{"$numberInt":"1"}"#,
        r#"{"$numberLong":"5"}"#,
        r#"{"$numberDouble":"-Infinity"}"#,
        r#"{"$numberDecimal":"1.50"}"#,
        r#"{"$oid":"63c1b2a1f0e1d2c3b4a59687"}"#,
        r#"{"$date":{"$numberLong":"-1"}}"#,
        r#"{"$date":"2020-01-01T00:00:00Z"}"#,
        r#"{"$binary":{"base64":"AQI=","subType":"04"}}"#,
        r#"{"$binary":"AQI=","$type":"0"}"#,
        r#"{"$regularExpression":{"pattern":"a{,},:[","options":"i"}}"#,
        r#"{"$timestamp":{"t":1,"i":2}}"#,
        r#"{"$code":"f()"}"#,
        r#"{"$code":"f()","$scope":{"x":{"$numberInt":"1"}}}"#,
        r#"{"$scope":{},"$code":"f()"}"#,
        r#"{"$dbPointer":{"$ref":"c","$id":{"$oid":"63c1b2a1f0e1d2c3b4a59687"}}}"#,
        r#"{"$minKey":1}"#,
        r#"{"$undefined":true}"#,
        r#"{"$oid":"x"}"#,
        r#"{"$numberInt":"1","a":1}"#,
        r#"{"$code":"f","$scope":5}"#,
        r#"{"$scope":{}}"#,
        r#"{"nul\u0000":1}"#,
        r#"{"$code":"f","$scope":{"$oid":"x"}}"#,
        r#"{"$oid":"a","$oid":"b"}"#,
        "[1,",
        "x",
        r#"{"a":1}}"#,
        r#"{"a" 1}"#,
    ] {
        let (tree, direct) = read_both(&format!(r#"{{"v":{value}}}"#));
        assert_eq!(tree, direct, "{value}");
    }
    let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let (tree, direct) = read_both(&deep(read::MAX_DEPTH + 1));
    assert_eq!(tree, direct);
    assert!(read_document(deep(read::MAX_DEPTH).as_bytes(), 10_000).is_ok());
}

#[test]
fn reading_directly_is_bounded_and_refuses_names_that_are_there_twice() {
    let message = |json: &str| read_document(json.as_bytes(), 1000).unwrap_err().message.into_owned();
    for large in [
        format!(r#"{{"a":[{}1]}}"#, "1,".repeat(200)),
        format!(r#"{{"a":"{}"}}"#, "x".repeat(1000)),
        format!(r#"{{"{}":1}}"#, "x".repeat(1000)),
        format!(r#"{{"a":{{"$code":"","$scope":{{"a":[{}1]}}}}}}"#, "1,".repeat(200)),
    ] {
        assert_eq!(message(&large), "the JSON becomes more than 1000 bytes of BSON");
    }
    let many = format!(r#"{{"a":{{"$oid":[{}1]}}}}"#, "1,".repeat(200));
    assert_eq!(message(&many), "the value is not valid Extended JSON");
    for (json, path) in [
        (r#"{"a":1,"b":2,"a":3}"#, "a"),
        (r#"{"a":[0,{"b":{"c":1,"c":1}}]}"#, "a.1.b.c"),
        (r#"{"a":{"$code":"","$scope":{"b":1,"b":1}}}"#, "a.b"),
    ] {
        assert_eq!(message(json), format!("the field '{path}' is there twice"));
    }
    let twenty: Vec<String> = (0..20).map(|n| format!(r#""f{}":1"#, n % 19)).collect();
    assert_eq!(message(&format!("{{{}}}", twenty.join(","))), "the field 'f0' is there twice");
    for other in ["[]", "1", r#"{"$oid":"63c1b2a1f0e1d2c3b4a59687"}"#] {
        assert_eq!(message(other), "the body must be a JSON object");
    }
}
