//! Bits out of bytes, taken from the low end.

/// What [`word_at`] has at least.
pub(super) const WORD_BITS: u32 = 57;

/// At least [`WORD_BITS`] bits from a bit on; behind the end are zeros.
#[inline(always)]
pub(super) fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at / 8..);
    let word = match rest.and_then(|rest| rest.first_chunk::<8>()) {
        Some(word) => u64::from_le_bytes(*word),
        None => last_word(rest),
    };
    word >> (at % 8)
}

#[cold]
fn last_word(rest: Option<&[u8]>) -> u64 {
    let rest = rest.unwrap_or_default();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_from_the_low_end_and_behind_the_last_byte_are_zeros() {
        let bytes: Vec<u8> = (1..=9).collect();
        assert_eq!(word_at(&bytes, 0), 0x0807_0605_0403_0201);
        assert_eq!(word_at(&bytes, 4), 0x0080_7060_5040_3020);
        assert_eq!(word_at(&bytes, 8), 0x0908_0706_0504_0302);
        assert_eq!(word_at(&bytes, 68), 0);
        assert_eq!(word_at(&bytes, 67), 9 >> 3);
        assert_eq!(word_at(&bytes, 72), 0);
        assert_eq!(word_at(&bytes, 1_000), 0);
    }
}
