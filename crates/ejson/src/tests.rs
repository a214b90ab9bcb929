#![allow(clippy::panic, clippy::unwrap_used)]

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
fn every_type_round_trips_in_the_format_of_the_specification() {
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
    assert_eq!(
        read(&serde_json::to_vec(&written).unwrap()).unwrap().into_bson().unwrap(),
        RawBson::Document(raw.clone())
    );
    let text = written.to_string();
    assert_eq!(Json::Large(&text).into_bson().unwrap(), RawBson::Document(raw.clone()));
    assert_eq!(read_stored(text.as_bytes()).unwrap().into_stored_bson().unwrap(), RawBson::Document(raw));
    let nan = serde_json::to_string(&Canonical(RawBsonRef::Double(f64::NAN))).unwrap();
    assert_eq!(nan, r#"{"$numberDouble":"NaN"}"#);
}

#[test]
fn limits_the_nesting_depth_of_json_to_that_of_documents() {
    let nested = |levels: usize| format!("{}1{}", "[{\"\\\"[\":".repeat(levels / 2), "}]".repeat(levels / 2));
    assert!(read(nested(read::MAX_DEPTH).as_bytes()).is_ok());
    let error = read(nested(read::MAX_DEPTH + 2).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("nested more than 250 levels deep"), "{error}");
    assert!(read("[".repeat(1_000_000).as_bytes()).is_err());
    for (json, place) in [("", "line 1, column 0"), ("{\n x", "line 2, column 2"), ("1 2", "line 1, column 3")] {
        assert!(read(json.as_bytes()).unwrap_err().to_string().ends_with(place), "{json}");
    }
}

#[test]
fn reads_relaxed_and_older_formats() {
    let read = |json: &str| {
        let value = read(json.as_bytes()).unwrap().into_bson().unwrap();
        assert_eq!(Json::Large(json).into_bson().unwrap(), value);
        value
    };
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
    // Documents that only resemble Extended JSON are queries, updates or documents.
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
fn rejects_invalid_extended_json_without_showing_values() {
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
        r#"{"$regularExpression":{"pattern":"secret","options":"q"}}"#,
        r#"{"a":[{"$regularExpression":{"pattern":"secret","options":"I"}}]}"#,
    ] {
        for value in [read(json.as_bytes()).unwrap(), Json::Large(json)] {
            let error = value.into_bson().unwrap_err();
            assert!(
                error.to_string().starts_with("the value ")
                    && error.to_string().ends_with("is not valid Extended JSON")
            );
            assert!(!error.to_string().contains("secret"), "{json}");
        }
    }
}

#[test]
fn rejects_duplicate_names_at_any_depth() {
    let many = (0..1000).map(|number| format!("\"n{number}\":{number}")).collect::<Vec<_>>().join(",");
    for (json, path) in [
        (r#"{"name":"a","service":1,"name":"b"}"#.to_owned(), "name"),
        (r#"{"a":1,"\u0061":2}"#.to_owned(), "a"),
        (r#"[1,{"a":[{},{"b":{"x":1,"y":2,"x":1}}]}]"#.to_owned(), "1.a.1.b.x"),
        (r#"{"$numberInt":"1","$numberInt":"2"}"#.to_owned(), "$numberInt"),
        (format!(r#"{{"many":{{{many},"n500":1}}}}"#), "many.n500"),
    ] {
        let error = read(json.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), format!("the field '{path}' is there twice"), "{json}");
    }
    for json in [r#"{"a":{"a":1},"b":[{"a":1},{"a":1}],"A":1}"#.to_owned(), format!("{{{many}}}")] {
        read(json.as_bytes()).unwrap();
    }
}

/// A call with an argument of many values, after the members that a server reads first.
fn large_call(items: &str, count: usize) -> String {
    let items = vec![items; count].join(",");
    format!(r#"{{"name":"insertOne","arguments":[{{"database":"d","document":{{"a":[{items}]}}}},5],"service":"s"}}"#)
}

#[test]
fn reads_large_json_like_small_json() {
    for items in ["1", "[]", r#"{"a":1,"b":{"$oid":"63c1b2a1f0e1d2c3b4a59687"}}"#, r#""\\\"[,""#] {
        let json = large_call(items, 20_000);
        let mut call = read(json.as_bytes()).unwrap();
        assert_eq!(call.get("name").and_then(Json::as_str), Some("insertOne"));
        assert_eq!(call.remove("service").unwrap().as_str(), Some("s"));
        let Some(Json::Array(arguments)) = call.remove("arguments") else { panic!("{json:.100}") };
        let [argument, five] = <[Json<'_>; 2]>::try_from(arguments).unwrap();
        assert!(matches!(argument, Json::Large(_)));
        assert_eq!(five, Json::Integer(5));
        let small = read::tree(json.as_bytes()).unwrap().remove("arguments").unwrap();
        let Json::Array(mut small) = small else { panic!("{json:.100}") };
        assert_eq!(argument.into_bson().unwrap(), small.remove(0).into_bson().unwrap());
    }
    let answer = format!("[{}]", vec![r#"{"a":[1,2]}"#; 20_000].join(","));
    let RawBson::Array(documents) = read(answer.as_bytes()).unwrap().into_bson().unwrap() else { panic!() };
    assert_eq!(documents.into_iter().count(), 20_000);
}

#[test]
fn rejects_large_json_like_small_json() {
    let document = |members: &str| large_call("1", 20_000).replace(r#""a":["#, &format!(r#"{members},"a":["#));
    let argument = |json: &str| match read(json.as_bytes()).unwrap().remove("arguments") {
        Some(Json::Array(mut arguments)) => arguments.remove(0).into_bson(),
        other => panic!("{other:?}"),
    };
    let error = argument(&document(r#""b":{"x":1,"y":2,"x":3}"#)).unwrap_err();
    assert_eq!(error.to_string(), "the field 'document.b.x' is there twice");
    let error = argument(&document(r#""b":{"$oid":"secret"}"#)).unwrap_err();
    assert_eq!(error.to_string(), "the value of 'document.b' is not valid Extended JSON");
    let error =
        argument(&document(r#""b":{"$oid":[1,[2],{"x":[3]},4,5,6,7,8,9,10,11,12,13,14,15,16,17]}"#)).unwrap_err();
    assert_eq!(error.to_string(), "the value of 'document.b' is not valid Extended JSON");
    let twice = large_call("1", 20_000).replace(r#","service""#, r#","name":"find","service""#);
    assert_eq!(read(twice.as_bytes()).unwrap_err().to_string(), "the field 'name' is there twice");
    let cut = large_call("1", 20_000);
    for json in [&cut[..cut.len() - 1], &cut.replace("1,1]", "1,1,]")] {
        assert!(read(json.as_bytes()).unwrap_err().to_string().starts_with("this is not JSON: line 1, column "));
    }
}

/// Data that was valid when it was stored must not make other data unreadable.
#[test]
fn reads_stored_data_that_is_not_valid() {
    let json = r#"[{"a":1,"a":2},{"a":{"$oid":"x"}},{"a":{"$regularExpression":{"pattern":"a","options":"zq"}}},{"$date":5,"b":1}]"#;
    assert!(read(json.as_bytes()).is_err());
    for value in [read_stored(json.as_bytes()).unwrap(), Json::Large(json)] {
        let RawBson::Array(documents) = value.into_stored_bson().unwrap() else { panic!() };
        let documents: Vec<_> =
            documents.into_iter().map(|document| document.unwrap().as_document().unwrap().to_owned()).collect();
        assert_eq!(documents[0].iter().count(), 2);
        assert_eq!(documents[1], rawdoc! { "a": { "$oid": "x" } });
        assert_eq!(documents[2].get_regex("a").unwrap().options.as_str(), "zq");
        assert_eq!(documents[3], rawdoc! { "$date": 5, "b": 1 });
    }
}

#[test]
fn deep_json_is_copied_once() {
    // One copy per level would need gigabytes.
    let json = format!("{}\"{}\"{}", "{\"a\":".repeat(240), "x".repeat(8 << 20), "}".repeat(240));
    let begun = std::time::Instant::now();
    let RawBson::Document(document) = read(json.as_bytes()).unwrap().into_bson().unwrap() else { panic!() };
    assert_eq!(document.as_bytes().len(), (8 << 20) + 4 + 1 + 240 * 8);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Converts a document as if a client sent it as JSON.
fn over_http(document: &RawDocumentBuf) -> crate::Result<RawBson> {
    let json = serde_json::to_vec(&Canonical(RawBsonRef::Document(document))).unwrap();
    read(&json)?.into_bson()
}

#[test]
fn type_wrappers_in_documents_have_the_same_values_as_over_http() {
    let id = ObjectId::parse_str("63c1b2a1f0e1d2c3b4a59687").unwrap();
    let date = DateTime::from_millis(1_577_836_800_000);
    for (literal, value) in [
        (rawdoc! { "$oid": id.to_hex() }, RawBson::ObjectId(id)),
        (rawdoc! { "$date": "2020-01-01T00:00:00Z" }, RawBson::DateTime(date)),
        (rawdoc! { "$date": { "$numberLong": "1577836800000" } }, RawBson::DateTime(date)),
        (rawdoc! { "$date": 1_577_836_800_000_i64 }, RawBson::DateTime(date)),
        (rawdoc! { "$date": 1_577_836_800_000.0 }, RawBson::DateTime(date)),
        (rawdoc! { "$date": 5 }, RawBson::DateTime(DateTime::from_millis(5))),
        (rawdoc! { "$numberLong": "5" }, RawBson::Int64(5)),
        (rawdoc! { "$timestamp": { "t": 5, "i": 1.0 } }, Timestamp { time: 5, increment: 1 }.into()),
        (rawdoc! { "$minKey": 1 }, RawBson::MinKey),
        (rawdoc! { "$code": "f", "$scope": { "id": { "$oid": id.to_hex() } } }, {
            RawBson::try_from(Bson::from(JavaScriptCodeWithScope { code: "f".into(), scope: doc! { "id": id } }))
                .unwrap()
        }),
    ] {
        let holder = rawdoc! { "a": [1, { "b": literal }], "$set": { "c": "x" } };
        let expected = rawdoc! { "a": [1, { "b": value }], "$set": { "c": "x" } };
        assert_eq!(resolve(&holder).unwrap(), expected);
        assert_eq!(over_http(&holder).unwrap(), RawBson::Document(expected));
    }
    for (document, path) in [
        (rawdoc! { "a": [1, { "b": { "$oid": "secret" } }] }, "a.1.b"),
        (rawdoc! { "at": { "$gte": { "$date": "secret" } } }, "at.$gte"),
        (rawdoc! { "a": { "$oid": id.to_hex(), "secret": 1 } }, "a"),
        (rawdoc! { "a": { "$numberInt": 5 } }, "a"),
        (rawdoc! { "a": { "$timestamp": { "t": 1.5, "i": 0 } } }, "a"),
    ] {
        let message = format!("the value of '{path}' is not valid Extended JSON");
        assert_eq!(resolve(&document).unwrap_err().to_string(), message);
        assert_eq!(over_http(&document).unwrap_err().to_string(), message);
    }
}

#[test]
fn type_wrappers_need_no_more_memory_than_their_documents() {
    // A document of the maximum depth and size is copied only once.
    let mut deep = rawdoc! { "text": "x".repeat(8 << 20), "at": { "$date": 5 } };
    for _ in 0..190 {
        deep = rawdoc! { "a": deep };
    }
    let begun = std::time::Instant::now();
    assert!(resolve(&deep).is_ok());
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    // The intermediate JSON counts in the budget.
    let numbers: Vec<Bson> = (0..100_000).map(Bson::Int32).collect();
    let wrapped = RawDocumentBuf::try_from(doc! { "a": { "$oid": numbers } }).unwrap();
    let budget = query::Budget::new(query::Limits { bytes: Some(1 << 20), ..Default::default() });
    let refused = budget.enter(|| resolve(&wrapped)).unwrap_err();
    assert!(matches!(refused, Error::Budget(error) if error.number() == 292));
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// Names of type wrappers, of operators, and of fields.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => proptest::sample::select(&query::EXTENDED_JSON_NAMES[..]).prop_map(str::to_owned),
            1 => proptest::sample::select(&["$set", "$gte", "base64", "subType", "t", "i", "pattern", "options"][..])
                .prop_map(str::to_owned),
            3 => "[a-c]",
        ]
    }

    fn value() -> impl Strategy<Value = Bson> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Bson::Int32),
            any::<i64>().prop_map(Bson::Int64),
            (-5_i32..5).prop_map(|number| Bson::Double(number.into())),
            any::<f64>().prop_filter("a NaN is equal to nothing", |number| !number.is_nan()).prop_map(Bson::Double),
            Just(Bson::Boolean(true)),
            Just(Bson::Null),
            Just(Bson::String("63c1b2a1f0e1d2c3b4a59687".to_owned())),
            Just(Bson::String("2020-01-01T00:00:00Z".to_owned())),
            Just(Bson::String("AQI=".to_owned())),
            "[0-9]{1,4}|i|x".prop_map(Bson::String),
            any::<i64>().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
            any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
                // Usually one member, like a type wrapper.
                proptest::collection::vec((name(), inner), 0..3)
                    .prop_map(|members| Bson::Document(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// A call has the same meaning in process and over HTTP.
        #[test]
        fn a_document_has_the_same_meaning_in_process_and_over_http(value in value()) {
            let document = RawDocumentBuf::try_from(doc! { "a": value }).unwrap();
            match (resolve(&document), over_http(&document)) {
                (Ok(here), Ok(there)) => prop_assert_eq!(RawBson::Document(here), there),
                (Err(here), Err(there)) => prop_assert_eq!(here, there),
                (here, there) => prop_assert!(false, "{:?} here, {:?} there", here, there),
            }
        }
    }
}

#[test]
fn the_conversion_stops_when_the_bson_is_too_large() {
    let texts = [
        format!("[{}]", vec!["0"; 30_000].join(",")),
        format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000)),
        format!(r#"{{"a":{{"$binary":{{"base64":"{}","subType":"00"}}}}}}"#, "AAAA".repeat(60_000)),
        format!(r#"{{"a":[{}]}}"#, vec!["{}"; 30_000].join(",")),
    ];
    for text in texts {
        let value = read(text.as_bytes()).unwrap();
        let bson = value.clone().into_bson().unwrap();
        let bytes = match &bson {
            RawBson::Array(array) => array.as_bytes().len(),
            RawBson::Document(document) => document.as_bytes().len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value.clone().into_bson_up_to(bytes).unwrap(), Some(bson));
        // The limit does not count the final zero bytes.
        assert_eq!(value.into_bson_up_to(bytes - 20).unwrap(), None, "{text:.40}");
    }
}

#[test]
fn limits_the_number_of_small_values_in_large_json_that_become_trees() {
    let item = format!("[{}]", vec!["0"; 4_000].join(","));
    let text = format!(r#"{{"arguments":[{}]}}"#, vec![&*item; 1_000].join(","));
    let Some(Json::Array(items)) = read(text.as_bytes()).unwrap().remove("arguments") else { panic!() };
    let trees = items.iter().filter(|item| matches!(item, Json::Array(_))).count();
    assert!((100..=131).contains(&trees), "{trees}");
    let RawBson::Array(items) = Json::Array(items).into_bson().unwrap() else { panic!() };
    assert_eq!(items.into_iter().count(), 1_000);
}

#[test]
fn the_nesting_of_scopes_is_limited() {
    let nested =
        |levels: usize| format!("{}{{}}{}", r#"{"a":{"$code":"","$scope":"#.repeat(levels), "}}".repeat(levels));
    assert!(read(nested(4).as_bytes()).unwrap().into_bson().is_ok());
    let error = read(nested(5).as_bytes()).unwrap().into_bson().unwrap_err();
    assert!(error.to_string().ends_with("is not valid Extended JSON"), "{error}");
    // A backend may return data that was stored before the limit existed.
    assert!(read_stored(nested(20).as_bytes()).unwrap().into_stored_bson().is_ok());
}
