//! Windows of one width that follow each other without end: what an aggregate groups by, so that a group lies in one.

use crate::time::{EventTime, Span, Window};

/// Windows of one width, each beginning where the last one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeWindows {
    width: i64,
    /// Where one of them begins: the first at or above 1970.
    origin: i64,
}

impl WholeWindows {
    /// Windows of `width`, one of which begins at `origin`; `None` where they have no width.
    pub fn new(width: Span, origin: EventTime) -> Option<Self> {
        let width = width.as_micros();
        (width > 0).then(|| Self { width, origin: origin.as_micros().rem_euclid(width) })
    }

    /// How wide each of them is.
    pub const fn width(self) -> Span {
        Span::from_micros(self.width)
    }

    /// Where one of them begins.
    pub const fn origin(self) -> EventTime {
        EventTime::from_micros(self.origin)
    }

    /// The number of the one that holds `at`; that which begins at the origin is 0.
    pub fn number(self, at: EventTime) -> i64 {
        let number = (i128::from(at.as_micros()) - i128::from(self.origin)).div_euclid(i128::from(self.width));
        // With a width of one, the first times of all have numbers below what there is.
        i64::try_from(number).unwrap_or(i64::MIN)
    }

    /// Whether one of them begins at `at`.
    pub fn begins_at(self, at: EventTime) -> bool {
        self.begin_of(at) == i128::from(at.as_micros())
    }

    fn begin_of(self, at: EventTime) -> i128 {
        let at = i128::from(at.as_micros());
        at - (at - i128::from(self.origin)).rem_euclid(i128::from(self.width))
    }

    /// Whether `window` is made of whole ones.
    pub fn make_up(self, window: Window) -> bool {
        self.begins_at(window.from()) && self.begins_at(window.to())
    }

    /// The narrowest window made of whole ones that holds all of `window`; `None` where that is beyond all times.
    pub fn around(self, window: Window) -> Option<Window> {
        let to = match self.begins_at(window.to()) {
            true => i128::from(window.to().as_micros()),
            false => self.begin_of(window.to()) + i128::from(self.width),
        };
        let time = |micros: i128| i64::try_from(micros).ok().map(EventTime::from_micros);
        Window::new(time(self.begin_of(window.from()))?, time(to)?)
    }

    /// The least width of one or more whole ones that is no less than `width`.
    #[must_use]
    pub fn round_up(self, width: Span) -> Span {
        let beyond = width.as_micros().max(1).saturating_sub(1) / self.width;
        Span::from_micros(beyond.saturating_add(1).saturating_mul(self.width))
    }

    /// The wider of both, where each of that is made of whole ones of the other.
    pub fn and(self, other: Self) -> Option<Self> {
        let (narrow, wide) = if self.width <= other.width { (self, other) } else { (other, self) };
        (wide.width % narrow.width == 0 && narrow.begins_at(wide.origin())).then_some(wide)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> EventTime {
        EventTime::from_micros(micros)
    }

    fn windows(width: i64, origin: i64) -> WholeWindows {
        WholeWindows::new(Span::from_micros(width), at(origin)).unwrap()
    }

    proptest! {
        /// Held against every microsecond of a small window.
        #[test]
        fn what_is_made_of_whole_windows_is_what_its_points_say(
            width in 1..20i64, origin in -50..50i64, from in -40..40i64, length in 1..60i64, slice in 1..70i64,
        ) {
            let whole = windows(width, origin);
            let begins = |t: i64| (t - origin) % width == 0;
            for t in from - 70..from + 140 {
                prop_assert_eq!(whole.begins_at(at(t)), begins(t));
                prop_assert_eq!(whole.number(at(t)) != whole.number(at(t - 1)), begins(t));
            }
            prop_assert_eq!(whole.number(whole.origin()), 0);
            let window = Window::new(at(from), at(from + length)).unwrap();
            prop_assert_eq!(whole.make_up(window), begins(from) && begins(from + length));
            let below = (from - width..=from).rfind(|t| begins(*t)).unwrap();
            let above = (from + length..).find(|t| begins(*t)).unwrap();
            prop_assert_eq!(whole.around(window), Window::new(at(below), at(above)));
            let rounded = (slice..).find(|of| of % width == 0).unwrap();
            prop_assert_eq!(whole.round_up(Span::from_micros(slice)), Span::from_micros(rounded));
        }

        #[test]
        fn of_two_the_wider_does_where_its_beginnings_are_the_others_too(
            (a, b) in ((1..13i64, -20..20i64), (1..13i64, -20..20i64)),
        ) {
            let (one, other) = (windows(a.0, a.1), windows(b.0, b.1));
            let within = |narrow: WholeWindows, wide: WholeWindows| {
                (-200..200).all(|t| !wide.begins_at(at(t)) || narrow.begins_at(at(t)))
            };
            let wider = if within(one, other) { Some(other) } else { within(other, one).then_some(one) };
            prop_assert_eq!(one.and(other), wider);
            prop_assert_eq!(other.and(one), wider);
        }
    }

    #[test]
    fn the_ends_of_time_are_no_beginnings_and_nothing_overflows() {
        assert_eq!(WholeWindows::new(Span::ZERO, at(0)), None);
        let hours = windows(3_600_000_000, 0);
        assert!(!hours.begins_at(EventTime::MIN) && !hours.begins_at(EventTime::MAX));
        assert_eq!(hours.around(Window::ALL), None);
        assert_eq!(hours.round_up(Span::MAX).as_micros(), i64::MAX);
        let finest = windows(1, 0);
        assert_eq!((finest.number(EventTime::MIN), finest.number(EventTime::MAX)), (i64::MIN, i64::MAX));
        assert_eq!(windows(7, i64::MIN).origin(), windows(7, i64::MIN + 7).origin());
    }
}
