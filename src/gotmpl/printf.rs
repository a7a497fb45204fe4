//! Go's `fmt`: Print, Println and Printf over template values.

use super::Budget;
use super::number::format_float;
use super::quote::quoted;
use super::time;
use super::value::Value;

/// Go refuses widths and precisions above this.
const WIDTH_MAX: usize = 1_000_000;

/// The value alone, as `{{ . }}` prints it.
pub(super) fn display(value: &Value) -> String {
    if matches!(value, Value::Nil) {
        return "<no value>".to_owned();
    }
    let mut printer = Printer::default();
    printer.value(value, 'v');
    printer.out
}

/// As `fmt.Sprint`: spaces between operands of which neither is a text.
///
/// # Errors
/// When the text would be too long.
pub(super) fn print(args: &[Value], budget: &mut Budget) -> Result<String, String> {
    let mut out = String::new();
    let mut after_text = true;
    for (i, arg) in args.iter().enumerate() {
        let is_text = matches!(arg, Value::Str(_));
        if i > 0 && !is_text && !after_text {
            out.push(' ');
        }
        after_text = is_text;
        let shown = operand(arg);
        budget.spend_bytes(shown.len())?;
        out.push_str(&shown);
    }
    Ok(out)
}

/// As `fmt.Sprintln`.
///
/// # Errors
/// When the text would be too long.
pub(super) fn println(args: &[Value], budget: &mut Budget) -> Result<String, String> {
    let mut out = String::new();
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let shown = operand(arg);
        budget.spend_bytes(shown.len())?;
        out.push_str(&shown);
    }
    out.push('\n');
    Ok(out)
}

/// An operand of Print: nothing is `<nil>` there, not `<no value>`.
fn operand(arg: &Value) -> String {
    match arg {
        Value::Nil => "<nil>".to_owned(),
        other => display(other),
    }
}

/// As `fmt.Sprintf`.
///
/// # Errors
/// When the text would be too long.
pub(super) fn printf(format: &str, args: &[Value], budget: &mut Budget) -> Result<String, String> {
    let mut printer = Printer::default();
    let mut state = Args {
        args,
        next: 0,
        reordered: false,
    };
    let mut rest = format;
    let mut charged = 0;
    while let Some(at) = rest.find('%') {
        printer.out.push_str(&rest[..at]);
        rest = printer.directive(&rest[at + 1..], &mut state);
        budget.spend_bytes(printer.out.len() - charged)?;
        charged = printer.out.len();
    }
    printer.out.push_str(rest);
    budget.spend_bytes(printer.out.len() - charged)?;
    if !state.reordered && state.next < args.len() {
        printer.extra(&args[state.next..]);
    }
    Ok(printer.out)
}

struct Args<'a> {
    args: &'a [Value],
    next: usize,
    reordered: bool,
}

impl<'a> Args<'a> {
    fn take(&mut self) -> Option<&'a Value> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        Some(arg)
    }

    /// A width or precision given as `*`.
    fn take_count(&mut self) -> Option<i64> {
        match self.take()? {
            Value::Int(i) if i.unsigned_abs() <= WIDTH_MAX as u64 => Some(*i),
            _ => None,
        }
    }

    /// `[n]`: the rest of the text, and whether the index is good.
    fn index<'t>(&mut self, rest: &'t str) -> (&'t str, bool) {
        if !rest.starts_with('[') {
            return (rest, true);
        }
        self.reordered = true;
        let Some(end) = rest.find(']') else {
            return (&rest[1..], false);
        };
        let number = rest[1..end].parse::<usize>().ok();
        match number.filter(|n| (1..=self.args.len()).contains(n)) {
            Some(n) => {
                self.next = n - 1;
                (&rest[end + 1..], true)
            }
            None => (&rest[end + 1..], false),
        }
    }
}

/// The flags of one directive, and the text so far.
#[derive(Default)]
struct Printer {
    out: String,
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    field_names: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Printer {
    /// Formats one directive; gives the text behind it.
    fn directive<'t>(&mut self, rest: &'t str, args: &mut Args<'_>) -> &'t str {
        let rest = self.flags(rest);
        let (rest, good) = args.index(rest);
        let rest = self.read_width(rest, args);
        let (rest, good) = self.read_precision(rest, args, good);
        let (rest, good) = if rest.starts_with('[') {
            let (rest, fine) = args.index(rest);
            (rest, good && fine)
        } else {
            (rest, good)
        };
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        let rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.out.push('%');
        } else if !good {
            self.out.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(arg) = args.take() {
            self.value(arg, verb);
        } else {
            self.out.push_str(&format!("%!{verb}(MISSING)"));
        }
        rest
    }

    fn flags<'t>(&mut self, rest: &'t str) -> &'t str {
        let out = std::mem::take(&mut self.out);
        *self = Printer {
            out,
            ..Printer::default()
        };
        let end = rest.find(|c| !"+-# 0".contains(c)).unwrap_or(rest.len());
        for flag in rest[..end].chars() {
            match flag {
                '+' => self.plus = true,
                '-' => {
                    self.minus = true;
                    self.zero = false;
                }
                '#' => self.sharp = true,
                ' ' => self.space = true,
                _ => self.zero = !self.minus,
            }
        }
        &rest[end..]
    }

    fn read_width<'t>(&mut self, rest: &'t str, args: &mut Args<'_>) -> &'t str {
        if let Some(rest) = rest.strip_prefix('*') {
            match args.take_count() {
                Some(count) => {
                    if count < 0 {
                        self.minus = true;
                        self.zero = false;
                    }
                    self.width = usize::try_from(count.unsigned_abs()).ok();
                }
                None => self.out.push_str("%!(BADWIDTH)"),
            }
            return rest;
        }
        let (count, rest) = read_number(rest);
        self.width = count;
        rest
    }

    fn read_precision<'t>(
        &mut self,
        rest: &'t str,
        args: &mut Args<'_>,
        good: bool,
    ) -> (&'t str, bool) {
        let Some(rest) = rest.strip_prefix('.') else {
            return (rest, good);
        };
        let (rest, fine) = args.index(rest);
        let good = good && fine;
        if let Some(rest) = rest.strip_prefix('*') {
            match args.take_count().map(usize::try_from) {
                Some(Ok(count)) => self.precision = Some(count),
                Some(Err(_)) => {}
                None => self.out.push_str("%!(BADPREC)"),
            }
            return (rest, good);
        }
        let (count, rest) = read_number(rest);
        self.precision = Some(count.unwrap_or(0));
        (rest, good)
    }

    fn value(&mut self, value: &Value, verb: char) {
        match verb {
            'T' => return self.text(value.type_name(), 's'),
            // `%+v` names fields and does not sign numbers.
            'v' if self.plus => {
                self.plus = false;
                self.field_names = true;
            }
            _ => {}
        }
        match value {
            Value::Nil if verb == 'v' => self.pad("<nil>"),
            Value::Nil => self.bad(value, verb),
            Value::Bool(b) if matches!(verb, 't' | 'v') => self.pad(&b.to_string()),
            Value::Int(i) => self.int(*i, verb),
            Value::Float(f) => self.float(*f, verb),
            Value::Str(text) => self.text(text, verb),
            Value::List(list) => {
                self.out.push('[');
                for (i, item) in list.items.iter().enumerate() {
                    self.separate(i, " ");
                    self.value(item, verb);
                }
                self.out.push(']');
            }
            Value::Map(map) => {
                self.out.push_str("map[");
                for (i, (key, item)) in map.entries.iter().enumerate() {
                    self.separate(i, " ");
                    self.text(key, verb);
                    self.out.push(':');
                    self.value(item, verb);
                }
                self.out.push(']');
            }
            Value::Struct(object) => {
                self.out.push('{');
                for (i, (name, item)) in object.fields.iter().enumerate() {
                    self.separate(i, " ");
                    if self.field_names {
                        self.out.push_str(name);
                        self.out.push(':');
                    }
                    self.value(item, verb);
                }
                self.out.push('}');
            }
            Value::Time(t) => self.text(&time::to_string(*t), verb),
            Value::Duration(d) if verb == 'd' => self.int(*d, verb),
            Value::Duration(d) => self.text(&time::duration_to_string(*d), verb),
            Value::Bool(_) => self.bad(value, verb),
        }
    }

    fn separate(&mut self, i: usize, separator: &str) {
        if i > 0 {
            self.out.push_str(separator);
        }
    }

    fn bad(&mut self, value: &Value, verb: char) {
        self.out.push_str(&format!("%!{verb}("));
        if matches!(value, Value::Nil) {
            self.out.push_str("<nil>");
        } else {
            self.out.push_str(value.type_name());
            self.out.push('=');
            self.value(value, 'v');
        }
        self.out.push(')');
    }

    fn int(&mut self, i: i64, verb: char) {
        let magnitude = i.unsigned_abs();
        let (digits, prefix) = match verb {
            'v' | 'd' => (magnitude.to_string(), ""),
            'b' => (format!("{magnitude:b}"), "0b"),
            'o' => (format!("{magnitude:o}"), "0"),
            'O' => (format!("{magnitude:o}"), ""),
            'x' => (format!("{magnitude:x}"), "0x"),
            'X' => (format!("{magnitude:X}"), "0X"),
            'c' => return self.pad(&character(i).to_string()),
            'q' => {
                let quoted = format!("{:?}", character(i));
                return self.pad(&quoted);
            }
            'U' if self.sharp => {
                return self.pad(&format!("U+{magnitude:04X} '{}'", character(i)));
            }
            'U' => return self.pad(&format!("U+{magnitude:04X}")),
            _ => return self.bad(&Value::Int(i), verb),
        };
        let mut digits = digits;
        if self.precision == Some(0) && i == 0 {
            return self.pad("");
        }
        let sign = self.sign(i < 0);
        let mut wanted = self.precision.unwrap_or(0);
        if self.zero && self.precision.is_none() {
            wanted = self.width.unwrap_or(0).saturating_sub(sign.len());
        }
        if digits.len() < wanted {
            digits = "0".repeat(wanted - digits.len()) + &digits;
        }
        let prefix = match verb {
            'O' => "0o",
            'v' | 'd' => "",
            _ if self.sharp => prefix,
            _ => "",
        };
        let zero = std::mem::take(&mut self.zero);
        self.pad(&format!("{sign}{prefix}{digits}"));
        self.zero = zero;
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, _, _) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        }
    }

    fn float(&mut self, v: f64, verb: char) {
        let (form, default) = match verb {
            'v' | 'g' | 'G' => ('g', None),
            'e' | 'E' => ('e', Some(6)),
            'f' | 'F' => ('f', Some(6)),
            _ => return self.bad(&Value::Float(v), verb),
        };
        let mut text = format_float(v, form, self.precision.or(default));
        if matches!(verb, 'G' | 'E') && v.is_finite() {
            text = text.to_uppercase();
        }
        if self.sharp && v.is_finite() {
            text = self.sharpened(text, form);
        }
        let negative = text.starts_with('-');
        let digits = text.trim_start_matches(['-', '+']);
        let sign = match self.sign(negative) {
            "" if v == f64::INFINITY => "+",
            sign => sign,
        };
        let missing = self
            .width
            .unwrap_or(0)
            .saturating_sub(sign.len() + digits.len());
        if self.zero && v.is_finite() && missing > 0 {
            let padded = format!("{sign}{}{digits}", "0".repeat(missing));
            self.out.push_str(&padded);
            return;
        }
        let zero = std::mem::take(&mut self.zero);
        self.pad(&format!("{sign}{digits}"));
        self.zero = zero;
    }

    /// `#`: always a point, and for `%g` the trailing zeros.
    fn sharpened(&self, text: String, form: char) -> String {
        let (mantissa, tail) = match text.find(['e', 'E']) {
            Some(at) => text.split_at(at),
            None => (text.as_str(), ""),
        };
        let mut mantissa = mantissa.to_owned();
        if !mantissa.contains('.') {
            mantissa.push('.');
        }
        if form == 'g' {
            let wanted = self.precision.unwrap_or(6).max(1);
            let significant = mantissa.trim_start_matches(['-', '0', '.']);
            let count = significant.chars().filter(char::is_ascii_digit).count();
            mantissa.push_str(&"0".repeat(wanted.saturating_sub(count.max(1))));
        }
        mantissa + tail
    }

    fn text(&mut self, text: &str, verb: char) {
        let cut: String = match (verb, self.precision) {
            ('v' | 's' | 'q', Some(max)) => text.chars().take(max).collect(),
            _ => text.to_owned(),
        };
        match verb {
            'v' if self.sharp => self.pad(&quoted(&cut)),
            'v' | 's' => self.pad(&cut),
            'q' if self.sharp && !cut.contains('`') => self.pad(&format!("`{cut}`")),
            'q' => self.pad(&quoted(&cut)),
            'x' | 'X' => {
                let hex = self.hex(text, verb);
                self.pad(&hex);
            }
            _ => self.bad(&Value::str(text), verb),
        }
    }

    fn hex(&self, text: &str, verb: char) -> String {
        let bytes = text.as_bytes();
        let shown = &bytes[..bytes.len().min(self.precision.unwrap_or(usize::MAX))];
        let prefix = match (self.sharp, verb) {
            (false, _) => "",
            (true, 'x') => "0x",
            (true, _) => "0X",
        };
        let mut out = String::new();
        for (i, byte) in shown.iter().enumerate() {
            if i > 0 && self.space {
                out.push(' ');
            }
            if i == 0 || self.space {
                out.push_str(prefix);
            }
            out.push_str(&match verb {
                'x' => format!("{byte:02x}"),
                _ => format!("{byte:02X}"),
            });
        }
        out
    }

    fn pad(&mut self, text: &str) {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        let fill = if self.zero { "0" } else { " " };
        if !self.minus {
            self.out.push_str(&fill.repeat(missing));
        }
        self.out.push_str(text);
        if self.minus {
            self.out.push_str(&" ".repeat(missing));
        }
    }

    fn extra(&mut self, args: &[Value]) {
        let out = std::mem::take(&mut self.out);
        *self = Printer {
            out,
            ..Printer::default()
        };
        self.out.push_str("%!(EXTRA ");
        for (i, arg) in args.iter().enumerate() {
            self.separate(i, ", ");
            if matches!(arg, Value::Nil) {
                self.out.push_str("<nil>");
            } else {
                self.out.push_str(arg.type_name());
                self.out.push('=');
                self.value(arg, 'v');
            }
        }
        self.out.push(')');
    }
}

fn read_number(rest: &str) -> (Option<usize>, &str) {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let number = rest[..end].parse().ok().filter(|n| *n <= WIDTH_MAX);
    (number, &rest[end..])
}

fn character(i: i64) -> char {
    u32::try_from(i)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or('\u{fffd}')
}
