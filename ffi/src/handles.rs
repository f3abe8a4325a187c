//! Handles: numbers in the shape of pointers, looked up at every call and never dereferenced.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The type of object that a handle refers to. As the top byte of a pointer, no kind is a valid address of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Engine = 0x45,
    Queue = 0x51,
    Error = 0x58,
    String = 0x53,
    Tokens = 0x54,
    Event = 0x56,
}

/// The objects behind the handles of one kind. A handle consists of its kind, the generation of its place and its
/// place; it is stale once its object has been removed, also after the place has another object.
pub(crate) struct Table<T> {
    kind: Kind,
    places: RwLock<Places<T>>,
}

struct Places<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Why a handle has no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Its object has been removed.
    Closed,
    /// It was never given out.
    Unknown,
}

impl<T> Table<T> {
    pub(crate) const fn new(kind: Kind) -> Self {
        let places = Places { entries: Vec::new(), free: Vec::new() };
        Table { kind, places: RwLock::new(places) }
    }

    /// A handle of a new object. None if the table is full.
    pub(crate) fn insert(&self, value: T) -> Option<u64> {
        let places = &mut *self.write();
        let place = match places.free.pop() {
            Some(place) => place,
            None => {
                let place =
                    u32::try_from(places.entries.len()).ok().filter(|n| *n < MAX_ENTRIES)?;
                places.entries.push(Entry { generation: 1, value: None });
                place
            }
        };
        let entry = &mut places.entries[place as usize];
        entry.value = Some(value);
        Some(handle(self.kind, entry.generation, place))
    }

    /// Takes the object of a handle out, and makes the handle stale.
    pub(crate) fn remove(&self, id: u64) -> Result<T, Stale> {
        let places = &mut *self.write();
        let place = place(self.kind, id, &places.entries)?;
        let entry = &mut places.entries[place as usize];
        let value = entry.value.take().ok_or(Stale::Closed)?;
        // A place without a further generation is not used again: no handle is ever given out twice.
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            places.free.push(place);
        }
        Ok(value)
    }

    /// Number of objects.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.read().entries.iter().filter(|entry| entry.value.is_some()).count()
    }

    // A panic inside these locks leaves the table whole: values are moved in and out by single statements.

    fn read(&self) -> RwLockReadGuard<'_, Places<T>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Places<T>> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Table<T> {
    /// The object of a handle.
    pub(crate) fn find(&self, id: u64) -> Result<T, Stale> {
        let places = self.read();
        let place = place(self.kind, id, &places.entries)?;
        places.entries[place as usize].value.clone().ok_or(Stale::Closed)
    }
}

/// The place behind a handle of the current generation.
fn place<T>(kind: Kind, id: u64, entries: &[Entry<T>]) -> Result<u32, Stale> {
    let place = (id & PLACE_MASK) as u32;
    let entry = entries.get(place as usize).ok_or(Stale::Unknown)?;
    let generation = (id >> PLACE_BITS) as u32;
    if handle(kind, generation, place) != id || generation == 0 || generation > entry.generation {
        return Err(Stale::Unknown);
    }
    if generation == entry.generation { Ok(place) } else { Err(Stale::Closed) }
}

fn handle(kind: Kind, generation: u32, place: u32) -> u64 {
    (kind as u64) << 56 | u64::from(generation) << PLACE_BITS | u64::from(place)
}

const PLACE_BITS: u32 = 24;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
const MAX_ENTRIES: u32 = 1 << PLACE_BITS;

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "a handle needs 64 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_forged_and_foreign_handles_are_refused() {
        let (engines, queues) = (Table::new(Kind::Engine), Table::new(Kind::Queue));
        let first = engines.insert("first").expect("room");
        let second = engines.insert("second").expect("room");
        let queue = queues.insert("queue").expect("room");
        assert_eq!((engines.find(first), engines.find(second)), (Ok("first"), Ok("second")));
        for forged in [0, 1, u64::MAX, queue, second + 1, first ^ 1 << PLACE_BITS, first ^ 1 << 60]
        {
            assert_eq!(engines.find(forged), Err(Stale::Unknown), "{forged:x}");
            assert_eq!(engines.remove(forged), Err(Stale::Unknown), "{forged:x}");
        }
        assert_eq!(engines.remove(first), Ok("first"));
        assert_eq!(engines.remove(first), Err(Stale::Closed));
        assert_eq!(engines.find(first), Err(Stale::Closed));
        let third = engines.insert("third").expect("room");
        assert_eq!(third & PLACE_MASK, first & PLACE_MASK, "the place is used again");
        assert_eq!((engines.find(first), engines.find(third)), (Err(Stale::Closed), Ok("third")));
        assert_eq!(engines.len(), 2);
    }

    #[test]
    fn a_place_without_a_further_generation_is_not_used_again() {
        let table = Table::new(Kind::Event);
        let old = table.insert(0).expect("room");
        table.remove(old).expect("there");
        table.write().entries[0].generation = u32::MAX;
        let last = table.insert(1).expect("room");
        assert_eq!(table.remove(last), Ok(1));
        let next = table.insert(2).expect("room");
        assert_eq!((next & PLACE_MASK, table.find(last)), (1, Err(Stale::Closed)));
        assert_eq!(table.find(next), Ok(2));
    }

    #[test]
    fn no_handle_is_an_address_of_a_program() {
        let table = Table::new(Kind::Engine);
        let id = table.insert(()).expect("room");
        assert!(id >> 47 != 0 && id >> 47 != (1 << 17) - 1, "{id:x} is canonical");
    }
}
