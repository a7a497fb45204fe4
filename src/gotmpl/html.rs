//! Escapes values by the place in an HTML text where they appear, as Go's
//! `html/template` does.
//!
//! Go finds the places when it parses; here they are followed while the text is
//! written, which gives the same for every template that Go accepts. Labels are
//! not ours, so what has no harmless form at its place becomes `ZgotmplZ`, Go's word
//! for it: an address of another scheme than http, https or mailto, anything but
//! plain words in a style, and every value in a script. Comments are left out.

/// What stands in for a value that is not let through.
const REFUSED: &str = "ZgotmplZ";

/// Elements whose content is not markup.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Attributes whose value is an address.
const ADDRESSES: [&str; 16] = [
    "action",
    "archive",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "src",
    "usemap",
    "xmlns",
];

/// Where the end of the text so far is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Text,
    Comment,
    /// In an element whose content is not markup; the index into [`RAW`].
    Raw(usize),
    /// In a tag, between attributes.
    Tag,
    /// In or behind the name of an attribute.
    Name,
    /// Behind the `=`.
    BeforeValue,
    /// In a value, up to this character; `None`: up to a space.
    Value(Option<char>),
}

/// What an attribute's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    Plain,
    Style,
    Script,
    Address(Part),
}

/// The part of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Start,
    Path,
    Query,
}

/// Follows a text.
#[derive(Debug)]
pub(super) struct Html {
    place: Place,
    meaning: Meaning,
    /// The name of the open tag.
    tag: String,
    /// The name of the attribute.
    attribute: String,
}

impl Html {
    pub(super) fn new() -> Html {
        Html {
            place: Place::Text,
            meaning: Meaning::Plain,
            tag: String::new(),
            attribute: String::new(),
        }
    }

    /// Takes a piece of the template's own text; gives what is to be written.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            rest = match self.place {
                Place::Text => self.in_text(rest, &mut out),
                Place::Comment => self.in_comment(rest),
                Place::Raw(element) => self.in_raw(element, rest, &mut out),
                Place::Tag => self.in_tag(rest, &mut out),
                Place::Name => self.in_name(rest, &mut out),
                Place::BeforeValue => self.before_value(rest, &mut out),
                Place::Value(end) => self.in_value(end, rest, &mut out),
            };
        }
        out
    }

    /// Escapes a value for this place. `last` is the function that gave it.
    pub(super) fn value(&mut self, value: &str, last: Option<&str>) -> String {
        if self.place == Place::BeforeValue {
            self.place = Place::Value(None);
        }
        match self.place {
            Place::Comment => String::new(),
            Place::Text if last == Some("safeHtml") => value.to_owned(),
            Place::Text | Place::Raw(2 | 3) if last == Some("html") => value.to_owned(),
            Place::Text | Place::Raw(2 | 3) => escaped(value),
            Place::Raw(1) => styled(value).to_owned(),
            Place::Raw(_) | Place::Tag | Place::Name => REFUSED.to_owned(),
            Place::BeforeValue | Place::Value(_) => {
                let value = match self.meaning {
                    Meaning::Plain => escaped(value),
                    Meaning::Style => styled(value).to_owned(),
                    Meaning::Script => REFUSED.to_owned(),
                    Meaning::Address(part) => escaped(&address(value, part, last)),
                };
                if self.place == Place::Value(None) {
                    without_spaces(&value)
                } else {
                    value
                }
            }
        }
    }

    fn in_text<'t>(&mut self, text: &'t str, out: &mut String) -> &'t str {
        let Some(at) = text.find('<') else {
            out.push_str(text);
            return "";
        };
        out.push_str(&text[..at]);
        let rest = &text[at..];
        if let Some(rest) = rest.strip_prefix("<!--") {
            self.place = Place::Comment;
            return rest;
        }
        let is_doctype = rest
            .get(..9)
            .is_some_and(|start| start.eq_ignore_ascii_case("<!doctype"));
        if is_doctype {
            out.push('<');
            return &rest[1..];
        }
        let name = rest[1..].strip_prefix('/').unwrap_or(&rest[1..]);
        let is_end = name.len() + 1 < rest.len();
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric() && c != ':' && c != '-')
            .unwrap_or(name.len());
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            out.push_str("&lt;");
            return &rest[1..];
        }
        self.tag = if is_end {
            String::new()
        } else {
            name[..end].to_ascii_lowercase()
        };
        self.place = Place::Tag;
        let taken = rest.len() - name.len() + end;
        out.push_str(&rest[..taken]);
        &rest[taken..]
    }

    fn in_comment<'t>(&mut self, text: &'t str) -> &'t str {
        match text.find("-->") {
            Some(at) => {
                self.place = Place::Text;
                &text[at + 3..]
            }
            None => "",
        }
    }

    fn in_raw<'t>(&mut self, element: usize, text: &'t str, out: &mut String) -> &'t str {
        let end = format!("</{}", RAW[element]);
        let at = text.to_ascii_lowercase().find(&end).unwrap_or(text.len());
        if at < text.len() {
            self.place = Place::Text;
        }
        out.push_str(&text[..at]);
        &text[at..]
    }

    fn in_tag<'t>(&mut self, text: &'t str, out: &mut String) -> &'t str {
        let start = text
            .find(|c: char| !c.is_ascii_whitespace() && c != '/')
            .unwrap_or(text.len());
        out.push_str(&text[..start]);
        let rest = &text[start..];
        if let Some(after) = rest.strip_prefix('>') {
            out.push('>');
            let raw = RAW.iter().position(|name| *name == self.tag);
            self.place = raw.map_or(Place::Text, Place::Raw);
            return after;
        }
        if !rest.is_empty() {
            self.attribute.clear();
            self.place = Place::Name;
        }
        rest
    }

    fn in_name<'t>(&mut self, text: &'t str, out: &mut String) -> &'t str {
        let end = text
            .find(|c: char| matches!(c, '=' | '>' | '/') || c.is_ascii_whitespace())
            .unwrap_or(text.len());
        out.push_str(&text[..end]);
        self.attribute.push_str(&text[..end].to_ascii_lowercase());
        let rest = text[end..].trim_start_matches(|c: char| c.is_ascii_whitespace());
        out.push_str(&text[end..text.len() - rest.len()]);
        if let Some(after) = rest.strip_prefix('=') {
            out.push('=');
            self.place = Place::BeforeValue;
            self.meaning = meaning(&self.attribute);
            return after;
        }
        if !rest.is_empty() {
            self.place = Place::Tag;
        }
        rest
    }

    fn before_value<'t>(&mut self, text: &'t str, out: &mut String) -> &'t str {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
        out.push_str(&text[..text.len() - rest.len()]);
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        if !rest.is_empty() {
            self.place = Place::Value(quote);
        }
        let taken = quote.map_or(0, char::len_utf8);
        out.push_str(&rest[..taken]);
        &rest[taken..]
    }

    fn in_value<'t>(&mut self, quote: Option<char>, text: &'t str, out: &mut String) -> &'t str {
        let is_end = |c: char| match quote {
            Some(quote) => c == quote,
            None => c == '>' || c.is_ascii_whitespace(),
        };
        let end = text.find(is_end).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        out.push_str(value);
        if let Meaning::Address(part) = &mut self.meaning {
            if value.contains(['?', '#']) {
                *part = Part::Query;
            } else if *part == Part::Start && !value.trim().is_empty() {
                *part = Part::Path;
            }
        }
        if rest.is_empty() {
            return rest;
        }
        self.place = Place::Tag;
        let taken = quote.map_or(0, char::len_utf8);
        out.push_str(&rest[..taken]);
        &rest[taken..]
    }
}

fn meaning(attribute: &str) -> Meaning {
    let plain = attribute.rsplit(':').next().unwrap_or(attribute);
    let plain = plain.strip_prefix("data-").unwrap_or(plain);
    if plain == "style" {
        Meaning::Style
    } else if plain.starts_with("on") {
        Meaning::Script
    } else if ADDRESSES.contains(&plain) || plain.contains("src") || plain.contains("url") {
        Meaning::Address(Part::Start)
    } else {
        Meaning::Plain
    }
}

/// For text and quoted values.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '+' => out.push_str("&#43;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

/// For values without quotes, after [`escaped`].
fn without_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ' | '=' | '`' => {
                out.push_str(&format!("&#{};", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// A value in a style: words, numbers and colours only.
fn styled(text: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '#' | '.' | '%' | '-');
    if text.chars().all(is_plain) {
        text
    } else {
        REFUSED
    }
}

fn address(text: &str, part: Part, last: Option<&str>) -> String {
    match part {
        Part::Start if !is_harmless(text) => format!("#{REFUSED}"),
        Part::Start | Part::Path => percent_encoded(text, true),
        // Once is enough.
        Part::Query if last == Some("urlquery") => text.to_owned(),
        Part::Query => percent_encoded(text, false),
    }
}

fn is_harmless(address: &str) -> bool {
    let scheme = match address.split_once(':') {
        Some((scheme, _)) if !scheme.contains('/') => scheme,
        _ => return true,
    };
    ["http", "https", "mailto"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
}

/// With `whole`, the signs that divide an address stay, and so does what is encoded.
fn percent_encoded(text: &str, whole: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    for (i, byte) in bytes.iter().enumerate() {
        let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        let stays = match byte {
            b'-' | b'.' | b'_' | b'~' => true,
            b'%' => whole && is_hex(i + 1) && is_hex(i + 2),
            b if b"!#$&*+,/:;=?@[]".contains(b) => whole,
            b => b.is_ascii_alphanumeric(),
        };
        if stays {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `before` and `after` are the template's, `value` stands between them.
    fn check(before: &str, value: &str, after: &str, want: &str) {
        let mut html = Html::new();
        let mut out = html.text(before);
        out.push_str(&html.value(value, None));
        out.push_str(&html.text(after));
        assert_eq!(out, want, "{before}{{{{{value}}}}}{after}");
    }

    #[test]
    fn a_value_is_escaped_for_its_place() {
        let evil = "\"><script>x</script>";
        let text = "&#34;&gt;&lt;script&gt;x&lt;/script&gt;";
        check("<p>", evil, "</p>", &format!("<p>{text}</p>"));
        check(
            "<title>",
            evil,
            "</title>",
            &format!("<title>{text}</title>"),
        );
        check("<a title=\"", evil, "\">", &format!("<a title=\"{text}\">"));
        check("<a title=", "a b=c", ">", "<a title=a&#32;b&#61;c>");
        check(
            "<script>var x = ",
            evil,
            "</script>",
            "<script>var x = ZgotmplZ</script>",
        );
        check("<a onclick='f(", evil, ")'>", "<a onclick='f(ZgotmplZ)'>");
        check("<p ", "onload", "=x>", "<p ZgotmplZ=x>");
        check(
            "<p style=\"color: ",
            "#FF0000",
            "\">",
            "<p style=\"color: #FF0000\">",
        );
        check(
            "<p style=\"color: ",
            "expression(1)",
            "\">",
            "<p style=\"color: ZgotmplZ\">",
        );
        check("a <!-- ", evil, " --> b", "a  b");
        check("1 < 2 ", "&", "", "1 &lt; 2 &amp;");
        check("<!DOCTYPE html><p>", "+", "", "<!DOCTYPE html><p>&#43;");
    }

    #[test]
    fn an_address_has_a_harmless_scheme_and_is_encoded_by_its_part() {
        let check = |before: &str, value: &str, want: &str| {
            let before = format!("<a href=\"{before}");
            check(&before, value, "\">", &format!("{before}{want}\">"));
        };
        check("", "javascript:alert(1)", "#ZgotmplZ");
        check("", "JavaScript\n:alert(1)", "#ZgotmplZ");
        check(
            "",
            "http://h/?a=b c&d=%20'",
            "http://h/?a=b%20c&amp;d=%20%27",
        );
        check("", "/a:b", "/a:b");
        check("/x/", "javascript:x", "javascript:x");
        check("/x?q=", "a/b&c=d", "a%2fb%26c%3dd");
        check("/#/", "é", "%c3%a9");
    }

    #[test]
    fn text_in_pieces_is_followed_like_text_in_one() {
        let mut html = Html::new();
        for (piece, want) in [
            ("<a cl", "<a cl"),
            ("ass", "ass"),
            ("=", "="),
            ("'x", "'x"),
            ("' hre", "' hre"),
            ("f=\"", "f=\""),
        ] {
            assert_eq!(html.text(piece), want);
        }
        assert_eq!(html.value("data:x", None), "#ZgotmplZ");
        assert_eq!(
            html.text("\"/><style>a{}</style>"),
            "\"/><style>a{}</style>"
        );
        assert_eq!(html.value("<", None), "&lt;");
        assert_eq!(html.value("<b>", Some("safeHtml")), "<b>");
    }
}
