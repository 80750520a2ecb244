//! The cut of a body of Meta: one that holds only some of its updates.
//!
//! One POST becomes one envelope per tenant, number and disposition, so each must be a body of its own, and one that the
//! same reader understands. Lists are the only places that are written anew; everything around the chosen updates
//! (siblings of entries and changes, metadata, contacts, unknown keys) is copied as it stands. Nothing is parsed and
//! nothing is checked here: the peek has done both.

use std::borrow::Cow;
use std::ops::Range;

use crate::peek::{ChangeLayout, EntryLayout, ListLayout, Peek};

/// Rebuilds the body with only the updates whose flag in `keep` is true, in their order.
///
/// `peek` must be the peek of this body. A missing flag counts as false. Changes and entries without a chosen update
/// are left out. If all are chosen, the result is the body itself; otherwise peeking into it finds the chosen updates
/// with the same bytes, kinds, ids and surroundings, and no others.
pub fn cut<'a>(body: &'a [u8], peek: &Peek<'_>, keep: &[bool]) -> Cow<'a, [u8]> {
    let cutter = Cutter { body, keep };
    if cutter.all(&(0..peek.updates.len())) {
        return Cow::Borrowed(body);
    }
    let layout = &peek.layout;
    let mut out = Vec::with_capacity(body.len());
    let mut at = 0;
    cutter.copy(&mut out, &mut at, layout.inside.start);
    let entries = layout.entries.iter().filter(|entry| cutter.any(&entry.updates));
    join(&mut out, entries, |out, entry| cutter.entry(out, peek, entry));
    at = layout.inside.end;
    cutter.copy(&mut out, &mut at, body.len());
    Cow::Owned(out)
}

struct Cutter<'a> {
    body: &'a [u8],
    keep: &'a [bool],
}

impl Cutter<'_> {
    fn kept(&self, update: usize) -> bool {
        self.keep.get(update).copied().unwrap_or(false)
    }

    fn any(&self, updates: &Range<usize>) -> bool {
        updates.clone().any(|update| self.kept(update))
    }

    fn all(&self, updates: &Range<usize>) -> bool {
        updates.clone().all(|update| self.kept(update))
    }

    /// Copies from `at` up to `end`, and moves `at` there.
    fn copy(&self, out: &mut Vec<u8>, at: &mut usize, end: usize) {
        out.extend_from_slice(self.body.get(*at..end).unwrap_or_default());
        *at = end;
    }

    fn entry(&self, out: &mut Vec<u8>, peek: &Peek<'_>, entry: &EntryLayout) {
        let mut at = entry.range.start;
        if !self.all(&entry.updates) {
            self.copy(out, &mut at, entry.inside.start);
            let changes = entry
                .changes
                .clone()
                .filter_map(|index| Some((&peek.changes.get(index)?.range, peek.layout.changes.get(index)?)));
            let changes = changes.filter(|(_, change)| self.any(&change.updates));
            join(out, changes, |out, (range, change)| self.change(out, peek, range, change));
            at = entry.inside.end;
        }
        self.copy(out, &mut at, entry.range.end);
    }

    fn change(&self, out: &mut Vec<u8>, peek: &Peek<'_>, range: &Range<usize>, change: &ChangeLayout) {
        let mut at = range.start;
        if !self.all(&change.updates) {
            for list in peek.layout.lists.get(change.lists.clone()).unwrap_or_default() {
                if self.all(&list.updates) {
                    continue;
                }
                self.copy(out, &mut at, list.inside.start);
                self.updates(out, peek, list);
                at = list.inside.end;
            }
        }
        self.copy(out, &mut at, range.end);
    }

    fn updates(&self, out: &mut Vec<u8>, peek: &Peek<'_>, list: &ListLayout) {
        if list.bare {
            out.extend_from_slice(b"[]");
            return;
        }
        let updates = list.updates.clone().filter(|&update| self.kept(update));
        join(out, updates.filter_map(|update| peek.updates.get(update)), |out, update| {
            let mut at = update.range.start;
            self.copy(out, &mut at, update.range.end);
        });
    }
}

/// Writes elements with commas between them.
fn join<T>(out: &mut Vec<u8>, elements: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, element);
    }
}

#[cfg(test)]
mod tests;
