//! The wire form of protobuf: fields one after the other, without a schema and
//! without a copy.
//!
//! Only what messages of our senders need: groups, which nobody writes since 2008,
//! are refused; every other unknown field is skipped, as the format asks.

/// Bytes that are not a message, or not the expected one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bad protobuf: {0}")]
pub struct Malformed(pub(super) &'static str);

/// The value of a field, as its wire type says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// What is left of a message.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and value; `Ok(None)` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed("a field without a number"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(self.bytes()?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed("a field of unknown type")),
        };
        Ok(Some((number, value)))
    }

    /// Skips the fields that begin with this byte, hold bytes and are short. Much
    /// quicker than [`Fields::next`]; what it leaves is for that.
    #[inline]
    pub(super) fn skip_short(&mut self, tag: u8) {
        while let [first, len, rest @ ..] = self.0
            && (*first, *len < 0x80) == (tag, true)
            && let Some(rest) = rest.get(usize::from(*len)..)
        {
            self.0 = rest;
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        // Nearly all are tags and lengths of one byte.
        if let [first, rest @ ..] = self.0
            && *first < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut n = 0;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            n |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(n);
            }
        }
        Err(Malformed("a number that does not end"))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed("a number that is cut short"))?;
        self.0 = rest;
        Ok(*front)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let (front, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(Malformed("a field that is cut short"))?;
        self.0 = rest;
        Ok(front)
    }
}

/// Writes messages field by field.
pub(crate) mod write {
    /// Appends a varint.
    pub(crate) fn varint(out: &mut Vec<u8>, mut n: u64) {
        while n >= 0x80 {
            out.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        out.push(n.to_le_bytes()[0]);
    }

    /// Appends a field of bytes.
    pub(crate) fn bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
        varint(out, number << 3 | 2);
        varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }

    /// Appends a double.
    pub(crate) fn double(out: &mut Vec<u8>, number: u64, v: f64) {
        varint(out, number << 3 | 1);
        out.extend_from_slice(&v.to_le_bytes());
    }

    /// Appends a whole number.
    pub(crate) fn int(out: &mut Vec<u8>, number: u64, n: i64) {
        varint(out, number << 3);
        varint(out, n.cast_unsigned());
    }

    /// Appends labels, each as a first field with name and value.
    pub(crate) fn labels(out: &mut Vec<u8>, labels: &mut dyn Iterator<Item = (&str, &str)>) {
        let mut pair = Vec::new();
        for (name, value) in labels {
            pair.clear();
            bytes(&mut pair, 1, name.as_bytes());
            bytes(&mut pair, 2, value.as_bytes());
            bytes(out, 1, &pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_wire_type_is_read_and_groups_are_refused() {
        let mut fields = Fields(&[0x08, 0x96, 0x01, 0x12, 1, 7, 0x1d, 1, 0, 0, 0, 0x0b]);
        assert_eq!(fields.next(), Ok(Some((1, Value::Varint(150)))));
        assert_eq!(fields.next(), Ok(Some((2, Value::Bytes(&[7])))));
        assert_eq!(fields.next(), Ok(Some((3, Value::Fixed32(1)))));
        assert_eq!(fields.next(), Err(Malformed("a field of unknown type")));
        assert_eq!(Fields(&[]).next(), Ok(None));
        assert!(Fields(&[0x00]).next().is_err());
        assert!(Fields(&[0x12, 2, 1]).next().is_err());
        assert!(Fields(&[0xff; 11]).next().is_err());
    }

    #[test]
    fn short_fields_are_skipped_up_to_what_is_something_else() {
        for (bytes, left) in [
            (&[0x0a, 0, 0x0a, 2, 7, 7, 0x12, 1, 9][..], 3),
            (&[0x0a, 3, 7, 7], 4),
            (&[0x0a, 0x80, 1], 3),
            (&[0x0a], 1),
            (&[], 0),
        ] {
            let mut fields = Fields(bytes);
            fields.skip_short(0x0a);
            assert_eq!(fields.0.len(), left, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut fields = Fields(&bytes);
            let mut left = bytes.len();
            while let Ok(Some(_)) = fields.next() {
                prop_assert!(fields.0.len() < left);
                left = fields.0.len();
            }
        }
    }
}
