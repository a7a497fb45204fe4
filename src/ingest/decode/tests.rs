//! Payloads, friendly and hostile, and what is read from them.

use proptest::prelude::*;

use super::*;
use crate::config;

fn map(change: impl FnOnce(&mut config::Map)) -> Map {
    let mut raw = config::Map::default();
    change(&mut raw);
    Map::compile(&raw).unwrap()
}

fn read(map: &Map, payload: &[u8]) -> Result<Reading, Refused> {
    let mut out = Reading::default();
    decode(map, &Limits::default(), "acme", payload, &mut out).map(|()| out)
}

fn check(payload: &str, want: &[(&str, f64)]) {
    let reading = read(&map(|_| {}), payload.as_bytes()).unwrap();
    assert_eq!(reading.values().collect::<Vec<_>>(), want, "{payload}");
}

fn check_time(map: &Map, payload: &str, want: Option<i64>) {
    let reading = read(map, payload.as_bytes()).unwrap();
    assert_eq!(reading.time().map(Timestamp::as_ms), want, "{payload}");
}

fn check_refused(map: &Map, payload: &[u8], reason: Reason, detail: &str) {
    let shown = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
    let refused = read(map, payload).expect_err(&shown);
    assert_eq!(refused.reason, reason, "{shown}: {refused:?}");
    assert!(refused.detail.contains(detail), "{shown}: {refused:?}");
}

#[test]
fn leaves_become_values_named_by_their_path() {
    check(r#"{"temperature":21.5}"#, &[("temperature", 21.5)]);
    check(
        r#" {"a":{"b":1,"c":{"d":-2}},"e":true,"f":false} "#,
        &[("a.b", 1.0), ("a.c.d", -2.0), ("e", 1.0), ("f", 0.0)],
    );
    check(
        r#"{"s":"text","n":null,"list":[1,{"x":2},[3]],"v":3}"#,
        &[("v", 3.0)],
    );
    check(
        r#"{"big":18446744073709551615}"#,
        &[("big", 1.844_674_407_370_955_2e19)],
    );
    check(r#"{"x":1e308,"y":-0.0}"#, &[("x", 1e308), ("y", -0.0)]);
    check(r#"{"a\u0062":1,"":2}"#, &[("ab", 1.0), ("", 2.0)]);
}

#[test]
fn numbers_are_read_to_the_last_bit() {
    for value in [
        0.1,
        1.0 / 3.0,
        2.225_073_858_507_201e-308,
        9_007_199_254_740_993.0,
        f64::MAX,
    ] {
        check(&format!("{{\"v\":{value:e}}}"), &[("v", value)]);
    }
    check(
        r#"{"v":0.30000000000000004}"#,
        &[("v", 0.300_000_000_000_000_04)],
    );
}

#[test]
fn the_time_is_found_under_its_usual_names() {
    let any = map(|_| {});
    check_time(
        &any,
        r#"{"ts":1700000000000,"v":1}"#,
        Some(1_700_000_000_000),
    );
    check_time(
        &any,
        r#"{"v":1,"timestamp":1700000000}"#,
        Some(1_700_000_000_000),
    );
    check_time(
        &any,
        r#"{"time":"2023-11-14T22:13:20Z","v":1}"#,
        Some(1_700_000_000_000),
    );
    check_time(
        &any,
        r#"{"timestamp":5,"time":6,"ts":7,"v":1}"#,
        Some(7_000),
    );
    check_time(&any, r#"{"ts":7,"time":"noon","v":1}"#, Some(7_000));
    check_time(&any, r#"{"v":1}"#, None);
    check_time(&any, r#"{"ts":null,"v":1}"#, None);
    check_time(&any, r#"{"a":{"ts":5},"v":1}"#, None);
    check(r#"{"ts":5,"time":6,"v":1}"#, &[("v", 1.0)]);
    check_refused(
        &any,
        br#"{"ts":"noon","v":1}"#,
        Reason::Timestamp,
        "cannot be read",
    );
    check_refused(
        &any,
        br#"{"ts":true,"v":1}"#,
        Reason::Timestamp,
        "cannot be read",
    );
    check_refused(
        &any,
        br#"{"ts":1,"ts":2,"v":1}"#,
        Reason::Parse,
        "two times",
    );
}

#[test]
fn a_map_says_where_the_time_is_and_what_to_take() {
    let mapped = map(|m| {
        m.time = Some("meta.at".into());
        m.fields = vec!["metrics.*".into()];
        m.labels.insert("site".into(), "{meta.site}".into());
        m.labels
            .insert("channel".into(), "{metrics.channel}".into());
    });
    let payload =
        r#"{"meta":{"at":1700000000,"site":"north"},"ts":5,"metrics":{"t":1,"channel":3}}"#;
    let reading = read(&mapped, payload.as_bytes()).unwrap();
    assert_eq!(reading.time(), Some(Timestamp::from_ms(1_700_000_000_000)));
    assert_eq!(reading.values().collect::<Vec<_>>(), [("metrics.t", 1.0)]);
    assert_eq!(reading.labels(), ["3", "north"]);
}

#[test]
fn a_payload_cannot_name_another_tenant() {
    let any = map(|_| {});
    check(
        r#"{"tenant_id":"acme","device_id":17,"v":1}"#,
        &[("v", 1.0)],
    );
    for other in [r#""evil""#, "7", "true", r#""""#] {
        let payload = format!("{{\"v\":1,\"tenant_id\":{other}}}");
        check_refused(&any, payload.as_bytes(), Reason::Tenant, "another tenant");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    let any = map(|_| {});
    for payload in [
        "",
        " ",
        "null",
        "5",
        "\"x\"",
        "[1]",
        "[{\"v\":1}]",
        "{",
        "{\"v\":}",
        "{\"v\":1}}",
        "{\"v\":NaN}",
        "{\"v\":Infinity}",
        "{\"v\":-1e999}",
        "{\"v\":01}",
        "{'v':1}",
        "{\"v\":1,}",
        "{\"v\":[1e999]}",
    ] {
        check_refused(&any, payload.as_bytes(), Reason::Parse, "");
    }
    check_refused(&any, br#"{"s":"x","n":null}"#, Reason::Parse, "no values");
    check_refused(&any, b"{\"v\":1}\0", Reason::Parse, "");
    check_refused(&any, b"{\"\xff\":1}", Reason::Encoding, "");
    check_refused(
        &any,
        b"{\"s\":\"\xed\xa0\x80\",\"v\":1}",
        Reason::Encoding,
        "",
    );
}

#[test]
fn deep_nesting_is_refused_and_never_overflows_the_stack() {
    let any = map(|_| {});
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |n: usize| format!("{{\"v\":1,\"x\":{}1{}}}", open.repeat(n), close.repeat(n));
        check_refused(
            &any,
            deep(100_000).as_bytes(),
            Reason::Parse,
            "deeper than 32",
        );
        check_refused(&any, deep(32).as_bytes(), Reason::Parse, "deeper than 32");
        assert!(read(&any, deep(31).as_bytes()).is_ok());
    }
    check_refused(&any, "[".repeat(100_000).as_bytes(), Reason::Parse, "");
    // The largest limit that the configuration allows stays below serde_json's own.
    let limits = Limits {
        depth_max: DEPTH_MAX,
        ..Limits::default()
    };
    let payload = format!(
        "{}{}",
        "{\"a\":".repeat(DEPTH_MAX + 1),
        "}".repeat(DEPTH_MAX + 1)
    );
    let refused = decode(
        &any,
        &limits,
        "a",
        payload.as_bytes(),
        &mut Reading::default(),
    );
    assert!(refused.unwrap_err().detail.contains("deeper than 120"));
}

#[test]
fn values_and_paths_are_bounded() {
    let any = map(|_| {});
    let many = |n: usize| {
        let fields: Vec<String> = (0..n).map(|i| format!("\"f{i}\":{i}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    assert_eq!(read(&any, many(10_000).as_bytes()).unwrap().len(), 10_000);
    check_refused(
        &any,
        many(10_001).as_bytes(),
        Reason::SampleLimit,
        "more than 10000",
    );
    let long = format!("{{\"{}\":1}}", "k".repeat(2_049));
    check_refused(&any, long.as_bytes(), Reason::Parse, "longer than 2048");
}

#[test]
fn a_plain_number_is_one_value() {
    let number = map(|m| m.format = PayloadFormat::Number);
    for (text, want) in [("21.5", 21.5), (" -3\n", -3.0), ("1e3", 1e3)] {
        let reading = read(&number, text.as_bytes()).unwrap();
        assert_eq!(reading.values().collect::<Vec<_>>(), [("value", want)]);
    }
    for bad in ["", "x", "NaN", "inf", "1e999", "1,5", "{\"v\":1}", "0x10"] {
        check_refused(&number, bad.as_bytes(), Reason::Parse, "finite number");
    }
    check_refused(&number, b"\xff", Reason::Encoding, "");
}

#[test]
fn a_state_is_one_or_zero() {
    let state = map(|m| m.format = PayloadFormat::State);
    for (text, want) in [
        ("online", 1.0),
        (" Offline\n", 0.0),
        ("\"LOST\"", 0.0),
        ("1", 1.0),
        ("false", 0.0),
        ("{\"online\":true,\"timestamp\":1}", 1.0),
        ("{\"state\":\"offline\"}", 0.0),
    ] {
        let reading = read(&state, text.as_bytes()).unwrap();
        assert_eq!(
            reading.values().collect::<Vec<_>>(),
            [("value", want)],
            "{text}"
        );
    }
    for bad in ["", "maybe", "2", "[1]", "{}", "{\"state\":null}"] {
        check_refused(&state, bad.as_bytes(), Reason::Parse, "not a state");
    }
}

#[test]
fn a_reading_is_empty_before_it_is_filled_again() {
    let any = map(|_| {});
    let mut out = Reading::default();
    let limits = Limits::default();
    decode(&any, &limits, "a", br#"{"ts":5,"v":1,"w":2}"#, &mut out).unwrap();
    decode(&any, &limits, "a", br#"{"x":3}"#, &mut out).unwrap();
    assert_eq!(out.values().collect::<Vec<_>>(), [("x", 3.0)]);
    assert_eq!(out.time(), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&map(|_| {}), &bytes);
        let _ = read(&map(|m| m.format = PayloadFormat::Number), &bytes);
    }

    #[test]
    fn text_that_looks_like_json_never_panics(text in r#"[{}\[\]":,0-9eE.ats\\u+-]{0,120}"#) {
        let _ = read(&map(|_| {}), text.as_bytes());
    }

    #[test]
    fn every_finite_number_keeps_its_bits(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let payload = serde_json::to_string(&serde_json::json!({ "v": value })).unwrap();
        let reading = read(&map(|_| {}), payload.as_bytes()).unwrap();
        let got = reading.values().next().unwrap().1;
        prop_assert_eq!(got.to_bits(), value.to_bits());
    }
}
