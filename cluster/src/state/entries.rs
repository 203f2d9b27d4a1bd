//! Entries in few pieces of memory: one for each would be a good part of what a message costs.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries that follow each other, one behind the other.
#[derive(Default)]
pub(super) struct Row {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Row {
    /// Adds one behind the others.
    pub(super) fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The entry at this place.
    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        self.bytes.get(self.begin(at)..end)
    }

    /// Puts another one at this place, if there is one.
    pub(super) fn replace(&mut self, at: usize, entry: &[u8]) {
        let Some(&end) = self.ends.get(at) else { return };
        let begin = self.begin(at);
        self.bytes.splice(begin..end, entry.iter().copied());
        let grown = (begin + entry.len()).wrapping_sub(end);
        self.ends[at..].iter_mut().for_each(|end| *end = end.wrapping_add(grown));
    }

    /// Lets go of the first so many.
    pub(super) fn forget(&mut self, first: usize) {
        let until = self.begin(first);
        self.bytes.drain(..until);
        self.ends.drain(..first);
        self.ends.iter_mut().for_each(|end| *end -= until);
    }

    /// What it takes of memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Where the entry at this place begins, or would.
    fn begin(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// Entries of whichever timeline, as they came, in pieces that do not move. All of them go at once.
#[derive(Default)]
pub(super) struct Heap(Vec<Vec<u8>>);

/// Where an entry lies in a heap.
#[derive(Clone, Copy)]
pub(super) struct Place {
    piece: u32,
    offset: u32,
    len: u32,
}

/// What pieces of a heap hold, unless an entry is longer: the first, and the longest.
const PIECE_BYTES_MIN: usize = 4 * 1024;
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Pieces of heaps that are gone, for the next ones of whichever shard: memory that the allocator had given back to the
/// system would come anew page by page, each with a fault.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// So many are kept: what the layer of a shard holds when it is written, twice.
const SPARE_MAX: usize = 256;

fn spare() -> MutexGuard<'static, Vec<Vec<u8>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Heap {
    fn drop(&mut self) {
        self.0.retain(|piece| piece.capacity() == PIECE_BYTES_MAX);
        self.0.iter_mut().for_each(Vec::clear);
        let mut spare = spare();
        let kept = self.0.len().min(SPARE_MAX.saturating_sub(spare.len()));
        spare.extend(self.0.drain(..kept));
        // The rest goes when others need not wait for it.
        drop(spare);
    }
}

impl Heap {
    /// Adds one.
    pub(super) fn add(&mut self, entry: &[u8]) -> Place {
        let (room, last) = self.0.last().map_or((0, 0), |last| (last.capacity() - last.len(), last.capacity()));
        if self.0.is_empty() || room < entry.len() {
            let next = (2 * last).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX).max(entry.len());
            let used = if next == PIECE_BYTES_MAX { spare().pop() } else { None };
            self.0.push(used.unwrap_or_else(|| Vec::with_capacity(next)));
        }
        let at = self.0.len() - 1;
        let piece = &mut self.0[at];
        let place = Place { piece: at as u32, offset: piece.len() as u32, len: entry.len() as u32 };
        piece.extend_from_slice(entry);
        place
    }

    /// The entry at a place that this heap gave.
    pub(super) fn get(&self, place: Place) -> &[u8] {
        let from = place.offset as usize;
        &self.0[place.piece as usize][from..from + place.len()]
    }
}

impl Place {
    /// How long the entry is, in bytes.
    pub(super) fn len(self) -> usize {
        self.len as usize
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_row_is_what_a_list_would_be() {
        let mut random = StdRng::seed_from_u64(3);
        let (mut row, mut list) = (Row::default(), Vec::<Vec<u8>>::new());
        for step in 0..2_000u32 {
            let entry = vec![step as u8; random.random_range(0..40)];
            match random.random_range(0..8) {
                0 if !list.is_empty() => {
                    let at = random.random_range(0..list.len());
                    row.replace(at, &entry);
                    list[at] = entry;
                }
                1 if list.len() > 20 => {
                    let first = random.random_range(0..=list.len());
                    row.forget(first);
                    list.drain(..first);
                }
                _ => {
                    row.push(&entry);
                    list.push(entry);
                }
            }
            assert_eq!(row.len(), list.len());
            assert!((0..list.len() + 2).all(|at| row.get(at) == list.get(at).map(|entry| &entry[..])));
        }
        row.replace(list.len(), b"nobody's");
        assert_eq!(row.len(), list.len());
    }

    #[test]
    fn what_a_heap_took_stays_where_it_is_however_long_it_is() {
        let mut heap = Heap::default();
        let lens = [0, 1, 100, PIECE_BYTES_MAX, 30_000, 40_000, 2 * PIECE_BYTES_MAX, 7];
        let added: Vec<(Place, Vec<u8>)> =
            lens.iter().zip(1u8..).map(|(len, byte)| vec![byte; *len]).map(|entry| (heap.add(&entry), entry)).collect();
        for (place, entry) in added {
            assert_eq!(heap.get(place), entry);
        }
    }

    #[test]
    fn a_piece_that_is_used_again_has_nothing_of_before() {
        for round in 1..4u8 {
            let mut heap = Heap::default();
            let added: Vec<Place> = (0..3_000).map(|_| heap.add(&[round; 100])).collect();
            assert!(added.iter().all(|place| heap.get(*place) == [round; 100]));
        }
    }
}
