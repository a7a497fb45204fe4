//! The words of text panels: a small part of Markdown, everything escaped.

use std::fmt::Write as _;

/// Markup from Markdown: headings, lists, paragraphs, bold, code, links to
/// `http`, `https` or our own pages. Tags of the source show as text.
pub fn markdown(source: &str) -> String {
    let mut out = String::new();
    let mut list = false;
    let mut paragraph = String::new();
    for line in source.lines().chain([""]) {
        let line = line.trim();
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        let heading = line.trim_start_matches('#');
        let is_heading = heading.len() < line.len() && heading.starts_with(' ');
        if (line.is_empty() || item.is_some() || is_heading) && !paragraph.is_empty() {
            let _ = write!(out, "<p>{paragraph}</p>");
            paragraph.clear();
        }
        if list && item.is_none() {
            out.push_str("</ul>");
            list = false;
        }
        match item {
            Some(item) => {
                if !list {
                    out.push_str("<ul>");
                    list = true;
                }
                let _ = write!(out, "<li>{}</li>", inline(item));
            }
            None if is_heading => {
                let _ = write!(out, "<h3>{}</h3>", inline(heading.trim()));
            }
            None if !line.is_empty() => {
                if !paragraph.is_empty() {
                    paragraph.push(' ');
                }
                paragraph.push_str(&inline(line));
            }
            None => {}
        }
    }
    out
}

/// The text of an HTML source, without its tags.
pub fn html_text(source: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in source.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    format!("<p>{}</p>", escape(text.trim()))
}

/// Bold, code and links of one line.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['*', '`', '[']) {
        out.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        let found = delimited(rest, "**", "b")
            .or_else(|| delimited(rest, "`", "code"))
            .or_else(|| link(rest));
        match found {
            Some((markup, len)) => {
                out.push_str(&markup);
                rest = &rest[len..];
            }
            None => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    out.push_str(&escape(rest));
    out
}

fn delimited(text: &str, mark: &str, tag: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix(mark)?;
    let end = inner.find(mark).filter(|end| *end > 0)?;
    let markup = format!("<{tag}>{}</{tag}>", escape(&inner[..end]));
    Some((markup, end + 2 * mark.len()))
}

fn link(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix('[')?;
    let (words, rest) = inner.split_once("](")?;
    let (url, _) = rest.split_once(')')?;
    let safe = ["https://", "http://", "/"]
        .iter()
        .any(|p| url.starts_with(p))
        && !url.starts_with("//");
    let markup = if safe {
        format!(
            "<a href=\"{}\" rel=\"noreferrer\">{}</a>",
            escape(url),
            escape(words)
        )
    } else {
        escape(words)
    };
    Some((markup, words.len() + url.len() + 4))
}

/// Text as markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, want: &str) {
        assert_eq!(markdown(source), want, "{source}");
    }

    #[test]
    fn the_common_marks_work() {
        check(
            "# Hi\n\na **b** `c<d`\ne\n- x\n- y\n\nz",
            "<h3>Hi</h3><p>a <b>b</b> <code>c&lt;d</code> e</p><ul><li>x</li><li>y</li></ul><p>z</p>",
        );
        check(
            "[a](https://x/?a=1&b) [b](javascript:1) [c](//evil)",
            "<p><a href=\"https://x/?a=1&amp;b\" rel=\"noreferrer\">a</a> b c</p>",
        );
    }

    #[test]
    fn markup_of_the_source_is_text() {
        check(
            "<script>alert(1)</script> ** [x",
            "<p>&lt;script&gt;alert(1)&lt;/script&gt; ** [x</p>",
        );
        check(
            "[\"><img src=x>](/a\"b)",
            "<p><a href=\"/a&quot;b\" rel=\"noreferrer\">&quot;&gt;&lt;img src=x&gt;</a></p>",
        );
        assert_eq!(
            html_text("<b onclick=1>x</b> & <script>y"),
            "<p>x  &amp;  y</p>"
        );
    }
}
