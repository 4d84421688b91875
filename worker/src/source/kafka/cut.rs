//! Cuts a partition's offsets into units whose event times are bounded, by asking the brokers' time index.
//!
//! The index answers one question: which is the first record whose timestamp is `t` or later. So all records before
//! that offset have timestamps below `t`: an upper bound that is proven. It says nothing of those behind it; that none
//! of them lies more than the declared out-of-orderness below the largest timestamp before it is the spec's promise,
//! and without one there is no lower bound. A column's event time is promised to lie within the same span on either side.

use tidegate_common::time::{Bounds, EventTime, Span};

/// Offsets of a unit, about.
pub(super) const UNIT_OFFSETS: i64 = 64 << 10;
/// Pieces that times cut a partition into, at the most.
const MAX_PIECES: usize = 8192;
/// Milliseconds below which no piece is cut in time.
const FINEST: i64 = 1;
/// The last millisecond that has microseconds.
const LAST: i64 = i64::MAX / 1_000 - 1;

/// What is promised of event times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// How far an event time lies at most behind the largest timestamp before it; none where nothing is promised.
    pub(super) behind: Option<Span>,
    /// Whether event times are the records' own timestamps, which the index knows; else a column's.
    pub(super) by_record: bool,
}

/// Records [from, to) of a partition, all with timestamps below `below`, the first with one of `from_time` or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: i64,
    to: i64,
    from_time: i64,
    /// Proven by the index.
    below: i64,
    /// Promised, by a record that was seen at or behind `to`.
    promised_below: i64,
    /// Whether no look will make it narrower.
    is_settled: bool,
}

impl Piece {
    fn offsets(&self) -> i64 {
        self.to - self.from
    }

    /// Its part before `middle`, and that from there on, where `seen` is the first record that is seen.
    fn cut_at(self, middle: i64, seen: Option<(i64, i64)>, behind: i64) -> [Self; 2] {
        let mut before = Self { to: middle, ..self };
        let mut rest = Self { from: middle, ..self };
        let seen_here = seen.filter(|(offset, _)| *offset < self.to);
        if let Some((_, time)) = seen {
            before.promised_below = before.promised_below.min(time.saturating_add(behind).saturating_add(1));
        }
        match seen_here {
            Some((_, time)) => rest.from_time = rest.from_time.max(time.min(self.below - 1)),
            // Nothing is seen in it: whatever is said of its times is true.
            None => (rest.promised_below, rest.is_settled) = (rest.from_time + 1, true),
        }
        if let Some((_, time)) = seen_here.filter(|_| rest.offsets() == 1) {
            (rest.promised_below, rest.is_settled) = (time + 1, true);
        }
        [before, rest]
    }

    fn width(&self) -> i64 {
        self.below.min(self.promised_below).saturating_sub(self.from_time)
    }
}

/// Offsets `[from, to)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) from: i64,
    pub(super) to: i64,
    /// Of the event times of records that keep the promise.
    pub(super) bounds: Bounds,
    /// No record lies behind it, by the index alone where event times are the records' own.
    pub(super) latest: EventTime,
}

/// How large units should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grain {
    /// Milliseconds that one should not be wider than.
    pub(super) width: i64,
    /// Offsets, about.
    pub(super) offsets: i64,
}

/// One partition, being cut.
#[derive(Clone, Debug)]
pub(super) struct Cutting {
    pieces: Vec<Piece>,
    grain: Grain,
    end: i64,
    asked: Option<(usize, i64)>,
}

impl Cutting {
    /// Of offsets `[start, end)`; pieces that are larger than `grain` are cut.
    pub(super) fn new(start: i64, end: i64, grain: Grain) -> Self {
        let whole = Piece { from: start, to: end, from_time: 0, below: LAST, promised_below: LAST, is_settled: false };
        let pieces = if start < end { vec![whole] } else { Vec::new() };
        let grain = Grain { width: grain.width.max(FINEST), offsets: grain.offsets.max(1) };
        Self { pieces, grain, end, asked: None }
    }

    /// The time (milliseconds since 1970) whose offset would help most; none when it is fine enough.
    pub(super) fn question(&mut self) -> Option<i64> {
        if self.pieces.len() >= MAX_PIECES {
            return None;
        }
        let worth = |piece: &Piece| match () {
            () if piece.offsets() == 0 || piece.width() <= FINEST => None,
            // Width first: what is left too long is cut by offsets in the end, what is left too wide is not.
            () if piece.width() > self.grain.width => Some((1, piece.width())),
            () if piece.offsets() > self.grain.offsets => Some((0, piece.offsets())),
            () => None,
        };
        let (at, piece) =
            self.pieces.iter().enumerate().filter(|(_, piece)| worth(piece).is_some()).max_by_key(|(_, p)| worth(p))?;
        let middle = piece.from_time + piece.width() / 2;
        self.asked = Some((at, middle));
        Some(middle)
    }

    /// The first offset whose timestamp is the one asked for or later; none where no record has one.
    pub(super) fn answer(&mut self, offset: Option<i64>) {
        let Some((at, time)) = self.asked.take() else { return };
        let Some(piece) = self.pieces.get(at).copied() else { return };
        // Clamped to the piece: an index that contradicts itself moves no record out of the range.
        let offset = offset.unwrap_or(self.end).clamp(piece.from, piece.to);
        let before = Piece { to: offset, below: time, ..piece };
        let behind = Piece { from: offset, from_time: time, ..piece };
        let both = [before, behind].into_iter().filter(|piece| piece.offsets() > 0);
        self.pieces.splice(at..=at, both);
    }

    /// Believes the times that pieces begin with only where a record bears them out, and cuts what is too wide then at
    /// records that are seen.
    ///
    /// The index counts what no reader sees: markers of transactions, which have the time of the commit, and aborted
    /// records. `first_time` is the first record that is seen from an offset on, with its time; it is asked `looks`
    /// times at the most. By the promise, no record behind such a one lies more than `behind` below it, and none before
    /// it more than that above.
    pub(super) fn confirm<E>(
        &mut self,
        mut looks: usize,
        behind: Span,
        mut first_time: impl FnMut(i64) -> Result<Option<(i64, i64)>, E>,
    ) -> Result<(), E> {
        let step = self.pieces.len().div_ceil(looks.max(1)).max(1);
        let mut sure = 0;
        for (at, piece) in self.pieces.iter_mut().enumerate() {
            if piece.from_time > sure && at % step == 0 && looks > 0 {
                looks -= 1;
                let seen = first_time(piece.from)?.map_or(0, |(_, time)| time);
                sure = sure.max(seen.min(piece.from_time));
            }
            piece.from_time = sure;
        }
        let behind = behind.as_micros().saturating_add(999) / 1_000;
        while let Some(at) = self.widest().filter(|_| looks > 0 && self.pieces.len() < MAX_PIECES) {
            looks -= 1;
            let Some(piece) = self.pieces.get(at).copied() else { break };
            let middle = piece.from + piece.offsets() / 2;
            let parts = piece.cut_at(middle, first_time(middle)?, behind);
            self.pieces.splice(at..=at, parts.into_iter().filter(|part| part.offsets() > 0));
        }
        Ok(())
    }

    /// The widest piece that is too wide and can be made narrower.
    fn widest(&self) -> Option<usize> {
        let wide = |piece: &Piece| !piece.is_settled && piece.width() > self.grain.width;
        let wide = self.pieces.iter().enumerate().filter(|(_, piece)| wide(piece));
        wide.max_by_key(|(_, piece)| (piece.width(), piece.offsets())).map(|(at, _)| at)
    }

    /// Where the records begin that by the promise lie at or behind `micros`, and the time that the promise gives them.
    pub(super) fn behind(&self, micros: i64, promise: Promise) -> Option<(i64, i64)> {
        promise.behind?;
        let low = |piece: &Piece| bounds(piece, promise).low().as_micros();
        self.pieces.iter().find(|piece| low(piece) >= micros).map(|piece| (piece.from, low(piece)))
    }

    /// The units, in the order of offsets.
    pub(super) fn units(&self, promise: Promise) -> Vec<Unit> {
        let mut units = Vec::new();
        for piece in &self.pieces {
            let bounds = bounds(piece, promise);
            let latest = high(piece.below, promise);
            let pieces = (piece.offsets() / self.grain.offsets).max(1);
            let each = piece.offsets() / pieces;
            let mut from = piece.from;
            while from < piece.to {
                // The last one takes what is left over.
                let to = if piece.to - from < 2 * each { piece.to } else { from + each };
                units.push(Unit { from, to, bounds, latest });
                from = to;
            }
        }
        units
    }
}

/// Before and after everything that can be written down: microseconds of the years -9999 and 9999, about.
const NEVER: i64 = 253_000_000_000_000_000;

fn bounds(piece: &Piece, promise: Promise) -> Bounds {
    let micros = |millis: i64| millis.saturating_mul(1_000);
    let low = promise.behind.map_or(-NEVER, |behind| micros(piece.from_time).saturating_sub(behind.as_micros()));
    let (low, high) = (EventTime::from_micros(low), high(piece.below.min(piece.promised_below), promise));
    Bounds::new(low, high).unwrap_or(Bounds::at(low))
}

/// The last event time of records whose timestamps lie below `below`, milliseconds since 1970.
fn high(below: i64, promise: Promise) -> EventTime {
    let last = below.saturating_mul(1_000) - 1;
    let high = match (promise.by_record, promise.behind) {
        (true, _) => last,
        (false, Some(ahead)) => last.saturating_add(ahead.as_micros()),
        (false, None) => NEVER,
    };
    EventTime::from_micros(high.min(i64::MAX - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first offset whose timestamp is `at` or later, by looking at all of them.
    fn index(times: &[i64], at: i64) -> Option<i64> {
        times.iter().position(|time| *time >= at).map(|at| at as i64)
    }

    fn cut(times: &[i64], start: i64, end: i64, width: i64) -> Cutting {
        let mut cutting = Cutting::new(start, end, Grain { width, offsets: UNIT_OFFSETS });
        let mut rounds = 0;
        while let Some(at) = cutting.question() {
            cutting.answer(index(times, at));
            rounds += 1;
            assert!(rounds < 100_000, "it does not end");
        }
        cutting
    }

    proptest! {
        /// Every offset stands in exactly one unit, in order, and every record that keeps the promise within its unit's bounds.
        #[test]
        fn units_hold_every_offset_once_and_bound_what_keeps_the_promise(
            steps in proptest::collection::vec((0i64..5_000, 0i64..2_000), 1..300),
            (from, to) in (0usize..300, 0usize..300),
            width in 1i64..50_000,
            ooo in 0i64..3_000,
            by_record in any::<bool>(),
        ) {
            // Each record lies up to 2 s behind the largest one before it; those beyond the promise are broken ones.
            let mut newest = 1_700_000_000_000i64;
            let mut times = Vec::new();
            for (step, back) in &steps {
                newest += step;
                times.push(newest - back);
            }
            let (start, end) = (from.min(times.len()) as i64, to.min(times.len()) as i64);
            prop_assume!(start <= end);
            let cutting = cut(&times, start, end, width);
            let promise = Promise { behind: Some(Span::from_micros(ooo * 1_000)), by_record };
            let units = cutting.units(promise);
            let mut next = start;
            for Unit { from, to, bounds, .. } in units {
                prop_assert_eq!(from, next);
                prop_assert!(to > from);
                next = to;
                for offset in from..to {
                    let time = times[offset as usize];
                    let largest = times[..=offset as usize].iter().max().unwrap();
                    if largest - time <= ooo {
                        prop_assert!(bounds.contains(EventTime::from_micros(time * 1_000)), "{offset} at {time} in {bounds:?}");
                    }
                    // Above, nothing is taken on trust.
                    prop_assert!(bounds.high() >= EventTime::from_micros(time * 1_000) );
                }
            }
            prop_assert_eq!(next, end);
        }

        /// In order of time, a unit is no wider than was asked for.
        #[test]
        fn ordered_records_are_cut_as_finely_as_asked(step in 1i64..10_000, count in 1i64..200, width in 1i64..100_000) {
            let times: Vec<i64> = (0..count).map(|at| 1_700_000_000_000 + at * step).collect();
            let cutting = cut(&times, 0, count, width);
            for piece in &cutting.pieces {
                prop_assert!(piece.width() <= width || cutting.pieces.len() >= MAX_PIECES);
            }
        }
    }

    proptest! {
        /// Markers that the index counts and nobody sees widen units, and break no bound.
        #[test]
        fn what_nobody_sees_moves_no_bound(
            records in proptest::collection::vec((0i64..5_000, 0i64..1_000, any::<bool>()), 1..200),
            width in 1_000i64..50_000,
            looks in 1usize..300,
        ) {
            let (mut newest, mut times) = (1_700_000_000_000i64, Vec::new());
            for (step, back, is_marker) in records {
                newest += step;
                times.push(if is_marker { (1_790_000_000_000, false) } else { (newest - back, true) });
            }
            let indexed: Vec<i64> = times.iter().map(|(time, _)| *time).collect();
            let mut cutting = cut(&indexed, 0, times.len() as i64, width);
            let seen = |from: i64| {
                let seen = |at: &i64| times[*at as usize].1;
                (from..times.len() as i64).find(seen).map(|at| (at, times[at as usize].0))
            };
            let behind = Span::from_micros(1_000_000);
            cutting.confirm(looks, behind, |from| Ok::<_, ()>(seen(from))).unwrap();
            let promise = Promise { behind: Some(behind), by_record: true };
            let mut next = 0;
            for Unit { from, to, bounds, latest } in cutting.units(promise) {
                prop_assert_eq!(from, next);
                next = to;
                for offset in from..to {
                    let (time, is_seen) = times[offset as usize];
                    let at = EventTime::from_micros(time * 1_000);
                    prop_assert!(!is_seen || bounds.contains(at), "{offset} at {time} in {bounds:?}");
                    prop_assert!(at <= latest, "{offset} at {time} behind {latest}");
                }
            }
            prop_assert_eq!(next, times.len() as i64);
        }
    }

    #[test]
    fn where_markers_hide_the_times_from_the_index_records_are_looked_at() {
        // A marker of today behind every tenth record of a year of 2023, a record an hour.
        let hour = 3_600_000;
        let times: Vec<(i64, bool)> = (0..8_760)
            .map(|at| if at % 10 == 9 { (1_790_000_000_000, false) } else { (1_672_531_200_000 + at * hour, true) })
            .collect();
        let indexed: Vec<i64> = times.iter().map(|(time, _)| *time).collect();
        let mut cutting = cut(&indexed, 0, 8_760, 24 * hour);
        let seen = |from: i64| {
            let seen = |at: &i64| times[*at as usize].1;
            (from..times.len() as i64).find(seen).map(|at| (at, times[at as usize].0))
        };
        cutting.confirm(4_096, Span::ZERO, |from| Ok::<_, ()>(seen(from))).unwrap();
        let units = cutting.units(Promise { behind: Some(Span::ZERO), by_record: true });
        let widest = units.iter().map(|unit| unit.bounds.width()).max().unwrap();
        assert!(widest <= Span::from_micros(24 * hour * 1_000), "{widest}");
        assert!(units.len() > 365, "{}", units.len());
        for unit in units {
            for at in (unit.from..unit.to).filter(|at| times[*at as usize].1) {
                assert!(unit.bounds.contains(EventTime::from_micros(times[at as usize].0 * 1_000)), "{at} {unit:?}");
            }
        }
    }

    #[test]
    fn one_record_from_the_future_spoils_no_unit_but_those_behind_it() {
        let mut times: Vec<i64> = (0..100).map(|at| 1_700_000_000_000 + at * 1_000).collect();
        times[50] = 4_100_000_000_000; // the year 2099
        let cutting = cut(&times, 0, 100, 10_000);
        let promise = Promise { behind: Some(Span::from_micros(5_000_000)), by_record: true };
        for Unit { from, to, bounds, .. } in cutting.units(promise) {
            let wide = bounds.high().since(bounds.low()) > Span::from_micros(16_000_000);
            assert!(!wide, "[{from}, {to}) {bounds:?}");
        }
    }

    #[test]
    fn many_records_of_one_moment_are_cut_by_their_offsets() {
        let times = vec![1_700_000_000_000; 300_000];
        let cutting = cut(&times, 0, 300_000, 1_000);
        let units = cutting.units(Promise { behind: None, by_record: true });
        assert_eq!(units.len(), 4);
        assert!(units.iter().all(|unit| unit.to - unit.from < 2 * UNIT_OFFSETS));
        assert_eq!(units.last().map(|unit| unit.to), Some(300_000));
    }
}
