//! `pulse query`: a PromQL question over HTTP, answered as table, JSON or CSV.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::plot::{Line, plot};
use super::{ended, in_runtime};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How long the whole question may take.
const TIMEOUT: Duration = Duration::from_secs(130);

/// Arguments of `pulse query`.
#[derive(Args)]
pub(super) struct QueryArgs {
    /// The expression, for example 'rate(pulse_ingest_messages_total[5m])'.
    query: String,
    /// The server to ask.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The evaluation time (RFC 3339 or Unix seconds); default: now.
    #[arg(long, conflicts_with_all = ["start", "end", "step"])]
    time: Option<String>,
    /// The start of a range; needs --end.
    #[arg(long, requires = "end")]
    start: Option<String>,
    /// The end of a range; needs --start.
    #[arg(long, requires = "start")]
    end: Option<String>,
    /// The step of a range.
    #[arg(long, default_value = "1m")]
    step: String,
    /// How the answer looks.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// A bearer token for the server.
    #[arg(long, env = "PULSE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One line for each value, for people.
    Table,
    /// The server's answer as it is.
    Json,
    /// `series,time,value` lines.
    Csv,
    /// A small chart of characters; for ranges.
    Chart,
}

/// Asks and prints.
pub(super) fn query(args: &QueryArgs) -> ExitCode {
    ended(in_runtime(ask(args)).and_then(|body| print(args.format, &body)))
}

async fn ask(args: &QueryArgs) -> anyhow::Result<Bytes> {
    let (path, form) = form(args);
    post_form(&args.url, path, args.token.as_deref(), form).await
}

/// Posts a form to a path of the API and reads the answer, whatever its status.
///
/// # Errors
/// When the server cannot be reached, does not answer in time, or refuses in other words
/// than those of the API.
pub(super) async fn post_form(
    url: &str,
    path: &str,
    token: Option<&str>,
    form: String,
) -> anyhow::Result<Bytes> {
    let request = request(url, path, token, form)?;
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(https);
    let exchange = async {
        let answer = client.request(request).await?;
        let is_json = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/json"));
        if !is_json && !answer.status().is_success() {
            bail!("it answers {}", answer.status());
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|err| anyhow::anyhow!(err))?;
        anyhow::Ok(body.to_bytes())
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .context("no answer in time")?
        .with_context(|| format!("cannot ask {url}"))
}

/// The path that answers the question, and the question.
fn form(args: &QueryArgs) -> (&'static str, String) {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("query", &args.query);
    let path = match (&args.start, &args.end) {
        (Some(start), Some(end)) => {
            form.append_pair("start", start);
            form.append_pair("end", end);
            form.append_pair("step", &args.step);
            "query_range"
        }
        _ => {
            if let Some(time) = &args.time {
                form.append_pair("time", time);
            }
            "query"
        }
    };
    (path, form.finish())
}

fn request(
    url: &str,
    path: &str,
    token: Option<&str>,
    form: String,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let scheme = if url.contains("://") { "" } else { "http://" };
    let uri: Uri = format!("{scheme}{}/api/v1/{path}", url.trim_end_matches('/'))
        .parse()
        .with_context(|| format!("not a URL: {url:?}"))?;
    let mut request = Request::post(uri).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    Ok(request.body(Full::from(form))?)
}

/// The part of the Prometheus answer that is printed.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Point),
    String(Point),
    Vector(Vec<Element>),
    Matrix(Vec<Series>),
}

type Point = (f64, String);
type LabelMap = std::collections::BTreeMap<String, String>;

#[derive(Deserialize)]
struct Element {
    metric: LabelMap,
    value: Point,
}

#[derive(Deserialize)]
struct Series {
    metric: LabelMap,
    values: Vec<Point>,
}

fn print(format: Format, body: &[u8]) -> anyhow::Result<String> {
    let answer: Answer = serde_json::from_slice(body).with_context(|| {
        let start: String = String::from_utf8_lossy(body).chars().take(200).collect();
        format!("not an answer of the query API: {start:?}")
    })?;
    if answer.status != "success" {
        bail!("{}", answer.error);
    }
    if let Format::Json = format {
        return Ok(String::from_utf8_lossy(body).into_owned());
    }
    let data = answer.data.context("the answer has no data")?;
    let mut out = match format {
        Format::Chart => plot(&lines(data), std::io::stdout().is_terminal()),
        Format::Csv => csv(&rows(data)),
        Format::Table | Format::Json => table(&rows(data)),
    };
    for warning in answer.warnings {
        write!(out, "\nwarning: {warning}").expect("writing to a string cannot fail");
    }
    Ok(out)
}

/// The series of an answer as lines of a chart.
fn lines(data: Data) -> Vec<Line> {
    let number = |(t, v): Point| (t, v.parse().unwrap_or(f64::NAN));
    let line = |name: String, points: Vec<Point>| Line {
        name,
        points: points.into_iter().map(number).collect(),
    };
    match data {
        Data::Scalar(point) => vec![line("scalar".to_owned(), vec![point])],
        Data::String(_) => Vec::new(),
        Data::Vector(elements) => elements
            .into_iter()
            .map(|e| line(series_text(&e.metric), vec![e.value]))
            .collect(),
        Data::Matrix(all) => all
            .into_iter()
            .map(|s| line(series_text(&s.metric), s.values))
            .collect(),
    }
}

struct Row {
    series: String,
    time: f64,
    value: String,
}

fn rows(data: Data) -> Vec<Row> {
    let row = |series: &str, (time, value): Point| Row {
        series: series.to_owned(),
        time,
        value,
    };
    match data {
        Data::Scalar(point) => vec![row("scalar", point)],
        Data::String(point) => vec![row("string", point)],
        Data::Vector(elements) => elements
            .into_iter()
            .map(|e| row(&series_text(&e.metric), e.value))
            .collect(),
        Data::Matrix(all) => all
            .into_iter()
            .flat_map(|s| {
                let name = series_text(&s.metric);
                let points = s.values.into_iter();
                points.map(|p| row(&name, p)).collect::<Vec<_>>()
            })
            .collect(),
    }
}

fn series_text(metric: &LabelMap) -> String {
    crate::model::Labels::from_pairs(metric).to_string()
}

fn time_text(time: f64) -> String {
    crate::model::Timestamp::from_secs_f64(time).to_rfc3339()
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no series match".to_owned();
    }
    let width = |text: fn(&Row) -> &str| rows.iter().map(|r| text(r).chars().count()).max();
    let series_width = width(|r| &r.series).unwrap_or(0);
    let value_width = width(|r| &r.value).unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|r| {
            let time = time_text(r.time);
            format!(
                "{:series_width$}  {:>value_width$}  {time}",
                r.series, r.value
            )
        })
        .collect();
    lines.join("\n")
}

fn csv(rows: &[Row]) -> String {
    let mut out = "series,time,value".to_owned();
    for row in rows {
        let (series, value) = (quoted(&row.series), csv_value(&row.value));
        let time = time_text(row.time);
        write!(out, "\n{series},{time},{value}").expect("writing to a string cannot fail");
    }
    out
}

/// Numbers stand as they are; the value of a text may hold anything.
fn csv_value(value: &str) -> Cow<'_, str> {
    if value.contains(['"', ',', '\r', '\n']) {
        Cow::Owned(quoted(value))
    } else {
        Cow::Borrowed(value)
    }
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: &str = r#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"__name__":"up","job":"a"},"value":[1700000000,"1"]},
        {"metric":{},"value":[1700000000.25,"12.5"]}]}}"#;

    #[test]
    fn an_address_without_a_scheme_is_asked_by_http() {
        let asked = |url| request(url, "query", None, String::new()).unwrap();
        let want = "http://localhost:8080/api/v1/query";
        assert_eq!(asked("localhost:8080").uri(), want);
        assert_eq!(asked("http://localhost:8080/").uri(), want);
        assert!(request("http://[", "query", None, String::new()).is_err());
    }

    #[test]
    fn a_text_is_one_field_of_csv() {
        let text = r#"{"status":"success","data":{"resultType":"string","result":
            [1700000000,"s,t\"r\n"]}}"#;
        let csv = print(Format::Csv, text.as_bytes()).unwrap();
        assert!(csv.ends_with(",\"s,t\"\"r\n\""), "{csv}");
    }

    #[test]
    fn a_vector_prints_as_a_table_and_as_csv() {
        let table = print(Format::Table, VECTOR.as_bytes()).unwrap();
        assert_eq!(
            table,
            "up{job=\"a\"}     1  2023-11-14T22:13:20.000Z\n\
             {}           12.5  2023-11-14T22:13:20.250Z"
        );
        let csv = print(Format::Csv, VECTOR.as_bytes()).unwrap();
        assert!(
            csv.contains("\"up{job=\"\"a\"\"}\",2023-11-14T22:13:20.000Z,1"),
            "{csv}"
        );
    }

    #[test]
    fn a_range_prints_as_a_chart() {
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"up"},"values":[[0,"1"],[60,"3"]]}]}}"#;
        let chart = print(Format::Chart, matrix.as_bytes()).unwrap();
        assert!(chart.starts_with("3 │"), "{chart}");
        assert!(chart.ends_with("up  3"), "{chart}");
    }

    #[test]
    fn an_error_answer_is_an_error() {
        let body = br#"{"status":"error","errorType":"bad_data","error":"1:1: parse error"}"#;
        let err = print(Format::Table, body).unwrap_err();
        assert_eq!(err.to_string(), "1:1: parse error");
        assert!(print(Format::Table, b"<html>").is_err());
    }
}
