//! Odd posts to `/api/v2`, to the real Alertmanager 0.25 and to us: the same codes.

use serde_json::Value;

use crate::alertmanager::{at, both};
use crate::server::Http;

const TREE: &str = "route: {receiver: a}\nreceivers: [{name: a}]\n";

/// Bodies of the list; `L` stands for labels of their own.
const BODIES: &[&str] = &[
    "",
    "null",
    " \n",
    "true",
    "3",
    "\"x\"",
    "{}",
    "{L}",
    "[]",
    " [] ",
    "[] x",
    "[][]",
    "[{L}] x",
    "[{}]",
    "[1]",
    "[\"a\"]",
    "[[]]",
    "[{",
    "[{L},]",
    "\u{feff}[]",
    "\0",
    r#"[{"labels":null}]"#,
    r#"[{"labels":{}}]"#,
    r#"[{"labels":[]}]"#,
    r#"[{"labels":{"a":1}}]"#,
    r#"[{"labels":{"a":null}}]"#,
    r#"[{"labels":{"a":null,"b":"c"}}]"#,
    r#"[{"labels":{"a":""}}]"#,
    r#"[{"labels":{"a-b":"c"}}]"#,
    r#"[{"labels":{"":"c"}}]"#,
    r#"[{"labels":{"1a":"c"}}]"#,
    r#"[{"labels":{"ü":"c"}}]"#,
    r#"[{"labels":{"__name__":"c"}}]"#,
    r#"[{"Labels":{"alertname":"other case"}}]"#,
    r#"[{"labels":{"a":"b"},"labels":{"a":"c","alertname":"twice"}}]"#,
    r#"[{L,"annotations":null}]"#,
    r#"[{L,"annotations":{"a":1}}]"#,
    r#"[{L,"annotations":{"a":null}}]"#,
    r#"[{L,"annotations":{"a-b":"x"}}]"#,
    r#"[{L,"annotations":{"a":""}}]"#,
    r#"[{L,"annotations":[]}]"#,
    r#"[{L,"annotations":"x"}]"#,
    r#"[{L,"unknown":1}]"#,
    r#"[{L,"startsAt":null,"endsAt":null}]"#,
    r#"[{L,"startsAt":true}]"#,
    r#"[{L,"endsAt":1}]"#,
    r#"[{L,"STARTSAT":"x"}]"#,
    r#"[{L},{"labels":{}}]"#,
    r#"[{L},{"annotations":{}}]"#,
    r#"[{},{}]"#,
    r#"[{"generatorURL":"::bad"}]"#,
    r#"[{"labels":{"a-b":"c"},"generatorURL":"::bad"}]"#,
    r#"[{"labels":{"a-b":"c"}},{L,"generatorURL":"::bad"}]"#,
    r#"[{L,"generatorURL":null}]"#,
    r#"[{L,"generatorURL":1}]"#,
    r#"[{"labels":{"a-b":"c"},"startsAt":"2030-01-01T00:00:00Z","endsAt":"2020-01-01T00:00:00Z"}]"#,
];

const URLS: &[&str] = &[
    "",
    "::bad",
    "http://ok/",
    "/rel",
    "rel/x",
    "http://[::1",
    "http://[::1]:9/",
    "%zz",
    "http://a b/",
    "mailto:x",
    "://",
    "http://",
    "a b",
    "http://x:port/",
    "http://x:/",
    "1http://x",
    "ht tp://x",
    "http://x/%zz",
    "http://x/a b",
    "?q=1",
    "#f",
    "x:y",
    "http://x/ü",
    "http://ü/",
    "HTTP://X",
    "http:///p",
    ":",
    "a:b:c",
    "http://u:p@x:80/",
    "http://u p@x/",
    "http://%41/",
    "http://%C3%BC/",
    "http://x%25y/",
    "http://[fe80::1%25e]/",
    "http://[fe80::1%25e%20]/",
    "http://x|y/",
    "http://x<y/",
    "*",
    "//x",
    "http://x:99999/",
    "/graph?g0.expr=%zz",
    "http://x/\\n",
    "http://x#f",
    "http://x?%zz",
    "http://x\\\\y/",
    "é:x",
    "x/y:z",
    "/?",
    "http:?",
];

const TIMES: &[&str] = &[
    "x",
    "2020",
    "2020-01-01",
    "2020-01-01T00:00:00",
    "2020-01-01T00:00:00Z",
    "2020-01-01T00:00:00+01:00",
    "2020-01-01 00:00:00",
    "2020-01-01 00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00.5Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "2020-13-01T00:00:00Z",
    "2020-01-01T24:00:00Z",
    "2020-01-01t00:00:00z",
    "2020-01-01T00:00:00.123456789123Z",
    "2020-02-30T00:00:00Z",
    "2020-02-29T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2020-01-01T00:00:60Z",
    "1969-12-31T23:59:59Z",
    "2020-01-01T00:00Z",
    "2020-01-01T00:00",
    "2020-01-01T00:00:00-0000",
    "2020-01-01T00:00:00.000-0100",
    "2020-01-01T00:00:00.00-0100",
    "20200101T000000Z",
    "2020-01-01T00:00:00,5Z",
    "10000-01-01T00:00:00Z",
    "2020-01-01T00:00:00.Z",
    " 2020-01-01T00:00:00Z",
    "2020-01-01T00:00:00Z ",
    "2020-01-01T00:00:00+24:00",
];

/// In these Alertmanager is careless: its code, or 0 when it hangs up, and ours.
const STRICTER: &[(&str, u16, u16)] = &[
    ("[null]", 0, 400),
    (r#"[{"labels":{"a":"\ud800"}}]"#, 200, 400),
    (
        r#"[{"labels":{"a":"b"},"endsAt":"2020-01-01T00:00:00+25:00"}]"#,
        200,
        400,
    ),
    (
        r#"[{"labels":{"a":"b"},"endsAt":"2020-01-01T00:00:00+01:60"}]"#,
        200,
        400,
    ),
];

fn all() -> Vec<String> {
    let end = at(86_400 * 365);
    let mut bodies: Vec<String> = BODIES.iter().map(|&body| body.to_owned()).collect();
    bodies.extend(
        URLS.iter()
            .map(|url| format!(r#"[{{L,"generatorURL":"{url}"}}]"#)),
    );
    for time in TIMES {
        bodies.push(format!(r#"[{{L,"startsAt":"{time}","endsAt":"{end}"}}]"#));
        bodies.push(format!(r#"[{{L,"endsAt":"{time}"}}]"#));
        bodies.push(format!(
            r#"[{{L,"startsAt":"2019-12-31T23:00:00Z","endsAt":"{time}"}}]"#
        ));
    }
    // Without an end, one is made up: five minutes from now.
    for (start, end) in [
        (3_600, None),
        (200, None),
        (-3_600, None),
        (10, Some(5)),
        (5, Some(5)),
    ] {
        let end = end.map_or_else(String::new, |end| format!(r#","endsAt":"{}""#, at(end)));
        bodies.push(format!(r#"[{{L,"startsAt":"{}"{end}}}]"#, at(start)));
    }
    bodies
}

/// The code of the answer and, where the body has one, the code in it or its text.
async fn answer(http: &Http, url: &str, body: &str) -> (u16, Value) {
    let request = hyper::Request::post(url)
        .header("content-type", "application/json")
        .body(body.to_owned().into());
    let Some(answer) = http.try_send(request.unwrap()).await else {
        return (0, Value::Null);
    };
    let told = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    (answer.status, told.get("code").cloned().unwrap_or(told))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_posts_get_the_code_of_the_real_alertmanager() {
    let Some((theirs, ours, _dir)) = both(TREE).await else {
        return;
    };
    let http = Http::new();
    let ask = async |path: &str, body: &str| {
        let (theirs, ours) = (theirs.url(path), ours.url(path));
        [
            answer(&http, &theirs, body).await,
            answer(&http, &ours, body).await,
        ]
    };
    let (mut wrong, mut codes) = (Vec::new(), [0; 3]);
    for (n, body) in all().iter().enumerate() {
        let labels = format!(r#"{{"labels":{{"alertname":"odd{n}"}}"#);
        let body = body.replace("{L", &labels);
        let [theirs, ours] = ask("/api/v2/alerts", &body).await;
        let class = [200, 400, 422].iter().position(|code| *code == theirs.0);
        codes[class.unwrap_or_else(|| panic!("{body}: {theirs:?}"))] += 1;
        if theirs != ours {
            wrong.push(format!("{body}: {theirs:?}, we {ours:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(codes.iter().all(|count| *count > 20), "{codes:?}");
    for body in ["", "null", "{}", "[]", "3"] {
        let [theirs, ours] = ask("/api/v2/silences", body).await;
        assert_eq!(theirs, ours, "{body}");
    }
    for matcher in [
        r#""name":"a","value":"b","isRegex":false,"isEqual":null"#,
        r#""name":"a","value":"b""#,
        r#""name":"a","isRegex":false"#,
        r#""value":"b","isRegex":false"#,
        r#""name":null,"value":"b","isRegex":true"#,
    ] {
        let (from, to) = (at(60), at(3_600));
        let body = format!(
            r#"{{"id":null,"matchers":[{{{matcher}}}],"createdBy":"me","comment":"c","startsAt":"{from}","endsAt":"{to}"}}"#
        );
        let both = ask("/api/v2/silences", &body).await;
        let [theirs, ours] =
            both.map(|(status, code)| (status, code.get("silenceID").is_some(), code));
        assert_eq!((theirs.0, theirs.1), (ours.0, ours.1), "{body}");
        assert!(
            theirs.1 || theirs.2 == ours.2,
            "{body}: {theirs:?}, we {ours:?}"
        );
    }
    let silence = |starts: &str, ends: &str, tail: &str| {
        format!(
            r#"{{"matchers":[{{"name":"a","value":"b","isRegex":false}}],"createdBy":"me","comment":"c","startsAt":{starts},"endsAt":{ends}}}{tail}"#
        )
    };
    let (today, end) = (format!("{:?}", at(0)), format!("{:?}", at(86_400 * 365)));
    let mut silences: Vec<String> = [" x", "x", "{}", "]", "\"", "\0", "\n"]
        .map(|tail| silence(&today, &end, tail))
        .into();
    for time in TIMES {
        let time = format!("{time:?}");
        silences.push(silence(&time, &end, ""));
        silences.push(silence(&today, &time, ""));
        silences.push(silence(&time, &time, ""));
    }
    for none in ["null", "\"\""] {
        silences.push(silence(none, &end, ""));
        silences.push(silence(&today, none, ""));
    }
    let mut kinds = [0; 3];
    for body in silences {
        let [theirs, ours] = ask("/api/v2/silences", &body).await;
        let class = [200, 400, 422].iter().position(|code| *code == theirs.0);
        kinds[class.unwrap_or_else(|| panic!("{body}: {theirs:?}"))] += 1;
        assert_eq!(theirs.0, ours.0, "{body}: {theirs:?}, we {ours:?}");
    }
    assert!(kinds.iter().all(|count| *count > 1), "{kinds:?}");
    let now = pulse::model::Clock::System.now().as_ms();
    // What was made up, or given as some seconds from now, differs by the time between.
    let instant = |time: &Value| {
        let text = time.as_str().unwrap();
        match text.parse::<jiff::Timestamp>() {
            Ok(at) if (at.as_millisecond() - now).abs() < 600_000 => Value::Null,
            Ok(at) => at.as_millisecond().into(),
            Err(_) => text.into(),
        }
    };
    let alerts = async |url: String| {
        let alerts: Vec<Value> = serde_json::from_slice(&http.get(&url).await.body).unwrap();
        let times = |alert: &Value| {
            let labels = alert["labels"].to_string();
            (
                labels,
                instant(&alert["startsAt"]),
                instant(&alert["endsAt"]),
            )
        };
        let mut times: Vec<_> = alerts.iter().map(times).collect();
        times.sort_by(|a, b| a.0.cmp(&b.0));
        times
    };
    let path = "/api/v2/alerts";
    let told = (alerts(theirs.url(path)).await, alerts(ours.url(path)).await);
    assert!(told.0.len() > 50, "{}", told.0.len());
    assert_eq!(told.0, told.1);
    for (body, theirs, ours) in STRICTER {
        let [(their_code, _), (our_code, _)] = ask("/api/v2/alerts", body).await;
        assert_eq!((their_code, our_code), (*theirs, *ours), "{body}");
    }
}

/// Paths, some of which are none.
const PATHS: &[&str] = &[
    "/api/v2",
    "/api/v2/",
    "/api/v2/x",
    "/api/v2//alerts",
    "/api/v2/./alerts",
    "/api/v2/x/../alerts?active=true",
    "/api/v2/alerts",
    "/api/v2/alerts/",
    "/api/v2/alerts//",
    "/api/v2/alerts/x",
    "/api/v2/alerts/?active=false",
    "/api/v2/alerts/groups/",
    "/api/v2/silences/",
    "/api/v2/receivers/",
    "/api/v2/status/",
    "/api/v2/status/x/",
    "/api/v2/silence",
    "/api/v2/silence/",
    "/api/v2/silence/x/",
    "/api/v2/silence/00000000-0000-0000-0000-000000000000/",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_paths_lead_where_they_lead_in_the_real_alertmanager() {
    let Some((theirs, ours, _dir)) = both(TREE).await else {
        return;
    };
    let http = Http::new();
    let ask = async |url: String, method: &str, body: &'static str| {
        let request = hyper::Request::builder().method(method).uri(url);
        let request = request.header("content-type", "application/json");
        let answer = http
            .try_send(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let place = answer.headers.get("location");
        (answer.status, place.map(|p| p.to_str().unwrap().to_owned()))
    };
    for path in PATHS {
        for (method, body) in [("GET", ""), ("POST", "[]"), ("PUT", "")] {
            let [theirs, ours] = [theirs.url(path), ours.url(path)];
            let theirs = ask(theirs, method, body).await;
            assert_eq!(theirs, ask(ours, method, body).await, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alert_twice_in_one_post_is_merged_as_in_the_real_alertmanager() {
    let Some((theirs, ours, _dir)) = both(TREE).await else {
        return;
    };
    let http = Http::new();
    let now = pulse::model::Clock::System.now().as_ms() / 1_000;
    // Starts and ends of the two, in minutes from now; no end is one in five minutes.
    let times = [(-60, 60), (-30, 90), (-30, 30), (-90, 90), (-60, 0)];
    let mut posts = Vec::new();
    for (n, first) in times.iter().enumerate() {
        for (m, second) in times.iter().enumerate() {
            let one = |(start, end): (i64, i64)| {
                let end = match end {
                    0 => String::new(),
                    end => format!(r#","endsAt":"{}""#, at(end * 60)),
                };
                let start = at(start * 60);
                format!(r#"{{"labels":{{"alertname":"t{n}{m}"}},"startsAt":"{start}"{end}}}"#)
            };
            posts.push(format!("[{},{}]", one(*first), one(*second)));
        }
    }
    for url in [theirs.url("/api/v2/alerts"), ours.url("/api/v2/alerts")] {
        for body in &posts {
            assert_eq!(answer(&http, &url, body).await.0, 200, "{body}");
        }
    }
    let times = async |url: String| {
        let body = http.get(&url).await.body;
        let alerts: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let minutes = |time: &Value| {
            let at = time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            // What was made up is as old as the post.
            (at.as_second() - now + 30).div_euclid(60)
        };
        let mut all: Vec<_> = alerts
            .iter()
            .map(|a| {
                let name = a["labels"]["alertname"].as_str().unwrap().to_owned();
                (name, minutes(&a["startsAt"]), minutes(&a["endsAt"]))
            })
            .collect();
        all.sort();
        all
    };
    let theirs = times(theirs.url("/api/v2/alerts")).await;
    assert_eq!(theirs.len(), 25);
    assert_eq!(times(ours.url("/api/v2/alerts")).await, theirs);
}
