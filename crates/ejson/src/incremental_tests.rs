#![allow(clippy::panic, clippy::unwrap_used)]

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocumentBuf, cstr},
};
use proptest::prelude::*;

use super::*;
use crate::{Error, Result};

/// A decoded call: the members of its head, and its arguments.
type Read = (Vec<(String, Option<String>)>, Option<RawDocumentBuf>);

const LARGEST: usize = 18 << 20;

fn wrong(message: &'static str) -> Error {
    Error::invalid(message)
}

fn text_of(head: &Json<'_>, name: &str) -> Option<(String, Option<String>)> {
    Some((name.to_owned(), head.get(name)?.as_str().map(str::to_owned)))
}

fn head_of(head: &Json<'_>) -> Vec<(String, Option<String>)> {
    ["name", "service"].into_iter().filter_map(|name| text_of(head, name)).collect()
}

/// Reads the whole text at once.
fn read_whole(json: &[u8]) -> Result<Read> {
    let mut call = read(json)?;
    if !matches!(call, Json::Object(_)) {
        return Err(wrong("the body must be a JSON object"));
    }
    let head = head_of(&call);
    let arguments = match call.remove("arguments") {
        None => return Ok((head, None)),
        Some(Json::Array(arguments)) => arguments,
        Some(_) => return Err(wrong("not an array")),
    };
    if call.get("service").is_some() {
        let Ok([argument]) = <[Json<'_>; 1]>::try_from(arguments) else { return Err(wrong("not one argument")) };
        let RawBson::Document(document) = argument.into_bson()? else { return Err(wrong("not a document")) };
        return Ok((head, Some(document)));
    }
    let mut all = RawDocumentBuf::new();
    all.append(cstr!("arguments"), Json::Array(arguments).into_bson()?);
    Ok((head, Some(all)))
}

/// Reads the text in pieces.
fn read_in_pieces<'j>(pieces: impl Iterator<Item = &'j [u8]>) -> Result<Read> {
    let refused = |error| match error {
        Undecoded::Invalid(error) => error,
        Undecoded::TooLarge => wrong("too large"),
    };
    let mut decoder = CallDecoder::new(LARGEST);
    for piece in pieces {
        decoder.push(piece).map_err(refused)?;
    }
    let call = decoder.finish().map_err(refused)?;
    let head = head_of(&call.head);
    let arguments = match call.arguments {
        None => return Ok((head, None)),
        Some(arguments) if !arguments.is_array() => return Err(wrong("not an array")),
        Some(arguments) if call.head.get("service").is_none() => arguments.into_all()?,
        Some(arguments) if arguments.count() != 1 => return Err(wrong("not one argument")),
        Some(arguments) => arguments.into_only_document()?.ok_or_else(|| wrong("not a document"))?,
    };
    Ok((head, Some(arguments)))
}

/// Checks that decoding in pieces of one size gives the same result as reading the whole text.
fn check(json: &[u8], size: usize) {
    let (whole, pieces) = (read_whole(json), read_in_pieces(json.chunks(size)));
    let shown = || String::from_utf8_lossy(json).into_owned();
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "{}", shown()),
        (Err(whole), Err(pieces)) => assert_eq!(whole.to_string(), pieces.to_string(), "{}", shown()),
        (whole, pieces) => panic!("{whole:?} whole, {pieces:?} in pieces of {size}: {}", shown()),
    }
}

fn call_with(argument: &str) -> String {
    format!(r#"{{"name":"insertOne","service":"s","arguments":[{{"a":1,"value":{argument}}}]}}"#)
}

#[test]
fn a_piece_may_end_anywhere() {
    for value in [
        "-12.5e+3",
        "[1, 2 , [ ], { } ,\ttrue,\r\nfalse,null]",
        r#""aé語😀\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#,
        r#"{"é\u0061":{"b":[{}]}}"#,
        r#"{"$oid":"63c1b2a1f0e1d2c3b4a59687"}"#,
        r#" { "\u0024numberInt" : "5" } "#,
        r#"{"$binary":{"base64":"AQIDBAUGBwg=","subType":"00"}}"#,
        r#"{"$binary":{"subType":"02","base64":"AQIDBAUGBw=="}}"#,
        r#"{"$binary":{"subType":"0","base64":"","x":{"base64":"A"}}}"#,
        r#"{"$binary":{"\u0062ase64":"AQ\u003d=\/","subType":"80"}}"#,
        r#"{"$binary":{"base64":"\/\/8=","subType":"80"}}"#,
        r#"{"$binary":"AQI=","$type":"0"}"#,
        r#"{"$code":"f","$scope":{"a":{"$date":{"$numberLong":"5"}}}}"#,
        r#"{"$code":"f\n"}"#,
        r#"{"$symbol":"é"}"#,
        r#"[{"$timestamp":{"t":1,"i":2}},{"$minKey":1}]"#,
        r#"{"$regularExpression":{"pattern":"a","options":"i"}}"#,
    ] {
        let json = call_with(value);
        for size in 1..=json.len() {
            check(json.as_bytes(), size);
        }
    }
}

#[test]
fn reports_the_position_of_invalid_json_in_any_pieces() {
    for value in [
        "01",
        "-",
        "1.",
        "1.e5",
        ".5",
        "+1",
        "1e999",
        "1-2",
        "tru",
        "nulL",
        "[1,]",
        r#"{"a":1,}"#,
        r#"{"a" 1}"#,
        "{1:2}",
        "[1 2]",
        "[1}",
        "\n\n  x",
        r#""\x""#,
        r#""\u12g4""#,
        r#""\ud800""#,
        r#""\ud800\n""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        "\"\n\"",
        "\"a\u{1}\"",
        "",
        "1]",
        r#"{"$oid":"\ud800"}"#,
        r#"{"$oid":[1,]}"#,
        "NaN",
        "'a'",
    ] {
        let json = call_with(value);
        for size in [1, 2, 3, 7, json.len()] {
            check(json.as_bytes(), size);
            check(&[json.as_bytes(), b"1"].concat(), size);
        }
    }
    for bytes in [&b"\xff"[..], b"\xe8\xaa", b"\xe8\xaa\\n", b"\xed\xa0\x80", b"\xc0\x80", b"a\xf0\x9f\x98"] {
        let json = [br#"{"name":"a","arguments":[""#, bytes, br#""]}"#].concat();
        for size in 1..json.len() {
            check(&json, size);
        }
    }
    let json = call_with(r#"{"$binary":{"base64":"AQI=","subType":"00"}}"#);
    for length in 0..json.len() {
        check(&json.as_bytes()[..length], 5);
    }
}

#[test]
fn reports_invalid_values_like_the_reader_of_whole_text() {
    for value in [
        r#"{"$oid":"secret"}"#,
        r#"[1,{"b":{"$numberInt":5}}]"#,
        r#"{"$binary":{"base64":"A","subType":"00"}}"#,
        r#"{"$binary":{"base64":"AQ==AQI=","subType":"00"}}"#,
        r#"{"$binary":{"base64":"AQJ=","subType":"00"}}"#,
        r#"{"$binary":{"base64":"AQI","subType":"00"}}"#,
        r#"{"$binary":{"base64":"AQI=","subType":"000"}}"#,
        r#"{"$binary":{"base64":"AQI="}}"#,
        r#"{"$binary":{"base64":"AQI=","subType":"00"},"a":1}"#,
        r#"{"$binary":["base64","AQI="]}"#,
        r#"{"$code":"f","$scope":{"x":{"$oid":1}}}"#,
        r#"{"$oid":"63c1b2a1f0e1d2c3b4a59687","a":1,"b":2}"#,
        r#"{"a\u0000b":{"c":1}}"#,
    ] {
        let json = call_with(value);
        for json in [json.clone(), json.replace(r#""service":"s","#, "")] {
            for size in [1, 6, json.len()] {
                check(json.as_bytes(), size);
            }
        }
    }
    // The path is the same as for a large call.
    for (value, path) in [
        (r#"{"x":1,"x":2}"#, "value.x"),
        (r#"[{"$binary":{"base64":"AQI=","base64":"AQI=","subType":"00"}}]"#, "value.0.$binary.base64"),
        (r#"{"$code":"f","$scope":{"x":1,"x":2}}"#, "value.$scope.x"),
    ] {
        let error = read_in_pieces(call_with(value).as_bytes().chunks(3)).unwrap_err();
        assert_eq!(error.to_string(), format!("the field '{path}' is there twice"));
    }
}

#[test]
fn accepts_members_in_any_order_and_ignores_unknown_ones() {
    for json in [
        r#"{"arguments":[{"a":1}],"service":"s","name":"n"}"#,
        r#"{"x":[{"$oid":1},"\n",{"y":{}}],"arguments":[1,"a"],"z":"text","name":"n"}"#,
        r#"{"name":5,"service":null,"arguments":[{}]}"#,
        r#"{"name":{"name":"x"},"service":["a"],"arguments":[{}]}"#,
        r#"{"name":"n"}"#,
        r#"{"name":"n","arguments":[]}"#,
        r#"{"name":"n","arguments":{"a":[1]}}"#,
        r#"{"name":"n","arguments":"text"}"#,
        r#"{"name":"n","service":"s","arguments":[]}"#,
        r#"{"name":"n","service":"s","arguments":[{"$oid":1},{}]}"#,
        r#"{"name":"n","service":"s","arguments":[[{}]]}"#,
        r#"{"name":"n","name":"m"}"#,
        r#"{"n\u0061me":"n","argu\u006dents":[1]}"#,
        "{}",
        "[]",
        "[[{\"name\":\"n\"}]]",
        "5",
        "\"name\"",
        "  ",
    ] {
        for size in [1, 2, json.len()] {
            check(json.as_bytes(), size);
        }
    }
    let deep = |levels: usize| call_with(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let error = read_in_pieces(deep(300).as_bytes().chunks(7)).unwrap_err();
    assert_eq!(error.to_string(), "the JSON is nested more than 250 levels deep");
    assert!(read_in_pieces(deep(190).as_bytes().chunks(7)).is_ok());
}

/// Decodes a large call in pieces of 64 kB. Returns the call and the maximum number of held bytes.
fn decode_large(json: &str) -> (Result<DecodedCall, Undecoded>, usize) {
    let mut decoder = CallDecoder::new(LARGEST);
    let mut most = 0;
    for piece in json.as_bytes().chunks(64 << 10) {
        if let Err(error) = decoder.push(piece) {
            return (Err(error), most);
        }
        most = most.max(decoder.held());
    }
    (decoder.finish(), most)
}

#[test]
fn memory_depends_on_the_size_of_the_bson() {
    const MB: usize = 1 << 20;
    for (value, wire, held) in [
        (format!("\"{}\"", "\\u0041".repeat(8 * MB)), 48 * MB, 8 * MB),
        (format!("[{}1]", "1,          ".repeat(MB)), 11 * MB, 13 * MB),
        (format!(r#"{{"$binary":{{"base64":"{}","subType":"00"}}}}"#, "AAAA".repeat(5 * MB)), 20 * MB, 15 * MB),
        (format!(r"[{}1]", r#"{"$numberInt":"5"},"#.repeat(MB)), 19 * MB, 13 * MB),
        (format!(r#"{{"$code":"{}"}}"#, "a".repeat(8 * MB)), 8 * MB, 8 * MB),
    ] {
        let json = call_with(&value);
        assert!(json.len() >= wire);
        let (call, most) = decode_large(&json);
        let document = call.unwrap().arguments.unwrap().into_only_document().unwrap().unwrap();
        assert!(most < held + MB, "{most} bytes were held for {} of BSON", document.as_bytes().len());
        let RawBson::Array(mut arguments) =
            read(json.as_bytes()).unwrap().remove("arguments").unwrap().into_bson().unwrap()
        else {
            panic!()
        };
        let whole = std::mem::take(&mut arguments);
        let Some(Ok(RawBsonRef::Document(whole))) = whole.into_iter().next() else { panic!() };
        assert!(whole == &*document);
    }
}

#[test]
fn decoding_stops_when_the_bson_is_too_large_and_holds_no_memory_after_a_fault() {
    for value in [
        format!("[{}1]", "0,".repeat(3 << 20)),
        format!("\"{}\"", "a".repeat(19 << 20)),
        format!(r#"{{"$binary":{{"base64":"{}","subType":"00"}}}}"#, "AAAA".repeat(7 << 20)),
        format!(r#"{{"{}":1}}"#, "a".repeat(19 << 20)),
    ] {
        for json in [call_with(&value), call_with(&value).replace("insertOne", &"n".repeat(19 << 20))] {
            let (call, most) = decode_large(&json);
            assert!(matches!(call, Err(Undecoded::TooLarge)), "{json:.50}");
            assert!(most < 22 << 20, "{most}");
        }
    }
    let text = "a".repeat(1 << 20);
    let json = call_with(&format!(r#"[{{"$oid":1}},"{text}",{{"$code":"{text}"}}]"#));
    let mut decoder = CallDecoder::new(LARGEST);
    decoder.push(json.as_bytes()).unwrap();
    assert!(decoder.held() < 1 << 10);
    let arguments = decoder.finish().unwrap().arguments.unwrap();
    let error = arguments.into_only_document().unwrap_err();
    assert_eq!(error.to_string(), "the value of 'value.0' is not valid Extended JSON");
}

#[test]
fn the_time_is_linear_even_in_tiny_pieces() {
    let text = "\\ud83d\\ude00é".repeat(100_000);
    let begun = std::time::Instant::now();
    for value in [
        format!("\"{text}\""),
        format!(r#"{{"$code":"{text}","$scope":{{}}}}"#),
        format!(r#"{{"$binary":{{"base64":"{}","subType":"00"}}}}"#, "AQID".repeat(300_000)),
        format!("[{}1]", r#"{"$numberLong":"5"},"#.repeat(60_000)),
        format!("0.{}", "1".repeat(1_000_000)),
    ] {
        let json = call_with(&value);
        assert!(read_in_pieces(json.as_bytes().chunks(1)).is_ok(), "{value:.40}");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Names of type wrappers, of operators, of members of the call, and of fields.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => proptest::sample::select(&query::EXTENDED_JSON_NAMES[..]).prop_map(str::to_owned),
        1 => proptest::sample::select(&["$set", "base64", "subType", "t", "i", "pattern", "options", "$type"][..])
            .prop_map(str::to_owned),
        1 => proptest::sample::select(&["é", "\\u0061", "\\ud83d\\ude00", "a\\u0000", "name", ""][..])
            .prop_map(str::to_owned),
        4 => "[a-d]{1,2}",
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\r\n ")]
}

/// Extended JSON, most of it valid.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => proptest::sample::select(&["0", "-0", "5", "-2147483649", "1.5", "1e3", "12E-4", "18446744073709551616"][..])
            .prop_map(str::to_owned),
        1 => proptest::sample::select(&["true", "false", "null", "\"\"", "[]", "{}"][..]).prop_map(str::to_owned),
        1 => any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| number.to_string()),
        2 => "([a-zé語😀 /]|\\\\[nrtbf/]|\\\\u00[0-9a-f]{2}|\\\\ud83d\\\\ude0[0-9]){0,12}"
            .prop_map(|text| format!("\"{text}\"")),
        2 => proptest::sample::select(&[
            r#"{"$oid":"63c1b2a1f0e1d2c3b4a59687"}"#, r#"{"$numberInt":"7"}"#, r#"{"$numberLong":"7"}"#,
            r#"{"$numberDouble":"-Infinity"}"#, r#"{"$numberDecimal":"1.5"}"#, r#"{"$date":"2020-01-01T00:00:00Z"}"#,
            r#"{"$date":{"$numberLong":"5"}}"#, r#"{"$undefined":true}"#, r#"{"$minKey":1}"#, r#"{"$maxKey":{"$numberInt":"1"}}"#,
            r#"{"$uuid":"00112233-4455-6677-8899-aabbccddeeff"}"#, r#"{"$timestamp":{"t":1,"i":2}}"#,
            r#"{"$regularExpression":{"pattern":"a","options":"i"}}"#, r#"{"$code":"f"}"#, r#"{"$symbol":"s"}"#,
            r#"{"$dbPointer":{"$ref":"c","$id":{"$oid":"63c1b2a1f0e1d2c3b4a59687"}}}"#, r#"{"$binary":"AQI=","$type":"0"}"#,
        ][..]).prop_map(str::to_owned),
        2 => ("[A-Za-z0-9+/]{0,14}={0,2}", "0?[0-9a]").prop_map(|(base64, subtype)| {
            format!(r#"{{"$binary":{{"base64":"{base64}","subType":"{subtype}"}}}}"#)
        }),
        2 => (proptest::collection::vec(any::<u8>(), 0..12), "0[02456]|80").prop_map(|(bytes, subtype)| {
            use base64::{Engine, engine::general_purpose::STANDARD};
            format!(r#"{{"$binary":{{"subType":"{subtype}", "base64" :"{}"}} }}"#, STANDARD.encode(bytes).replace('/', "\\/"))
        }),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let member =
            (name(), space(), inner.clone()).prop_map(|(name, space, value)| format!("\"{name}\"{space}:{value}"));
        prop_oneof![
            (proptest::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, space)| format!("[{}{space}]", items.join(&format!("{space},{space}")))),
            (proptest::collection::vec(member, 0..4), space())
                .prop_map(|(members, space)| format!("{{{space}{}}}", members.join(&format!("{space},")))),
            inner.prop_map(|scope| format!(r#"{{"$code":"f","$scope":{{"a":{scope}}}}}"#)),
        ]
    })
}

/// A call, most of the time with one argument.
fn call() -> impl Strategy<Value = String> {
    let argument = prop_oneof![
        3 => (value(), value()).prop_map(|(one, other)| format!(r#"{{"a":{one},"b":[{other}]}}"#)),
        1 => value(),
    ];
    let arguments = prop_oneof![
        6 => argument.clone().prop_map(|argument| format!("[{argument}]")),
        1 => proptest::collection::vec(argument, 0..4).prop_map(|arguments| format!("[{}]", arguments.join(","))),
        1 => value(),
    ];
    let members = (
        proptest::option::weighted(0.9, Just(r#""name":"insertOne""#.to_owned())),
        proptest::option::of(prop_oneof![
            4 => Just(r#""service":"mongodb-atlas""#.to_owned()),
            1 => value().prop_map(|service| format!("\"service\":{service}")),
        ]),
        proptest::option::weighted(0.95, arguments.prop_map(|arguments| format!("\"arguments\" : {arguments}"))),
        proptest::option::weighted(0.2, value().prop_map(|unknown| format!("\"other\":{unknown}"))),
    )
        .prop_map(|(name, service, arguments, unknown)| [name, service, arguments, unknown].into_iter().flatten());
    members
        .prop_flat_map(|members| Just(members.collect::<Vec<_>>()).prop_shuffle())
        .prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Changes of single bytes, with their positions.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![
        4 => proptest::sample::select(&b"{}[]\",:\\u0123abd.-+e \n\0\x01\x7f\x80\xc3\xe8\xff"[..]),
        1 => any::<u8>(),
    ];
    proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, byte), 0..3)
}

fn mutate(json: &mut Vec<u8>, mutations: &[(prop::sample::Index, u8, u8)]) {
    for (index, kind, byte) in mutations {
        if json.is_empty() {
            return;
        }
        let at = index.index(json.len());
        match kind {
            0 => json[at] = *byte,
            1 => json.insert(at, *byte),
            _ => {
                json.remove(at);
            }
        }
    }
}

/// True if an unknown member contains a duplicate name, which the decoder does not look for. A
/// mutation can make an unknown member `arguments.` of the arguments.
fn is_about_unknown(error: &Error) -> bool {
    let text = error.to_string();
    let in_arguments =
        text.strip_prefix("the field 'arguments.").is_some_and(|rest| rest.starts_with(char::is_numeric));
    text.ends_with("is there twice") && !in_arguments
}

fn cut<'j>(json: &'j [u8], cuts: &[prop::sample::Index]) -> Vec<&'j [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(json.len() + 1)).collect();
    places.extend([0, json.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &json[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Decoding a call in any pieces gives the same result, or fails in the same cases, as reading
    /// it whole.
    #[test]
    fn pieces_give_the_same_result_as_the_whole(
        call in call(),
        mutations in mutations(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        is_in_bytes in any::<bool>(),
    ) {
        let mut json = call.into_bytes();
        mutate(&mut json, &mutations);
        let pieces = if is_in_bytes { json.chunks(1).collect() } else { cut(&json, &cuts) };
        match (read_whole(&json), read_in_pieces(pieces.into_iter())) {
            (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
            (Err(whole), Err(pieces)) => {
                let is_syntax = whole.to_string().starts_with("this is not JSON");
                // The decoder rejects a duplicate member of the call before it reads the rest.
                if !whole.to_string().ends_with("is there twice") && !pieces.to_string().ends_with("is there twice") {
                    prop_assert_eq!(whole.to_string(), pieces.to_string());
                } else {
                    prop_assert!(!is_syntax || pieces.to_string().ends_with("is there twice"));
                }
            }
            (Err(whole), Ok(_)) if is_about_unknown(&whole) => {}
            (whole, pieces) => prop_assert!(false, "{:?} whole, {:?} in pieces", whole, pieces),
        }
    }
}
