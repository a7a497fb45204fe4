//! The bytes of many series in blocks of one cache line.
//!
//! A series' bytes grow by a few at each of its samples. In a vector of its own they
//! would be moved again and again, would leave unused room behind each, and holes
//! where they lay before. Here they are a chain of blocks: a new block comes from a
//! free list, nothing moves, and what one series gives back the next one takes.
//! Of a chain about half a block is unused.

/// Bytes of a block beside the number of the next one.
const BYTES: usize = 60;

/// Blocks that are allocated together: 8 KiB.
const PAGE: usize = 128;

/// No block.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block {
    bytes: [u8; BYTES],
    /// The next one of its chain, or of the free ones.
    next: u32,
}

const EMPTY: Block = Block {
    bytes: [0; BYTES],
    next: NONE,
};

/// The blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    pages: Vec<Box<[Block; PAGE]>>,
    /// The first free one.
    free: u32,
    used: usize,
}

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks {
            pages: Vec::new(),
            free: NONE,
            used: 0,
        }
    }
}

/// Bytes one behind the other. Belongs to the [`Blocks`] that it grew in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
    /// Bytes in the last block.
    used: u8,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain {
            first: NONE,
            last: NONE,
            used: 0,
        }
    }
}

impl Blocks {
    /// Appends bytes to a chain.
    #[inline]
    pub(super) fn append(&mut self, chain: &mut Chain, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if chain.first == NONE || usize::from(chain.used) == BYTES {
                self.extend(chain);
            }
            let used = usize::from(chain.used);
            let (now, rest) = bytes.split_at(bytes.len().min(BYTES - used));
            let room = &mut self.block_mut(chain.last).bytes[used..used + now.len()];
            // Mostly they are one or two, for which a call takes longer than the copy.
            match *now {
                [a] => room[0] = a,
                [a, b] => room.copy_from_slice(&[a, b]),
                [a, b, c] => room.copy_from_slice(&[a, b, c]),
                _ => room.copy_from_slice(now),
            }
            chain.used += u8::try_from(now.len()).expect("a block has 60 bytes");
            bytes = rest;
        }
    }

    /// The last byte of a chain.
    #[inline]
    pub(super) fn last_byte(&self, chain: &Chain) -> Option<u8> {
        let at = usize::from(chain.used).checked_sub(1)?;
        self.block(chain.last).bytes.get(at).copied()
    }

    /// Appends the bytes of a chain to `out`.
    pub(super) fn read(&self, chain: &Chain, out: &mut Vec<u8>) {
        let mut at = chain.first;
        while at != NONE {
            let block = self.block(at);
            let used = if at == chain.last {
                usize::from(chain.used)
            } else {
                BYTES
            };
            out.extend_from_slice(&block.bytes[..used]);
            at = block.next;
        }
    }

    /// Leaves the first `len` bytes of a chain, which has as many at least.
    pub(super) fn truncate(&mut self, chain: &mut Chain, len: usize) {
        let Some(before) = len.checked_sub(1) else {
            self.give_back(chain.first);
            *chain = Chain::default();
            return;
        };
        let mut at = chain.first;
        for _ in 0..before / BYTES {
            at = self.block(at).next;
        }
        let rest = std::mem::replace(&mut self.block_mut(at).next, NONE);
        self.give_back(rest);
        chain.last = at;
        chain.used = u8::try_from(before % BYTES + 1).expect("a block has 60 bytes");
    }

    /// How many bytes the used blocks have.
    pub(super) fn bytes(&self) -> usize {
        self.used * size_of::<Block>()
    }

    /// Whether three of four blocks are free, so that it is worth to begin anew.
    pub(super) fn is_sparse(&self) -> bool {
        self.pages.len() > 1 && self.used * 4 <= self.pages.len() * PAGE
    }

    #[cold]
    fn extend(&mut self, chain: &mut Chain) {
        if self.free == NONE {
            self.add_page();
        }
        let new = self.free;
        self.free = std::mem::replace(&mut self.block_mut(new).next, NONE);
        self.used += 1;
        if chain.first == NONE {
            chain.first = new;
        } else {
            self.block_mut(chain.last).next = new;
        }
        chain.last = new;
        chain.used = 0;
    }

    fn add_page(&mut self) {
        let first = u32::try_from(self.pages.len() * PAGE).expect("the head is below 256 GiB");
        let mut page = Box::new([EMPTY; PAGE]);
        for (block, next) in page[..PAGE - 1].iter_mut().zip(first + 1..) {
            block.next = next;
        }
        self.pages.push(page);
        self.free = first;
    }

    fn give_back(&mut self, mut at: u32) {
        while at != NONE {
            let free = self.free;
            let next = std::mem::replace(&mut self.block_mut(at).next, free);
            self.free = at;
            self.used -= 1;
            at = next;
        }
    }

    #[inline]
    fn block(&self, at: u32) -> &Block {
        &self.pages[at as usize / PAGE][at as usize % PAGE]
    }

    #[inline]
    fn block_mut(&mut self, at: u32) -> &mut Block {
        &mut self.pages[at as usize / PAGE][at as usize % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(blocks: &Blocks, chain: &Chain) -> Vec<u8> {
        let mut out = Vec::new();
        blocks.read(chain, &mut out);
        out
    }

    proptest! {
        #[test]
        fn chains_behave_like_vectors(
            steps in prop::collection::vec((0_usize..4, 0_usize..200, any::<bool>()), 0..300)
        ) {
            let mut blocks = Blocks::default();
            let mut chains = [Chain::default(); 4];
            let mut model = [const { Vec::new() }; 4];
            for (step, (at, n, grows)) in steps.into_iter().enumerate() {
                if grows {
                    let more: Vec<u8> = (0..n).map(|i| (step + i).to_le_bytes()[0]).collect();
                    blocks.append(&mut chains[at], &more);
                    model[at].extend(more);
                } else {
                    model[at].truncate(n);
                    blocks.truncate(&mut chains[at], model[at].len());
                }
                for (chain, want) in chains.iter().zip(&model) {
                    prop_assert_eq!(&bytes(&blocks, chain), want);
                    prop_assert_eq!(blocks.last_byte(chain), want.last().copied());
                }
            }
            let want: usize = model.iter().map(|bytes| bytes.len().div_ceil(BYTES)).sum();
            prop_assert_eq!(blocks.used, want);
        }
    }

    #[test]
    fn what_one_gives_back_the_next_one_takes() {
        let mut blocks = Blocks::default();
        let mut first = Chain::default();
        blocks.append(&mut first, &[7; BYTES * PAGE]);
        assert_eq!((blocks.pages.len(), blocks.is_sparse()), (1, false));
        blocks.truncate(&mut first, BYTES);
        let mut next = Chain::default();
        blocks.append(&mut next, &[8; BYTES * (PAGE - 1)]);
        assert_eq!(blocks.pages.len(), 1);
        blocks.append(&mut next, &[8]);
        assert_eq!(blocks.pages.len(), 2);
        blocks.truncate(&mut next, 0);
        assert!(blocks.is_sparse());
        assert_eq!(bytes(&blocks, &first), [7; BYTES]);
        assert_eq!(size_of::<Block>(), 64);
    }
}
