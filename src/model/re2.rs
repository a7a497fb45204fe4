//! RE2 patterns, as Prometheus and Alertmanager take them, for Rust's regex engine.
//!
//! Both engines work alike, their syntaxes do not: `\d`, `\w` and `\b` are ASCII
//! in RE2; `&&`, `--`, `~~` and `[` mean nothing inside a class there; `\Q..\E`
//! quotes; a `{` that begins no repetition is a brace; `(?x)`, `a**` and `a{1001}`
//! are errors. A pattern is read by RE2's rules and written in terms of which both
//! engines think alike. Linear in its length; errors have the texts of Go's regexp.
//!
//! Left to Rust's engine: the names of Unicode classes (it also takes `\p{greek}`).
//! Groups nest less deep than RE2's 1,000.

mod class;

/// The highest count of a repetition, nested ones multiplied.
const REPEAT_MAX: u32 = 1000;

/// How deep groups may nest; Rust's engine allows 250 levels of all kinds.
const GROUPS_MAX: usize = 120;

/// The same pattern in Rust's syntax.
///
/// # Errors
/// With the text of Go's regexp after `error parsing regexp: `.
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        pattern,
        at: 0,
        out: String::with_capacity(pattern.len() + 16),
        groups: Vec::new(),
        names: Vec::new(),
        atom: None,
        repeated_from: None,
        highest: 1,
    };
    translator.run()?;
    Ok(translator.out)
}

/// The last thing that can be repeated, as a range of the output.
#[derive(Clone, Copy)]
struct Atom {
    start: usize,
    end: usize,
    /// The product of the repetitions inside.
    repeats: u32,
    /// Whether its last part is a repetition.
    repeated: bool,
}

/// A group that is open.
struct Group {
    start: usize,
    /// The highest product of repetitions around the group.
    outer_highest: u32,
}

struct Translator<'a> {
    pattern: &'a str,
    at: usize,
    out: String,
    groups: Vec<Group>,
    names: Vec<&'a str>,
    atom: Option<Atom>,
    /// Where the repetition that was just read began.
    repeated_from: Option<usize>,
    /// The highest product of repetitions in the group at hand.
    highest: u32,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Translator<'a> {
    fn run(&mut self) -> Step {
        while let Some(c) = self.peek() {
            let repeated_from = self.repeated_from.take();
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.take(c);
                    self.out.push('|');
                    self.atom = None;
                }
                '*' | '+' | '?' => {
                    let start = self.at;
                    self.take(c);
                    self.repeat(start, repeated_from, (1, &c.to_string()))?;
                }
                '{' => match self.counts()? {
                    Some((counted, operator, len)) => {
                        let start = self.at;
                        self.at += len;
                        self.repeat(start, repeated_from, (counted, &operator))?;
                    }
                    None => self.literal(c),
                },
                '[' => {
                    let (text, len) = class::bracketed(self.rest())?;
                    self.at += len;
                    self.push_atom(&text);
                }
                '\\' => self.escape()?,
                '^' | '$' | '.' => {
                    self.take(c);
                    self.push_atom(&c.to_string());
                }
                c => self.literal(c),
            }
        }
        if self.groups.is_empty() {
            Ok(())
        } else {
            Err(format!("missing closing ): `{}`", self.pattern))
        }
    }

    fn literal(&mut self, c: char) {
        self.take(c);
        self.push_literal(c);
    }

    fn push_literal(&mut self, c: char) {
        self.push_atom(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    fn push_atom(&mut self, text: &str) {
        let start = self.out.len();
        self.out.push_str(text);
        self.atom = Some(Atom {
            start,
            end: self.out.len(),
            repeats: 1,
            repeated: false,
        });
    }

    /// `(`, `(?:`, `(?P<name>`, `(?<name>`, `(?flags:`, `(?flags)`
    fn open(&mut self) -> Step {
        let rest = self.rest();
        let Some(perl) = rest.strip_prefix("(?") else {
            self.at += 1;
            return self.open_group("(");
        };
        let named = perl.strip_prefix("P<").or_else(|| perl.strip_prefix('<'));
        let Some(named) = named else {
            return self.flags(perl);
        };
        let Some((name, after)) = named.split_once('>') else {
            return Err(format!("invalid named capture: `{rest}`"));
        };
        let capture = &rest[..rest.len() - after.len()];
        let word = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
        if name.is_empty() || !name.bytes().all(word) {
            return Err(format!("invalid named capture: `{capture}`"));
        }
        if self.names.contains(&name) {
            return Err(format!("duplicate capture group name: `{name}`"));
        }
        self.names.push(name);
        self.at += capture.len();
        self.open_group(&format!("(?P<{name}>"))
    }

    fn open_group(&mut self, text: &str) -> Step {
        if self.groups.len() == GROUPS_MAX {
            return Err(format!("expression nests too deeply: `{}`", self.pattern));
        }
        self.groups.push(Group {
            start: self.out.len(),
            outer_highest: self.highest,
        });
        self.highest = 1;
        self.out.push_str(text);
        self.atom = None;
        Ok(())
    }

    /// What follows `(?` when it is no name.
    fn flags(&mut self, perl: &str) -> Step {
        let mut sets = [String::new(), String::new()];
        let mut negative = 0;
        let mut seen = true;
        for (i, c) in perl.char_indices() {
            match c {
                'i' | 'm' | 's' | 'U' => {
                    sets[1 - negative].retain(|flag| flag != c);
                    if !sets[negative].contains(c) {
                        sets[negative].push(c);
                    }
                    seen = true;
                }
                '-' if negative == 0 => {
                    negative = 1;
                    seen = false;
                }
                ':' | ')' if seen => {
                    self.at += "(?".len() + i + 1;
                    let minus = if sets[1].is_empty() { "" } else { "-" };
                    let flags = format!("(?{}{minus}{}", sets[0], sets[1]);
                    if c == ':' {
                        return self.open_group(&(flags + ":"));
                    }
                    if flags.len() > "(?".len() {
                        self.out.push_str(&(flags + ")"));
                    }
                    return Ok(());
                }
                c => {
                    let end = "(?".len() + i + c.len_utf8();
                    let bad = &self.rest()[..end];
                    return Err(format!("invalid or unsupported Perl syntax: `{bad}`"));
                }
            }
        }
        Err(format!("missing closing ): `{}`", self.pattern))
    }

    fn close(&mut self) -> Step {
        let Some(group) = self.groups.pop() else {
            return Err(format!("unexpected ): `{}`", self.pattern));
        };
        self.at += 1;
        self.out.push(')');
        self.atom = Some(Atom {
            start: group.start,
            end: self.out.len(),
            repeats: self.highest,
            repeated: false,
        });
        self.highest = self.highest.max(group.outer_highest);
        Ok(())
    }

    /// Repeats the last atom. `start` is where the operator began, and
    /// `repeated_from` where one right before it did.
    fn repeat(
        &mut self,
        start: usize,
        repeated_from: Option<usize>,
        (count, operator): (u32, &str),
    ) -> Step {
        let lazy = self.peek() == Some('?');
        self.at += usize::from(lazy);
        let text = &self.pattern[start..self.at];
        if let Some(from) = repeated_from {
            let nested = &self.pattern[from..self.at];
            return Err(format!("invalid nested repetition operator: `{nested}`"));
        }
        let Some(atom) = self.atom else {
            let text = text.strip_suffix('?').filter(|t| !t.is_empty());
            let text = text.unwrap_or(&self.pattern[start..self.at]);
            return Err(format!("missing argument to repetition operator: `{text}`"));
        };
        let repeats = atom.repeats.saturating_mul(count);
        if repeats > REPEAT_MAX {
            return Err(format!("invalid repeat count: `{text}`"));
        }
        let operator = format!("{operator}{}", if lazy { "?" } else { "" });
        // Flags may stand between an atom and its repetition: `a(?i)*`, `a*(?i)*`.
        let mut end = atom.end;
        if atom.repeated {
            self.out.insert(end, ')');
            self.out.insert_str(atom.start, "(?:");
            end += "(?:)".len();
        }
        self.out.insert_str(end, &operator);
        self.highest = self.highest.max(repeats);
        self.atom = Some(Atom {
            start: atom.start,
            end: end + operator.len(),
            repeats,
            repeated: true,
        });
        self.repeated_from = Some(start);
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}` here: its higher count, its text, its length.
    /// Anything else after a brace makes the brace a plain character.
    fn counts(&self) -> Step<Option<(u32, String, usize)>> {
        let rest = &self.rest()[1..];
        let end = rest.find(|c: char| c != ',' && !c.is_ascii_digit());
        let inside = match end {
            Some(end) if rest[end..].starts_with('}') => &rest[..end],
            _ => return Ok(None),
        };
        let (low, high) = match inside.split_once(',') {
            None => (inside, Some(inside)),
            Some((low, "")) => (low, None),
            Some((low, high)) => (low, Some(high)),
        };
        let is_count = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits && (text.len() == 1 || !text.starts_with('0'))
        };
        if !is_count(low) || !high.is_none_or(is_count) {
            return Ok(None);
        }
        let text = format!("{{{inside}}}");
        let count = |text: &str| text.parse().ok().filter(|n| *n <= REPEAT_MAX);
        let invalid = || format!("invalid repeat count: `{text}`");
        let low: u32 = count(low).ok_or_else(invalid)?;
        let high = high.map_or(Some(low), count).ok_or_else(invalid)?;
        if high < low {
            return Err(invalid());
        }
        Ok(Some((high.max(1), text.clone(), text.len())))
    }

    /// What begins with a backslash, outside of a class.
    fn escape(&mut self) -> Step {
        let rest = self.rest();
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let text = quoted.split("\\E").next().unwrap_or_default();
            text.chars().for_each(|c| self.push_literal(c));
            let ended = usize::from(text.len() < quoted.len());
            self.at += "\\Q".len() + text.len() + ended * "\\E".len();
            return Ok(());
        }
        let anchor = match rest.chars().nth(1) {
            Some('A') => "\\A",
            Some('z') => "\\z",
            Some('b') => "(?-u:\\b)",
            Some('B') => "(?-u:\\B)",
            _ => {
                if let Some((text, len)) = class::escaped(rest)? {
                    self.at += len;
                    self.push_atom(&format!("[{text}]"));
                    return Ok(());
                }
                let (c, len) = class::character(rest)?;
                self.at += len;
                self.push_literal(c);
                return Ok(());
            }
        };
        self.at += 2;
        self.push_atom(anchor);
        Ok(())
    }

    fn rest(&self) -> &'a str {
        &self.pattern[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, c: char) {
        self.at += c.len_utf8();
    }
}

#[cfg(test)]
mod tests;
