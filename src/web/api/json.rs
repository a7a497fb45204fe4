//! Writes Prometheus' JSON straight into one buffer: no tree is built in between.
//!
//! Numbers are what Go prints: `f` or, below 1e-6 and from 1e21, `e` with at least two
//! digits of exponent, in quotes; times are seconds with three decimals or none.

mod number;

pub use number::{float, go_exponent, go_float, point, points, time};

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::model::{Histogram, Labels, Timestamp};

/// Wraps written data into the envelope of a success.
///
/// `data` writes the value of `data`; warnings and infos follow when there are any.
pub fn success(warnings: &[String], infos: &[String], data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    data(&mut out);
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            out.push(b',');
            string(&mut out, name);
            out.push(b':');
            array(&mut out, texts, |out, text| html_safe_string(out, text));
        }
    }
    out.push(b'}');
    out
}

/// An answer made of finished JSON.
pub fn respond(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A JSON array of `items`.
pub fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, value) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, value);
    }
    out.push(b']');
}

/// Writes the fields of an object in the order of the calls.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Begins an object.
    pub fn new(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, first: true }
    }

    /// The buffer, after the field's name.
    pub fn field(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A text.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Object<'a> {
        html_safe_string(self.field(name), text);
        self
    }

    /// A whole number.
    pub fn integer(&mut self, name: &str, value: impl Into<i128>) -> &mut Object<'a> {
        raw(self.field(name), &value.into().to_string());
        self
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Object<'a> {
        raw(self.field(name), if value { "true" } else { "false" });
        self
    }

    /// A number that is not in quotes, as Go's encoder prints it.
    pub fn number(&mut self, name: &str, value: f64) -> &mut Object<'a> {
        let text = go_float(value).replace("e-0", "e-");
        raw(self.field(name), &text);
        self
    }

    /// A text from pairs, as an object.
    pub fn pairs<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        name: &str,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Object<'a> {
        let mut object = Object::new(self.field(name));
        for (name, value) in pairs {
            object.text(name.as_ref(), value.as_ref());
        }
        object.end();
        self
    }

    /// Ends the object.
    pub fn end(&mut self) {
        self.out.push(b'}');
    }
}

/// Plain bytes.
pub fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A label set as an object, in name order.
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// `[time,{"count":"9","sum":"2.5","buckets":[[0,"0.5","1","9"]]}]`: a native
/// histogram with the buckets that are not empty, each with the kind of its bounds.
pub fn histogram_point(out: &mut Vec<u8>, t: Timestamp, h: &Histogram) {
    let number = |out: &mut Vec<u8>, v: f64| {
        raw(out, "\"");
        raw(out, &go_float(v));
        raw(out, "\"");
    };
    out.push(b'[');
    time(out, t);
    raw(out, ",{\"count\":");
    number(out, h.count);
    raw(out, ",\"sum\":");
    number(out, h.sum);
    let ranges = h.ranges();
    if !ranges.is_empty() {
        raw(out, ",\"buckets\":");
        array(out, ranges, |out, range| {
            raw(out, &format!("[{}", range.rule()));
            for v in [range.lower, range.upper, range.count] {
                out.push(b',');
                number(out, v);
            }
            out.push(b']');
        });
    }
    raw(out, "}]");
}

/// A JSON string as jsoniter writes it: only what must be escaped is.
pub fn string(out: &mut Vec<u8>, text: &str) {
    escaped(out, text, false);
}

/// The same with `<`, `>` and `&` escaped, as Go's encoder does by default.
pub fn html_safe_string(out: &mut Vec<u8>, text: &str) {
    escaped(out, text, true);
}

fn escaped(out: &mut Vec<u8>, text: &str, html_safe: bool) {
    out.push(b'"');
    let bytes = text.as_bytes();
    // Looks at every byte, which is quicker than to look where to stop.
    let special = |b: u8| (b < 0x20) | matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
    if !bytes.iter().fold(false, |any, b| any | special(*b)) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut plain = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let replacement = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            b'<' if html_safe => "\\u003c",
            b'>' if html_safe => "\\u003e",
            b'&' if html_safe => "\\u0026",
            0x00..0x20 => {
                out.extend_from_slice(&bytes[plain..i]);
                plain = i + 1;
                raw(out, &format!("\\u{byte:04x}"));
                continue;
            }
            // U+2028 and U+2029 end a line in scripts.
            0xe2 if matches!(bytes.get(i + 1..i + 3), Some([0x80, 0xa8 | 0xa9])) => {
                out.extend_from_slice(&bytes[plain..i]);
                plain = i + 3;
                raw(
                    out,
                    if bytes[i + 2] == 0xa8 {
                        "\\u2028"
                    } else {
                        "\\u2029"
                    },
                );
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        raw(out, replacement);
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = "a\"\\\n\r\t\u{1}<&>\u{2028}\u{2029}ü€";
        assert_eq!(
            written(|out| string(out, text)),
            "\"a\\\"\\\\\\n\\r\\t\\u0001<&>\\u2028\\u2029ü€\""
        );
        assert_eq!(
            written(|out| html_safe_string(out, "<&>")),
            "\"\\u003c\\u0026\\u003e\""
        );
    }

    #[test]
    fn the_envelope_leaves_out_what_is_empty() {
        let body = success(&[], &["x".to_owned()], |out| raw(out, "1"));
        assert_eq!(
            body,
            b"{\"status\":\"success\",\"data\":1,\"infos\":[\"x\"]}"
        );
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in any::<String>()) {
            for write in [string, html_safe_string] {
                let json = written(|out| write(out, &text));
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
            }
        }

    }
}
